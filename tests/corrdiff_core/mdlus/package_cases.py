"""Small inference packages in the layout of NVIDIA's: sound, or wrong in one thing."""

import zipfile
from dataclasses import replace
from datetime import datetime
from functools import cache

import numpy as np
import zarr

from corrdiff_core import nature
from corrdiff_core.grid import TAIWAN
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from tests.corrdiff_core.mdlus.mdlus_cases import small_parts, write_members

GROUP = "dataset/2023-01-24-cwb-4years_5times.zarr"
REGRESSION, DIFFUSION = small_parts("UNet"), small_parts("EDMPrecondSR", seed=1)
SURFACE = float("nan")
LEVELED = ("geopotential_height", "temperature", "eastward_wind", "northward_wind")
AT_LEVELS = [(name, pressure) for pressure in (500.0, 700.0, 850.0, 925.0) for name in LEVELED]
NEAR_GROUND = [(name, SURFACE) for name in ("temperature_2m", "eastward_wind_10m", "northward_wind_10m")]
USED = {"era5": (0, 1, 2, 3, 4, 9, 10, 11, 12, 17, 18, 19), "cwb": (0, 17, 18, 19)}


@cache
def _coordinates():
    whole = replace(TAIWAN, crop=0)
    return whole.latitude.astype(np.float32), whole.longitude.astype(np.float32)


def package_arrays():
    """The arrays of a package's Zarr group, by name: 20 channels each, in the documented order."""
    latitude, longitude = _coordinates()
    arrays = {"XLAT": latitude, "XLONG": longitude}
    for what, first, statistics in (
        ("era5", "tcwv", CWA_INPUT_STATISTICS),
        ("cwb", "maximum_radar_reflectivity", CWA_OUTPUT_STATISTICS),
    ):
        names, pressures = zip((first, SURFACE), *AT_LEVELS, *NEAR_GROUND, strict=True)
        center, scale = np.arange(1000, 1020, dtype=np.float32), np.arange(100, 120, dtype=np.float32)
        center[list(USED[what])], scale[list(USED[what])] = statistics.center, statistics.scale
        arrays |= {
            f"{what}_center": center,
            f"{what}_scale": scale,
            f"{what}_variable": np.array(names),
            f"{what}_pressure": np.array(pressures),
        }
    return arrays


def write_package(folder, arrays=None, regression=REGRESSION, diffusion=DIFFUSION):
    """A package as a folder, which is returned: `checkpoints` and `dataset` with the group of `arrays`."""
    (folder / "checkpoints").mkdir(parents=True)
    write_members(folder / "checkpoints/regression.mdlus", regression, "tar")
    write_members(folder / "checkpoints/diffusion.mdlus", diffusion, "tar")
    group = zarr.open_group(folder / GROUP, mode="w", zarr_format=2)
    for name, values in (package_arrays() if arrays is None else arrays).items():
        group.create_array(name, data=values, chunks=tuple(min(size, 225) for size in values.shape))
    zarr.consolidate_metadata(folder / GROUP, zarr_format=2)
    return folder


def zipped(folder, path, root="corrdiff_inference_package/"):
    """The files of `folder` under `root` in a zip at `path`, which is returned."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, f"{root}{file.relative_to(folder)}")
    return path


def weather():
    """Inputs of one hour on the grid that NVIDIA's package is made for."""
    return nature.weather(1, datetime(2021, 6, 7, 12), np.linspace(19.25, 28, 36), np.linspace(116, 125.75, 40))
