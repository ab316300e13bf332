"""Small datasets of the nature run, and the process that builds one and is killed."""

from datetime import datetime

import numpy as np
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, hours_from
from corrdiff_core.dataset import StoredSamples, box_lines, build
from corrdiff_core.dataset.origins import NatureInputs, NatureTruth
from tests.small_domain import SMALL

START = datetime(2021, 1, 31, 21)  # the sixth hour is in the next month
HOURS = hours_from(START, 6)
END = HOURS[-1] + HOUR
SEED = 1


def built(url, start=START, end=END, seed=SEED, **options) -> StoredSamples:
    """The nature run's hours in our layout."""
    sides = NatureInputs(seed, SMALL.input_box), NatureTruth(seed, SMALL)
    return build(str(url), *sides, start, end, SMALL, **options)


def weather(times=HOURS, seed=SEED) -> xr.Dataset:
    """Coarse inputs, (time, latitude, longitude)."""
    fields = [nature.weather(seed, time, *box_lines(SMALL.input_box)) for time in times]
    return xr.concat(fields, "valid_time").rename(valid_time="time")


def truth(times=HOURS, seed=SEED) -> xr.Dataset:
    """The 2-km truth, (time, y, x)."""
    lines = box_lines(SMALL.input_box)
    fields = [nature.truth(nature.weather(seed, time, *lines), seed, SMALL) for time in times]
    return xr.concat(fields, "valid_time").rename(valid_time="time")


def interpolated(time, seed=SEED) -> np.ndarray:
    """Inputs on the domain by xarray's own bilinear interpolation, (input, y, x)."""
    fields = nature.weather(seed, time, *box_lines(SMALL.input_box)).to_dataarray().astype("f8")
    points = {name: (("y", "x"), getattr(SMALL, name)) for name in ("latitude", "longitude")}
    return fields.interp({name: xr.DataArray(values, dims=dims) for name, (dims, values) in points.items()}).values
