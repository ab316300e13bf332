"""The nature run: synthetic weather around Taiwan whose 2-km conditional distribution is known in closed form.

`weather` gives the twelve coarse input variables as smooth functions of (seed, time, position): traveling waves,
seasons, fronts and typhoons, with temperature in hydrostatic balance with thickness and wind in geostrophic (gradient,
in a typhoon) balance with geopotential. `conditional` turns coarse inputs and terrain into the mean m and the spread s
of the 2-km truth, which is

    truth = m + s * e,    e = correlated Gaussian noise of unit variance,    mrr = max(0, truth)

m and s are pointwise functions of the regridded inputs and of the terrain and of nothing else: no hidden clock. A
perfect downscaling therefore exists, and its CRPS is known at every point (`perfect_crps`).
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from corrdiff_core import terrain
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import GridError
from corrdiff_core.grid import TAIWAN, Box, Domain
from corrdiff_core.metrics import crps_censored_normal, crps_normal
from corrdiff_core.regrid import regridder
from corrdiff_core.sources.gfs import write_lead
from corrdiff_core.variables import INPUT_NAMES, INPUTS, OUTPUT_NAMES

Array = NDArray[np.float64]

SEED = 1  # of the nature run that the demo checkpoint is trained on
_EPOCH = datetime(2000, 1, 1)
_DRY_AIR = 287.05  # J kg-1 K-1
_THICKNESS = _DRY_AIR * float(np.log(850 / 500))  # m2 s-2 per kelvin of layer-mean temperature
_OMEGA = 7.2921e-5  # s-1
_EARTH = 6.371e6  # m
_REFERENCE_LONGITUDE, _REFERENCE_LATITUDE = 121.0, 23.5
_METERS_PER_DEGREE = np.deg2rad(1.0) * _EARTH
_SHRINK = float(np.cos(np.deg2rad(_REFERENCE_LATITUDE)))

# Grid of the files that `write_gfs` writes: 0.25 degrees, wider than Taiwan's input box.
GFS_LATITUDE = np.arange(17.0, 31.01, 0.25)
GFS_LONGITUDE = np.arange(113.0, 129.01, 0.25)


def _generator(*key: object) -> np.random.Generator:
    """A counter-based generator for one named purpose: the same key gives the same stream on every machine."""
    digest = hashlib.blake2b("|".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


# --- the large scale -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plane:
    """Positions on a tangent plane in meters about 121E, 23.5N."""

    x: Array
    y: Array

    @classmethod
    def of(cls, longitude: Array, latitude: Array) -> "_Plane":
        x = (longitude - _REFERENCE_LONGITUDE) * _SHRINK * _METERS_PER_DEGREE
        y = (latitude - _REFERENCE_LATITUDE) * _METERS_PER_DEGREE
        return cls(x, y)


@dataclass(frozen=True)
class _Waves:
    """Traveling plane waves sum_k a_k cos(k.x - w t + p) of unit standard deviation, with their exact gradient."""

    kx: Array
    ky: Array
    omega: Array
    phase: Array
    amplitude: Array

    @classmethod
    @cache
    def named(cls, seed: int, name: str, shortest: float, longest: float) -> "_Waves":
        rng = _generator("waves", seed, name)
        count = 24
        wavelength = np.geomspace(shortest, longest, count)
        direction = rng.uniform(-1.1, 1.1, count)  # crests roughly north-south, moving east
        k = 2 * np.pi / wavelength
        kx, ky = k * np.cos(direction), k * np.sin(direction)
        speed = rng.uniform(4.0, 14.0, count)
        amplitude = wavelength / np.sqrt(np.sum(wavelength**2) / 2)
        return cls(kx, ky, speed * kx, rng.uniform(0, 2 * np.pi, count), amplitude)

    def __call__(self, plane: _Plane, seconds: float) -> tuple[Array, Array, Array]:
        """Value, d/dx and d/dy in m-1; each of the plane's shape."""
        angle = plane.x[..., None] * self.kx + plane.y[..., None] * self.ky - self.omega * seconds + self.phase
        sine = self.amplitude * np.sin(angle)
        return np.cos(angle) @ self.amplitude, -sine @ self.kx, -sine @ self.ky


@dataclass(frozen=True)
class _Typhoon:
    x: float
    y: float
    wind: float  # m s-1, maximum tangential
    radius: float  # m, of maximum wind

    def vortex(self, plane: _Plane, f: Array) -> tuple[Array, Array, Array, Array]:
        """Geopotential depression (m2 s-2), u, v (m s-1) in gradient balance, and a core weight in 0..1.

        Tangential wind V = Vm (r/R) exp((1 - (r/R)^2)/2); dPhi/dr = V^2/r + f V integrates in closed form.
        """
        dx, dy = plane.x - self.x, plane.y - self.y
        s = np.hypot(dx, dy) / self.radius
        core = np.exp(-0.5 * s**2)
        cyclostrophic = 0.5 * math.e * self.wind**2 * core**2
        coriolis = f * self.wind * self.radius * math.sqrt(math.e) * core
        tangential = self.wind / self.radius * math.sqrt(math.e) * core
        return -(cyclostrophic + coriolis), -tangential * dy, tangential * dx, np.exp(-0.5 * (s / 2.0) ** 2)


_TYPHOON_PERIOD = timedelta(days=9)
_TYPHOON_LIFE = timedelta(days=5)


def _typhoons(seed: int, time: datetime) -> list[_Typhoon]:
    """The typhoons near Taiwan: in each 9-day window of the warm season at most one crosses from the Philippine Sea."""
    window = (time - _EPOCH) // _TYPHOON_PERIOD
    alive = []
    for index in (window - 1, window):
        rng = _generator("typhoon", seed, index)
        start = _EPOCH + index * _TYPHOON_PERIOD + rng.uniform(0, 1) * (_TYPHOON_PERIOD - _TYPHOON_LIFE / 2)
        chance = 0.75 * np.clip(0.2 + 0.9 * _summer(start), 0.0, 1.0)
        occurs = rng.uniform() < chance
        south, aim, wind, radius, curve = rng.uniform((15.0, 20.5, 22.0, 60e3, -2.0), (19.0, 26.5, 48.0, 110e3, 3.0))
        age = (time - start) / _TYPHOON_LIFE
        if not (occurs and 0.0 <= age <= 1.0):
            continue
        longitude = 132.0 - 18.0 * age
        latitude = south + (aim - south) * age / 0.6 + curve * max(age - 0.6, 0.0) ** 2
        grown = np.sin(np.pi * np.clip(0.15 + 0.8 * age, 0, 1))
        here = _Plane.of(np.float64(longitude), np.float64(latitude))  # type: ignore[arg-type]
        alive.append(_Typhoon(float(here.x), float(here.y), float(wind * grown), float(radius)))
    return alive


def _summer(time: datetime) -> float:
    """-1 in mid January, 1 in mid July."""
    year = datetime(time.year, 1, 1)
    fraction = (time - year) / (datetime(time.year + 1, 1, 1) - year)
    return float(-np.cos(2 * np.pi * (fraction - 0.045)))


def _solar(time: datetime, longitude: Array) -> Array:
    """Diurnal heating in -1..1, largest at 14 h local solar time."""
    hour = time.hour + time.minute / 60 + longitude / 15
    return np.asarray(np.cos(2 * np.pi * (hour - 14) / 24), np.float64)


def weather(seed: int, time: datetime, latitude: Array, longitude: Array) -> xr.Dataset:
    """The twelve coarse variables at `time` on the lines `latitude` x `longitude` (degrees), float32.

    Dims (latitude, longitude); scalar coordinate valid_time; CF attributes. The lines must lie in 111..131E, 16..33N
    (where the smooth terrain is known; GridError otherwise).
    """
    edges = np.min(latitude), np.max(latitude), np.min(longitude), np.max(longitude)
    if edges[0] < terrain.SOUTH or edges[1] > terrain.NORTH or edges[2] < terrain.WEST or edges[3] > terrain.EAST:
        raise GridError(
            f"the nature run has no weather in {edges[0]:g}..{edges[1]:g} N, {edges[2]:g}..{edges[3]:g} E: choose a "
            f"region in {terrain.SOUTH:g}..{terrain.NORTH:g} N, {terrain.WEST:g}..{terrain.EAST:g} E"
        )
    lon, lat = np.meshgrid(np.asarray(longitude, np.float64), np.asarray(latitude, np.float64))
    plane = _Plane.of(lon, lat)
    seconds = (time - _EPOCH).total_seconds()
    summer = _summer(time)
    winter = 0.5 - 0.5 * summer
    f = 2 * _OMEGA * np.sin(np.deg2rad(lat))
    north = plane.y / 1e6  # 1000 km

    wave, wave_x, wave_y = _Waves.named(seed, "pressure", 900e3, 5000e3)(plane, seconds)
    warm, warm_x, warm_y = _Waves.named(seed, "thermal", 1800e3, 6000e3)(plane, seconds)
    moist, _, _ = _Waves.named(seed, "moisture", 500e3, 3000e3)(plane, seconds)

    # layer-mean temperature: season, meridional gradient, and fronts as sharpened waves
    gradient = -(3.0 + 4.5 * winter)  # K per 1000 km
    sharp = 0.9 + 1.3 * winter
    front = np.tanh(sharp * warm) / np.tanh(sharp)
    front_slope = sharp * (1 - np.tanh(sharp * warm) ** 2) / np.tanh(sharp)
    front_size = 0.8 + 2.6 * winter
    mean_temperature = 278.2 + 3.9 * summer + gradient * north + front_size * front
    mean_x = front_size * front_slope * warm_x
    mean_y = gradient / 1e6 + front_size * front_slope * warm_y

    # geopotential: waves and a subtropical ridge at 850 hPa, thickness above
    size = 110.0 + 150.0 * winter
    slope = -60.0 + 120.0 * summer  # m2 s-2 per 1000 km
    z850 = 14835.0 - 60.0 * summer + slope * north + size * wave
    z850_x, z850_y = size * wave_x, slope / 1e6 + size * wave_y
    z500 = z850 + _THICKNESS * mean_temperature
    u850, v850 = -z850_y / f, z850_x / f
    u500, v500 = u850 - _THICKNESS * mean_y / f, v850 + _THICKNESS * mean_x / f
    core = np.zeros_like(lon)
    for typhoon in _typhoons(seed, time):
        depression, u, v, weight = typhoon.vortex(plane, f)
        z850, z500 = z850 + depression, z500 + 0.7 * depression
        u850, v850, u500, v500 = u850 + u, v850 + v, u500 + 0.7 * u, v500 + 0.7 * v
        mean_temperature = mean_temperature - 0.3 * depression / _THICKNESS
        core = np.maximum(core, weight)
    half_difference = 10.6 + 0.4 * summer + 0.5 * moist
    t850, t500 = mean_temperature + half_difference, mean_temperature - half_difference

    # moisture: season, warmth and cyclonic flow
    tcwv = (38.0 + 13.0 * summer) * np.exp(0.05 * (t850 - 288.8 - 4.3 * summer) + 0.17 * moist - 0.10 * wave)
    tcwv = np.clip(tcwv + 18.0 * core, 3.0, 78.0)

    # near the surface: friction turns and slows the wind, the winter monsoon blows from the northeast
    turn = np.deg2rad(22.0)
    u10m = 0.62 * (np.cos(turn) * u850 - np.sin(turn) * v850) - 3.6 * winter - 0.4
    v10m = 0.62 * (np.sin(turn) * u850 + np.cos(turn) * v850) - 5.0 * winter + 1.6 * (1 - winter)
    land = terrain.smooth_land_fraction(lon, lat)
    height = terrain.smooth_elevation(lon, lat)
    drag = 1.0 - _LAND_DRAG * land
    sea_level = t850 + 8.4 - 0.3 * summer + 0.4 * moist + 2.4 * land * _solar(time, lon)
    t2m = sea_level - _lapse_rate(tcwv) * height

    values = {
        "tcwv": tcwv, "z500": z500, "t500": t500, "u500": u500, "v500": v500, "z850": z850, "t850": t850, "u850": u850,
        "v850": v850, "t2m": t2m, "u10m": u10m * drag, "v10m": v10m * drag,
    }  # fmt: skip
    return xr.Dataset(
        {v.name: (("latitude", "longitude"), values[v.name].astype(np.float32), v.attrs) for v in INPUTS},
        coords={"latitude": latitude, "longitude": longitude, "valid_time": np.datetime64(time, "ns")},
    )


# --- the small scale: m and s ----------------------------------------------------------------------------------------

_LAND_DRAG = 0.35


def _lapse_rate(tcwv: Array) -> Array:
    """K m-1: 6.8e-3 in dry air to 5.0e-3 in moist air."""
    return np.asarray(5.9e-3 - 0.9e-3 * np.tanh((tcwv - 42.0) / 14.0), np.float64)


@dataclass(frozen=True)
class _Relief:
    """Terrain fields on the target grid; each (y, x)."""

    height: Array  # m
    smooth: Array  # m, what the coarse model resolves
    land: Array
    smooth_land: Array
    slope_x: Array  # of the half-smoothed terrain, per grid axis: m / m
    slope_y: Array


@cache
def _relief(domain: Domain) -> _Relief:
    lon, lat = domain.longitude, domain.latitude
    height = terrain.elevation(lon, lat)
    middle = gaussian_filter(height, 4.0, mode="nearest")
    slope_y, slope_x = (np.asarray(np.gradient(middle, domain.spacing, axis=axis), np.float64) for axis in (0, 1))
    return _Relief(
        height,
        terrain.smooth_elevation(lon, lat),
        terrain.land_fraction(lon, lat),
        terrain.smooth_land_fraction(lon, lat),
        slope_x,
        slope_y,
    )


@dataclass(frozen=True)
class Conditional:
    """The distribution of the 2-km truth given the coarse inputs: mean and spread, each (variable, y, x).

    Variables in the order of `variables.OUTPUTS`. For mrr they describe the field before it is cut at 0 dBZ.
    """

    mean: Array
    spread: Array


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), np.float64)


def conditional(inputs: xr.Dataset, domain: Domain = TAIWAN) -> Conditional:
    """m and s of the truth for coarse `inputs` (latitude, longitude) on `domain`."""
    regrid = regridder(inputs.latitude.values, inputs.longitude.values, domain)
    stacked = np.stack([inputs[name].values for name in INPUT_NAMES])
    fine = dict(zip(INPUT_NAMES, np.asarray(regrid(stacked), np.float64), strict=True))
    relief = _relief(domain)
    rise = relief.height - relief.smooth
    edge = relief.land - relief.smooth_land
    tcwv, t850 = fine["tcwv"], fine["t850"]

    # temperature: lapse rate for what the coarse model does not resolve, land-sea contrast by static stability
    lapse = _lapse_rate(tcwv)
    stability = fine["t2m"] + lapse * relief.smooth - t850 - 8.4  # > 0 over sun-heated land
    contrast = 0.6 + 1.8 * np.tanh(stability / 2.5)
    t2m = fine["t2m"] - lapse * rise + contrast * edge
    t2m_spread = 0.55 + 0.35 * relief.land + 0.35 * np.minimum(relief.height / 2000.0, 1.5)

    # wind: land drag, exposure of ridges, and blocking that turns the flow along steep slopes
    exposure = np.clip(1.0 - _LAND_DRAG * edge + 0.45 * np.clip(rise / 1000.0, -0.8, 1.5), 0.2, 2.0)
    speed = np.hypot(fine["u10m"], fine["v10m"])
    steep = np.hypot(relief.slope_x, relief.slope_y)
    nx, ny = relief.slope_x / (steep + 1e-9), relief.slope_y / (steep + 1e-9)
    blocked = steep / (steep + 0.03) * np.exp(-((speed / 14.0) ** 2))
    across = fine["u10m"] * nx + fine["v10m"] * ny
    u10m = exposure * (fine["u10m"] - 0.9 * blocked * across * nx)
    v10m = exposure * (fine["v10m"] - 0.9 * blocked * across * ny)
    wind_spread = 0.7 + 0.085 * speed + 0.6 * steep / (steep + 0.05)

    # reflectivity: a threshold in moisture and instability, enhanced where moist flow climbs
    uplift = np.clip(fine["u850"] * relief.slope_x + fine["v850"] * relief.slope_y, -0.6, 1.2)  # m s-1
    instability = fine["t850"] - fine["t500"] - 21.5
    supply = (tcwv - 47.0) / 7.0 + 0.5 * instability
    mrr = -12.0 + 34.0 * _sigmoid(supply) + 22.0 * uplift * _sigmoid((tcwv - 35.0) / 6.0)
    mrr_spread = 3.0 + 5.5 * _sigmoid(supply)

    return Conditional(np.stack([mrr, t2m, u10m, v10m]), np.stack([mrr_spread, t2m_spread, wind_spread, wind_spread]))


# --- noise and truth -------------------------------------------------------------------------------------------------

_NOISE_SCALE = 60e3  # m: spectrum (kappa^2 + k^2)^-1.75 with kappa = 2 pi / scale, close to observed mesoscale slopes
_COLD_POOL = -0.35  # correlation of temperature noise with reflectivity noise


@cache
def _noise_filter(shape: tuple[int, int], step: float) -> Array:
    """Amplitude per wavenumber (rfft2 layout) that gives unit variance."""
    ky, kx = 2 * np.pi * fft.fftfreq(shape[0], step), 2 * np.pi * fft.rfftfreq(shape[1], step)
    kappa = 2 * np.pi / _NOISE_SCALE
    power = (kappa**2 + ky[:, None] ** 2 + kx[None, :] ** 2) ** -1.75
    power[0, 0] = 0.0
    both = np.where((np.arange(len(kx)) == 0) | (2 * np.arange(len(kx)) == shape[1]), 1.0, 2.0)
    return np.asarray(np.sqrt(power * shape[0] * shape[1] / np.sum(power * both)), np.float64)


def noise(seed: int, time: datetime, domain: Domain = TAIWAN, sample: int = 0) -> Array:
    """Correlated Gaussian noise of unit variance at each point; (variable, y, x). Keyed by (seed, time, sample)."""
    rows, columns = domain.shape
    padded = (fft.next_fast_len(rows + 64, real=True), fft.next_fast_len(columns + 64, real=True))  # no wrap-around
    rng = _generator("noise", seed, time.isoformat(), sample)
    white = rng.standard_normal((len(OUTPUT_NAMES), *padded), np.float32)
    spectrum = fft.rfft2(white) * _noise_filter(padded, domain.spacing).astype(np.float32)
    fields = np.asarray(fft.irfft2(spectrum, s=padded)[:, :rows, :columns], np.float64)
    fields[1] = _COLD_POOL * fields[0] + np.sqrt(1 - _COLD_POOL**2) * fields[1]
    return fields


def truth(inputs: xr.Dataset, seed: int, domain: Domain = TAIWAN, sample: int = 0) -> xr.Dataset:
    """One draw of the 2-km truth for coarse `inputs` with scalar valid_time: the four outputs, (y, x), float32."""
    time = inputs.valid_time.values.astype("datetime64[s]").item()
    given = conditional(inputs, domain)
    fields = given.mean + given.spread * noise(seed, time, domain, sample)
    fields[0] = np.maximum(fields[0], 0.0)
    return xr.Dataset(
        {name: (("y", "x"), field.astype(np.float32)) for name, field in zip(OUTPUT_NAMES, fields, strict=True)},
        coords={"y": domain.y, "x": domain.x, "valid_time": inputs.valid_time},
    )


def perfect_crps(given: Conditional, observed: xr.Dataset) -> dict[str, Array]:
    """CRPS of the perfect downscaling at every point, by variable: normal, and for mrr the normal censored at 0."""
    scores = {}
    for index, name in enumerate(OUTPUT_NAMES):
        mean, spread, value = given.mean[index], given.spread[index], observed[name].values.astype(np.float64)
        scores[name] = crps_censored_normal(mean, spread, value) if name == "mrr" else crps_normal(mean, spread, value)
    return scores


# --- files -----------------------------------------------------------------------------------------------------------


def write_gfs(
    root: str, init_time: datetime, lead_hours: list[int], seed: int = SEED, box: Box = TAIWAN.input_box
) -> list[str]:
    """Write the weather as GRIB2 + .idx in NOAA's layout under `root`, one pair per lead; returns the GRIB URLs.

    On the lines around Taiwan, or around `box` where that reaches beyond them.
    """
    slots = [Slot.forecast(init_time, hour * HOUR) for hour in lead_hours]
    lines = _gfs_lines(GFS_LATITUDE, box.south, box.north), _gfs_lines(GFS_LONGITUDE, box.west, box.east)
    return [write_lead(root, slot, weather(seed, slot.valid_time, *lines)) for slot in slots]


def _gfs_lines(usual: Array, low: float, high: float) -> Array:
    """The usual lines, or those of the same 0.25-degree grid that cover low..high."""
    if usual[0] <= low and high <= usual[-1]:
        return usual
    return np.arange(np.floor(low / 0.25) * 0.25, np.ceil(high / 0.25) * 0.25 + 0.01, 0.25)
