"""ERA5 as NSF NCAR publishes it (dataset d633000): netCDF 4, a file for each day (levels) or month (surface).

Final data only, some months late. HDF5 reads what it needs of a file: its chunks that touch the hour and the box.
"""

from calendar import monthrange
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import RLock
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.cycle import Slot, compact
from corrdiff_core.errors import SourceError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import LATITUDE, LONGITUDE, source_lines
from corrdiff_core.sources.era5_hour import (
    Hour,
    LayoutName,
    Part,
    check_finite,
    check_units,
    level_position,
    part_of,
)
from corrdiff_core.sources.ranged_file import RangedFile, one_reader
from corrdiff_core.sources.ranges import Found, Root
from corrdiff_core.sources.source import NotYet
from corrdiff_core.variables import INPUT

LEVELS, SURFACE = "e5.oper.an.pl", "e5.oper.an.sfc"
_KEPT = 24  # files open at once: the eight of three days


@dataclass(frozen=True)
class Kind:
    """A file's part in the archive: ECMWF's table and parameter, its grid, its variable, and ours."""

    folder: str
    code: str
    variable: str
    names: tuple[str, ...]


KINDS = (
    Kind(SURFACE, "128_137_tcwv.ll025sc", "TCWV", ("tcwv",)),
    Kind(LEVELS, "128_129_z.ll025sc", "Z", ("z500", "z850")),
    Kind(LEVELS, "128_130_t.ll025sc", "T", ("t500", "t850")),
    Kind(LEVELS, "128_131_u.ll025uv", "U", ("u500", "u850")),
    Kind(LEVELS, "128_132_v.ll025uv", "V", ("v500", "v850")),
    Kind(SURFACE, "128_167_2t.ll025sc", "VAR_2T", ("t2m",)),
    Kind(SURFACE, "128_165_10u.ll025sc", "VAR_10U", ("u10m",)),
    Kind(SURFACE, "128_166_10v.ll025sc", "VAR_10V", ("v10m",)),
)


def object_name(kind: Kind, time: datetime) -> str:
    """The file that holds `time`.

    >>> object_name(KINDS[1], datetime(2020, 2, 3, 4))
    'e5.oper.an.pl/202002/e5.oper.an.pl.128_129_z.ll025sc.2020020300_2020020323.nc'
    >>> object_name(KINDS[0], datetime(2020, 2, 3, 4))
    'e5.oper.an.sfc/202002/e5.oper.an.sfc.128_137_tcwv.ll025sc.2020020100_2020022923.nc'
    """
    first = last = f"{time:%Y%m%d}"
    if kind.folder == SURFACE:
        first, last = f"{time:%Y%m}01", f"{time:%Y%m}{monthrange(time.year, time.month)[1]}"
    return f"{kind.folder}/{time:%Y%m}/{kind.folder}.{kind.code}.{first}00_{last}23.nc"


class Ncar:
    """The files below `root`; those read lately stay open, with what was read of them."""

    name: LayoutName = "ncar"

    def __init__(self, root: Root) -> None:
        self._root = root
        self._open_files: OrderedDict[str, tuple[RangedFile, xr.Dataset]] = OrderedDict()
        self._lock = RLock()  # HDF5 serves one thread at a time anyway

    def lacking(self, slot: Slot) -> NotYet | None:
        found = self._find(slot)
        return found if isinstance(found, NotYet) else None

    def is_final(self, slot: Slot) -> bool:
        return self.lacking(slot) is None  # there is nothing but final data

    def read(self, slot: Slot, box: Box) -> Hour | NotYet:
        found = self._find(slot)
        if isinstance(found, NotYet):
            return found
        values: dict[str, NDArray[np.float32]] = {}
        objects, parts = {}, []
        with self._lock, one_reader():
            for kind, file in found.items():
                ranged = self._opened(file)
                before = ranged.traveled
                part, fields = _read(ranged, self._open_files[file.name][1], kind, slot, box)
                if ranged.traveled > before and self._root.find(file.name) != file:
                    return NotYet(slot, file.url, "it was replaced while it was read")
                values |= fields
                parts.append(part)
                objects[kind.variable] = file.to_dict() | {"bytes": ranged.traveled - before}
        first = parts[0]
        for part in parts:
            if not (np.array_equal(part.latitude, first.latitude) and np.array_equal(part.longitude, first.longitude)):
                raise SourceError(
                    f"{self._root.url}: the files of {slot} are on different grid lines: use another mirror"
                )
        provenance = {
            "stream": "final",
            "objects": objects,
            "bytes": sum(described["bytes"] for described in objects.values()),
        }
        return Hour(first.latitude, first.longitude, values, provenance)

    def _find(self, slot: Slot) -> dict[Kind, Found] | NotYet:
        """All eight files, or which of them is absent."""
        found = {}
        for kind in KINDS:
            name = object_name(kind, slot.valid_time)
            file = self._root.find(name)
            if file is None:
                return NotYet(slot, self._root.url_of(name), "absent or empty; NCAR holds final data, months late")
            found[kind] = file
        return found

    def _opened(self, file: Found) -> RangedFile:
        """The file as it is now, the newest of those that are open."""
        opened = self._open_files.pop(file.name, None)
        if opened is not None and opened[0].found != file:
            opened[1].close()
            opened = None
        if opened is None:
            ranged = RangedFile(self._root, file)
            with _naming(ranged):
                opened = ranged, xr.open_dataset(ranged, engine="h5netcdf", chunks=None, cache=False)
        self._open_files[file.name] = opened
        while len(self._open_files) > _KEPT:
            self._open_files.popitem(last=False)[1][1].close()
        return opened[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]


@contextmanager
def _naming(ranged: RangedFile) -> Iterator[None]:
    """A file that is no netCDF, or a broken one, is a SourceError; a failure to reach it stays what it is."""
    ranged.failure = None
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if ranged.failure is not None:
            raise ranged.failure from error
        raise SourceError(f"{ranged.found.url}: cannot be read as netCDF 4 ({error}): use another mirror") from error


def _read(
    ranged: RangedFile, fields: xr.Dataset, kind: Kind, slot: Slot, box: Box
) -> tuple[Part, dict[str, NDArray[np.float32]]]:
    """What of the file's grid covers the box, and there the values by our names."""
    url, values = ranged.found.url, {}
    with _naming(ranged):
        part = part_of(*source_lines(fields), box)
        hour = _hour(fields, kind, slot, url)
        hour = hour.isel({LATITUDE: _run(part.rows), LONGITUDE: _run(part.columns)})
        for name, field in _by_name(hour, fields, kind, url):
            stored = field.values[part.rows - part.rows.min()][:, part.columns - part.columns.min()]
            values[name] = np.ascontiguousarray(stored, np.float32)
            check_finite(name, values[name], url)
    return part, values


def _run(positions: NDArray[np.intp]) -> slice:
    """From the least to the greatest, whatever way they run."""
    return slice(int(positions.min()), int(positions.max()) + 1)


def _hour(fields: xr.Dataset, kind: Kind, slot: Slot, url: str) -> xr.DataArray:
    """The file's variable at the slot's time, (latitude, longitude) or (level, latitude, longitude), lazily."""
    dims = ("time", *(("level",) if kind.folder == LEVELS else ()), LATITUDE, LONGITUDE)
    if kind.variable not in fields or fields[kind.variable].dims != dims:
        have = fields[kind.variable].dims if kind.variable in fields else "absent"
        raise SourceError(f"{url}: {kind.variable} is {have}, {dims} are due: use another mirror")
    at = np.flatnonzero(fields["time"].values == np.datetime64(slot.valid_time))
    if len(at) != 1:
        raise SourceError(f"{url}: {compact(slot.valid_time)}Z is {len(at)} times on its axis: use another mirror")
    return fields[kind.variable].isel(time=int(at[0]))


def _by_name(hour: xr.DataArray, fields: xr.Dataset, kind: Kind, url: str) -> Iterator[tuple[str, xr.DataArray]]:
    for name in kind.names:
        check_units(name, hour.attrs, url)
        level = INPUT[name].level
        if level is None:
            yield name, hour
        else:
            axis = fields["level"]
            yield name, hour.isel(level=level_position(level, axis.values.astype(np.float64), axis.attrs, url))
