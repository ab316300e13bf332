"""The shape of the land around Taiwan as facts: coastline, peaks, and a synthetic relief that honors both.

Coordinates are approximate positions of capes, harbors and river mouths (degrees), good to a few kilometers: enough
for a map's outline and for synthetic weather, not for navigation.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter

Float64 = NDArray[np.float64]

KM_PER_DEGREE = 111.19
_REFERENCE_LATITUDE = 23.5

# (longitude, latitude), closed polygons
_TAIWAN = (
    (121.54, 25.30), (121.62, 25.23), (121.78, 25.15), (121.93, 25.12), (122.01, 25.01), (121.93, 24.95),
    (121.83, 24.86), (121.82, 24.70), (121.88, 24.59), (121.80, 24.44), (121.76, 24.31), (121.63, 24.12),
    (121.63, 23.98), (121.54, 23.60), (121.46, 23.32), (121.38, 23.10), (121.25, 22.90), (121.17, 22.75),
    (121.02, 22.61), (120.90, 22.34), (120.89, 22.19), (120.87, 21.99), (120.86, 21.90), (120.74, 21.92),
    (120.70, 22.08), (120.67, 22.24), (120.59, 22.37), (120.44, 22.46), (120.27, 22.61), (120.19, 22.86),
    (120.14, 23.00), (120.06, 23.15), (120.13, 23.38), (120.15, 23.55), (120.18, 23.71), (120.22, 23.82),
    (120.30, 23.93), (120.40, 24.08), (120.50, 24.27), (120.57, 24.37), (120.66, 24.49), (120.74, 24.62),
    (120.91, 24.84), (121.07, 25.04), (121.24, 25.12), (121.38, 25.16), (121.47, 25.27),
)  # fmt: skip
_MAINLAND = (
    (110.0, 21.4), (110.6, 21.2), (111.8, 21.7), (113.2, 22.0), (113.6, 22.7), (114.2, 22.3), (114.9, 22.6),
    (115.6, 22.8), (116.4, 22.95), (116.75, 23.35), (117.2, 23.6), (117.6, 23.85), (118.1, 24.35), (118.6, 24.6),
    (118.85, 24.9), (119.1, 25.2), (119.6, 25.5), (119.65, 26.0), (119.9, 26.4), (120.2, 26.8), (120.5, 27.2),
    (120.75, 27.7), (121.1, 28.2), (121.6, 28.5), (121.7, 29.1), (122.0, 29.8), (121.2, 30.4), (121.9, 31.0),
    (121.6, 31.9), (120.5, 34.0), (110.0, 34.0),
)  # fmt: skip
_LUZON = (
    (120.5, 16.0), (120.3, 16.6), (120.4, 17.5), (120.6, 18.5), (121.2, 18.6), (122.2, 18.5), (122.15, 17.5),
    (122.5, 16.9), (121.6, 16.0),
)  # fmt: skip
_PENGHU = ((119.50, 23.52), (119.57, 23.68), (119.66, 23.67), (119.70, 23.57), (119.62, 23.51))
_YAEYAMA = ((123.67, 24.32), (123.75, 24.42), (123.90, 24.43), (123.93, 24.33), (123.80, 24.25))
_ISHIGAKI = ((124.10, 24.36), (124.15, 24.46), (124.30, 24.60), (124.33, 24.55), (124.22, 24.37))
_MIYAKO = ((125.24, 24.75), (125.27, 24.90), (125.35, 24.85), (125.46, 24.72))

COASTLINES: tuple[tuple[tuple[float, float], ...], ...] = (
    _TAIWAN, _MAINLAND, _LUZON, _PENGHU, _YAEYAMA, _ISHIGAKI, _MIYAKO,
)  # fmt: skip


@dataclass(frozen=True)
class Peak:
    name: str
    longitude: float
    latitude: float
    elevation: float  # m


PEAKS: tuple[Peak, ...] = (
    Peak("Yushan", 120.957, 23.470, 3952.0),
    Peak("Xueshan", 121.232, 24.383, 3886.0),
    Peak("Nanhu", 121.439, 24.362, 3742.0),
    Peak("Hehuan", 121.272, 24.143, 3417.0),
    Peak("Dawu", 120.761, 22.627, 3092.0),
    Peak("Yangmingshan", 121.547, 25.177, 1120.0),
)

# Axes of the ranges: (longitude, latitude, crest elevation in m); cross-sections are Gaussian.
_CENTRAL_RANGE = (
    (121.62, 24.60, 1400.0), (121.34, 24.38, 2700.0), (121.28, 24.10, 2500.0), (121.12, 23.75, 2400.0),
    (120.98, 23.45, 2500.0), (120.88, 23.05, 2200.0), (120.77, 22.65, 2000.0), (120.75, 22.30, 800.0),
    (120.83, 22.05, 350.0),
)  # fmt: skip
_COASTAL_RANGE = ((121.56, 23.85, 500.0), (121.42, 23.45, 1000.0), (121.25, 23.05, 800.0))
_WUYI = ((116.0, 25.4, 900.0), (117.6, 27.2, 1300.0), (119.2, 29.0, 800.0))
_DAIYUN = ((117.3, 24.6, 700.0), (118.6, 25.9, 900.0), (119.8, 27.3, 800.0))
_CORDILLERA = ((120.8, 16.2, 1700.0), (120.9, 17.2, 1800.0), (121.0, 18.2, 900.0))
# each with its width in km
_RANGES = ((_CENTRAL_RANGE, 17.0), (_COASTAL_RANGE, 6.0), (_WUYI, 60.0), (_DAIYUN, 45.0), (_CORDILLERA, 35.0))
_PEAK_RADIUS = 7.0  # km
_CEILING = 3000.0  # m, above which only the named peaks rise
_COASTAL_PLAIN = 9.0  # km over which the relief rises from the shore


def _kilometers(longitude: ArrayLike, latitude: ArrayLike) -> tuple[Float64, Float64]:
    """Local plane in km about 121E, 23.5N."""
    shrink = np.cos(np.deg2rad(_REFERENCE_LATITUDE))
    return (
        np.asarray((np.asarray(longitude) - 121.0) * shrink * KM_PER_DEGREE, np.float64),
        np.asarray((np.asarray(latitude) - _REFERENCE_LATITUDE) * KM_PER_DEGREE, np.float64),
    )


def _along(x: Float64, y: Float64, start: tuple[float, ...], end: tuple[float, ...]) -> tuple[Float64, Float64]:
    """Distance in km to the segment start-end, and the position along it in 0..1."""
    (ax, ay), (bx, by) = (_kilometers(p[0], p[1]) for p in (start, end))
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return np.hypot(x - ax - t * dx, y - ay - t * dy), t


def _inside(x: Float64, y: Float64, polygon: tuple[tuple[float, float], ...]) -> NDArray[np.bool_]:
    """Even-odd rule."""
    inside = np.zeros(np.shape(x), bool)
    for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        (ax, ay), (bx, by) = (_kilometers(p[0], p[1]) for p in (start, end))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return inside


def shore_distance(longitude: Float64, latitude: Float64) -> Float64:
    """Distance to the nearest coastline in km, positive on land, negative at sea; shape of the arguments."""
    x, y = _kilometers(longitude, latitude)
    distance = np.full(np.shape(x), np.inf)
    land = np.zeros(np.shape(x), bool)
    for polygon in COASTLINES:
        land |= _inside(x, y, polygon)
        for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            distance = np.minimum(distance, _along(x, y, start, end)[0])
    return np.where(land, distance, -distance)


def land_fraction(longitude: Float64, latitude: Float64) -> Float64:
    """0 at sea, 1 on land, linear across the shore over 2 km (one grid cell)."""
    return _land_fraction(shore_distance(longitude, latitude))


def _land_fraction(distance: Float64) -> Float64:
    return np.clip(0.5 + distance / 2.0, 0.0, 1.0)


def _roughness(x: Float64, y: Float64) -> Float64:
    """A fixed fractal between about -1 and 1: plane waves of 9 to 60 km, amplitude growing with wavelength."""
    rng = np.random.Generator(np.random.Philox(key=2354))
    total = np.zeros(np.shape(x))
    power = 0.0
    for wavelength in np.geomspace(9.0, 60.0, 24):
        direction, phase = rng.uniform(0, 2 * np.pi, 2)
        k = 2 * np.pi / wavelength
        amplitude = wavelength**0.8
        total += amplitude * np.cos(k * (x * np.cos(direction) + y * np.sin(direction)) + phase)
        power += amplitude**2 / 2
    return np.asarray(total / (2.0 * np.sqrt(power)), np.float64)


def _relief(x: Float64, y: Float64, distance: Float64) -> Float64:
    """Ranges and hills without the named peaks; zero at sea."""
    crest = np.zeros(np.shape(x))
    for axis, width in _RANGES:
        ridge = np.zeros(np.shape(x))
        for start, end in pairwise(axis):
            away, t = _along(x, y, start, end)
            ridge = np.maximum(ridge, (start[2] + t * (end[2] - start[2])) * np.exp(-0.5 * (away / width) ** 2))
        crest = np.maximum(crest, ridge)
    hills = 120.0 + crest
    shore = 1.0 - np.exp(-np.maximum(distance, 0.0) / _COASTAL_PLAIN)
    relief = np.maximum(shore * hills * (1.0 + 0.3 * _roughness(x, y)), 0.0)
    return _CEILING * np.tanh(relief / _CEILING)


def _bumps(x: Float64, y: Float64) -> Float64:
    """One Gaussian bump for each peak; shape (..., peaks)."""
    px, py = _kilometers(np.array([p.longitude for p in PEAKS]), np.array([p.latitude for p in PEAKS]))
    r2 = (x[..., None] - px) ** 2 + (y[..., None] - py) ** 2
    return np.exp(-0.5 * r2 / _PEAK_RADIUS**2)


@cache
def _peak_amplitudes() -> Float64:
    """Bump heights such that the relief has the surveyed elevation at every peak."""
    longitude, latitude = (np.array([getattr(p, name) for p in PEAKS]) for name in ("longitude", "latitude"))
    x, y = _kilometers(longitude, latitude)
    missing = np.array([p.elevation for p in PEAKS]) - _relief(x, y, shore_distance(longitude, latitude))
    return np.asarray(np.linalg.solve(_bumps(x, y), missing), np.float64)


def elevation(longitude: Float64, latitude: Float64) -> Float64:
    """Synthetic elevation in m with the surveyed value at each of `PEAKS`; zero at sea; shape of the arguments."""
    return _elevation(longitude, latitude, shore_distance(longitude, latitude))


def _elevation(longitude: Float64, latitude: Float64, distance: Float64) -> Float64:
    x, y = _kilometers(longitude, latitude)
    land = np.clip(distance / 2.0, 0.0, 1.0)
    highest = max(peak.elevation for peak in PEAKS)
    return np.clip(_relief(x, y, distance) + land * (_bumps(x, y) @ _peak_amplitudes()), 0.0, highest)


SOUTH, NORTH, WEST, EAST = 16.0, 33.0, 111.0, 131.0  # where the shape of the land is known
_RASTER_STEP = 0.02  # degrees
_RASTER_LONGITUDE = np.arange(WEST, EAST + _RASTER_STEP / 2, _RASTER_STEP)
_RASTER_LATITUDE = np.arange(SOUTH, NORTH + _RASTER_STEP / 2, _RASTER_STEP)
SMOOTHING = 14.0  # km, standard deviation of the Gaussian that stands for what a 0.25-degree model resolves


@cache
def _smooth_raster() -> tuple[RegularGridInterpolator, RegularGridInterpolator]:
    longitude, latitude = np.meshgrid(_RASTER_LONGITUDE, _RASTER_LATITUDE)
    distance = shore_distance(longitude, latitude)
    shrink = np.cos(np.deg2rad(_REFERENCE_LATITUDE))
    sigma = SMOOTHING / KM_PER_DEGREE / _RASTER_STEP
    fields = (_elevation(longitude, latitude, distance), _land_fraction(distance))
    smooth = (gaussian_filter(field, (sigma, sigma / shrink), mode="nearest") for field in fields)
    first, second = (RegularGridInterpolator((_RASTER_LATITUDE, _RASTER_LONGITUDE), field) for field in smooth)
    return first, second


def smooth_elevation(longitude: Float64, latitude: Float64) -> Float64:
    """Elevation in m as a 0.25-degree model resolves it. Raises ValueError outside 111..131E, 16..33N."""
    return np.asarray(_smooth_raster()[0]((latitude, longitude)), np.float64)


def smooth_land_fraction(longitude: Float64, latitude: Float64) -> Float64:
    """Land fraction as a 0.25-degree model resolves it. Raises ValueError outside 111..131E, 16..33N."""
    return np.asarray(_smooth_raster()[1]((latitude, longitude)), np.float64)
