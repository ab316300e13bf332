"""The twelve inputs of a slot, out of the fields that its source holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import xarray as xr

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import cover
from corrdiff_core.variables import INPUT, INPUT_NAMES


@dataclass(frozen=True)
class Delivered:
    """One field (latitude, longitude) as its source has it, maybe lazy; times `factor` it is in our units."""

    field: xr.DataArray
    factor: float
    where: str  # names the field in messages


def init_time_of(slot: Slot) -> datetime:
    """The cycle of a forecast's slot."""
    if slot.init_time is None:
        raise ConfigurationError(f"{slot} is of no forecast: sources of forecasts need an init_time")
    return slot.init_time


def assemble(delivered: Mapping[str, Delivered], slot: Slot, box: Box) -> xr.Dataset:
    """The twelve around `box` as `source.Fetched` promises them.

    SourceError where a value is missing or a field is on other grid lines than the first, GridError where they do not
    cover the box.
    """
    fields: dict[str, xr.DataArray] = {}
    for name in INPUT_NAMES:
        given = delivered[name]
        field = _around(given.field, box, given.where) * given.factor
        fields[name] = field.astype(np.float32).assign_attrs(INPUT[name].attrs)
        _refuse_other_grid(fields[name], fields[INPUT_NAMES[0]], given.where)
    coordinates = {
        "init_time": np.datetime64(init_time_of(slot), "ns"),
        "lead_time": np.timedelta64(slot.lead_time, "ns"),
        "valid_time": np.datetime64(slot.valid_time, "ns"),
    }
    return xr.Dataset(fields).assign_coords(coordinates)


def told_of(inputs: xr.Dataset) -> dict[str, object]:
    """What every source's provenance says of the inputs themselves, in plain values."""
    return {
        "init_time": str(inputs.init_time.values.astype("datetime64[s]")),
        "lead_hours": int(inputs.lead_time.values / np.timedelta64(1, "h")),
        "grid": {
            "latitude_step": float(np.diff(inputs.latitude).mean()),
            "longitude_step": float(np.diff(inputs.longitude).mean()),
        },
    }


def _around(field: xr.DataArray, box: Box, where: str) -> xr.DataArray:
    """The part that covers `box`, whole, as float64 without attributes."""
    part = cover(field, box).load()
    missing = int((~np.isfinite(part)).sum())
    if missing:
        raise SourceError(f"{where}: {missing} of {part.size} values around {box} are missing: use another mirror")
    return part.drop_attrs(deep=False).astype(np.float64)


def _refuse_other_grid(field: xr.DataArray, first: xr.DataArray, where: str) -> None:
    if not (field.latitude.equals(first.latitude) and field.longitude.equals(first.longitude)):
        raise SourceError(
            f"{where}: is on other grid lines {field.shape} than {INPUT_NAMES[0]} {first.shape}: use another mirror"
        )
