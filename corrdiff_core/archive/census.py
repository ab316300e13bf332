"""What an archive tells of the service that fills it: which slots it made lately, when, how; and how much there is."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.archive.objects import LocalObjects, open_objects
from corrdiff_core.archive.store import find_series
from corrdiff_core.cycle import HOUR, Slot, floor_hour, utc_now
from corrdiff_core.errors import ArchiveError

REACH = 120 * HOUR  # of a forecast's leads: a slot is looked for in cycles up to so long before it is valid
_AT_ONCE = 8


@dataclass(frozen=True)
class Made:
    """A published slot: when that was, by the wall clock, and what it was published with."""

    series: Series
    slot: Slot
    published: datetime
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Lately:
    """Published slots, ascending; and the first valid time that the archive has, None where it has none.

    Where the first store lies further back than is looked, `first` is its init_time.
    """

    made: list[Made]
    first: datetime | None


class Census:
    """Looks at one archive again and again; what it has read of a slot it remembers until the hour is over.

    A look costs a listing for the source, one for each series and one for each store of the period; two requests more
    for each store, and two for each slot, that it does not know yet.
    """

    def __init__(self, url: str) -> None:
        self._forget(url)

    def _forget(self, url: str) -> None:
        self.archive, self._hour = Archive(url), floor_hour(utc_now())
        self._made: dict[tuple[Series, Slot], Made] = {}
        self._sizes: dict[Series, tuple[int, int]] | None = None

    def _refresh(self) -> None:
        """A slot may be made again, and stores grow and go: what was read holds for an hour at most."""
        if floor_hour(utc_now()) != self._hour:
            self._forget(self.archive.url)

    def lately(self, source: str, since: datetime, until: datetime) -> Lately:
        """What there is of a source's forecasts, of any model, with since <= valid_time < until.

        Where there is nothing, the last slot of the newest store that has any: a service that stands still for days is
        still seen.
        """
        self._refresh()
        stores = [(series, start) for series in self._series(source) for start in self.archive.stores(series)]
        recent = [(series, start) for series, start in stores if start >= since - REACH]
        there = self._listed(recent)
        older = [start for _, start in stores if start < since - REACH]
        first = min([*older, *(slot.valid_time for _, slot in there)], default=None)
        chosen = [which for which in there if since <= which[1].valid_time < until]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            made = filter(None, pool.map(self._look, chosen or self._last(stores)))
            return Lately(sorted(made, key=lambda one: one.slot), first)

    def sizes(self) -> dict[Series, tuple[int, int]]:
        """Objects and bytes of every series; lists every object of the archive, a thousand at a time."""
        self._refresh()
        if self._sizes is None:
            objects = open_objects(self.archive.url)
            listed = {series: objects.sizes(series.key).values() for series in find_series(objects)}
            self._sizes = {series: (len(sizes), sum(sizes)) for series, sizes in listed.items()}
        return self._sizes

    def free_bytes(self) -> int | None:
        """Left on the disk of a local archive; None on other storage, which does not say."""
        objects = open_objects(self.archive.url)
        if not isinstance(objects, LocalObjects):
            return None
        return shutil.disk_usage(next(path for path in _upwards(objects.root) if path.exists())).free

    def _listed(self, stores: list[tuple[Series, datetime]]) -> list[tuple[Series, Slot]]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            listings = pool.map(lambda store: self.archive.published(*store), stores)
            return [(series, slot) for (series, _), slots in zip(stores, listings, strict=True) for slot in slots]

    def _last(self, stores: list[tuple[Series, datetime]]) -> list[tuple[Series, Slot]]:
        for series, start in sorted(stores, key=lambda store: store[1], reverse=True):
            slots = self.archive.published(series, start)
            if slots:
                return [(series, max(slots))]
        return []

    def _series(self, source: str) -> list[Series]:
        return find_series(open_objects(self.archive.url), "forecast", source)

    def _look(self, which: tuple[Series, Slot]) -> Made | None:
        """None where the slot was retracted, or its store removed, since it was listed."""
        if which not in self._made:
            published = self.archive.published_at(*which)
            if published is None:
                return None
            try:
                self._made[which] = Made(*which, published, self.archive.provenance(*which))
            except ArchiveError:
                if self.archive.is_published(*which):
                    raise
                return None
        return self._made[which]


def _upwards(path: Path) -> list[Path]:
    """The path and the folders that it lies in."""
    return [path, *path.parents]
