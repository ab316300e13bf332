"""The nature run as ERA5: synthetic weather in the layouts of ARCO-ERA5 and of NSF NCAR.

Differences from the real ones: a reduced area (the reader depends on none), an axis that begins a day before the data
instead of in 1900, and on levels other than 500 and 850 hPa stand-ins, so that a wrong level is a wrong value.
"""

import io
import json
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr
from numcodecs import get_codec
from numpy.typing import NDArray

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, compact, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import Float64
from corrdiff_core.sources.era5_arco import DIMENSIONS, NAMES
from corrdiff_core.sources.era5_ends import START, STOP, STOP_ERA5T, Ends, end_text
from corrdiff_core.sources.era5_ncar import KINDS, SURFACE, Kind, object_name
from corrdiff_core.sources.ranges import Root
from corrdiff_core.sources.zarr_v2 import METADATA, ZarrV2
from corrdiff_core.variables import INPUT

LEVELS = (
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700,
    750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
)  # fmt: skip
AREA = (nature.GFS_LATITUDE, nature.GFS_LONGITUDE)  # lines, ascending
_EPOCH = datetime(1900, 1, 1)
_SINCE = "hours since 1900-01-01"
_SPELLED = {"m2 s-2": "m**2 s**-2", "m s-1": "m s**-1", "kg m-2": "kg m**-2", "K": "K"}  # as ECMWF does
_CODEC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}  # ARCO's
_BEFORE = timedelta(days=1)  # of axis before the data
_SEED = "nature_seed"
_TIME_CHUNK = 8784  # hours; always whole, so that a reader of a shorter axis reads the same object

Float32 = NDArray[np.float32]


def write_arco(
    url: str,
    start: datetime,
    end: datetime,
    seed: int = nature.SEED,
    extended: int = 48,
    era5t_from: datetime | None = None,
    area: tuple[Float64, Float64] = AREA,
) -> Ends:
    """Write the hours start <= time < end in ARCO-ERA5's layout below `url`; what the store then says of its ends.

    A store that is there grows: chunks come first and the attributes move last, so no reader sees an hour too early.
    The axis reaches `extended` hours beyond the data, without chunks. From `era5t_from` on the data count as
    preliminary; once written as final they stay so. Raises ConfigurationError for another seed or area than the
    store's, and for hours that would leave a hole in it.
    """
    hours = _hours(start, end)
    root = Root(url)
    stored = _stored(root)
    latitude, longitude = area[0][::-1], area[1]
    final = min(era5t_from or end, hours[-1] + HOUR) - HOUR
    first, last, axis_start, extent = start, hours[-1], start - _BEFORE, 0
    if stored is not None:
        ends, axis = Ends.of(stored.attrs(""), root.url), stored.coordinate("time")
        _refuse_other_store(stored, ends, hours, seed, (latitude, longitude), root)
        first, final, last = ends.start, max(final, ends.final), max(last, ends.last)
        axis_start, extent = _EPOCH + int(axis[0]) * HOUR, axis.size
    reach = (last - axis_start) // HOUR + 1
    for time in hours:
        _write_hour(root, (time - axis_start) // HOUR, nature.weather(seed, time, latitude, longitude))
    said = {
        START: f"{first:%Y-%m-%d}" if first.hour == 0 else f"{first:%Y-%m-%dT%H:%M}",
        STOP: end_text(final),
        STOP_ERA5T: end_text(last),
        _SEED: seed,
    }
    count = extent if reach <= extent else reach + extended  # an axis that is long enough stays as it is
    coordinates = {
        "time": (axis_start - _EPOCH) // HOUR + np.arange(count, dtype="<i8"),
        "level": np.array(LEVELS, "<i8"),
        "latitude": latitude.astype("<f4"),
        "longitude": longitude.astype("<f4"),
    }
    _write_metadata(root, coordinates, said)
    return Ends.of(said, root.url)


def _hours(start: datetime, end: datetime) -> list[datetime]:
    if end <= start or start.minute or start.second or start.microsecond:
        raise ConfigurationError(
            f"{start} to {end} is no period: begin at a whole hour, end later (the end is left out)"
        )
    return hours_from(start, -((start - end) // HOUR))


def _stored(root: Root) -> ZarrV2 | None:
    """The store that is there."""
    return ZarrV2.open(root) if _exists(root) and root.find(METADATA) else None


def _exists(root: Root) -> bool:
    filesystem, path = root.filesystem_and_path
    return bool(filesystem.exists(path))


def _refuse_other_store(
    stored: ZarrV2,
    ends: Ends,
    hours: Sequence[datetime],
    seed: int,
    lines: tuple[Float64, Float64],
    root: Root,
) -> None:
    have = stored.attrs("").get(_SEED), *(stored.coordinate(name).tolist() for name in ("latitude", "longitude"))
    want = seed, *(line.astype(np.float32).tolist() for line in lines)
    if have != want:
        raise ConfigurationError(
            f"{root.url} is of seed {have[0]} or on other grid lines than are given with seed {seed}: write elsewhere"
        )
    if hours[0] < ends.start or hours[0] > ends.last + HOUR:
        raise ConfigurationError(
            f"{root.url} holds {compact(ends.start)}Z to {compact(ends.last)}Z; hours from {compact(hours[0])}Z would "
            "leave a hole or come before its start: begin within it or right after it"
        )


def _write_hour(root: Root, index: int, fields: xr.Dataset) -> None:
    for stem, name in NAMES.items():
        values = fields[stem].values if stem in INPUT else _column(fields, stem)
        key = ".".join(map(str, (index, *(0 for _ in values.shape))))
        root.write(f"{name}/{key}", _encoded(np.ascontiguousarray(values[None], "<f4")))


def _column(fields: xr.Dataset, stem: str) -> Float32:
    """(level, latitude, longitude): the two levels as they are, the others by the logarithm of pressure from them."""
    upper, lower = (fields[f"{stem}{level}"].values.astype(np.float64) for level in (500, 850))
    share = np.log(np.array(LEVELS) / 500.0) / np.log(850 / 500.0)
    column = (1 - share)[:, None, None] * upper + share[:, None, None] * lower
    column[LEVELS.index(500)], column[LEVELS.index(850)] = upper, lower
    return np.asarray(column, np.float32)


def _encoded(values: NDArray[Any]) -> bytes:
    return bytes(get_codec(_CODEC).encode(values))  # type: ignore[no-untyped-call]


def _write_metadata(root: Root, coordinates: Mapping[str, NDArray[Any]], said: Mapping[str, Any]) -> None:
    """Coordinates whole, each object of metadata, and last the consolidated ones, by which readers go."""
    metadata: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": dict(said)}
    for name, values in coordinates.items():
        chunk = _TIME_CHUNK if name == "time" else values.size
        metadata[f"{name}/.zarray"] = _array(values.shape, (chunk,), values.dtype.str, None)
        metadata[f"{name}/.zattrs"] = {"_ARRAY_DIMENSIONS": [name]}
        padded = values[0] + np.arange(-(-values.size // chunk) * chunk, dtype="<i8") if name == "time" else values
        for number, part in enumerate(np.split(padded, padded.size // chunk)):
            root.write(f"{name}/{number}", _encoded(part))
    metadata["time/.zattrs"] |= {"units": _SINCE, "calendar": "proleptic_gregorian"}
    for stem, name in NAMES.items():
        dims = [dim for dim in DIMENSIONS if dim != "level" or stem not in INPUT]
        shape = tuple(coordinates[dim].size for dim in dims)
        metadata[f"{name}/.zarray"] = _array(shape, (1, *shape[1:]), "<f4", "NaN")
        described = INPUT[stem if stem in INPUT else f"{stem}500"]
        metadata[f"{name}/.zattrs"] = {
            "_ARRAY_DIMENSIONS": dims,
            "units": _SPELLED[described.units],
            "standard_name": described.standard_name,
        }
    for key, value in metadata.items():
        root.write(key, json.dumps(value, indent=4).encode())
    consolidated = {"zarr_consolidated_format": 1, "metadata": metadata}
    root.write(METADATA, json.dumps(consolidated, indent=4).encode())


def _array(shape: Sequence[int], chunks: Sequence[int], dtype: str, fill: str | None) -> dict[str, Any]:
    return {
        "zarr_format": 2, "shape": list(shape), "chunks": list(chunks), "dtype": dtype, "order": "C",
        "fill_value": fill, "filters": None, "compressor": _CODEC, "dimension_separator": ".",
    }  # fmt: skip


# --- NSF NCAR --------------------------------------------------------------------------------------------------------


def write_ncar(
    url: str,
    start: datetime,
    end: datetime,
    seed: int = nature.SEED,
    area: tuple[Float64, Float64] = AREA,
) -> list[str]:
    """Write the days that hold start <= time < end in NCAR's layout below `url`, and their months at the surface.

    The URLs of the files. A month appears whole, before its days, as there.
    """
    root = Root(url)
    hours = _hours(start, end)
    written: list[str] = []
    for month, in_month in groupby(hours, lambda time: datetime(time.year, time.month, 1)):
        count = 24 * monthrange(month.year, month.month)[1]
        surface = [kind for kind in KINDS if kind.folder == SURFACE]
        written += _write_files(root, surface, hours_from(month, count), seed, area)
        for day, _ in groupby(in_month, lambda time: datetime(time.year, time.month, time.day)):
            levels = [kind for kind in KINDS if kind.folder != SURFACE]
            written += _write_files(root, levels, hours_from(day, 24), seed, area)
    return written


def _write_files(
    root: Root, kinds: Sequence[Kind], hours: Sequence[datetime], seed: int, area: tuple[Float64, Float64]
) -> Iterator[str]:
    """One file of each of the kinds, with these hours."""
    latitude, longitude = area[0][::-1], area[1]
    weather = [nature.weather(seed, time, latitude, longitude) for time in hours]
    for kind in kinds:
        name = object_name(kind, hours[0])
        root.write(name, _netcdf(kind, weather, hours))
        yield root.url_of(name)


def _netcdf(kind: Kind, weather: Sequence[xr.Dataset], hours: Sequence[datetime]) -> bytes:
    variable = INPUT[kind.names[0]]
    if kind.folder == SURFACE:
        dims: tuple[str, ...] = ("time", "latitude", "longitude")
        values = np.stack([fields[variable.name].values for fields in weather])
    else:
        dims = DIMENSIONS
        values = np.stack([_column(fields, variable.name[0]) for fields in weather])
    since = [(time - _EPOCH) // HOUR for time in hours]
    coordinates = {
        "time": ("time", np.array(since, np.int32), {"units": f"{_SINCE} 00:00:00", "calendar": "gregorian"}),
        "latitude": ("latitude", weather[0]["latitude"].values, {"units": "degrees_north"}),
        "longitude": ("longitude", weather[0]["longitude"].values, {"units": "degrees_east"}),
    }
    if kind.folder != SURFACE:
        coordinates["level"] = ("level", np.array(LEVELS, np.float64), {"units": "hPa"})
    attrs = {"units": _SPELLED[variable.units], "standard_name": variable.standard_name}
    dataset = xr.Dataset({kind.variable: (dims, values, attrs)}, coordinates)
    chunks = tuple(min(size, most) for size, most in zip(values.shape, (27, 139, 277), strict=False))
    if kind.folder != SURFACE:
        chunks = (1, *values.shape[1:])
    file = io.BytesIO()
    encoding = {kind.variable: {"zlib": True, "complevel": 1, "shuffle": True, "chunksizes": chunks}}
    dataset.to_netcdf(file, engine="h5netcdf", encoding=encoding)
    return file.getvalue()
