"""NCEP's inventories (`.idx`): which bytes of a GRIB2 file hold which field.

One line a field, as wgrib2 writes them: `n:offset:d=YYYYMMDDHH:ELEMENT:LEVEL:WINDOW:...`, n being `12.1`, `12.2` where
one message holds several fields. A message ends where the next one starts, the last one with the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from corrdiff_core.cycle import HOUR, Slot, compact
from corrdiff_core.errors import SourceError
from corrdiff_core.sources.ranges import Span

_LINE = re.compile(
    r"\d+(?:\.(?P<field>[1-9]\d*))?:(?P<offset>\d+):d=(?P<init>\d{10})"
    r":(?P<element>[^:]+):(?P<level>[^:]+):(?P<window>[^:]*):.*",
    re.ASCII,
)
_WINDOW = re.compile(r"(\d+) (hour|day) fcst")
_REFETCH = "the idx is stale or not of this file: fetch both again"


@dataclass(frozen=True)
class Entry:
    """One field as the inventory lists it."""

    line: str
    field: int  # which of the fields of its message, from 1
    offset: int
    init_time: datetime
    element: str
    level: str
    window: str

    @property
    def lead_time(self) -> timedelta | None:
        """The lead of an instantaneous field, None for an average, accumulation or extreme."""
        if self.window == "anl":
            return timedelta(0)
        match = _WINDOW.fullmatch(self.window)
        return None if match is None else int(match[1]) * (HOUR if match[2] == "hour" else 24 * HOUR)


@dataclass(frozen=True)
class Located:
    """A field, the bytes of the message that holds it, and how many fields that message holds."""

    entry: Entry
    span: Span
    fields: int


def parse(text: str, url: str) -> list[Entry]:
    """Every line of an inventory. SourceError names the first that is not one."""
    return [_entry(line, f"{url} line {number}") for number, line in enumerate(text.splitlines(), start=1)]


def _entry(line: str, where: str) -> Entry:
    match = _LINE.fullmatch(line)
    try:
        if match is None:
            raise ValueError
        init_time = datetime.strptime(match["init"], "%Y%m%d%H")
    except ValueError:
        raise SourceError(
            f"{where}: {line[:80]!r} is not 'n:offset:d=YYYYMMDDHH:ELEMENT:LEVEL:WINDOW:': fetch the idx again"
        ) from None
    offset, field = int(match["offset"]), int(match["field"] or 1)
    return Entry(line, field, offset, init_time, match["element"], match["level"], match["window"])


def locate(
    entries: list[Entry], wanted: Mapping[str, tuple[str, str]], slot: Slot, size: int, url: str
) -> dict[str, Located]:
    """Where the fields named in `wanted` (name -> exact ELEMENT, LEVEL) lie in a GRIB2 file of `size` bytes.

    In the order of the file, so that the first that fails is the one that is damaged.
    Raises SourceError, naming the field, for an inventory of another cycle or lead, fields that are missing or listed
    twice, and messages beyond the end of the file.
    """
    _refuse_other_cycle(entries, slot, url)
    chosen = {name: _matches(entries, *key, slot.lead_time) for name, key in wanted.items()}
    _refuse_missing(entries, {name: wanted[name] for name, found in chosen.items() if not found}, slot, url)
    _refuse_repeated({name: found for name, found in chosen.items() if len(found) > 1}, url)
    starts = sorted({entry.offset for entry in entries})
    stops = dict(zip(starts, [*starts[1:], max(size, starts[-1])], strict=True))
    located = {}
    for name, (entry,) in sorted(chosen.items(), key=lambda item: item[1][0].offset):
        span = Span(entry.offset, stops[entry.offset])
        _refuse_past_end(f"{name} at bytes {span.start}..{span.stop - 1} ({entry.line})", span.stop, size, url)
        located[name] = Located(entry, span, sum(other.offset == span.start for other in entries))
    _refuse_past_end(f"its last message from byte {starts[-1]} on", starts[-1] + 1, size, url)
    return located


def _matches(entries: list[Entry], element: str, level: str, lead_time: timedelta) -> list[Entry]:
    return [
        entry for entry in entries if entry.element == element and entry.level == level and entry.lead_time == lead_time
    ]


def _refuse_other_cycle(entries: list[Entry], slot: Slot, url: str) -> None:
    for entry in entries:
        if entry.init_time != slot.init_time:
            raise SourceError(
                f"{url}: line {entry.line!r} is of the cycle {compact(entry.init_time)}Z, asked for {slot}: {_REFETCH}"
            )


def _refuse_missing(entries: list[Entry], missing: dict[str, tuple[str, str]], slot: Slot, url: str) -> None:
    if not missing:
        return
    others = {
        f"{name} ({element}:{level}) as {entry.window!r}"
        for name, (element, level) in missing.items()
        for entry in entries
        if entry.element == element and entry.level == level
    }
    names = ", ".join(f"{name} ({element}:{level})" for name, (element, level) in missing.items())
    instead = f", only {', '.join(sorted(others))}" if others else ""
    raise SourceError(
        f"{url}: does not list {names} at +{slot.lead_hours} h among its {len(entries)} fields{instead}: "
        "the file is incomplete or of another kind or step; fetch both again"
    )


def _refuse_repeated(repeated: dict[str, list[Entry]], url: str) -> None:
    for name, found in repeated.items():
        lines = " and ".join(repr(entry.line) for entry in found)
        raise SourceError(f"{url}: {name} is listed {len(found)} times, {lines}: {_REFETCH}")


def _refuse_past_end(what: str, stop: int, size: int, url: str) -> None:
    if stop > size:
        raise SourceError(
            f"{url}: lists {what} but the file has {size} bytes: the idx is stale or the file is cut short or still "
            "being copied; fetch both again"
        )
