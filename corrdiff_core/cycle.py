"""Time arithmetic of forecasts: slots, cycles, lead times. Every datetime here is naive and means UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import total_ordering

HOUR = timedelta(hours=1)
_COMPACT = "%Y%m%dT%H"


@total_ordering
@dataclass(frozen=True)
class Slot:
    """The unit that is planned, retried, resumed, counted and published: one valid time of a forecast or a hindcast.

    `init_time` is None for a hindcast (an analysis has no lead time). Whole hours, by which objects are named;
    ValueError for others, and for a forecast that begins after it is valid. Slots sort by valid_time, then init_time.

    >>> Slot.forecast(datetime(2025, 8, 1, 0), 7 * HOUR)
    Slot(valid_time=datetime.datetime(2025, 8, 1, 7, 0), init_time=datetime.datetime(2025, 8, 1, 0, 0))
    """

    valid_time: datetime
    init_time: datetime | None = None

    def __post_init__(self) -> None:
        for time in (self.valid_time, self.init_time or self.valid_time):
            if time != floor_hour(time):
                raise ValueError(f"{time.isoformat()} is no whole hour: slots are hourly at most")
        if self.lead_time < timedelta(0):
            raise ValueError(f"forecast of {self.valid_time.isoformat()} from the later cycle {self.init_time}")

    def __lt__(self, other: "Slot") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[datetime, bool, datetime]:
        return self.valid_time, self.init_time is not None, self.init_time or self.valid_time

    @classmethod
    def forecast(cls, init_time: datetime, lead_time: timedelta) -> "Slot":
        return cls(valid_time=init_time + lead_time, init_time=init_time)

    @property
    def lead_time(self) -> timedelta:
        """valid_time - init_time; zero for a hindcast."""
        return timedelta(0) if self.init_time is None else self.valid_time - self.init_time

    @property
    def lead_hours(self) -> int:
        return whole_hours(self.lead_time)

    def __str__(self) -> str:
        if self.init_time is None:
            return f"{compact(self.valid_time)}Z"
        return f"{compact(self.init_time)}Z+{self.lead_hours:03d}h (valid {compact(self.valid_time)}Z)"


def utc_now() -> datetime:
    """The wall clock as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Clock:
    """The time that operations go by: the wall clock, or one that replays the past at its own speed.

    `nominal` is what it shows at the wall clock's `real`; `speed` nominal seconds pass in each real one.

    >>> Clock.parse("2021-06-07T12:00@2026-11-25T23:40x60").at(datetime(2026, 11, 25, 23, 42))
    datetime.datetime(2021, 6, 7, 14, 0)
    """

    nominal: datetime = datetime(1970, 1, 1)
    real: datetime = datetime(1970, 1, 1)
    speed: float = 1.0

    def at(self, real: datetime) -> datetime:
        """What it shows when the wall clock shows `real`."""
        return self.nominal + self.speed * (real - self.real)

    def now(self) -> datetime:
        return self.at(utc_now())

    @classmethod
    def parse(cls, text: str) -> "Clock":
        """`NOMINAL@REAL` or `NOMINAL@REALxSPEED`, times as `parse_time` takes them; ValueError for anything else."""
        match = re.fullmatch(r"([^@]+)@([^@x]+)(?:x(\d+(?:\.\d+)?))?", text.strip())
        if match is None or not float(match[3] or 1):
            raise ValueError(f"{text!r} is no clock: write NOMINAL@REAL or NOMINAL@REALxSPEED, times in ISO 8601 UTC")
        return cls(parse_time(match[1]), parse_time(match[2]), float(match[3] or 1))


def parse_time(text: str) -> datetime:
    """ISO 8601 (any offset; none means UTC), the compact `YYYYMMDDTHH`, or `now` (floored to the hour), as naive UTC.

    >>> parse_time("20170322T08") == parse_time("2017-03-22T08:00") == parse_time("2017-03-22T16:00+08:00")
    True
    """
    text = text.strip()
    if text == "now":
        return floor_hour(utc_now())
    try:
        time = datetime.strptime(text, _COMPACT) if re.fullmatch(r"\d{8}T\d{2}", text) else datetime.fromisoformat(text)
        return as_utc(time)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write ISO 8601 UTC such as 2025-08-01T06:00, or 'now'") from None


def as_utc(time: datetime) -> datetime:
    """Naive UTC of an aware or naive (already UTC) datetime."""
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def compact(time: datetime) -> str:
    """`YYYYMMDDTHH`, the form used in object names.

    >>> compact(datetime(2025, 8, 1, 6))
    '20250801T06'
    """
    return time.strftime(_COMPACT)


def floor_hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def floor_cycle(time: datetime, step: timedelta) -> datetime:
    """The newest cycle at or before `time`; cycles are multiples of `step` since 00 UTC (`step` divides a day)."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (time - midnight) // step * step


def hours_from(start: datetime, count: int) -> list[datetime]:
    """`count` hourly valid times from `start` on."""
    return [start + hour * HOUR for hour in range(count)]


def whole_hours(delta: timedelta) -> int:
    """A timedelta as a whole number of hours; anything else raises ValueError."""
    hours, rest = divmod(delta, HOUR)
    if rest:
        raise ValueError(f"{delta} is not a whole number of hours")
    return hours


def parse_leads(text: str) -> list[timedelta]:
    """`72`, `0-12` or `0,3,6` (hours, mixed freely), ascending and unique.

    >>> [lead // HOUR for lead in parse_leads("0-2,6")]
    [0, 1, 2, 6]
    """
    hours: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part)
        if match is None:
            raise ValueError(f"lead times {text!r} not understood at {part!r}: write hours such as 72, 0-12 or 0,3,6")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"lead times {text!r}: {part.strip()!r} runs backwards")
        hours.update(range(first, last + 1))
    return [hour * HOUR for hour in sorted(hours)]


def parse_duration(text: str) -> timedelta:
    """`6h` or `1d`: a whole number of hours or days, not 0; anything else raises ValueError.

    >>> parse_duration("6h") == 6 * HOUR, parse_duration("1d") == 24 * HOUR
    (True, True)
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*([hd])\s*", text)
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is no duration: write hours or days such as 6h or 1d")
    return int(match[1]) * (HOUR if match[2] == "h" else 24 * HOUR)
