"""The ends that ARCO-ERA5 names, against what pandas selects by the same words, as its README tells users to do."""

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import SourceError
from corrdiff_core.sources.era5_ends import Ends, end_text

HOURS = st.integers(0, 24 * 400).map(lambda hour: datetime(2025, 1, 1) + timedelta(hours=hour))
# As the store was on 2026-09-10.
REAL = {
    "valid_time_start": "1940-01-01",
    "valid_time_stop": "2026-05-31",
    "valid_time_stop_era5t": "2026-09-04",
    "last_updated": "2026-09-10 02:18:01.385142+00:00",
}


def test_the_real_ones():
    ends = Ends.of(REAL, "there")
    assert (ends.start, ends.final) == (datetime(1940, 1, 1), datetime(2026, 5, 31, 23))
    assert ends.last == datetime(2026, 9, 4, 23)
    assert ends.said == REAL


@given(HOURS, HOURS, HOURS)
def test_they_select_what_pandas_selects(start, final, last):
    start, final, last = sorted((start, final, last))
    texts = f"{start:%Y-%m-%dT%H:%M}", end_text(final), end_text(last)
    ends = Ends.of(dict(zip(REAL, texts, strict=False)), "there")
    axis = pd.Series(0, pd.date_range("2024-12-31", "2026-03-01", freq="h"))
    for text, end in ((texts[1], ends.final), (texts[2], ends.last)):
        chosen = axis[texts[0] : text].index
        assert (chosen[0], chosen[-1]) == (ends.start, end)


def test_preliminary_data_that_lag_behind_the_final_ones():
    assert Ends.of(REAL | {"valid_time_stop_era5t": "2026-05-01"}, "there").last == datetime(2026, 5, 31, 23)


@pytest.mark.parametrize("name", ["valid_time_start", "valid_time_stop", "valid_time_stop_era5t"])
@pytest.mark.parametrize("value", [None, "", "soon", "2026", "2026-05", "2026-13-01", 20260531, "2026-05-31T00:00Z"])
def test_what_is_no_end_is_named(name, value):
    attrs = {key: text for key, text in (REAL | {name: value}).items() if text is not None}
    with pytest.raises(SourceError, match=f"there: attribute {name} is {value!r}, a date such as 2026-05-31 is due"):
        Ends.of(attrs, "there")


def test_an_end_before_the_start():
    with pytest.raises(SourceError, match="valid_time_stop 1939-01-01 lies before valid_time_start"):
        Ends.of(REAL | {"valid_time_stop": "1939-01-01", "valid_time_stop_era5t": "1939-01-01"}, "there")
