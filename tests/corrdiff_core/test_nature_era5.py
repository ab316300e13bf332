"""The nature run as ERA5: what xarray and zarr read in it, how it grows, and what it refuses."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.nature_era5 import LEVELS, write_arco
from corrdiff_core.sources.era5_arco import NAMES
from corrdiff_core.variables import INPUTS

START = datetime(2021, 1, 31, 22)
END = START + 4 * HOUR
AREA = (np.arange(22.0, 25.01, 0.25), np.arange(119.0, 123.01, 0.25))


def write(path: Path, start=START, end=END, **options):
    return write_arco(str(path), start, end, area=AREA, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("nature") / "store"
    write(path, extended=7)
    return path


def test_xarray_reads_the_weather_in_arcos_layout(store):
    fields = xr.open_zarr(store, consolidated=True)
    assert zarr.open_group(store, mode="r").metadata.zarr_format == 2
    assert fields.sizes == {"time": 24 + 4 + 7, "level": 37, "latitude": 13, "longitude": 17}
    assert fields["level"].values.tolist() == list(LEVELS)
    assert fields["latitude"].values[0] == 25
    assert fields["geopotential"].attrs["units"] == "m**2 s**-2"
    for time in hours_from(START, 4):
        weather = nature.weather(nature.SEED, time, *AREA)
        at = fields.sel(time=np.datetime64(time, "ns"), latitude=slice(None, None, -1))
        for variable in INPUTS:
            stem = variable.name if variable.level is None else variable.name[0]
            field = at[NAMES[stem]] if variable.level is None else at[NAMES[stem]].sel(level=variable.level)
            np.testing.assert_array_equal(field.values, weather[variable.name].values)


def test_chunks_are_arcos(store):
    for name in NAMES.values():
        array = zarr.open_array(store / name, mode="r")
        assert array.chunks == (1, *array.shape[1:])
        assert array.dtype == np.float32
        assert np.isnan(array.fill_value)
        assert len([path for path in (store / name).iterdir() if not path.name.startswith(".")]) == 4


def test_a_wrong_level_is_a_wrong_value(store):
    at = xr.open_zarr(store).sel(time=np.datetime64(START, "ns"))
    for name in (NAMES[stem] for stem in "ztuv"):
        means = at[name].mean(("latitude", "longitude")).values
        assert len(np.unique(means)) == 37


def test_beyond_the_data_there_is_nothing(store):
    fields = xr.open_zarr(store)
    late = fields["temperature"].sel(time=slice(np.datetime64(END, "ns"), None))
    assert late.sizes["time"] == 7
    assert bool(late.isnull().all())


def test_it_grows_into_its_axis_and_beyond(tmp_path):
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    write(whole, extended=3)
    write(grown, end=START + HOUR, extended=1)
    assert write(grown, START + HOUR, START + 2 * HOUR).said["valid_time_stop"] == "2021-01-31"
    write(grown, START + 2 * HOUR, extended=3)
    for path in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        assert (grown / path).read_bytes() == (whole / path).read_bytes(), path
    xr.testing.assert_identical(xr.open_zarr(grown).load(), xr.open_zarr(whole).load())


def test_preliminary_hours_turn_final_and_never_back(tmp_path):
    ends = write(tmp_path, era5t_from=START + HOUR)
    assert ends.said["valid_time_stop"] == "2021-01-31T22:00"
    assert (ends.start, ends.final, ends.last) == (START, START, END - HOUR)
    assert write(tmp_path, START + HOUR, START + 3 * HOUR).final == START + 2 * HOUR
    assert write(tmp_path, era5t_from=START).final == START + 2 * HOUR


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": 2}, "of seed 1 or on other grid lines than are given with seed 2"),
        ({"start": END + HOUR, "end": END + 2 * HOUR}, "would leave a hole"),
        ({"start": START - HOUR}, "come before its start"),
        ({"end": START}, "is no period"),
        ({"start": START.replace(minute=30)}, "begin at a whole hour"),
    ],
)
def test_what_does_not_fit_is_refused(store, given, words):
    with pytest.raises(ConfigurationError, match=words):
        write(store, **given)
