"""Fields in Zarr, NetCDF 3 and NetCDF 4 at any fsspec URL: opened lazily, their axes named, their times decoded."""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import product
from typing import Any

import fsspec
import numpy as np
import xarray as xr
import zarr

from corrdiff_core.errors import SourceError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import LATITUDE, LONGITUDE, cover
from corrdiff_core.retries import FAILURES, in_words, passing
from corrdiff_core.sources.calendars import NO_LEAP, decode_times
from corrdiff_core.sources.places import filesystem_of, first_bytes, is_local, is_zarr, there
from corrdiff_core.sources.ranged_file import RangedFile, ReaderLock, one_reader, open_ranged
from corrdiff_core.sources.recognize import Candidate
from corrdiff_core.sources.remote_zarr import PatientStore
from corrdiff_core.sources.units import canonical, conversion

TIME = "time"
_ENGINES = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}
_DEGREES = {
    LATITUDE: ("degrees_north", "degree_north", "degree_n", "degrees_n"),
    LONGITUDE: ("degrees_east", "degree_east", "degree_e", "degrees_e"),
}
_SHORT = {LATITUDE: ("lat", "latitude"), LONGITUDE: ("lon", "longitude")}
_PRESSURE_NAMES = ("level", "pressure_level", "isobaricinhpa", "plev", "pressure", "lev")
_HIGHEST = 1100.0  # hPa; a pressure axis without units and beyond is in something else
_BROKEN = (*FAILURES, ValueError, RuntimeError, KeyError, IndexError, TypeError, EOFError, zlib.error)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Failures of the readers, as SourceError; a failure to reach the storage is a ConnectionError."""
    try:
        yield
    except _BROKEN as error:
        if passing(error):
            raise ConnectionError(f"{what}: {in_words(error)}: try again later") from error
        raise SourceError(f"{what}: {type(error).__name__}: {error}; is the file whole? Get it anew") from error


@contextmanager
def reading(what: str, file: RangedFile | None) -> Iterator[None]:
    """As `naming`, and alone where `file` is read, whose failures HDF5 hides behind its own."""
    with naming(what), nullcontext() if file is None else one_reader():
        if file is not None:
            file.failure = None
        try:
            yield
        except _BROKEN as error:
            if file is not None and file.failure is not None:
                raise file.failure from error
            raise


def open_fields(url: str) -> xr.Dataset:
    """The Zarr store or NetCDF file at `url`, lazily, its axes called time (dates, UTC), latitude and longitude.

    Axes are known by standard_name, units or name; one that the fields do not have is left out. Raises SourceError for
    what cannot be opened, for dates that are no real ones, and for a time that is there twice.
    """
    return _open(url)[0]


def _open(url: str) -> tuple[xr.Dataset, RangedFile | None]:
    """The fields, and the file that they are read from where that is not local."""
    with naming(f"{url} cannot be opened"):
        file = None if is_local(url) or is_zarr(url) else open_ranged(url)
    with reading(f"{url} cannot be opened", file):
        return _with_axes(_opened(url, file), url), file


def _opened(url: str, file: RangedFile | None) -> xr.Dataset:
    options: dict[str, Any] = {"chunks": None, "decode_times": False}
    if file is None and is_zarr(url):
        store: Any = url if is_local(url) else PatientStore.at(url)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated", RuntimeWarning)
            return xr.open_dataset(store, engine="zarr", **options)
    magic = first_bytes(url) if file is None else file.read(4)
    if magic not in _ENGINES:
        raise SourceError(
            f"{url} is neither Zarr (v2, v3), NetCDF (3, 4) nor GRIB, it begins with {magic!r}: convert it"
        )
    if file is None:
        return xr.open_dataset(fsspec.open(url).open(), engine=_ENGINES[magic], **options)  # type: ignore[no-untyped-call]
    file.seek(0)
    return xr.open_dataset(file, engine=_ENGINES[magic], lock=ReaderLock(), **options)


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
    _told: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.fields, self._file = _open(self.url)
        missing = [name for name in (TIME, LATITUDE, LONGITUDE) if name not in self.fields.coords]
        if missing:
            raise SourceError(
                f"{self.url}: no axis is its {', '.join(missing)} among {', '.join(map(str, self.fields.variables))}: "
                "inputs on 1-D latitude and longitude, with a time, are due"
            )
        for name in self.fields.data_vars:
            with reading(f"{self.url}: {name}", self._file):
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

        Of NetCDF that is not local, those that travelled since the last call; what is kept does not travel again.
        Lines ascend; missing values are NaN. SourceError where the file cannot be read, or a chunk is missing.
        """
        name, chosen = self._places[candidate]
        stored = self.fields[name]
        marked = stored.assign_coords({f"{dim} at": (dim, np.arange(stored.sizes[dim])) for dim in stored.dims})
        part = cover(marked.isel(chosen).isel({TIME: [self.positions[time] for time in times]}), box)
        with reading(f"{self.url}: {candidate} at {times[0]} to {times[-1]}", self._file):
            self._refuse_missing_chunks(name, part)
            values, traveled = part.transpose(TIME, LATITUDE, LONGITUDE).load(), self._newly_traveled()
        plain = values.drop_vars(set(values.coords) - {TIME, LATITUDE, LONGITUDE})
        size = part.size * np.dtype(stored.encoding.get("dtype", stored.dtype)).itemsize
        return plain, size if traveled is None else traveled

    def _newly_traveled(self) -> int | None:
        """Bytes that nobody was told of, those of the opening at first; None where they are not counted."""
        if self._file is None:
            return None
        new = self._file.traveled - self._told
        self._told += new
        return new

    @cached_property
    def _zarr(self) -> zarr.Group | None:
        if self._file is not None or not is_zarr(self.url):
            return None
        return zarr.open_group(self.url if is_local(self.url) else PatientStore.at(self.url), mode="r")

    def _refuse_missing_chunks(self, name: str, part: xr.DataArray) -> None:
        """A Zarr reader takes a chunk that is not there for its fill value; where that is a number, nobody notices."""
        if self._zarr is None:
            return
        array = self._zarr[name]
        if not isinstance(array, zarr.Array) or not np.isfinite(float(array.fill_value or 0)):
            return
        filesystem, root = filesystem_of(self.url)
        for key in _chunk_keys(array, part, self.fields[name].dims):
            if not there(filesystem, f"{root}/{array.path}/{key}"):
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
