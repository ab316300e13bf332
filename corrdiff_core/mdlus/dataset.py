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
from corrdiff_core.mdlus.file import BROKEN
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
    center, scale = (_column(group, name, f"{what}_{part}") for part in ("center", "scale"))
    assumption = ""
    names, pressures = (_find(group, name, f"{what}_{part}") for part in ("variable", "pressure"))
    if names is not None:
        try:
            indices: Sequence[int] = channel_indices(wanted, [str(value) for value in names], pressures)
        except (CheckpointError, ValueError, TypeError) as error:
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
    try:
        statistics = Statistics(
            names=tuple(wanted),
            center=tuple(float(center[index]) for index in indices),
            scale=tuple(float(scale[index]) for index in indices),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {what} {error}") from error
    return statistics, assumption


def _column(group: zarr.Group, name: str, key: str) -> NDArray[np.float64]:
    """A number for each channel."""
    values = _array(group, name, key)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise CheckpointError(f"{name}: {key} is {values.dtype} of shape {values.shape}, a number a channel is due")
    return values.astype(np.float64)


def _array(group: zarr.Group, name: str, key: str) -> NDArray[Any]:
    values = _find(group, name, key)
    if values is None:
        raise CheckpointError(f"{name}: its dataset lacks {key}; download the package anew")
    return values


def _find(group: zarr.Group, name: str, key: str) -> NDArray[Any] | None:
    """A whole array; None where there is none."""
    try:
        array = group.get(key)
        if array is None:
            return None
        if not isinstance(array, zarr.Array):
            raise CheckpointError(f"{name}: {key} of its dataset is a group, an array is due; download it anew")
        stored, due = array.nchunks_initialized, array.nchunks
        # Zarr fills in for a missing chunk; writers leave out one that is all NaN, as the pressures of surface fields.
        if stored < due and not key.endswith("_pressure"):
            raise CheckpointError(f"{name}: {key} has {stored} of {due} chunks; download the package anew")
        return np.asarray(array[...])
    except BROKEN as error:
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
