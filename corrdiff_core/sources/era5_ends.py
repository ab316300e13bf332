"""What an ARCO-ERA5 store says of its own ends; beyond them it hands out NaN without a word."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from corrdiff_core.cycle import HOUR
from corrdiff_core.errors import SourceError

START, STOP, STOP_ERA5T = "valid_time_start", "valid_time_stop", "valid_time_stop_era5t"


@dataclass(frozen=True)
class Ends:
    """First and last hours, both inclusive: final data from `start` to `final`, preliminary ones (ERA5T) to `last`.

    The README of ARCO-ERA5: "both start and end times are inclusive". A date as an end covers its whole day.
    """

    start: datetime
    final: datetime
    last: datetime
    said: dict[str, str]  # the attributes as read

    @classmethod
    def of(cls, attrs: Mapping[str, Any], where: str) -> "Ends":
        """From a store's attributes; SourceError where one is absent or no time."""
        start = _time(attrs, START, where)[0]
        final, era5t = _time(attrs, STOP, where)[1], _time(attrs, STOP_ERA5T, where)[1]
        if max(final, era5t) < start:
            raise SourceError(f"{where}: {STOP} {attrs[STOP]} lies before {START} {attrs[START]}: use another mirror")
        said = {name: str(attrs[name]) for name in (START, STOP, STOP_ERA5T, "last_updated") if name in attrs}
        return cls(start, final, max(final, era5t), said)

    def __str__(self) -> str:
        return ", ".join(f"{name} {text}" for name, text in self.said.items())


def end_text(last: datetime) -> str:
    """The attribute for an end at the hour `last`: a date where it is the last of its day.

    >>> end_text(datetime(2026, 5, 31, 23)), end_text(datetime(2026, 5, 31, 5))
    ('2026-05-31', '2026-05-31T05:00')
    """
    return f"{last:%Y-%m-%d}" if last.hour == 23 else f"{last:%Y-%m-%dT%H:%M}"


def _time(attrs: Mapping[str, Any], name: str, where: str) -> tuple[datetime, datetime]:
    """First and last whole hour that the attribute covers."""
    text = str(attrs.get(name, "")).strip()
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = datetime.fromisoformat(text)
            return day, day + timedelta(hours=23)
        if not re.match(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}", text):
            raise ValueError(text)
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            raise ValueError(text)
        hour = time.replace(minute=0, second=0, microsecond=0)
        return hour if hour == time else hour + HOUR, hour
    except ValueError:
        raise SourceError(
            f"{where}: attribute {name} is {attrs.get(name)!r}, a date such as 2026-05-31 is due: without it data "
            "cannot be told from the empty future; use another mirror"
        ) from None
