"""One hour of ERA5 as a layout delivers it, and what every layout promises and checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import SourceError
from corrdiff_core.grid import Box, Float64
from corrdiff_core.regrid import LATITUDE, LONGITUDE, cover
from corrdiff_core.sources.source import NotYet
from corrdiff_core.variables import INPUT

LayoutName = Literal["arco", "ncar"]
FIRST_HOUR = datetime(1940, 1, 1)
_HECTOPASCAL = {"", "hPa", "mb", "mbar", "millibar", "millibars"}  # how stores spell it; "" where they do not


@dataclass(frozen=True, eq=False)
class Hour:
    """The twelve by our names, float32 in our units, (latitude, longitude), both ascending; nothing is missing.

    `preliminary` data (ERA5T) will be replaced by final ones. `provenance` as `Fetched.provenance`.
    """

    latitude: Float64
    longitude: Float64
    values: Mapping[str, NDArray[np.float32]]
    provenance: dict[str, Any]
    preliminary: bool = False


class Layout(Protocol):
    """A way in which somebody publishes ERA5. Reading raises as `Root.read` does."""

    @property
    def name(self) -> LayoutName: ...

    def lacking(self, slot: Slot) -> NotYet | None:
        """Why the slot is not there; None where it is. A probe without data."""
        ...

    def is_final(self, slot: Slot) -> bool:
        """Whether final data cover the slot now."""
        ...

    def read(self, slot: Slot, box: Box) -> Hour | NotYet:
        """The slot around `box`. SourceError for whatever is wrong with what is there, GridError without cover."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """What of a grid covers a box: positions of its rows and columns, and their coordinates, ascending."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    latitude: Float64
    longitude: Float64


def part_of(latitude: Float64, longitude: Float64, box: Box) -> Part:
    """GridError where the lines do not cover `box`."""
    positions = np.arange(latitude.size)[:, None] * longitude.size + np.arange(longitude.size)
    grid = xr.DataArray(positions, {LATITUDE: latitude, LONGITUDE: longitude}, (LATITUDE, LONGITUDE))
    part = cover(grid, box)
    return Part(
        part.values[:, 0] // longitude.size,
        part.values[0] % longitude.size,
        np.asarray(part[LATITUDE], np.float64),
        np.asarray(part[LONGITUDE], np.float64),
    )


def check_units(name: str, attrs: Mapping[str, Any], where: str) -> None:
    """SourceError unless the attributes of our variable `name` say its units, in either spelling of powers."""
    units = str(attrs.get("units", "")).replace("**", "")
    if units != INPUT[name].units:
        raise SourceError(
            f"{where}: {name} is in {attrs.get('units')!r}, {INPUT[name].units!r} is due: use another mirror"
        )


def level_position(level: int, levels: Float64, attrs: Mapping[str, Any], where: str) -> int:
    """Where the level of `level` hPa is; SourceError where it is not, or the axis is in another unit."""
    at = np.flatnonzero(levels == level)
    if len(at) != 1 or str(attrs.get("units", "")) not in _HECTOPASCAL:
        raise SourceError(
            f"{where}: {level} hPa is {len(at)} times among its levels {levels.tolist()} "
            f"{attrs.get('units', '')}: use another mirror"
        )
    return int(at[0])


def check_finite(name: str, values: NDArray[np.float32], where: str) -> None:
    """SourceError where a value is missing."""
    missing = np.count_nonzero(~np.isfinite(values))
    if missing:
        raise SourceError(
            f"{where}: {name} is NaN at {missing} of {values.size} points, inside what is said to be valid: set "
            "CORRDIFF_ERA5_URL to the other layout or a mirror for these hours, and report it to the publisher"
        )
