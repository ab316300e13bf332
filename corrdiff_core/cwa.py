"""The channels of the CWA dataset (NVIDIA, NGC `nvidia/modulus`): how its Zarr and the inference package name them.

Source: `datasets/cwb.py` of physicsnemo's CorrDiff example and earth2studio's `CorrDiffTaiwan`. A channel is a name
and a pressure in hPa, NaN at the surface. Inputs are called `era5_*`, targets `cwb_*`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from corrdiff_core.errors import CheckpointError

Channel = tuple[str, float | None]

INPUT_CHANNELS: Mapping[str, Channel] = {
    "tcwv": ("tcwv", None),
    "z500": ("geopotential_height", 500.0),  # stored as geopotential, whatever its name says
    "t500": ("temperature", 500.0),
    "u500": ("eastward_wind", 500.0),
    "v500": ("northward_wind", 500.0),
    "z850": ("geopotential_height", 850.0),
    "t850": ("temperature", 850.0),
    "u850": ("eastward_wind", 850.0),
    "v850": ("northward_wind", 850.0),
    "t2m": ("temperature_2m", None),
    "u10m": ("eastward_wind_10m", None),
    "v10m": ("northward_wind_10m", None),
}
OUTPUT_CHANNELS: Mapping[str, Channel] = {
    "mrr": ("maximum_radar_reflectivity", None),
    "t2m": ("temperature_2m", None),
    "u10m": ("eastward_wind_10m", None),
    "v10m": ("northward_wind_10m", None),
}
# Where the channels stand in a file without names, by the number of its channels.
INPUT_INDICES: Mapping[int, Sequence[int]] = {20: (0, 1, 2, 3, 4, 9, 10, 11, 12, 17, 18, 19)}
OUTPUT_INDICES: Mapping[int, Sequence[int]] = {20: (0, 17, 18, 19), 4: (0, 1, 2, 3)}


def channel_indices(
    wanted: Mapping[str, Channel], names: Sequence[str], pressures: Iterable[float] | None = None
) -> list[int]:
    """Where each of `wanted` stands among `names` at `pressures` (NaN: surface; None: no file says them).

    Raises CheckpointError for a channel that is not there, or is there twice, and for more pressures than names.
    """
    levels = [float("nan")] * len(names) if pressures is None else [float(value) for value in pressures]
    if len(levels) != len(names):
        raise CheckpointError(f"{len(names)} names and {len(levels)} pressures: each channel needs one of each")
    found = list(zip(names, levels, strict=True))
    indices = []
    for variable, (name, pressure) in wanted.items():
        matches = [
            index
            for index, (candidate, level) in enumerate(found)
            if candidate == name and (np.isnan(level) if pressure is None else level == pressure)
        ]
        if len(matches) != 1:
            place = name if pressure is None else f"{name} at {pressure:g} hPa"
            raise CheckpointError(
                f"{variable} is {place}, which stands {len(matches)} times among the channels"
                f" {', '.join(n if np.isnan(level) else f'{n} {level:g}' for n, level in found)}: name each once"
            )
        indices += matches
    return indices
