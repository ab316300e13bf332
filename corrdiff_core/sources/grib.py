"""GRIB edition 2, one field at a time: byte checks, strict decoding, and encoding as NCEP does.

Sections and octets are those of WMO-No. 306, Manual on Codes I.2, FM 92 GRIB edition 2.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import eccodes
import numpy as np
import xarray as xr
from cfgrib.dataset import DatasetBuildError

from corrdiff_core.cycle import HOUR, compact, whole_hours
from corrdiff_core.errors import GridError, SourceError
from corrdiff_core.grid import Float64

COMPLEX = "grid_complex_spatial_differencing"  # what NCEP uses for GFS
_SAME_BITMAP = 254  # code table 6.0: the bitmap defined before in the same message applies
_REFETCH = "the idx is stale or the file is damaged: fetch both again"
# cfgrib switches ecCodes' multi-field support, a global of the process, on and off while it reads.
ECCODES = threading.Lock()


@dataclass(frozen=True)
class Parameter:
    """What one field is, in GRIB2's codes and in ecCodes' words (for kwbc, as it decodes NCEP's files)."""

    category: int  # of discipline 0, meteorological products (code table 4.1)
    number: int  # code table 4.2
    surface: int  # code table 4.5
    level: int  # hPa for isobaric surfaces, else as `type_of_level` says
    short_name: str
    type_of_level: str
    units: str


def check_frame(message: bytes, where: str) -> None:
    """Section 0 and 8 of one whole message: magic, edition 2, its own total length, end mark; else SourceError."""
    if message[:4] != b"GRIB" or len(message) < 16:
        raise SourceError(f"{where}: starts with {message[:4]!r}, not b'GRIB': {_REFETCH}")
    if message[7] != 2:
        raise SourceError(f"{where}: is GRIB edition {message[7]}, not 2: use a GRIB2 file")
    total = int.from_bytes(message[8:16], "big")
    if total != len(message):
        raise SourceError(f"{where}: says it has {total} bytes, the idx gives it {len(message)}: {_REFETCH}")
    if message[-4:] != b"7777":
        raise SourceError(f"{where}: ends with {message[-4:]!r}, not b'7777': {_REFETCH}")


def single_field(message: bytes, field: int, fields: int, where: str) -> bytes:
    """The `field`-th (from 1) of the `fields` fields of a checked message, as a message of its own.

    Sections 2 to 7 may repeat within a message; each repetition inherits what it does not redefine.
    """
    held = split(message, where)
    if len(held) != fields:
        raise SourceError(f"{where}: the message holds {len(held)} fields, the idx lists {fields}: {_REFETCH}")
    return held[field - 1]


def split(message: bytes, where: str) -> list[bytes]:
    """Every field of a whole message of edition 2 as a message of its own, in their order."""
    held = list(_fields(message, where))
    if len(held) == 1:
        return [message]
    bodies = (b"".join(sections[number] for number in sorted(sections)) + b"7777" for sections in held)
    return [message[:8] + (16 + len(body)).to_bytes(8, "big") + body for body in bodies]


def _fields(message: bytes, where: str) -> Iterator[dict[int, bytes]]:
    current: dict[int, bytes] = {}
    bitmap = b""
    for number, section in _sections(message, where):
        if number == 6 and section[5] == _SAME_BITMAP:
            section = bitmap
        elif number == 6:
            bitmap = section
        current[number] = section
        if number == 7:
            yield dict(current)


def _sections(message: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    at, end = 16, len(message) - 4
    while at < end:
        length, number = int.from_bytes(message[at : at + 4], "big"), message[at + 4]
        if length < 5 or at + length > end or not 1 <= number <= 7:
            raise SourceError(f"{where}: section {number} at byte {at} has {length} of {end - at} bytes: {_REFETCH}")
        yield number, message[at : at + length]
        at += length


def decode(
    message: bytes,
    wanted: Parameter,
    init_time: datetime,
    lead_time: timedelta,
    where: str,
    member: int | None = None,
) -> xr.DataArray:
    """One checked single-field message as (latitude, longitude) float32 in `wanted.units`, on the lines it was sent on.

    Decoded by cfgrib, strictly. Raises SourceError, naming what the message holds and what was asked for, where the
    parameter, level, reference time, step, units or kind of grid is another, or the ensemble's member where one is
    given. `attrs` has `packing`, its packing type.
    Threads may call it; they take turns, since ecCodes keeps state for the process.
    """
    with ECCODES, naming(where):
        packing = _check_header(message, _expected(wanted, init_time, lead_time, member), where)
        filters = {"shortName": wanted.short_name, "typeOfLevel": wanted.type_of_level, "level": wanted.level}
        return _load(message, filters, where).assign_attrs(packing=packing)


def load(message: bytes, filters: dict[str, Any], where: str) -> xr.DataArray:
    """The one field of a message of either edition, (latitude, longitude), by cfgrib with `filters`, as it was packed.

    SourceError where it cannot be decoded, or is not the one field that `filters` (ecCodes' keys) name.
    """
    with ECCODES, naming(where):
        return _load(message, filters, where)


def _expected(wanted: Parameter, init_time: datetime, lead_time: timedelta, member: int | None) -> dict[str, int | str]:
    valid_time = init_time + lead_time
    ensemble: dict[str, int | str] = {} if member is None else {"perturbationNumber": member}
    return ensemble | {
        "shortName": wanted.short_name,
        "typeOfLevel": wanted.type_of_level,
        "level": wanted.level,
        "units": wanted.units,
        "discipline": 0,
        "parameterCategory": wanted.category,
        "parameterNumber": wanted.number,
        "typeOfFirstFixedSurface": wanted.surface,
        "dataDate": int(f"{init_time:%Y%m%d}"),
        "dataTime": int(f"{init_time:%H%M}"),
        "step": whole_hours(lead_time),
        "validityDate": int(f"{valid_time:%Y%m%d}"),
        "validityTime": int(f"{valid_time:%H%M}"),
        "stepType": "instant",
        "gridType": "regular_ll",
        "iScansNegatively": 0,
        "jPointsAreConsecutive": 0,
        "alternativeRowScanning": 0,
    }


def _check_header(message: bytes, expected: dict[str, int | str], where: str) -> str:
    """Refuses a message whose keys are not as expected; returns its packing type."""
    handle = eccodes.codes_new_from_message(message)
    try:
        for key, asked in expected.items():
            held = _held(handle, key, type(asked))
            if held != asked:
                raise SourceError(f"{where}: the message holds {key} {held!r}, asked for {asked!r}: {_REFETCH}")
        return str(eccodes.codes_get(handle, "packingType", str))
    finally:
        eccodes.codes_release(handle)


def _held(handle: int, key: str, kind: type) -> int | str | None:
    """The value of a key; None where the message has none, such as a member in what is no ensemble."""
    try:
        value: int | str = eccodes.codes_get(handle, key, kind)
    except eccodes.KeyValueNotFoundError:
        return None
    return value


def _load(message: bytes, filters: dict[str, Any], where: str) -> xr.DataArray:
    with tempfile.NamedTemporaryFile(suffix=".grib2") as file:
        file.write(message)
        file.flush()
        strict = {"filter_by_keys": filters, "indexpath": "", "errors": "raise"}
        with xr.open_dataset(file.name, engine="cfgrib", backend_kwargs=strict) as fields:
            if len(fields.data_vars) != 1:
                raise SourceError(f"{where}: cfgrib finds {list(fields.data_vars)} in it for {filters}: {_REFETCH}")
            (field,) = fields.data_vars.values()
            return field.load().reset_coords(drop=True)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Failures of the decoders, as SourceError of `where`."""
    try:
        yield
    except (eccodes.CodesInternalError, DatasetBuildError, EOFError) as error:
        raise SourceError(f"{where}: cannot be decoded ({error}): {_REFETCH}") from error


def encode(
    field: xr.DataArray,
    what: Parameter,
    init_time: datetime,
    lead_time: timedelta,
    decimals: int,
    packing: str = COMPLEX,
) -> bytes:
    """A regular (latitude, longitude) field in `what.units` as one GRIB2 message with NCEP's keys, north to south.

    Packed at 10**-`decimals` by `grid_simple`; other packings are made from that, and the complex ones trade the
    decimal scale for a binary one of the same width: their error stays below 2 x 10**-`decimals`.
    """
    if not np.isfinite(field.values).all():
        raise SourceError(f"{field.name}: holds values that are not finite, GRIB2 would lose them: write whole fields")
    field = field.transpose("latitude", "longitude").sortby("latitude", ascending=False)
    keys = _grid_keys(field) | _time_keys(init_time, lead_time) | _parameter_keys(what)
    with ECCODES:
        handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
        try:
            for key, value in keys.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set(handle, "decimalScaleFactor", decimals)
            eccodes.codes_set_values(handle, field.values.astype(np.float64).ravel())
            # Only repacking values that are there already makes sound messages: ecCodes 2.50 corrupts them otherwise.
            eccodes.codes_set(handle, "packingType", packing)
            return bytes(eccodes.codes_get_message(handle))
        finally:
            eccodes.codes_release(handle)


def _grid_keys(field: xr.DataArray) -> dict[str, Any]:
    latitude = np.asarray(field["latitude"], np.float64)
    longitude = np.asarray(field["longitude"], np.float64)
    return {
        "Ni": longitude.size,
        "Nj": latitude.size,
        "latitudeOfFirstGridPointInDegrees": float(latitude[0]),
        "latitudeOfLastGridPointInDegrees": float(latitude[-1]),
        "longitudeOfFirstGridPointInDegrees": float(longitude[0] % 360),
        "longitudeOfLastGridPointInDegrees": float(longitude[-1] % 360),
        "iDirectionIncrementInDegrees": _spacing("longitude", longitude),
        "jDirectionIncrementInDegrees": _spacing("latitude", latitude[::-1]),
    }


def _spacing(name: str, lines: Float64) -> float:
    steps = np.diff(lines)
    if steps.size == 0 or steps.min() <= 0 or np.ptp(steps) > 1e-4:
        raise GridError(f"the {name} {lines} is not regular: GRIB2's latitude-longitude grid needs one spacing")
    return round(float(steps.mean()), 6)


def _time_keys(init_time: datetime, lead_time: timedelta) -> dict[str, Any]:
    if init_time != init_time.replace(minute=0, second=0, microsecond=0) or lead_time % HOUR:
        raise SourceError(f"{compact(init_time)} + {lead_time}: GFS has whole hours only")
    return {
        "dataDate": int(f"{init_time:%Y%m%d}"),
        "dataTime": int(f"{init_time:%H%M}"),
        "indicatorOfUnitOfTimeRange": 1,
        "forecastTime": whole_hours(lead_time),
        "generatingProcessIdentifier": 96 if lead_time else 81,
    }


def _parameter_keys(what: Parameter) -> dict[str, Any]:
    return {
        "centre": "kwbc",
        "tablesVersion": 2,
        "typeOfProcessedData": 1,
        "typeOfGeneratingProcess": 2,
        "discipline": 0,
        "parameterCategory": what.category,
        "parameterNumber": what.number,
        "typeOfFirstFixedSurface": what.surface,
        "scaleFactorOfFirstFixedSurface": 0,
        "scaledValueOfFirstFixedSurface": what.level * (100 if what.type_of_level == "isobaricInhPa" else 1),
    }
