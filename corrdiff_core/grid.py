"""Grids: the projected target domain that CorrDiff fills, and the latitude-longitude grids that sources deliver."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.projection import Projection, parse_projection
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

TERRAIN, NO_INVARIANTS = "terrain", "none"

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A latitude-longitude box in degrees, edges included."""

    south: float
    north: float
    west: float
    east: float

    def __post_init__(self) -> None:
        if not (-90 <= self.south < self.north <= 90 and self.west < self.east <= self.west + 360):
            raise ValueError(f"{self} is no box: south < north in -90..90 and west < east are required")


@dataclass(frozen=True)
class Domain:
    """A projected target grid, the part of it that the model sees, and what is known and made there.

    Stored points: x = x0 + step * i, y = y0 + step * j in metres (degrees for +proj=longlat) under `projection` (a PROJ
    string on a sphere); row 0 is the southernmost. The model sees `[crop:-crop]` in both directions. `inputs` and
    `outputs` are variables of `variables.py`, in its order. `invariants` says where elevation and land fraction come
    from: "terrain" (this package's own relief, around Taiwan), the URL of a file, or "none".
    """

    name: str
    projection: str
    x0: float
    y0: float
    step: float
    rows: int
    columns: int
    crop: int
    input_box: Box
    inputs: tuple[str, ...] = INPUT_NAMES
    outputs: tuple[str, ...] = OUTPUT_NAMES
    invariants: str = TERRAIN

    @cached_property
    def y(self) -> Float64:
        """Projection y of the cropped rows, ascending; shape (rows - 2 crop,), read-only."""
        return _frozen(self.y0 + self.step * np.arange(self.crop, self.rows - self.crop, dtype=np.float64))

    @cached_property
    def x(self) -> Float64:
        """Projection x of the cropped columns, ascending; shape (columns - 2 crop,), read-only."""
        return _frozen(self.x0 + self.step * np.arange(self.crop, self.columns - self.crop, dtype=np.float64))

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) as the model sees them."""
        return self.rows - 2 * self.crop, self.columns - 2 * self.crop

    @property
    def spacing(self) -> float:
        """Metres between neighboring rows (and columns, but for +proj=longlat away from the equator)."""
        return self.step * self._map.unit

    @cached_property
    def _longitude_latitude(self) -> tuple[Float64, Float64]:
        longitude, latitude = self.unproject(*np.meshgrid(self.x, self.y))
        return _frozen(longitude), _frozen(latitude)

    @property
    def latitude(self) -> Float64:
        """Degrees north; shape (y, x), read-only."""
        return self._longitude_latitude[1]

    @property
    def longitude(self) -> Float64:
        """Degrees east; shape (y, x), read-only."""
        return self._longitude_latitude[0]

    @cached_property
    def _map(self) -> Projection:
        return parse_projection(self.projection)

    def project(self, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]:
        """Degrees to projection (x, y)."""
        return self._map.forward(longitude, latitude)

    def unproject(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """Projection (x, y) to (longitude, latitude) in degrees."""
        return self._map.inverse(x, y)

    @property
    def grid_mapping(self) -> dict[str, Any]:
        """CF grid-mapping attributes (CF conventions appendix F), `crs_wkt` included."""
        return self._map.grid_mapping

    @property
    def axes(self) -> Mapping[str, Mapping[str, str]]:
        """CF attributes of y and x."""
        return self._map.axes

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what is computed from them does not travel."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a manifest, those that every domain had from the start and those that are not as usual.

        `from_dict` restores an equal Domain.
        """
        values = asdict(self)
        usual = {"inputs": INPUT_NAMES, "outputs": OUTPUT_NAMES, "invariants": TERRAIN}
        kept = {name: value for name, value in values.items() if name not in usual or value != usual[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Domain":
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists, "input_box": Box(**values["input_box"])})


def _frozen(values: Float64) -> Float64:
    values.flags.writeable = False
    return values


# Projection constants fitted to the CWA RWRF grid's XLAT/XLONG (residual under 4 m, at most 3.7e-5 degrees).
TAIWAN = Domain(
    name="taiwan",
    projection="+proj=lcc +lat_1=10 +lat_2=40 +lat_0=23.5 +lon_0=120 +R=6370000 +units=m +no_defs",
    x0=-368973.703,
    y0=-420351.935,
    step=2000.0,
    rows=450,
    columns=450,
    crop=1,
    input_box=Box(south=19.25, north=28.0, west=116.0, east=125.75),
)
