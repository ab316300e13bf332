"""Map projections on a sphere, from a PROJ string: the closed form, its inverse, and its CF and WKT descriptions.

Written out here, because the wheels of pyproj and of ecCodes bring different PROJ libraries into one process, which
crashes in whichever is imported second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.errors import ConfigurationError, GridError

Float64 = NDArray[np.float64]

_WITHOUT_MEANING = ("proj", "units", "no_defs", "type")  # of a PROJ string, for what is known here
_DEGREE = 'ANGLEUNIT["degree",0.0174532925199433]'
_METER = 'LENGTHUNIT["metre",1]'
_PLANE: Mapping[str, Mapping[str, str]] = {
    "y": {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"},
    "x": {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"},
}


class Projection(Protocol):
    """From longitude and latitude in degrees to plane coordinates (x, y), and back."""

    needed: ClassVar[tuple[str, ...]]  # of a PROJ string, in the order of the fields
    mapping: ClassVar[str]  # CF's name for it
    axes: ClassVar[Mapping[str, Mapping[str, str]]]  # CF attributes of y and x

    def forward(self, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]: ...

    def inverse(self, x: Float64, y: Float64) -> tuple[Float64, Float64]: ...

    @property
    def unit(self) -> float:
        """Metres to one unit of y (of x too, but for longitudes)."""
        ...

    @property
    def grid_mapping(self) -> dict[str, Any]:
        """CF grid-mapping attributes (CF conventions appendix F), `crs_wkt` included."""
        ...

    @classmethod
    def from_grid_mapping(cls, attrs: Mapping[str, Any]) -> Self:
        """Inverse of `grid_mapping`."""
        ...


@dataclass(frozen=True)
class LambertConformal:
    """Lambert conformal conic with two standard parallels on a sphere (Snyder 1987, USGS Prof. Paper 1395, p. 106).

    Angles in degrees, radius and plane coordinates in metres; (x, y) = (0, 0) at (longitude, latitude).
    """

    parallel_1: float
    parallel_2: float
    latitude: float
    longitude: float
    radius: float

    needed: ClassVar[tuple[str, ...]] = ("lat_1", "lat_2", "lat_0", "lon_0", "R")
    mapping: ClassVar[str] = "lambert_conformal_conic"
    axes: ClassVar[Mapping[str, Mapping[str, str]]] = _PLANE
    unit: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if self.parallel_1 + self.parallel_2 == 0 or self.radius <= 0:
            raise ConfigurationError(f"{self}: the parallels must not cancel and the radius must be positive")

    @property
    def _cone(self) -> tuple[float, float, float]:
        """n, R F and rho_0 of equations 15-3, 15-2 and 15-1a."""
        first, second = np.radians(self.parallel_1), np.radians(self.parallel_2)
        if first == second:
            n = float(np.sin(first))
        else:
            n = float(np.log(np.cos(first) / np.cos(second)) / np.log(_half(self.parallel_2) / _half(self.parallel_1)))
        scale = float(self.radius * np.cos(first) * _half(self.parallel_1) ** n / n)
        return n, scale, float(scale / _half(self.latitude) ** n)

    def forward(self, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]:
        """Degrees to (x, y) in metres (equations 15-1, 15-4, 14-1, 14-2)."""
        n, scale, origin = self._cone
        rho = scale / _half(latitude) ** n
        turn = (np.asarray(longitude, np.float64) - self.longitude + 180.0) % 360.0 - 180.0
        theta = np.radians(n * turn)
        return np.asarray(rho * np.sin(theta), np.float64), np.asarray(origin - rho * np.cos(theta), np.float64)

    def inverse(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """(x, y) in metres to (longitude, latitude) in degrees (equations 15-5, 14-9 to 14-11)."""
        n, scale, origin = self._cone
        sign = np.sign(n)
        rho = sign * np.hypot(x, origin - np.asarray(y, np.float64))
        theta = np.arctan2(sign * np.asarray(x, np.float64), sign * (origin - np.asarray(y, np.float64)))
        latitude = np.degrees(2 * np.arctan((scale / rho) ** (1 / n)) - np.pi / 2)
        return np.asarray(self.longitude + np.degrees(theta) / n, np.float64), np.asarray(latitude, np.float64)

    @property
    def grid_mapping(self) -> dict[str, Any]:
        """CF grid-mapping attributes (CF conventions appendix F), `crs_wkt` included."""
        return {
            "grid_mapping_name": self.mapping,
            "standard_parallel": [self.parallel_1, self.parallel_2],
            "longitude_of_central_meridian": self.longitude,
            "latitude_of_projection_origin": self.latitude,
            "false_easting": 0.0,
            "false_northing": 0.0,
            "earth_radius": self.radius,
            "crs_wkt": self.wkt,
        }

    @classmethod
    def from_grid_mapping(cls, attrs: Mapping[str, Any]) -> "LambertConformal":
        first, second = attrs["standard_parallel"]
        origin = attrs["latitude_of_projection_origin"], attrs["longitude_of_central_meridian"]
        return cls(first, second, *origin, attrs["earth_radius"])

    @property
    def wkt(self) -> str:
        """ISO 19162 well-known text; the method is EPSG 9802."""
        parameters = (
            ("Latitude of false origin", self.latitude, _DEGREE, 8821),
            ("Longitude of false origin", self.longitude, _DEGREE, 8822),
            ("Latitude of 1st standard parallel", self.parallel_1, _DEGREE, 8823),
            ("Latitude of 2nd standard parallel", self.parallel_2, _DEGREE, 8824),
            ("Easting at false origin", 0.0, _METER, 8826),
            ("Northing at false origin", 0.0, _METER, 8827),
        )
        method = 'METHOD["Lambert Conic Conformal (2SP)",ID["EPSG",9802]]'
        return _projected("Lambert conformal conic", method, parameters, self.radius)


@dataclass(frozen=True)
class Mercator:
    """Mercator on a sphere, true to scale at a standard parallel (Snyder 1987, p. 41, times its cosine).

    Angles in degrees, radius and plane coordinates in metres; (x, y) = (0, 0) at `longitude` on the equator.
    """

    parallel: float
    longitude: float
    radius: float

    needed: ClassVar[tuple[str, ...]] = ("lat_ts", "lon_0", "R")
    mapping: ClassVar[str] = "mercator"
    axes: ClassVar[Mapping[str, Mapping[str, str]]] = _PLANE
    unit: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not abs(self.parallel) < 90 or self.radius <= 0:
            raise ConfigurationError(f"{self}: the parallel must lie between the poles and the radius be positive")

    @property
    def _scale(self) -> float:
        return float(self.radius * np.cos(np.radians(self.parallel)))

    def forward(self, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]:
        """Degrees to (x, y) in metres (equations 7-1, 7-2)."""
        turn = (np.asarray(longitude, np.float64) - self.longitude + 180.0) % 360.0 - 180.0
        y = self._scale * np.log(_half(latitude))
        return np.asarray(self._scale * np.radians(turn), np.float64), np.asarray(y, np.float64)

    def inverse(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """(x, y) in metres to (longitude, latitude) in degrees (equations 7-4, 7-5)."""
        latitude = np.degrees(2 * np.arctan(np.exp(np.asarray(y, np.float64) / self._scale)) - np.pi / 2)
        longitude = self.longitude + np.degrees(np.asarray(x, np.float64) / self._scale)
        return np.asarray(longitude, np.float64), np.asarray(latitude, np.float64)

    @property
    def grid_mapping(self) -> dict[str, Any]:
        return {
            "grid_mapping_name": self.mapping,
            "standard_parallel": self.parallel,
            "longitude_of_projection_origin": self.longitude,
            "false_easting": 0.0,
            "false_northing": 0.0,
            "earth_radius": self.radius,
            "crs_wkt": self.wkt,
        }

    @classmethod
    def from_grid_mapping(cls, attrs: Mapping[str, Any]) -> "Mercator":
        return cls(attrs["standard_parallel"], attrs["longitude_of_projection_origin"], attrs["earth_radius"])

    @property
    def wkt(self) -> str:
        """ISO 19162 well-known text; the method is EPSG 9805."""
        parameters = (
            ("Latitude of 1st standard parallel", self.parallel, _DEGREE, 8823),
            ("Longitude of natural origin", self.longitude, _DEGREE, 8802),
            ("False easting", 0.0, _METER, 8806),
            ("False northing", 0.0, _METER, 8807),
        )
        return _projected("Mercator", 'METHOD["Mercator (variant B)",ID["EPSG",9805]]', parameters, self.radius)


@dataclass(frozen=True)
class LongLat:
    """No projection: x is the longitude and y the latitude, in degrees, on a sphere. Longitudes keep their turn."""

    radius: float

    needed: ClassVar[tuple[str, ...]] = ("R",)
    mapping: ClassVar[str] = "latitude_longitude"
    axes: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "y": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
        "x": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    }

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ConfigurationError(f"{self}: the radius must be positive")

    @property
    def unit(self) -> float:
        return float(np.radians(self.radius))

    def forward(self, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]:
        return np.asarray(longitude, np.float64), np.asarray(latitude, np.float64)

    def inverse(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        return np.array(x, np.float64), np.array(y, np.float64)

    @property
    def grid_mapping(self) -> dict[str, Any]:
        return {"grid_mapping_name": self.mapping, "earth_radius": self.radius, "crs_wkt": self.wkt}

    @classmethod
    def from_grid_mapping(cls, attrs: Mapping[str, Any]) -> "LongLat":
        return cls(attrs["earth_radius"])

    @property
    def wkt(self) -> str:
        """ISO 19162 well-known text."""
        return (
            f"GEOGCRS{_sphere(self.radius)},CS[ellipsoidal,2],"
            f'AXIS["longitude",east,ORDER[1],{_DEGREE}],AXIS["latitude",north,ORDER[2],{_DEGREE}]]'
        )


PROJECTIONS: Mapping[str, type[LambertConformal] | type[Mercator] | type[LongLat]] = {
    "lcc": LambertConformal,
    "merc": Mercator,
    "longlat": LongLat,
}


def _sphere(radius: float) -> str:
    """The inside of a geographic reference system, its last bracket open."""
    return f'["sphere",DATUM["sphere",ELLIPSOID["sphere",{radius!r},0,{_METER}]],PRIMEM["Greenwich",0,{_DEGREE}]'


def _projected(name: str, method: str, parameters: Sequence[tuple[str, float, str, int]], radius: float) -> str:
    listed = ",".join(
        f'PARAMETER["{title}",{value!r},{unit},ID["EPSG",{code}]]' for title, value, unit, code in parameters
    )
    return (
        f'PROJCRS["{name} on a sphere",BASEGEOGCRS{_sphere(radius)}],CONVERSION["{name}",{method},{listed}],'
        f'CS[Cartesian,2],AXIS["(E)",east,ORDER[1],{_METER}],AXIS["(N)",north,ORDER[2],{_METER}]]'
    )


def _half(latitude: Float64 | float) -> Any:
    """tan(pi / 4 + latitude / 2)."""
    return np.tan(np.pi / 4 + np.radians(latitude) / 2)


def parse_projection(text: str) -> Projection:
    """The projection that a PROJ string describes; ConfigurationError for one that this package does not know."""
    parts = dict(part.lstrip("+").partition("=")[::2] for part in text.split())
    kind = PROJECTIONS.get(parts.get("proj", ""))
    if kind is None:
        known = "; ".join(f"+proj={name} with {', '.join(one.needed)}" for name, one in PROJECTIONS.items())
        raise ConfigurationError(f"projection {text!r}: known are {known}: describe the domain by one of them")
    unknown = sorted(set(parts) - {*kind.needed, *_WITHOUT_MEANING})
    missing = [name for name in kind.needed if name not in parts]
    if parts.get("units", "m") != "m" or unknown or missing:
        raise ConfigurationError(
            f"projection {text!r}: +proj={parts['proj']} is known on a sphere, in metres, with "
            f"{', '.join(kind.needed)} (missing {missing}, unknown {unknown}): describe the domain so"
        )
    try:
        return kind(*(float(parts[name]) for name in kind.needed))
    except ValueError as error:
        raise ConfigurationError(f"projection {text!r}: {error}") from None


def projection_of(attrs: Mapping[str, Any]) -> Projection:
    """The projection of CF grid-mapping attributes; GridError for one that this package does not know."""
    kinds = {kind.mapping: kind for kind in PROJECTIONS.values()}
    kind = kinds.get(attrs.get("grid_mapping_name", ""))
    if kind is None:
        raise GridError(
            f"the projection is {attrs.get('grid_mapping_name', 'not given')}, one of {', '.join(kinds)} "
            "in spatial_ref with y and x is due: read it from the archive, or assign its domain's grid_mapping"
        )
    return kind.from_grid_mapping(attrs)
