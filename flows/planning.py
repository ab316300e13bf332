"""What a backfill is to make: the slots of a period, without those that the archive has."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot, compact, floor_cycle, hours_from, utc_now, whole_hours
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources import as_forecasts, as_hindcast
from corrdiff_core.sources.source import ForecastSource, HindcastSource, Source

DAY = 24 * HOUR
FINAL = "final data replace preliminary data"


@dataclass(frozen=True)
class Plan:
    """The slots of a period, ascending, and which of them are to be made; `redo` says why a published one is."""

    slots: tuple[Slot, ...]
    todo: tuple[Slot, ...]
    redo: dict[Slot, str] = field(default_factory=dict)

    @property
    def there(self) -> int:
        """How many are in the archive already, and stay."""
        return len(self.slots) - len(self.todo)


def asked(
    source: Source,
    start: datetime,
    end: datetime | None,
    every: timedelta = HOUR,
    lead_times: Sequence[timedelta] | None = None,
) -> list[Slot]:
    """The slots of [start, end) that the source has or will have, ascending.

    Of a hindcast those valid every `every` from `start` on. Of forecasts the cycles of [start, end) every `every`, with
    `lead_times`; without these, with the leads until the next cycle that is made, so that every time is covered once.
    Without an `end` up to the newest that is there. ConfigurationError where there are none.
    """
    last = floor_end(end)
    if last <= start:
        raise ConfigurationError(f"{compact(start)}Z to {compact(last)}Z is no period: end later (the end is left out)")
    if source.kind == "hindcast":
        slots = _hindcast(as_hindcast(source), start, last, every, lead_times)
    else:
        slots = list(_forecasts(as_forecasts(source), start, last, every, lead_times))
    if end is None:
        return _until_newest(source, slots)
    if not slots:
        raise ConfigurationError(
            f"{source.name} has no step in {compact(start)}Z to {compact(last)}Z every {every / HOUR:g} h: choose "
            "another --start or --every"
        )
    return slots


def floor_end(end: datetime | None) -> datetime:
    return utc_now().replace(minute=0, second=0, microsecond=0) + HOUR if end is None else end


def _hindcast(
    source: HindcastSource,
    start: datetime,
    end: datetime,
    every: timedelta,
    lead_times: Sequence[timedelta] | None,
) -> list[Slot]:
    if lead_times is not None:
        raise ConfigurationError(f"{source.name} is a source of analyses and has no lead times: leave out --leads")
    return [Slot(time) for time in source.hours(start, end) if not (time - start) % every]


def _until_newest(source: Source, slots: list[Slot]) -> list[Slot]:
    """Without those at the end that are not there yet."""
    if source.kind == "hindcast":  # whatever lies before the newest is there, so few need be asked for
        return slots[: bisect_left(slots, True, key=lambda slot: not source.available(slot))]
    while slots and not source.available(slots[-1]):
        slots.pop()
    return slots


def _forecasts(
    source: ForecastSource,
    start: datetime,
    end: datetime,
    every: timedelta,
    lead_times: Sequence[timedelta] | None,
) -> Iterator[Slot]:
    if every > HOUR and every % source.cycle_step:
        raise ConfigurationError(
            f"{source.name} may have a cycle every {source.cycle_step / HOUR:g} h: --every {every / HOUR:g}h is no "
            "multiple"
        )
    cycles = list(_cycles(source, start, end + max(every, DAY)))
    cycles = [cycle for cycle in cycles if not (cycle - cycles[0]) % every]
    for cycle, following in pairwise(cycles):
        if cycle < end:
            between = hours_from(cycle, whole_hours(following - cycle))
            yield from source.plan(cycle, between if lead_times is None else [cycle + lead for lead in lead_times])


def _cycles(source: ForecastSource, start: datetime, end: datetime) -> Iterator[datetime]:
    """Those of [start, end), ascending; a source need not have all that its step allows."""
    cycle = floor_cycle(start, source.cycle_step)
    while cycle < end:
        if cycle >= start and next(source.cycles(cycle), None) == cycle:
            yield cycle
        cycle += source.cycle_step


def plan(archive: Archive, series: Series, source: Source, slots: Sequence[Slot], overwrite: str | None = None) -> Plan:
    """What is to be made of `slots`, from a listing of the stores and a few of each that is there.

    Slots that are not in the archive; those that were made of preliminary inputs where the source has final ones; and,
    where `overwrite` says why, all others too, unless they were made again for that very reason already.
    """
    redo: dict[Slot, str] = {}
    todo: list[Slot] = []
    stores = set(archive.stores(series))
    for start, here in _by_store(series, slots).items():
        published = archive.published(series, start) if start in stores else set()
        again = published.intersection(here)
        if again and overwrite is not None:
            redo |= dict.fromkeys(again - archive.remade(series, start, overwrite), overwrite)
        elif again and series.kind == "hindcast":
            preliminary = archive.preliminary(series, start) & again
            redo |= {slot: FINAL for slot in preliminary if as_hindcast(source).final(slot)}
        todo += [slot for slot in here if slot not in published or slot in redo]
    return Plan(tuple(sorted(slots)), tuple(sorted(todo)), redo)


def _by_store(series: Series, slots: Sequence[Slot]) -> dict[datetime, list[Slot]]:
    stores: dict[datetime, list[Slot]] = {}
    for slot in slots:
        stores.setdefault(series.start(slot), []).append(slot)
    return stores


def first_slot(archive: Archive, series: Series) -> datetime:
    """Where a series begins in the archive; ConfigurationError where it has no slot."""
    for start in archive.stores(series):
        published = archive.published(series, start)
        if published:
            first = min(published)
            return first.valid_time if first.init_time is None else first.init_time
    raise ConfigurationError(f"{archive.url} has no slot of {series.key} yet: say where to begin, with --start")
