"""ECMWF's indexes (`.index`): which bytes of a GRIB2 file hold which field.

One JSON object a line, a message each, in MARS's words: `date`, `time`, `step`, `type`, `levtype`, `param`, on levels
`levelist`, in an ensemble `number`, and the bytes as `_offset` and `_length`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from corrdiff_core.cycle import Slot, compact
from corrdiff_core.errors import SourceError
from corrdiff_core.sources.ranges import Span

_REFETCH = "the index is stale or not of this file: fetch both again"


@dataclass(frozen=True)
class Field:
    """One field in MARS's words; `level` in hPa, None for what is on no pressure level."""

    param: str
    level: int | None = None

    def __str__(self) -> str:
        return self.param if self.level is None else f"{self.param} at {self.level} hPa"


@dataclass(frozen=True)
class Entry:
    """One message as the index lists it."""

    line: str
    field: Field
    levtype: str  # pl for pressure levels, sfc, and others
    init_time: datetime
    step: str
    kind: str  # MARS's type: fc, cf, pf
    number: int | None  # of the member, None where the line names none
    span: Span


def parse(text: str, url: str) -> list[Entry]:
    """Every line of an index. SourceError names the first that is not one."""
    return [_entry(line, f"{url} line {number}") for number, line in enumerate(text.splitlines(), start=1)]


def _entry(line: str, where: str) -> Entry:
    try:
        told = json.loads(line)
        levtype, start, length = str(told["levtype"]), int(told["_offset"]), int(told["_length"])
        level = int(told["levelist"]) if levtype == "pl" else None
        number = int(told["number"]) if "number" in told else None
        init_time = datetime.strptime(f"{told['date']}{told['time']}", "%Y%m%d%H%M")
        field, step, kind = Field(str(told["param"]), level), str(told["step"]), str(told["type"])
        if start < 0 or length <= 0:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f"{where}: {line[:80]!r} is no JSON object with date, time, step, type, levtype, param, _offset, "
            "_length: fetch the index again"
        ) from None
    return Entry(line, field, levtype, init_time, step, kind, number, Span(start, start + length))


def locate(
    entries: list[Entry],
    wanted: Mapping[str, Sequence[Field]],
    kind: str,
    number: int | None,
    slot: Slot,
    size: int,
    url: str,
) -> dict[str, Entry]:
    """Where the fields of `wanted` lie in a GRIB2 file of `size` bytes.

    `wanted` holds by name the fields that serve, the one to be preferred first; `kind` is MARS's type and `number` the
    member, None for what has none. In the order of the file, so that the first that fails is the one that is damaged.
    Raises SourceError, naming the field, for an index of another cycle, step, type or member, for fields that are
    missing (all of them are named) or listed twice, and for messages beyond the end of the file.
    """
    _refuse_other_cycle(entries, slot, url)
    ours = [
        entry
        for entry in entries
        if (entry.kind, entry.number, entry.step) == (kind, number, str(slot.lead_hours))
        and entry.levtype in ("pl", "sfc")
    ]
    chosen = {name: _first_listed(ours, fields) for name, fields in wanted.items()}
    _refuse_missing(entries, {name: wanted[name] for name, found in chosen.items() if not found}, slot, url)
    _refuse_repeated({name: found for name, found in chosen.items() if len(found) > 1}, url)
    located = {}
    for name, (entry,) in sorted(chosen.items(), key=lambda item: item[1][0].span):
        _refuse_past_end(name, entry, size, url)
        located[name] = entry
    return located


def _first_listed(entries: list[Entry], fields: Sequence[Field]) -> list[Entry]:
    """The entries of the first of `fields` that has any."""
    for field in fields:
        found = [entry for entry in entries if entry.field == field]
        if found:
            return found
    return []


def _refuse_other_cycle(entries: list[Entry], slot: Slot, url: str) -> None:
    for entry in entries:
        if entry.init_time != slot.init_time:
            raise SourceError(
                f"{url}: line {entry.line!r} is of the cycle {compact(entry.init_time)}Z, asked for {slot}: {_REFETCH}"
            )


def _refuse_missing(entries: list[Entry], missing: dict[str, Sequence[Field]], slot: Slot, url: str) -> None:
    if not missing:
        return
    names = ", ".join(f"{name} ({' or '.join(map(str, fields))})" for name, fields in missing.items())
    sought = {field for fields in missing.values() for field in fields}
    others = sorted(
        f"{entry.field} as type {entry.kind}, number {entry.number}, step {entry.step}"
        for entry in entries
        if entry.field in sought
    )
    instead = f", only {'; '.join(others[:3])}" if others else ""
    raise SourceError(
        f"{url}: does not list {names} at +{slot.lead_hours} h among its {len(entries)} fields{instead}: "
        "the product has them not, or the file is incomplete; use a source that has all twelve, such as ecmwf-ifs"
    )


def _refuse_repeated(repeated: dict[str, list[Entry]], url: str) -> None:
    for name, found in repeated.items():
        lines = " and ".join(entry.line for entry in found)
        raise SourceError(f"{url}: {name} is listed {len(found)} times, {lines}: {_REFETCH}")


def _refuse_past_end(name: str, entry: Entry, size: int, url: str) -> None:
    if entry.span.stop > size:
        raise SourceError(
            f"{url}: lists {name} at bytes {entry.span.start}..{entry.span.stop - 1} but the file has {size} bytes: "
            "the index is stale or the file is cut short or still being copied; fetch both again"
        )
