"""Times of CF files against xarray for the real calendar, and against a list of days for the one without leap days."""

from datetime import datetime, timedelta

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core.errors import SourceError
from corrdiff_core.sources.calendars import decode_times

UNITS = ("seconds", "minutes", "hours", "days")
DAYS = [
    day for day in (datetime(1995, 1, 1) + timedelta(days=n) for n in range(4000)) if (day.month, day.day) != (2, 29)
]


@settings(max_examples=30)
@given(st.sampled_from(UNITS), st.integers(-50_000, 50_000), st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))
def test_real_dates_are_those_of_xarray(unit, number, reference):
    units = f"{unit} since {reference:%Y-%m-%d %H:%M:%S}"
    values = xr.Dataset({"time": ("time", [number], {"units": units, "calendar": "standard"})})
    expected = xr.decode_cf(values)["time"].values.astype("datetime64[s]").tolist()
    assert decode_times([number], units, "standard", "it") == expected
    assert decode_times(np.array([number], "f8"), units, "proleptic_gregorian", "it") == expected


@given(st.integers(0, len(DAYS) - 1), st.integers(0, len(DAYS) - 1), st.integers(0, 23))
def test_years_without_leap_days_count_all_other_days(first, last, hour):
    units = f"hours since {DAYS[first]:%Y-%m-%d} 00:00:00"
    times = decode_times([24 * (last - first) + hour], units, "noleap", "it")
    assert times == [DAYS[last] + timedelta(hours=hour)]
    assert times == decode_times([last - first + hour / 24], units.replace("hours", "days"), "365_day", "it")


@pytest.mark.parametrize(
    ("units", "calendar", "said"),
    [
        ("days since 2000-01-01", "360_day", "'360_day' has months of 30 days, such as 30 February: convert"),
        ("days since 2000-01-01", "julian", "'julian' has dates that are no real ones"),
        ("months since 2000-01-01", "standard", "'months since 2000-01-01', seconds, minutes, hours or days"),
        ("None", "standard", "'None', seconds"),
        ("days since 2000-02-29", "noleap", "29 February is no date"),
        ("days since 2001-13-01", "standard", "names no date"),
        ("hours since 0001-01-01", "gregorian", "are Julian"),
        ("days since 9999-12-31", "standard", "outside the years 1 to 9999"),
    ],
)
def test_what_is_no_date_is_refused_by_name(units, calendar, said):
    with pytest.raises(SourceError, match=f"^it: .*{said}"):
        decode_times([1], units, calendar, "it")


def test_a_time_that_is_missing_is_refused():
    with pytest.raises(SourceError, match="not all numbers"):
        decode_times([1.0, np.nan], "days since 2000-01-01", "standard", "it")
