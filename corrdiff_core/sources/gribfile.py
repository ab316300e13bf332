"""Fields in one GRIB file, edition 1 or 2, whoever wrote it: every message found, none dropped, decoded one by one."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import eccodes
import numpy as np
import xarray as xr
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from corrdiff_core.errors import SourceError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import cover
from corrdiff_core.sources import grib
from corrdiff_core.sources.ranged_file import open_ranged
from corrdiff_core.sources.recognize import Candidate

GRIB = b"GRIB"
_AT_ONCE = 8 << 20  # bytes in a request
_PADDING = b"\0\n\r "  # what may lie between messages
_PRESSURE = {"isobaricInhPa": 1.0, "isobaricInPa": 0.01}
_FREE = ("surface", "entireAtmosphere", "atmosphereSingleLayer")  # where a field has no level to speak of
_GRID = {"gridType": "regular_ll", "iScansNegatively": 0, "jPointsAreConsecutive": 0, "alternativeRowScanning": 0}
_KEYS = ("shortName", "typeOfLevel", "level")


@dataclass(frozen=True)
class Place:
    """Where one field lies: bytes [start, start + size) of the file, the `part`-th of its message; and what it is."""

    start: int
    size: int
    part: int
    filters: tuple[tuple[str, Any], ...]


@dataclass
class GribFile:
    """The fields of one GRIB file; one that is not local is copied whole to a temporary file first."""

    url: str
    leap_days: bool = field(default=True, init=False)
    _places: dict[Candidate, dict[datetime, Place]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._copy, self._path = _local(self.url)
        with Path(self._path).open("rb") as file, grib.ECCODES, grib.naming(self.url):
            eccodes.codes_grib_multi_support_off()
            self._scan(file)

    @property
    def candidates(self) -> list[Candidate]:
        return list(self._places)

    @property
    def downloaded(self) -> bool:
        """Whether all of the file has travelled."""
        return self._copy is not None

    def times(self, candidate: Candidate) -> list[datetime]:
        return list(self._places[candidate])

    def load(self, candidate: Candidate, times: Sequence[datetime], box: Box) -> tuple[xr.DataArray, int]:
        """(time, latitude, longitude) around `box` in the file's own units, and the bytes of its messages.

        Lines ascend; missing values are NaN. SourceError where a message cannot be decoded.
        """
        places = [self._places[candidate][time] for time in times]
        fields = [self._field(candidate, place, box) for place in places]
        along = xr.Variable("time", np.array(times, "datetime64[us]"))
        return xr.concat(fields, along, join="exact"), sum(place.size for place in places)

    def _field(self, candidate: Candidate, place: Place, box: Box) -> xr.DataArray:
        where = f"{self.url}: {candidate} at bytes {place.start}..{place.start + place.size - 1}"
        with Path(self._path).open("rb") as file:
            file.seek(place.start)
            message = file.read(place.size)
        if len(message) != place.size:
            raise SourceError(f"{where}: {len(message)} bytes of {place.size}: the file was cut since it was opened")
        return cover(grib.load(_parts(message, where)[place.part], dict(place.filters), where), box)

    def _scan(self, file: BinaryIO) -> None:
        """Every message up to the end of the file; SourceError for bytes that belong to none."""
        end, size = 0, Path(self._path).stat().st_size
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                start, length = (int(eccodes.codes_get(handle, key)) for key in ("offset", "totalLength"))
                message: bytes = eccodes.codes_get_message(handle)
            finally:
                eccodes.codes_release(handle)
            self._refuse_gap(end, start)
            end = start + length
            for part, single in enumerate(_parts(message, f"{self.url}: message at byte {start}")):
                self._add(single, start, length, part)
        self._refuse_gap(end, size)

    def _refuse_gap(self, start: int, stop: int) -> None:
        with Path(self._path).open("rb") as file:
            file.seek(start)
            between = file.read(stop - start)
        if between.strip(_PADDING):
            raise SourceError(
                f"{self.url}: bytes {start}..{stop - 1} belong to no whole message (they begin with "
                f"{between.lstrip(_PADDING)[:8]!r}): the file is cut or damaged, get it anew"
            )

    def _add(self, message: bytes, start: int, size: int, part: int) -> None:
        handle = eccodes.codes_new_from_message(message)
        try:
            candidate, time = _candidate(handle), _valid_time(handle)
            filters = tuple((key, eccodes.codes_get(handle, key)) for key in _KEYS)
        finally:
            eccodes.codes_release(handle)
        times = self._places.setdefault(candidate, {})
        if time in times and not candidate.elsewhere:
            raise SourceError(
                f"{self.url}: {candidate} of {time} is there twice, at bytes {times[time].start} and {start}: leave "
                "one member and one analysis in the file"
            )
        times[time] = Place(start, size, part, filters)


def _local(url: str) -> tuple[Any, str]:
    """A temporary copy (None for a local file) and the path to read."""
    fs, path = url_to_fs(url)  # type: ignore[no-untyped-call]
    if isinstance(fs, LocalFileSystem):
        return None, path
    copy = tempfile.NamedTemporaryFile(suffix=".grib")  # noqa: SIM115  # it lives as long as this file is read
    with open_ranged(url) as source:
        shutil.copyfileobj(source, copy, _AT_ONCE)
    copy.flush()
    return copy, copy.name


def _parts(message: bytes, where: str) -> list[bytes]:
    return grib.split(message, where) if message[7] == 2 else [message]


def _candidate(handle: int) -> Candidate:
    name, kind, level = (eccodes.codes_get(handle, key) for key in _KEYS)
    keys = frozenset({name.lower(), eccodes.codes_get(handle, "cfVarName").lower()})
    units: str = eccodes.codes_get(handle, "units")
    other = [key for key, due in _GRID.items() if _get(handle, key, type(due)) != due]
    if other:
        told = ", ".join(f"{key} {_get(handle, key, str)}" for key in other)
        return Candidate(name, keys, units, elsewhere=f" on a grid with {told}, regular_ll row by row is due")
    if (step := eccodes.codes_get(handle, "stepType")) != "instant":
        return Candidate(name, keys, units, elsewhere=f" ({step})")
    if kind in _PRESSURE:
        return Candidate(name, keys, units, pressure=level * _PRESSURE[kind])
    if kind == "heightAboveGround":
        return Candidate(name, keys, units, height=float(level))
    return Candidate(name, keys, units, elsewhere="" if kind in _FREE else f" at {kind} {level}")


def _get(handle: int, key: str, kind: type) -> Any:
    return eccodes.codes_get(handle, key, kind) if eccodes.codes_is_defined(handle, key) else "missing"


def _valid_time(handle: int) -> datetime:
    date, clock = (int(eccodes.codes_get(handle, key)) for key in ("validityDate", "validityTime"))
    return datetime(date // 10000, date // 100 % 100, date % 100, clock // 100, clock % 100)
