"""Retention: which stores are old, and their removal, which a reader or a kill never meets half done."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Kind, Series
from corrdiff_core.archive.objects import Objects, open_objects
from corrdiff_core.archive.store import LAYOUT, find_series, marked, open_store, store_starts
from corrdiff_core.archive.template import INPUT_MARKER, INPUTS_GROUP, OUTPUT_MARKER, ROOT
from corrdiff_core.cycle import HOUR, compact
from corrdiff_core.errors import ConfigurationError

_REMOVING = ".removing"  # beside a store, from before its first object goes until its last one is gone
_AT_ONCE = 8
_UNITS = {"h": HOUR, "d": 24 * HOUR, "w": 7 * 24 * HOUR}


@dataclass(frozen=True)
class Expired:
    """A store to be removed: its key, the valid time of its newest slot, its objects; `begun` where a removal was."""

    key: str
    newest: datetime
    objects: int
    bytes: int
    begun: bool


def parse_keep(text: str) -> timedelta:
    """`12h`, `30d` or `8w`; ConfigurationError for anything else. Years and months, whose lengths vary, are no unit.

    >>> parse_keep("30d"), parse_keep("12h")
    (datetime.timedelta(days=30), datetime.timedelta(seconds=43200))
    """
    match = re.fullmatch(r"0*([1-9][0-9]{0,5})([hdw])", text.strip())
    if match is None:
        raise ConfigurationError(f"--keep {text!r} is no time: write hours, days or weeks such as 12h, 30d or 8w")
    return int(match[1]) * _UNITS[match[2]]


def expired(
    url: str, before: datetime, kind: Kind = "forecast", source: str | None = None, model: str | None = None
) -> Iterator[Expired]:
    """The stores of an archive that hold no slot valid at or after `before`, and removals that were cut off.

    A store's newest slot is the last that is published, or whose inputs are there; where there is none, the first (of a
    month, the last) that it has room for. The store that a source's `latest.json` names never expires; one that is
    being created is no store yet. One listing for each source and model, then five requests for each store that begins
    before `before`, and one to list what expired.
    """
    objects = open_objects(url)
    for series in _series(objects, kind, source, model):
        latest = Archive(url).latest(series.source) if kind == "forecast" else None
        named = None if latest is None or latest.model != series.model else latest.init_time
        removing = _removals(objects, series)

        def look(start: datetime, series: Series = series, removing: set[datetime] = removing) -> Expired | None:
            return _expired(objects, series, start, before, start in removing)

        starts = {start for start in store_starts(objects, series) if start < before} | removing
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from filter(None, pool.map(look, sorted(starts - {named})))


def remove(url: str, store: Expired) -> None:
    """The store is gone. Its metadata go first, so that nothing opens it any more, then what marks its slots as there.

    Cut off at any instant it leaves a note beside the store, by which `expired` finds it again.
    """
    objects = open_objects(url)
    note = f"{store.key}{_REMOVING}"
    objects.put(note, json.dumps({"newest": compact(store.newest)}).encode())
    for group in ("", f"{INPUTS_GROUP}/"):
        objects.remove(f"{store.key}/{group}{ROOT}")
    for path in (f"/{OUTPUT_MARKER}", f"/{INPUT_MARKER}", ""):
        objects.remove_below(f"{store.key}{path}")
    objects.remove(note)


def _series(objects: Objects, kind: Kind, source: str | None, model: str | None) -> list[Series]:
    """What may hold stores; ConfigurationError where nothing is called as asked for."""
    found = find_series(objects, kind, source, model)
    if not found and (source or model):
        raise ConfigurationError(
            f"{objects.url} has no {kind} stores of source {source or 'any'} and model {model or 'any'}:"
            " correct the name"
        )
    return found


def _removals(objects: Objects, series: Series) -> set[datetime]:
    """The starts of stores whose removal has begun."""
    names = (name.removesuffix(_REMOVING) for name in objects.names(series.key) if name.endswith(_REMOVING))
    return {start for start in map(series.parse_store, names) if start is not None}


def _expired(objects: Objects, series: Series, start: datetime, before: datetime, begun: bool) -> Expired | None:
    key = series.store_key(start)
    ours = begun or objects.exists(f"{key}/{LAYOUT}")
    store = open_store(objects, series, start) if ours else None
    if store is None:
        if not begun:
            return None
        newest = start
    else:
        there = marked(objects, store, OUTPUT_MARKER) | marked(objects, store, INPUT_MARKER)
        empty = store.slots[0] if series.kind == "forecast" else store.slots[-1]
        newest = max((slot.valid_time for slot in there), default=empty.valid_time)
        if newest >= before:
            return None
    sizes = objects.sizes(key)
    return Expired(key, newest, len(sizes), sum(sizes.values()), begun)
