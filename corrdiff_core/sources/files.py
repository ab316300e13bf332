"""Fields in Zarr, NetCDF 3 and NetCDF 4 at any fsspec URL: opened lazily, their axes named, their times decoded."""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import product
from typing import Any

import fsspec
import numpy as np
import xarray as xr
import zarr
from fsspec.core import url_to_fs

from corrdiff_core.errors import SourceError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import LATITUDE, LONGITUDE, cover
from corrdiff_core.sources.calendars import NO_LEAP, decode_times
from corrdiff_core.sources.recognize import Candidate
from corrdiff_core.sources.units import canonical, conversion

TIME = "time"
_ENGINES = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}
_ZARR = ("zarr.json", ".zmetadata", ".zgroup")
_DEGREES = {
    LATITUDE: ("degrees_north", "degree_north", "degree_n", "degrees_n"),
    LONGITUDE: ("degrees_east", "degree_east", "degree_e", "degrees_e"),
}
_SHORT = {LATITUDE: ("lat", "latitude"), LONGITUDE: ("lon", "longitude")}
_PRESSURE_NAMES = ("level", "pressure_level", "isobaricinhpa", "plev", "pressure", "lev")
_HIGHEST = 1100.0  # hPa; a pressure axis without units and beyond is in something else
_BROKEN = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, EOFError, zlib.error)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Failures of the readers, as SourceError."""
    try:
        yield
    except _BROKEN as error:
        raise SourceError(f"{what}: {type(error).__name__}: {error}; is the file whole? Get it anew") from error


def is_zarr(url: str) -> bool:
    fs, path = url_to_fs(url)  # type: ignore[no-untyped-call]
    return any(fs.exists(f"{path.rstrip('/')}/{name}") for name in _ZARR)


def first_bytes(url: str) -> bytes:
    """The first four bytes of the file at `url`; SourceError where there is none."""
    try:
        with fsspec.open(url, "rb") as file:  # type: ignore[no-untyped-call]
            magic: bytes = file.read(4)
            return magic
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{url} cannot be opened ({error}): name a Zarr store or a file that is there") from error


def open_fields(url: str) -> xr.Dataset:
    """The Zarr store or NetCDF file at `url`, lazily, its axes called time (dates, UTC), latitude and longitude.

    Axes are known by standard_name, units or name; one that the fields do not have is left out. Raises SourceError for
    what cannot be opened, for dates that are no real ones, and for a time that is there twice.
    """
    with naming(f"{url} cannot be opened"):
        return _with_axes(_opened(url), url)


def _opened(url: str) -> xr.Dataset:
    options: dict[str, Any] = {"chunks": None, "decode_times": False}
    if is_zarr(url):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated", RuntimeWarning)
            return xr.open_dataset(url, engine="zarr", **options)
    magic = first_bytes(url)
    if magic not in _ENGINES:
        raise SourceError(
            f"{url} is neither Zarr (v2, v3), NetCDF (3, 4) nor GRIB, it begins with {magic!r}: convert it"
        )
    return xr.open_dataset(fsspec.open(url).open(), engine=_ENGINES[magic], **options)  # type: ignore[no-untyped-call]


# --- axes -------------------------------------------------------------------------------------------------------------


def _with_axes(fields: xr.Dataset, url: str) -> xr.Dataset:
    for name in (LATITUDE, LONGITUDE):
        axis = _horizontal(fields, name)
        if axis is not None and axis != name:
            fields = fields.drop_vars(name, errors="ignore").rename({axis: name})
    time = _time_name(fields)
    return fields if time is None else _with_time(fields, time, url)


def _horizontal(fields: xr.Dataset, name: str) -> str | None:
    """The 1-D variable that is the latitude or longitude axis, None where there is none."""
    for axis, values in fields.variables.items():
        told = values.attrs.get("standard_name") == name or str(values.attrs.get("units")).lower() in _DEGREES[name]
        if values.dims == (axis,) and (told or str(axis).lower() in _SHORT[name]):
            return str(axis)
    return None


def _time_name(fields: xr.Dataset) -> str | None:
    """`valid_time` before `time`, which is that of the cycle where both are there; else what CF calls time."""
    for name in ("valid_time", TIME):
        if name in fields.variables and fields[name].ndim <= 1:
            return name
    named = [str(name) for name, values in fields.variables.items() if values.attrs.get("standard_name") == TIME]
    return named[0] if len(named) == 1 else None


def _with_time(fields: xr.Dataset, name: str, url: str) -> xr.Dataset:
    stored = fields[name]
    times = decode_times(stored.values, str(stored.attrs.get("units")), _calendar(stored), url)
    if len(set(times)) < len(times):
        raise SourceError(f"{url}: its time is no axis of different dates: repair it")
    dates = xr.Variable(TIME, np.array(times, "datetime64[us]"), {"calendar": _calendar(stored)})
    fields = fields.drop_vars({name, TIME} & set(map(str, fields.variables)))
    if stored.ndim == 0:
        return fields.expand_dims(TIME).assign_coords({TIME: dates})
    axis = stored.dims[0]
    return (fields if axis == TIME else fields.rename({axis: TIME})).assign_coords({TIME: dates})


def _calendar(stored: xr.DataArray) -> str:
    return str(stored.attrs.get("calendar", "standard")).lower()


# --- fields -----------------------------------------------------------------------------------------------------------


@dataclass
class Files:
    """The fields of one Zarr store or NetCDF file, each a candidate for an input."""

    url: str
    _places: dict[Candidate, tuple[str, dict[str, int]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.fields = open_fields(self.url)
        missing = [name for name in (TIME, LATITUDE, LONGITUDE) if name not in self.fields.coords]
        if missing:
            raise SourceError(
                f"{self.url}: no axis is its {', '.join(missing)} among {', '.join(map(str, self.fields.variables))}: "
                "inputs on 1-D latitude and longitude, with a time, are due"
            )
        for name in self.fields.data_vars:
            with naming(f"{self.url}: {name}"):
                for candidate, chosen in _candidates(self.fields[name]):
                    self._places[candidate] = str(name), chosen
        stored = self.fields[TIME]
        self.leap_days = stored.attrs["calendar"] not in NO_LEAP
        self.positions: dict[datetime, int] = {time: at for at, time in enumerate(stored.values.tolist())}

    @property
    def candidates(self) -> list[Candidate]:
        return list(self._places)

    def times(self, candidate: Candidate) -> list[datetime]:
        return list(self.positions)

    def load(self, candidate: Candidate, times: Sequence[datetime], box: Box) -> tuple[xr.DataArray, int]:
        """(time, latitude, longitude) around `box` in the file's own units, and the bytes that its values take there.

        Lines ascend; missing values are NaN. SourceError where the file cannot be read, or a chunk is missing.
        """
        name, chosen = self._places[candidate]
        stored = self.fields[name]
        marked = stored.assign_coords({f"{dim} at": (dim, np.arange(stored.sizes[dim])) for dim in stored.dims})
        part = cover(marked.isel(chosen).isel({TIME: [self.positions[time] for time in times]}), box)
        self._refuse_missing_chunks(name, part)
        with naming(f"{self.url}: {candidate} at {times[0]} to {times[-1]}"):
            values = part.transpose(TIME, LATITUDE, LONGITUDE).load()
        plain = values.drop_vars(set(values.coords) - {TIME, LATITUDE, LONGITUDE})
        return plain, part.size * np.dtype(stored.encoding.get("dtype", stored.dtype)).itemsize

    @cached_property
    def _zarr(self) -> zarr.Group | None:
        return zarr.open_group(self.url, mode="r") if is_zarr(self.url) else None

    def _refuse_missing_chunks(self, name: str, part: xr.DataArray) -> None:
        """A Zarr reader takes a chunk that is not there for its fill value; where that is a number, nobody notices."""
        if self._zarr is None:
            return
        array = self._zarr[name]
        if not isinstance(array, zarr.Array) or not np.isfinite(float(array.fill_value or 0)):
            return
        fs, root = url_to_fs(self.url)  # type: ignore[no-untyped-call]
        for key in _chunk_keys(array, part, self.fields[name].dims):
            if not fs.exists(f"{root.rstrip('/')}/{array.path}/{key}"):
                raise SourceError(
                    f"{self.url}: {name} lacks the chunk {key}, which would read as {array.fill_value}: copy it anew"
                )


def _chunk_keys(array: "zarr.Array[Any]", part: xr.DataArray, dims: Sequence[Any]) -> Iterator[str]:
    """The objects that hold `part`, whose coordinates `<dim> at` say where it was cut out."""
    sides = array.shards or array.chunks
    numbers = [
        sorted({int(at) // side for at in np.atleast_1d(part[f"{dim} at"].values)})
        for dim, side in zip(dims, sides, strict=True)
    ]
    for chunk in product(*numbers):
        yield array.metadata.encode_chunk_key(chunk)


def _candidates(stored: xr.DataArray) -> Iterator[tuple[Candidate, dict[str, int]]]:
    """What this variable may be, with the position along every axis but time, latitude and longitude."""
    lacking = [dim for dim in (LATITUDE, LONGITUDE) if dim not in stored.dims]
    if lacking or TIME not in stored.dims:
        return
    others = [str(dim) for dim in stored.dims if dim not in (TIME, LATITUDE, LONGITUDE)]
    long = [dim for dim in others if stored.sizes[dim] > 1 and _levels(stored, dim) == ({}, {})]
    if long:
        told = ", ".join(f"{stored.sizes[dim]} of {dim}" for dim in long)
        yield _candidate(stored, elsewhere=f" with {told}, where one is due"), {}
        return
    choices = [range(stored.sizes[dim]) for dim in others]
    for at in product(*choices):
        chosen = dict(zip(others, at, strict=True))
        pressure, height = _scalar(stored, "pressure"), _scalar(stored, "height")
        for dim, position in chosen.items():
            pressures, heights = _levels(stored, dim)
            pressure, height = pressures.get(position, pressure), heights.get(position, height)
        yield _candidate(stored, pressure, height), chosen


def _candidate(
    stored: xr.DataArray, pressure: float | None = None, height: float | None = None, elsewhere: str = ""
) -> Candidate:
    names = (stored.name, *(stored.attrs.get(key) for key in ("standard_name", "GRIB_shortName", "short_name")))
    keys = frozenset(str(name).lower() for name in names if name)
    return Candidate(str(stored.name), keys, stored.attrs.get("units"), pressure, height, elsewhere)


def _levels(stored: xr.DataArray, dim: str) -> tuple[dict[int, float], dict[int, float]]:
    """Pressures (hPa) and heights (m) by position along `dim`, either empty where it is no such axis."""
    if dim not in stored.coords:
        return {}, {}
    axis = stored[dim]
    pressures, heights = _as_pressure(axis), _as_height(axis)
    return dict(enumerate(pressures)), dict(enumerate(heights)) if not pressures else {}


def _as_pressure(axis: xr.DataArray) -> list[float]:
    units, name = axis.attrs.get("units"), str(axis.name).lower()
    factor = conversion(units, "hPa")
    if factor is not None:
        return [float(value) * factor.factor for value in np.atleast_1d(axis.values)]
    if not units and name in _PRESSURE_NAMES and axis.dtype.kind in "iuf" and float(axis.max()) <= _HIGHEST:
        return [float(value) for value in np.atleast_1d(axis.values)]
    return []


def _as_height(axis: xr.DataArray) -> list[float]:
    named = axis.attrs.get("standard_name") == "height" or str(axis.name).lower() in ("height", "heightaboveground")
    if not named or canonical(axis.attrs.get("units", "m")) != "m":
        return []
    return [float(value) for value in np.atleast_1d(axis.values)]


def _scalar(stored: xr.DataArray, what: str) -> float | None:
    """The level that a variable itself declares: by a scalar coordinate that it names, or by an attribute `height`."""
    declared = str(stored.encoding.get("coordinates", stored.attrs.get("coordinates", ""))).split()
    for name in declared:
        if name in stored.coords and stored[name].ndim == 0:
            values = (_as_pressure if what == "pressure" else _as_height)(stored[name])
            if values:
                return values[0]
    text = str(stored.attrs.get("height", "")).split() if what == "height" else []
    try:
        return float(text[0]) if text and text[1:] in ([], ["m"]) else None
    except ValueError:
        return None
