"""The nature run in exactly the layout of the public CWA dataset, which nobody may ship: the same road, small."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from corrdiff_core import nature
from corrdiff_core.cwa import OUTPUT_CHANNELS
from corrdiff_core.cycle import HOUR
from corrdiff_core.dataset.nature_run import box_lines
from corrdiff_core.dataset.statistics import Moments
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import TAIWAN, Domain
from corrdiff_core.regrid import regridder
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

_LEVELS = (500.0, 700.0, 850.0, 925.0)  # hPa
_PROFILE = (("geopotential_height", "z"), ("temperature", "t"), ("eastward_wind", "u"), ("northward_wind", "v"))
_SURFACE = (("temperature_2m", "t2m"), ("eastward_wind_10m", "u10m"), ("northward_wind_10m", "v10m"))
# As they stand in the dataset: name and pressure.
INPUT_ORDER: tuple[tuple[str, float], ...] = (
    ("tcwv", np.nan),
    *((name, level) for level in _LEVELS for name, _ in _PROFILE),
    *((name, np.nan) for name, _ in _SURFACE),
)
_TIME_UNITS = "hours since 2018-01-01 00:00:00"
_EPOCH = datetime(2018, 1, 1)


def write_cwa(
    path: str,
    times: Sequence[datetime],
    domain: Domain = TAIWAN,
    seed: int = nature.SEED,
    invalid: Sequence[datetime] = (),
) -> None:
    """Write the nature run at `times` (ascending) to a new local folder, as Zarr v2 with consolidated metadata.

    The grid is that of `domain` before its crop. `invalid` times have no chunks, and masks that say so. The levels that
    the nature run does not have, 700 and 925 hPa, are linear in the logarithm of pressure through those that it has.
    Raises DatasetError for times that do not ascend.
    """
    if not times or list(times) != sorted(set(times)):
        raise DatasetError(f"{len(times)} times to write that do not ascend, or none: sort them")
    whole = replace(domain, crop=0)
    group = zarr.create_group(path, zarr_format=2)
    _write_grid(group, whole)
    hours = np.array([(time - _EPOCH) // HOUR for time in times])
    _write(group, "time", ("time",), hours, {"units": _TIME_UNITS, "calendar": "proleptic_gregorian"})
    valid = np.array([time not in invalid for time in times])
    _write(group, "cwb_valid", ("time",), valid.astype(np.int8))
    _write(group, "era5_valid", ("time", "era5_channel"), np.repeat(valid[:, None], len(INPUT_ORDER), axis=1))
    outputs = [OUTPUT_CHANNELS[name] for name in OUTPUT_NAMES]
    _write_channels(group, "era5", [name for name, _ in INPUT_ORDER], [level for _, level in INPUT_ORDER], 19)
    _write_channels(group, "cwb", [name for name, _ in outputs], [np.nan for _ in outputs], 26)
    inputs = _create_fields(group, "era5", len(times), len(INPUT_ORDER), whole.shape)
    truths = _create_fields(group, "cwb", len(times), len(outputs), whole.shape)
    moments: dict[str, list[Moments]] = {"era5": [], "cwb": []}
    for row in np.flatnonzero(valid).tolist():
        era5, cwb = _fields(seed, times[row], whole)
        inputs[row], truths[row] = era5, cwb
        moments["era5"].append(Moments.of(era5))
        moments["cwb"].append(Moments.of(cwb))
    for name, parts in moments.items():
        _write_statistics(group, name, parts)
    zarr.consolidate_metadata(path, zarr_format=2)


def _fields(seed: int, time: datetime, whole: Domain) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The twenty input channels and the four output channels, (channel, y, x)."""
    coarse = nature.weather(seed, time, *box_lines(whole.input_box))
    onto = regridder(coarse["latitude"].values, coarse["longitude"].values, whole)
    fine = dict(zip(INPUT_NAMES, onto(np.stack([coarse[name].values for name in INPUT_NAMES])), strict=True))
    levels = [_at(level, fine[f"{letter}500"], fine[f"{letter}850"]) for level in _LEVELS for _, letter in _PROFILE]
    inputs = np.stack([fine["tcwv"], *levels, *(fine[name] for _, name in _SURFACE)])
    truth = nature.truth(coarse, seed, whole)
    return inputs, np.stack([truth[name].values for name in OUTPUT_NAMES])


def _at(level: float, upper: NDArray[np.float32], lower: NDArray[np.float32]) -> NDArray[np.float32]:
    """Between 500 and 850 hPa, and on to others, linear in ln p."""
    share = np.float32(np.log(level / 500) / np.log(850 / 500))
    return (1 - share) * upper + share * lower


def _write_grid(group: zarr.Group, whole: Domain) -> None:
    """XLAT, XLONG of the points, and of the points half a step to the west (_U) and to the south (_V) of them."""
    step = whole.step
    grids = {
        "": (whole, ("south_north", "west_east")),
        "_U": (replace(whole, x0=whole.x0 - step / 2, columns=whole.columns + 1), ("south_north", "west_east_stag")),
        "_V": (replace(whole, y0=whole.y0 - step / 2, rows=whole.rows + 1), ("south_north_stag", "west_east")),
    }
    for suffix, (grid, dimensions) in grids.items():
        _write(group, f"XLAT{suffix}", dimensions, grid.latitude.astype(np.float32))
        _write(group, f"XLONG{suffix}", dimensions, grid.longitude.astype(np.float32))


def _write_channels(group: zarr.Group, name: str, names: Sequence[str], pressures: Sequence[float], width: int) -> None:
    _write(group, f"{name}_variable", (f"{name}_channel",), np.array(names, f"<U{width}"))
    _write(group, f"{name}_pressure", (f"{name}_channel",), np.array(pressures, np.float64))


def _create_fields(group: zarr.Group, name: str, times: int, channels: int, shape: tuple[int, int]) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=(times, channels, *shape),
        chunks=(1, channels, *shape),
        dtype="float32",
        fill_value=np.nan,
        attributes={"_ARRAY_DIMENSIONS": ["time", f"{name}_channel", "south_north", "west_east"]},
    )


def _write_statistics(group: zarr.Group, name: str, parts: Sequence[Moments]) -> None:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    _write(group, f"{name}_center", (f"{name}_channel",), total.mean.astype(np.float32))
    _write(group, f"{name}_scale", (f"{name}_channel",), np.sqrt(total.squares / total.count).astype(np.float32))


def _write(
    group: zarr.Group,
    name: str,
    dimensions: tuple[str, ...],
    values: ArrayLike,
    attributes: dict[str, Any] | None = None,
) -> None:
    stored = np.asarray(values)
    array = group.create_array(
        name,
        shape=stored.shape,
        chunks=stored.shape,
        dtype=stored.dtype,
        fill_value=None,  # a reader by xarray would take 0 in a mask for a missing value
        attributes={"_ARRAY_DIMENSIONS": [*dimensions], **(attributes or {})},
    )
    array[...] = stored
