"""When a slot of operations is due, and which hours ought to be there by now."""

from datetime import datetime

from corrdiff_core.cycle import HOUR, Slot, floor_hour, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.source import ForecastSource

GRACE = HOUR  # an hour that is due is missing once the next hourly run has had its turn


def due(source: ForecastSource, slot: Slot, hours: int) -> datetime:
    """When the first hourly run could make a slot: its cycle is there, and its valid time in a window of `hours` hours.

    A cycle is there `publication_delay` after its init_time, and a valid time enters the window hours - 1 before it.
    ConfigurationError for a slot of a hindcast, which is due at no time.
    """
    if slot.init_time is None:
        raise ConfigurationError(f"{slot} is of an analysis: only a forecast is due at a time")
    return max(slot.init_time + source.publication_delay, slot.valid_time - (hours - 1) * HOUR)


def expected(source: ForecastSource, since: datetime, now: datetime, hours: int) -> list[datetime]:
    """The valid times from `since` on that ought to be there at `now`, from whichever cycle, ascending.

    Up to the end of the window of `hours` hours of the run before the last; those that are steps of the source.
    """
    first, last = floor_hour(since), floor_hour(now - GRACE) + (hours - 1) * HOUR
    times = hours_from(first if first == since else first + HOUR, max(0, (last - first) // HOUR + 1))
    return [time for time in times if time <= last and _is_step(source, time)]


def _is_step(source: ForecastSource, time: datetime) -> bool:
    return any(source.plan(cycle, [time]) for cycle in source.cycles(time))
