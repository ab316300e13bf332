"""Statistics and grid of an inference package, from its Zarr group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from corrdiff_core.cwa import (
    INPUT_CHANNELS,
    INPUT_INDICES,
    OUTPUT_CHANNELS,
    OUTPUT_INDICES,
    Channel,
    channel_indices,
)
from corrdiff_core.errors import CheckpointError
from corrdiff_core.grid import TAIWAN, Domain
from corrdiff_core.normalization import Statistics
from corrdiff_core.quality import check_statistics
from corrdiff_core.variables import INPUTS, OUTPUTS

FARTHEST = 50.0  # m that a point of XLAT, XLONG may lie from the closed-form grid; stored in float32 they are 1 m wrong


@dataclass(frozen=True)
class PackageData:
    """What the group says, and in `assumptions` what it leaves open."""

    inputs: Statistics
    outputs: Statistics
    domain: Domain
    assumptions: tuple[str, ...]


def read_dataset(group: zarr.Group, name: str, shape: tuple[int, int]) -> PackageData:
    """Statistics of the twelve inputs and four outputs, and the grid whose middle has the networks' `shape` (y, x).

    Raises CheckpointError, calling the package `name`, for an array that is missing or has holes, a channel that is not
    there, geopotential in gpm, and a grid that is not Taiwan's.
    """
    inputs, by_index = _statistics(group, name, "era5", INPUT_CHANNELS, INPUT_INDICES)
    outputs, also_by_index = _statistics(group, name, "cwb", OUTPUT_CHANNELS, OUTPUT_INDICES)
    try:
        check_statistics(inputs, INPUTS)
        check_statistics(outputs, OUTPUTS)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    domain, off = _domain(_array(group, name, "XLAT"), _array(group, name, "XLONG"), name, shape)
    grid = f"the grid is computed from its Lambert projection, up to {off:.1f} m from the package's XLAT, XLONG"
    return PackageData(inputs, outputs, domain, tuple(filter(None, (by_index, also_by_index, grid))))


def _statistics(
    group: zarr.Group, name: str, what: str, wanted: Mapping[str, Channel], documented: Mapping[int, Sequence[int]]
) -> tuple[Statistics, str]:
    """Center and scale of the `wanted` channels, and in words how they were found where that is an assumption."""
    center, scale = (_array(group, name, f"{what}_{part}") for part in ("center", "scale"))
    assumption = ""
    if f"{what}_variable" in group:
        names = [str(value) for value in _array(group, name, f"{what}_variable")]
        pressures = _array(group, name, f"{what}_pressure") if f"{what}_pressure" in group else None
        try:
            indices: Sequence[int] = channel_indices(wanted, names, pressures)
        except (CheckpointError, ValueError) as error:
            raise CheckpointError(f"{name}: {what} channels: {error}") from error
    elif len(center) in documented:
        indices = documented[len(center)]
        assumption = f"no {what}_variable in the package: channels are those documented, indices {list(indices)}"
    else:
        raise CheckpointError(
            f"{name}: {len(center)} {what} channels without names; documented are {sorted(documented)}: add"
            f" {what}_variable"
        )
    if not len(center) == len(scale) > max(indices):
        raise CheckpointError(f"{name}: {len(center)} {what} centers and {len(scale)} scales do not cover {indices}")
    return (
        Statistics(
            names=tuple(wanted),
            center=tuple(float(center[index]) for index in indices),
            scale=tuple(float(scale[index]) for index in indices),
        ),
        assumption,
    )


def _array(group: zarr.Group, name: str, key: str) -> NDArray[Any]:
    """A whole array; Zarr would fill in for a chunk that is missing."""
    try:
        array = group[key]
    except KeyError:
        raise CheckpointError(f"{name}: its dataset lacks {key}; download the package anew") from None
    if not isinstance(array, zarr.Array):
        raise CheckpointError(f"{name}: {key} of its dataset is a group, an array is due; download the package anew")
    if array.nchunks_initialized < array.nchunks:
        raise CheckpointError(
            f"{name}: {key} has {array.nchunks_initialized} of {array.nchunks} chunks; download the package anew"
        )
    try:
        return np.asarray(array[...])
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name}: {key} of its dataset is damaged ({error}); download it anew") from error


def _domain(latitude: NDArray[Any], longitude: NDArray[Any], name: str, shape: tuple[int, int]) -> tuple[Domain, float]:
    """The Taiwan domain cropped to `shape`, and how far in m its points lie from the package's, at most."""
    stored = (TAIWAN.rows, TAIWAN.columns)
    if latitude.shape != stored or longitude.shape != stored:
        raise CheckpointError(f"{name}: XLAT, XLONG have {latitude.shape} points, Taiwan's grid has {stored}")
    crop, rest = divmod(TAIWAN.rows - shape[0], 2)
    if rest or crop < 0 or stored[1] - shape[1] != stored[0] - shape[0]:
        raise CheckpointError(f"{name}: networks of {shape} points do not lie in the middle of a grid of {stored}")
    whole = replace(TAIWAN, crop=0)
    x, y = whole.project(longitude.astype(np.float64), latitude.astype(np.float64))
    off = float(np.hypot(x - whole.x[None, :], y - whole.y[:, None]).max())
    if not off <= FARTHEST:
        raise CheckpointError(
            f"{name}: XLAT, XLONG lie up to {off / 1000:.1f} km from the Taiwan grid; only packages on it can be"
            " imported"
        )
    return replace(TAIWAN, crop=crop), off
