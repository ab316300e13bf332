"""Which cycles a forecast source has, and which lead times each of them holds."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, TypeVar

from corrdiff_core.cycle import HOUR, Slot, floor_cycle, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.source import Kind

Value = TypeVar("Value")
Eras = tuple[tuple[datetime, Value], ...]  # what holds from a cycle on, oldest first
ALWAYS = datetime(1, 1, 1)


def in_force(eras: Eras[Value], init_time: datetime) -> Value:
    """What the newest era that began by `init_time` says.

    >>> in_force(((ALWAYS, "flat"), (datetime(2021, 3, 22), "atmos")), datetime(2021, 3, 21))
    'flat'
    """
    return [value for first, value in eras if first <= init_time][-1]


def every(*pieces: tuple[int, int]) -> tuple[timedelta, ...]:
    """Lead times from 0 on, each piece a step and its last lead in hours.

    >>> [lead_time // HOUR for lead_time in every((3, 6), (6, 18))]
    [0, 3, 6, 12, 18]
    """
    hours = [0]
    for step, last in pieces:
        hours += range(hours[-1] + step, last + 1, step)
    return tuple(hour * HOUR for hour in hours)


class Scheduled(ABC):
    """The cycles and slots of a forecast source, from its table of lead times."""

    name: str
    kind: Kind = "forecast"
    cycle_step: timedelta = 6 * HOUR
    longest: ClassVar[timedelta]  # lead time of any cycle

    @abstractmethod
    def lead_times(self, init_time: datetime) -> tuple[timedelta, ...]:
        """Every published step of that cycle, ascending; none where the source has no cycle then."""

    def cycles(self, at: datetime) -> Iterator[datetime]:
        """Cycles whose leads reach `at`, newest first."""
        cycle = floor_cycle(at, self.cycle_step)
        while at - cycle <= self.longest:
            lead_times = self.lead_times(cycle)
            if lead_times and at - cycle <= lead_times[-1]:
                yield cycle
            cycle -= self.cycle_step

    def plan(self, init_time: datetime, valid_times: Sequence[datetime]) -> list[Slot]:
        """The slots at those of `valid_times` that are steps of that cycle; ConfigurationError where it is none."""
        lead_times = set(self._steps(init_time))
        return [
            Slot.forecast(init_time, valid_time - init_time)
            for valid_time in valid_times
            if valid_time - init_time in lead_times
        ]

    def _steps(self, init_time: datetime) -> tuple[timedelta, ...]:
        on_the_hour = init_time == floor_cycle(init_time, HOUR)
        lead_times = self.lead_times(init_time) if on_the_hour else ()
        if not lead_times:
            day = hours_from(floor_cycle(init_time, 24 * HOUR), 24)
            hours = ", ".join(f"{hour:%H}" for hour in day if self.lead_times(hour))
            raise ConfigurationError(
                f"{self.name} has no cycle at {init_time:%Y-%m-%dT%H:%M}: name one of {hours or 'another day'} UTC"
            )
        return lead_times


def six_hourly(init_time: datetime) -> bool:
    """Whether that is 00, 06, 12 or 18 UTC."""
    return init_time == floor_cycle(init_time, 6 * HOUR)
