"""When slots are due, against a service that is played through minute by minute."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.cycle import HOUR, Slot, floor_hour, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources import as_forecasts, open_source
from flows.due import GRACE, due, expected

INIT = datetime(2025, 8, 1, 6)
MINUTE = timedelta(minutes=1)
GFS = as_forecasts(open_source("gfs", "/nowhere"))
ECMWF = as_forecasts(open_source("ecmwf-ifs", "/nowhere"))


@given(st.integers(0, 100), st.integers(1, 48))
def test_a_slot_is_due_when_the_first_window_holds_it_and_its_cycle_is_there(lead: int, hours: int) -> None:
    slot, now = Slot.forecast(INIT, lead * HOUR), INIT
    while now < INIT + GFS.publication_delay or slot.valid_time >= now + hours * HOUR - HOUR + MINUTE:
        now += MINUTE
    assert due(GFS, slot, hours) == now


@given(st.integers(-3000, 3000), st.integers(1, 48), st.integers(1, 48))
def test_hours_are_expected_that_the_run_before_the_last_had_in_its_window(minutes: int, hours: int, back: int) -> None:
    now = INIT + minutes * MINUTE
    since = now - back * HOUR
    run = floor_hour(now) - GRACE
    window = hours_from(run, hours)
    told = expected(GFS, since, now, hours)
    assert told == [time for time in hours_from(since.replace(minute=0), 200) if since <= time <= window[-1]]


def test_between_the_steps_of_a_source_nothing_is_expected() -> None:
    told = expected(ECMWF, INIT, INIT + 12 * HOUR, 13)
    assert told == [INIT + 3 * step * HOUR for step in range(8)]


def test_an_analysis_is_due_at_no_time() -> None:
    with pytest.raises(ConfigurationError, match="only a forecast"):
        due(GFS, Slot(INIT), 13)
