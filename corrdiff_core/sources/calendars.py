"""Times of CF files (CF conventions 4.4) as naive UTC: the real calendar, and years without leap days."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike

from corrdiff_core.errors import SourceError

REAL = ("standard", "gregorian", "proleptic_gregorian")
NO_LEAP = ("noleap", "365_day")
_REFORM = datetime(1582, 10, 15)  # before it `standard` dates are Julian
_SECONDS = {
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s"), 1),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), 60),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), 3600),
    **dict.fromkeys(("day", "days", "d"), 86400),
}
_UNITS = re.compile(
    r"(?P<unit>\w+) since (?P<date>\d{1,4}-\d{1,2}-\d{1,2})"
    r"(?:[ T](?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:\.0*)?)?)?\s*(?:Z|UTC|\+?00:?00)?"
)
_MONTH_ENDS = np.cumsum([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])  # days of a year without a leap day


def decode_times(values: ArrayLike, units: str, calendar: str, where: str) -> Sequence[datetime]:
    """The dates of CF time `values` (any shape, flattened), to the second; SourceError, calling them `where`.

    `noleap` dates are those of the real calendar, which they are part of. Refused: calendars whose dates are no real
    ones, units other than seconds to days since a date, values that are not finite.

    >>> decode_times([58.5, 59.5], "days since 2000-01-01", "noleap", "it")
    [datetime.datetime(2000, 2, 28, 12, 0), datetime.datetime(2000, 3, 1, 12, 0)]
    """
    numbers = np.asarray(values).ravel()
    if calendar not in (*REAL, *NO_LEAP):
        reason = "months of 30 days, such as 30 February" if calendar == "360_day" else "dates that are no real ones"
        raise SourceError(f"{where}: its calendar {calendar!r} has {reason}: convert its times to the real calendar")
    found = _UNITS.fullmatch(units.strip())
    if found is None or found["unit"].lower() not in _SECONDS:
        raise SourceError(f"{where}: its times are in {units!r}, seconds, minutes, hours or days since a date are due")
    if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise SourceError(f"{where}: its times {numbers} are not all numbers: repair them")
    begin = _reference(found, calendar, units, where)
    count = _SECONDS[found["unit"].lower()]
    try:
        return [begin(_whole_seconds(number, count)) for number in numbers.tolist()]
    except (OverflowError, ValueError) as error:
        raise SourceError(f"{where}: its times lie outside the years 1 to 9999 ({error}): repair them") from error


def _whole_seconds(number: float | int, count: int) -> int:
    return number * count if isinstance(number, int) else round(number * count)


class _Real:
    def __init__(self, reference: datetime) -> None:
        self.reference = reference

    def __call__(self, seconds: int) -> datetime:
        return self.reference + timedelta(seconds=seconds)


class _NoLeap:
    """Seconds after `reference` in years of 365 days."""

    def __init__(self, reference: datetime) -> None:
        if (reference.month, reference.day) == (2, 29):
            raise ValueError("29 February is no date without leap years")
        month = int(_MONTH_ENDS[reference.month - 2]) if reference.month > 1 else 0
        days = 365 * reference.year + month + reference.day - 1
        midnight = reference.replace(hour=0, minute=0, second=0)
        self.start = 86400 * days + int((reference - midnight).total_seconds())

    def __call__(self, seconds: int) -> datetime:
        days, rest = divmod(self.start + seconds, 86400)
        year, day = divmod(days, 365)
        month = int(np.searchsorted(_MONTH_ENDS, day, side="right"))
        first = int(_MONTH_ENDS[month - 1]) if month else 0
        return datetime(year, month + 1, day - first + 1) + timedelta(seconds=rest)


def _reference(found: re.Match[str], calendar: str, units: str, where: str) -> _Real | _NoLeap:
    year, month, day = map(int, found["date"].split("-"))
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    try:
        date = datetime(year, month, day, hour, minute, second)
        if calendar in NO_LEAP:
            return _NoLeap(date)
    except ValueError as error:
        raise SourceError(f"{where}: its times are in {units!r}, which names no date ({error}): repair it") from None
    if calendar != "proleptic_gregorian" and date < _REFORM:
        raise SourceError(
            f"{where}: its times are in {units!r} of the calendar {calendar}, in which dates before {_REFORM:%Y-%m-%d} "
            "are Julian: count them from a later date, or name the calendar proleptic_gregorian"
        )
    return _Real(date)
