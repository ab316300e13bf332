"""Map projections on a sphere, from a PROJ string: the closed form, its inverse, and its CF and WKT descriptions.

Written out here, because the wheels of pyproj and of ecCodes bring different PROJ libraries into one process, which
crashes in whichever is imported second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.errors import ConfigurationError, GridError

Float64 = NDArray[np.float64]

_KNOWN = {"proj", "lat_1", "lat_2", "lat_0", "lon_0", "R", "units", "no_defs", "type"}
_NEEDED = ("lat_1", "lat_2", "lat_0", "lon_0", "R")


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
            "grid_mapping_name": "lambert_conformal_conic",
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
        """Inverse of `grid_mapping`; GridError for the attributes of another projection."""
        if attrs.get("grid_mapping_name") != "lambert_conformal_conic":
            raise GridError(
                f"the projection is {attrs.get('grid_mapping_name', 'not given')}, lambert_conformal_conic "
                "in spatial_ref with y and x is due: read it from the archive, or assign its domain's grid_mapping"
            )
        first, second = attrs["standard_parallel"]
        origin = attrs["latitude_of_projection_origin"], attrs["longitude_of_central_meridian"]
        return cls(first, second, *origin, attrs["earth_radius"])

    @property
    def wkt(self) -> str:
        """ISO 19162 well-known text; the method is EPSG 9802."""
        degree = 'ANGLEUNIT["degree",0.0174532925199433]'
        meter = 'LENGTHUNIT["metre",1]'
        parameters = (
            ("Latitude of false origin", self.latitude, degree, 8821),
            ("Longitude of false origin", self.longitude, degree, 8822),
            ("Latitude of 1st standard parallel", self.parallel_1, degree, 8823),
            ("Latitude of 2nd standard parallel", self.parallel_2, degree, 8824),
            ("Easting at false origin", 0.0, meter, 8826),
            ("Northing at false origin", 0.0, meter, 8827),
        )
        listed = ",".join(
            f'PARAMETER["{name}",{value!r},{unit},ID["EPSG",{code}]]' for name, value, unit, code in parameters
        )
        return (
            'PROJCRS["Lambert conformal conic on a sphere",BASEGEOGCRS["sphere",DATUM["sphere",'
            f'ELLIPSOID["sphere",{self.radius!r},0,{meter}]],PRIMEM["Greenwich",0,{degree}]],'
            f'CONVERSION["Lambert conformal conic",METHOD["Lambert Conic Conformal (2SP)",ID["EPSG",9802]],{listed}],'
            f'CS[Cartesian,2],AXIS["(E)",east,ORDER[1],{meter}],AXIS["(N)",north,ORDER[2],{meter}]]'
        )


def _half(latitude: Float64 | float) -> Any:
    """tan(pi / 4 + latitude / 2)."""
    return np.tan(np.pi / 4 + np.radians(latitude) / 2)


def parse_projection(text: str) -> LambertConformal:
    """The projection that a PROJ string describes; ConfigurationError for one that this package does not know."""
    parts = dict(part.lstrip("+").partition("=")[::2] for part in text.split())
    unknown = sorted(set(parts) - _KNOWN)
    missing = [name for name in _NEEDED if name not in parts]
    if parts.get("proj") != "lcc" or parts.get("units", "m") != "m" or unknown or missing:
        raise ConfigurationError(
            f"projection {text!r}: only +proj=lcc in metres with {', '.join(_NEEDED)} is known "
            f"(missing {missing}, unknown {unknown}): describe the domain on a sphere"
        )
    try:
        values = {name: float(parts[name]) for name in _NEEDED}
    except ValueError as error:
        raise ConfigurationError(f"projection {text!r}: {error}") from None
    return LambertConformal(values["lat_1"], values["lat_2"], values["lat_0"], values["lon_0"], values["R"])
