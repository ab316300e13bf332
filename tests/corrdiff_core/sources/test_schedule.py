"""What forecast sources plan, held against their publishers' tables written out here, for any time."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corrdiff_core.cycle import HOUR
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources import as_forecasts, open_source
from corrdiff_core.sources.schedule import every

Published = Callable[[datetime, int], bool]  # whether a cycle at that whole hour publishes that lead in hours


def gfs(init_time: datetime, lead: int) -> bool:
    return init_time.hour % 6 == 0 and lead <= 120


def gefs(init_time: datetime, lead: int) -> bool:
    fine = init_time >= datetime(2020, 9, 23, 12) and lead <= 240
    return init_time.hour % 6 == 0 and lead <= 384 and lead % (3 if fine else 6) == 0


def aiwp(init_time: datetime, lead: int) -> bool:
    return init_time.hour % (6 if init_time.year < 2024 else 12) == 0 and lead <= 240 and lead % 6 == 0


def ifs(init_time: datetime, lead: int) -> bool:
    if init_time.hour % 6 or lead % 3:
        return False
    longer = init_time >= datetime(2024, 11, 12, 6)
    if init_time.hour % 12:
        return lead <= (144 if longer else 90)
    return lead <= 144 or (lead % 6 == 0 and lead <= (360 if longer else 240))


def aifs(init_time: datetime, lead: int) -> bool:
    return init_time.hour % 6 == 0 and lead <= 360 and lead % 6 == 0


TABLES = {
    "gfs": gfs,
    "gefs-p19": gefs,
    "aiwp-four-gfs": aiwp,
    "ecmwf-ifs": ifs,
    "ecmwf-aifs": aifs,
    "ecmwf-aifsens-p50": aifs,
}
EDGES = [datetime(2020, 9, 23), datetime(2024, 1, 1), datetime(2024, 11, 12), datetime(2025, 8, 1)]
HOURS = st.one_of(
    st.integers(0, 8 * 8766).map(lambda hour: datetime(2018, 1, 1) + hour * HOUR),
    st.tuples(st.sampled_from(EDGES), st.integers(-24, 24)).map(lambda pair: pair[0] + pair[1] * HOUR),
)
SOURCES = pytest.mark.parametrize("name", TABLES)
LONGEST = 400  # h


@SOURCES
@given(HOURS)
def test_the_planned_steps_are_exactly_the_published_ones(name: str, init_time: datetime) -> None:
    source, published = as_forecasts(open_source(name)), TABLES[name]
    expected = [lead for lead in range(LONGEST) if published(init_time, lead)]
    valid_times = [init_time + lead * HOUR for lead in range(-12, LONGEST)]
    if not expected:
        with pytest.raises(ConfigurationError, match=f"{name} has no cycle at"):
            source.plan(init_time, valid_times)
        return
    slots = source.plan(init_time, valid_times)
    assert [slot.lead_hours for slot in slots] == expected
    assert {slot.init_time for slot in slots} == {init_time}


def last(published: Published, cycle: datetime) -> int:
    return next(lead for lead in reversed(range(LONGEST)) if published(cycle, lead))


@SOURCES
@given(HOURS)
def test_cycles_are_newest_first_and_all_that_reach_the_time(name: str, at: datetime) -> None:
    cycles = list(as_forecasts(open_source(name)).cycles(at))
    assert cycles == sorted(cycles, reverse=True)
    published = TABLES[name]
    possible = [at - back * HOUR for back in range(LONGEST) if published(at - back * HOUR, 0)]
    reaching = [cycle for cycle in possible if last(published, cycle) >= (at - cycle) // HOUR]
    assert cycles == reaching


@SOURCES
@given(HOURS, st.integers(0, 59), st.integers(1, LONGEST * 60))
def test_what_is_between_the_hours_is_neither_cycle_nor_step(name: str, time: datetime, minute: int, lead: int) -> None:
    source = as_forecasts(open_source(name))
    cycle = next(iter(source.cycles(time)))
    valid_time = cycle + timedelta(minutes=lead)
    planned = source.plan(cycle, [valid_time])
    assert bool(planned) == (lead % 60 == 0 and TABLES[name](cycle, lead // 60))
    if minute:
        with pytest.raises(ConfigurationError, match="has no cycle at"):
            source.plan(cycle + timedelta(minutes=minute), [valid_time])


@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 4), st.integers(0, 10))
@example(3, 48, 2, 36)
def test_leads_in_pieces(step: int, first: int, factor: int, second: int) -> None:
    last, end = step * first, step * first + step * factor * second
    hours = [lead_time // HOUR for lead_time in every((step, last), (step * factor, end))]
    assert hours == [*range(0, last + 1, step), *range(last + step * factor, end + 1, step * factor)]
