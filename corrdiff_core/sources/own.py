"""Analyses in files of your own: a Zarr store, NetCDF, GRIB, or a glob of these, at any fsspec URL."""

import atexit
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from corrdiff_core.archive.layout import NAME
from corrdiff_core.cycle import Slot, compact, floor_hour
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import Box
from corrdiff_core.retries import FAILURES, in_words, passing, patiently
from corrdiff_core.sources.files import Files
from corrdiff_core.sources.gribfile import GRIB, GribFile
from corrdiff_core.sources.places import filesystem_of, first_bytes, is_glob, is_zarr, matching, there
from corrdiff_core.sources.recognize import Candidate, complaint, listing, recognize
from corrdiff_core.sources.source import Fetched, Kind, NotYet
from corrdiff_core.sources.units import Conversion, conversion, refusal
from corrdiff_core.variables import INPUT, INPUT_NAMES

_ENDINGS = re.compile(r"\.(zarr|nc|nc3|nc4|cdf|h5|grib|grib1|grib2|grb|grb2)$", re.IGNORECASE)
_OPENING = threading.Lock()


class Part(Protocol):
    """One file or store."""

    url: str
    leap_days: bool  # False where its calendar has none

    @property
    def candidates(self) -> list[Candidate]: ...

    def times(self, candidate: Candidate) -> list[datetime]: ...

    def load(self, candidate: Candidate, times: Sequence[datetime], box: Box) -> tuple[xr.DataArray, int]: ...


@dataclass(frozen=True)
class Channel:
    """Where one input comes from, in one file."""

    part: Part
    candidate: Candidate
    conversion: Conversion


@dataclass(frozen=True)
class Table:
    """Which file holds each input at each time, and what is known of the files' bytes."""

    channels: dict[str, dict[datetime, Channel]]
    times: tuple[datetime, ...]  # ascending; whole hours at which some input is there
    step: timedelta | None  # the usual one, None where there is one time only
    leap_days: bool
    files: tuple[dict[str, Any], ...]


def own_name(url: str, taken: Sequence[str] = ()) -> str:
    """The source's folder in an archive: the last part of `url` without its ending and without what no folder takes.

    The part before it where that is nothing but wildcards. `own-` goes before a name that begins as one of `taken`
    does. ConfigurationError where nothing is left.

    >>> own_name("s3://bucket/my_cmip6.zarr/"), own_name("data/era5-*.nc", ["era5"]), own_name("file_*.grib2")
    ('my_cmip6', 'own-era5', 'file')
    """
    parts = [_ENDINGS.sub("", part) for part in url.rpartition("://")[2].split("/")]
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("._-") for part in parts]
    name = next((name for name in reversed(names) if NAME.fullmatch(name)), None)
    if name is None:
        raise ConfigurationError(f"{url} names no folder: give a part of it a letter or a digit")
    return f"own-{name}" if name.partition("-")[0] in taken else name


def _place_digest(url: str) -> str:
    """What tells data at one place from data of the same name at another."""
    place = url.rstrip("/") if "://" in url else str(Path(url).absolute())
    return hashlib.sha256(place.encode()).hexdigest()[:6]


class OwnData:
    """Analyses at `url`, of which the inputs `names` are used, whatever the files call them (`recognize`, `units`).

    A glob means all files that match, each with some of the variables or some of the times. Files are opened when they
    are first asked; then every missing, ambiguous or inconvertible variable is a SourceError, all of them in one.
    """

    kind: Kind = "hindcast"

    def __init__(self, url: str, names: Sequence[str] = INPUT_NAMES, taken: Sequence[str] = ()) -> None:
        """`taken` are the names of other sources, which this one must not bear."""
        self.url, self.names = url, tuple(names)
        self.name = f"{own_name(url, taken)}-{_place_digest(url)}"

    def __repr__(self) -> str:
        return f"OwnData({self.url!r})"

    @property
    def _table(self) -> Table:
        """That of the files as they are now; reread only where one has changed."""
        files = _files(self.url)
        with _OPENING:
            return _opened(self.url, files, self.names)

    @property
    def last(self) -> datetime:
        """The last time of the data as they are now."""
        return self._table.times[-1]

    def available(self, slot: Slot) -> bool:
        return slot.init_time is None and slot.valid_time in self._table.times

    def final(self, slot: Slot) -> bool:
        """As `available`: nobody will replace data of one's own."""
        return self.available(slot)

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        """The times of the data, and beyond the last one on at their usual step.

        A single time has no step and nothing beyond. Years without leap days have no 29 February.
        """
        table = self._table
        there = [time for time in table.times if start <= time < end]
        return there + _beyond(table, start, end)

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet:
        """The slot around `box` in our units; NotYet beyond the end of the data.

        SourceError for a time that the data skip, and for values that are missing; GridError where they do not cover
        the box.
        """
        if slot.init_time is not None:
            raise ConfigurationError(f"{self.url} holds analyses, {slot} is of a forecast: use `corrdiff backfill`")
        table = self._table
        if slot.valid_time > table.times[-1]:
            return NotYet(slot, self.url, f"the data end at {compact(table.times[-1])}Z")
        inputs, size = self._read(table, [slot.valid_time], box)
        fields = inputs.isel(time=0).rename(time="valid_time")
        for name in self.names:
            missing = int((~np.isfinite(fields[name])).sum())
            if missing:
                channel = table.channels[name][slot.valid_time]
                raise SourceError(
                    f"{channel.part.url}: {channel.candidate} of {slot}: {missing} of {fields[name].size} values are "
                    f"missing around {box}: fill them, or leave this time out"
                )
        return Fetched(slot, fields, self._provenance(table, slot, size))

    def read(self, times: Sequence[datetime], box: Box) -> xr.Dataset:
        """(time, latitude, longitude) at `times`, all of them there, in our units; missing values stay NaN."""
        return self._read(self._table, times, box)[0]

    def _read(self, table: Table, times: Sequence[datetime], box: Box) -> tuple[xr.Dataset, int]:
        fields, total = {}, 0
        for name in self.names:
            lacking = [time for time in times if time not in table.channels[name]]
            if lacking:
                raise SourceError(
                    f"{self.url}: {name} of {compact(lacking[0])}Z is not there, its data are of "
                    f"{_span(table.channels[name])}: add it, or leave this time out"
                )
            fields[name], size = _load(table.channels[name], name, times, box)
            total += size
        first = fields[self.names[0]]
        for name, field in fields.items():
            if not (field.latitude.equals(first.latitude) and field.longitude.equals(first.longitude)):
                raise SourceError(
                    f"{self.url}: {name} is on other grid lines {field.shape[1:]} than {self.names[0]} "
                    f"{first.shape[1:]}: bring them to one grid"
                )
        return xr.Dataset(fields), total

    def _provenance(self, table: Table, slot: Slot, size: int) -> dict[str, Any]:
        channels = {name: table.channels[name][slot.valid_time] for name in self.names}
        used = {channel.part.url for channel in channels.values()}
        return {
            "source": self.name,
            "url": self.url,
            "valid_time": slot.valid_time.isoformat(),
            "files": [file for file in table.files if file["url"] in used],
            "bytes": size,
            "bytes_are": "what travelled of NetCDF that is not local, its opening included; otherwise GRIB messages, "
            "or values as stored before compression: chunks around them are not counted",
            "channels": {
                name: {
                    "file": channel.part.url,
                    "variable": str(channel.candidate),
                    "units": channel.candidate.units,
                    "conversion": str(channel.conversion),
                }
                for name, channel in channels.items()
            },
        }


def _load(
    channels: dict[datetime, Channel], name: str, times: Sequence[datetime], box: Box
) -> tuple[xr.DataArray, int]:
    """One input at `times`, float32 in our units with our attributes, each run of times from the file that has it."""
    pieces, total, first = [], 0, 0
    for last in range(1, len(times) + 1):
        if last < len(times) and channels[times[last]] == channels[times[first]]:
            continue
        channel = channels[times[first]]
        part, size = channel.part.load(channel.candidate, times[first:last], box)
        values = part.astype(np.float64) * channel.conversion.factor + channel.conversion.offset
        pieces.append(values.astype(np.float32))
        total, first = total + size, last
    try:
        whole = xr.concat(pieces, "time", join="exact")
    except ValueError as error:
        raise SourceError(f"{name}: its files are on different grid lines ({error}): bring them to one grid") from error
    return whole.drop_attrs(deep=False).assign_attrs(INPUT[name].attrs), total


def _beyond(table: Table, start: datetime, end: datetime) -> list[datetime]:
    if table.step is None:
        return []
    last = table.times[-1]
    number = max(1, -((last - start) // table.step))
    times = []
    while (time := last + number * table.step) < end:
        if table.leap_days or (time.month, time.day) != (2, 29):
            times.append(time)
        number += 1
    return times


# --- the files --------------------------------------------------------------------------------------------------------


def _files(url: str) -> tuple[tuple[str, Any, Any], ...]:
    """URL, size and ETag (or time of change) of everything that `url` names, as far as the storage says them."""
    try:
        fs, path = filesystem_of(url)
        found = []
        for each in _named(fs, path):
            described = _described(fs, each)
            info = patiently(partial(fs.info, described))
            tag = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified")
            found.append((fs.unstrip_protocol(each) if "://" in url else each, info.get("size"), str(tag)))
    except (*FAILURES, ValueError, ImportError) as error:
        if passing(error):
            raise ConnectionError(f"{url} could not be read: {in_words(error)}") from error
        raise SourceError(f"{url} cannot be opened ({error}): name a Zarr store or files that are there") from error
    if not found:
        raise SourceError(f"{url}: no file matches: name files that are there")
    return tuple(found)


def _named(fs: Any, path: str) -> list[str]:
    """What matches, or the one that is called so."""
    if not is_glob(path):
        return [path]
    return matching(fs, path) or ([path] if there(fs, path) else [])


def _described(fs: Any, path: str) -> str:
    """The object that tells a Zarr store's state, else the file itself."""
    for name in (".zmetadata", "zarr.json"):
        if there(fs, f"{path}/{name}"):
            return f"{path}/{name}"
    return path


@lru_cache(maxsize=8)
def _opened(url: str, files: tuple[tuple[str, Any, Any], ...], names: tuple[str, ...]) -> Table:
    parts = [_part(file) for file, _, _ in files]
    chosen = [_choose(part, names) for part in parts]
    _refuse_misnamed(url, parts, chosen, names)
    channels: dict[str, dict[datetime, Channel]] = {name: {} for name in names}
    for part, those in zip(parts, chosen, strict=True):
        for name, candidates in those.items():
            for candidate in candidates:
                _add(channels[name], name, part, candidate)
    times = sorted({time for there in channels.values() for time in there if time == floor_hour(time)})
    if not times:
        raise SourceError(f"{url}: none of its times is a whole hour: name the hours that its fields are valid at")
    steps = Counter(later - earlier for earlier, later in pairwise(times))
    step = steps.most_common(1)[0][0] if steps else None
    described = tuple({"url": file, "size": size, "etag": tag} for file, size, tag in files)
    return Table(channels, tuple(times), step, all(part.leap_days for part in parts), described)


atexit.register(_opened.cache_clear)  # files that are open when the interpreter goes down complain


def _part(url: str) -> Part:
    return Files(url) if is_zarr(url) or first_bytes(url) != GRIB else GribFile(url)


def _choose(part: Part, names: Sequence[str]) -> dict[str, list[Candidate]]:
    return recognize(part.candidates, names)


def _refuse_misnamed(
    url: str, parts: Sequence[Part], chosen: Sequence[dict[str, list[Candidate]]], names: Sequence[str]
) -> None:
    """One SourceError for all that is missing, ambiguous within a file, or in units that the table does not have."""
    found = {name: max((those[name] for those in chosen), key=len) for name in names}
    everything = dict.fromkeys(candidate for part in parts for candidate in part.candidates)
    wrong = complaint(found, everything)
    if wrong is not None:
        raise SourceError(f"{url}: {wrong}")
    refused = dict.fromkeys(
        refusal(INPUT[name], str(candidate), candidate.units)
        for those in chosen
        for name, candidates in those.items()
        for candidate in candidates
        if conversion(candidate.units, INPUT[name].units) is None
    )
    if refused:
        raise SourceError(f"{url}: {'; '.join(refused)}: convert it and say so in `units`")


def _add(there: dict[datetime, Channel], name: str, part: Part, candidate: Candidate) -> None:
    converted = conversion(candidate.units, INPUT[name].units)
    if converted is None:
        raise SourceError(f"{part.url}: {refusal(INPUT[name], str(candidate), candidate.units)}")
    channel = Channel(part, candidate, converted)
    for time in part.times(candidate):
        if time in there:
            raise SourceError(
                f"{part.url} and {there[time].part.url} both have {name} ({candidate}) of {compact(time)}Z: drop one"
            )
        there[time] = channel


def _span(there: dict[datetime, Channel]) -> str:
    return f"{len(there)} times, {compact(min(there))}..{compact(max(there))}" if there else listing([])
