"""Which slots an hourly run makes: its window, the cycle it comes from, and the older hours that nobody made."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from corrdiff_core.cycle import HOUR, Slot, compact, hours_from, whole_hours
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.source import ForecastSource

HEALED = timedelta(hours=24)  # how far back an hourly run looks for hours that were missed


@dataclass(frozen=True)
class Window:
    """The slots of one cycle that a run is to make, ascending.

    `late` says which newer cycle ought to serve and does not yet, in words; `fallback` that this one stands in for it.
    A window that is late and no fallback is made from what is there.
    """

    init_time: datetime
    slots: tuple[Slot, ...]
    late: str | None = None
    fallback: bool = False

    @property
    def cycle(self) -> str:
        """The init_time as it is written in names and messages."""
        return f"{compact(self.init_time)}Z"


def forced_window(source: ForecastSource, init_time: datetime, lead_times: Sequence[timedelta]) -> Window:
    """Those leads of that cycle. ConfigurationError for a lead that is no step of the source."""
    slots = source.plan(init_time, [init_time + lead_time for lead_time in lead_times])
    strays = sorted(set(lead_times) - {slot.lead_time for slot in slots})
    if strays:
        leads = ", ".join(str(whole_hours(lead_time)) for lead_time in strays)
        raise ConfigurationError(f"{source.name} has no lead time of {leads} h: leave it out of --leads or --hours")
    return Window(init_time, tuple(slots))


def first_window(source: ForecastSource, init_time: datetime, hours: int) -> Window:
    """The steps of that cycle in its first `hours` hours. ConfigurationError where it ends before."""
    last = init_time + (hours - 1) * HOUR
    slots = source.plan(init_time, hours_from(init_time, hours))
    if init_time not in source.cycles(last):
        end = f"+{slots[-1].lead_hours:03d}h"
        raise ConfigurationError(
            f"{source.name} {compact(init_time)}Z ends at {end}: ask for fewer --hours than {hours}"
        )
    return Window(init_time, tuple(slots))


def choose_window(source: ForecastSource, at: datetime, hours: int, now: datetime, fallback: bool) -> Window:
    """The window of the source's steps in `hours` hours from `at` on, from the newest cycle that holds all of it.

    A cycle is whole when the first and the last slot of the window are there. One that has begun to arrive, or is
    overdue at `now`, is late: with `fallback` the newest whole cycle before it stands in for the whole window, without
    it the late one is returned. One that is neither there nor due is passed over. Where no cycle is whole, the newest
    that has begun is returned. ConfigurationError where no cycle reaches `at`, or none has a step in those hours.
    """
    newest: Window | None = None
    late: Window | None = None
    begun: Window | None = None
    for window in _candidates(source, at, hours):
        newest = newest or window
        there = [source.available(slot) for slot in (window.slots[0], window.slots[-1])]
        if all(there):
            return _in_place_of(late, window)
        if late is None and (any(there) or now >= window.init_time + source.publication_delay):
            late = replace(window, late=_why(source, window, begun=any(there)))
            if not fallback:
                return late
        if any(there):
            begun = begun or window
    if begun is not None:
        return _in_place_of(late, begun)
    if newest is None:
        raise ConfigurationError(_why_none(source, at, hours))
    return late or replace(newest, late=f"no cycle of {source.name} with {compact(at)}Z is there yet")


def _candidates(source: ForecastSource, at: datetime, hours: int) -> Iterator[Window]:
    """The window in each cycle that holds as much of it as the newest, newest first."""
    size = 0
    for init_time in source.cycles(at):
        slots = tuple(source.plan(init_time, hours_from(at, hours)))
        if not slots or len(slots) < size:
            return
        size = len(slots)
        yield Window(init_time, slots)


def _why(source: ForecastSource, window: Window, begun: bool) -> str:
    last = window.slots[-1].lead_hours
    return f"{source.name} {window.cycle} " + (
        f"has begun to arrive but is not whole up to +{last:03d}h" if begun else "is overdue"
    )


def _why_none(source: ForecastSource, at: datetime, hours: int) -> str:
    if next(source.cycles(at), None) is None:
        return f"{source.name} has no cycle that reaches {compact(at)}Z: choose another --at"
    return f"{source.name} has no step in {hours} h from {compact(at)}Z on: its steps are farther apart, ask for more"


def _in_place_of(late: Window | None, window: Window) -> Window:
    if late is None or late.init_time == window.init_time:
        return late or window
    return replace(window, late=late.late, fallback=True)


def missing(window: Window, published: Collection[Slot]) -> list[Slot]:
    """The window's slots that are not published, ascending."""
    return [slot for slot in window.slots if slot not in published]


def holes(published: Collection[datetime], at: datetime) -> list[datetime]:
    """Valid times of the last day before `at` that nobody made, newest first; none before the first that was made.

    Every hour, whatever the source's steps: `newest_slot` has none between them, and does not look for any.
    """
    recent = {valid_time for valid_time in published if at - HEALED <= valid_time < at}
    if not recent:
        return []
    first = min(recent)
    return [hour for hour in reversed(hours_from(first, (at - first) // HOUR)) if hour not in recent]


def newest_slot(source: ForecastSource, valid_time: datetime) -> Slot | None:
    """The slot at `valid_time` of the newest cycle that has it; None where none has, or where it is no step of any."""
    for init_time in source.cycles(valid_time):
        for slot in source.plan(init_time, [valid_time]):
            if source.available(slot):
                return slot
    return None
