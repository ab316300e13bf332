"""Weather written in the layout of the AIWP archive's netCDF-4 files, with h5netcdf."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import h5netcdf
import numpy as np
import xarray as xr

from corrdiff_core.cycle import HOUR
from corrdiff_core.sources.aiwp import AIWP

LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
STEPS = 41
UNITS = {"u": "m s-1", "v": "m s-1", "z": "m2 s-2", "t": "K", "r": "%"}
SURFACE = {"u10": "m s-1", "v10": "m s-1", "t2": "K", "msl": "Pa", "sp": "Pa", "tcwv": "kg m-2"}
OURS = {"u10": "u10m", "v10": "v10m", "t2": "t2m", "tcwv": "tcwv"}
Weather = Callable[[datetime], xr.Dataset]


def write(
    root: Path, variant: str, init_time: datetime, weather: Weather, steps: int, without: tuple[str, ...] = ()
) -> Path:
    """A cycle's file where `AIWP(variant)` looks for it, whose first `steps` steps hold `weather` of their valid time.

    Chunks are one level of one step, deflated and shuffled, as in the archive; those of later steps, and of levels that
    are no input, are not written, except 700 hPa.
    """
    source = AIWP(variant, str(root))
    path = root / source.object_name(init_time)
    path.parent.mkdir(parents=True, exist_ok=True)
    first = weather(init_time).sortby("latitude", ascending=False)
    with h5netcdf.File(path, "w") as file:
        grid = {"latitude": first.latitude.size, "longitude": first.longitude.size}
        file.dimensions = {"time": STEPS, "level": len(LEVELS), **grid}
        _coordinates(file, init_time, first)
        for name, units in UNITS.items():
            if name not in without:
                shape = 1, 1, *grid.values()
                _create(file, name, ("time", "level", "latitude", "longitude"), units, shape)
        for name, units in SURFACE.items():
            if name not in without:
                _create(file, name, ("time", "latitude", "longitude"), units, (1, *grid.values()))
        for step in range(steps):
            _fill(file, step, weather(init_time + step * 6 * HOUR).sortby("latitude", ascending=False))
        analysis = variant.split("-")[1].upper()
        file.attrs.update(Conventions="CF-1.8", model_name="fourcastnetv2-small", version="3_2025-02-20")
        file.attrs.update(initialization_model=analysis)
    return path


def _coordinates(file: h5netcdf.File, init_time: datetime, first: xr.Dataset) -> None:
    seconds = (init_time - datetime(1970, 1, 1)).total_seconds() + 21600 * np.arange(STEPS)
    time = file.create_variable("time", ("time",), "i4", data=seconds.astype("i4"))
    time.attrs.update(units="seconds since 1970-1-1", calendar="standard", long_name="Date and Time")
    level = file.create_variable("level", ("level",), "i4", data=np.array(LEVELS, "i4"))
    level.attrs.update(units="hPa", long_name="Isobaric surfaces")
    for name in ("latitude", "longitude"):
        lines = file.create_variable(name, (name,), "f4", data=first[name].values.astype("f4"))
        lines.attrs.update(units="degree")


def _create(file: h5netcdf.File, name: str, dims: tuple[str, ...], units: str, chunks: tuple[int, ...]) -> None:
    options = {"chunks": chunks, "compression": "gzip", "compression_opts": 4, "shuffle": True}
    variable = file.create_variable(name, dims, "f4", fillvalue=np.float32(9.96921e36), **options)
    variable.attrs.update(units=units)


def _fill(file: h5netcdf.File, step: int, weather: xr.Dataset) -> None:
    for name in UNITS.keys() & set(file.variables):
        for level in (850, 700, 500):
            like = weather[f"{'t' if name == 'r' else name}{850 if level == 700 else level}"]
            file.variables[name][step, LEVELS.index(level)] = like.values * (0.9 if level == 700 else 1.0)
    for name in SURFACE.keys() & set(file.variables):
        file.variables[name][step] = weather[OURS.get(name, "t2m")].values
