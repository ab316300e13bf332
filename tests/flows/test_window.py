"""Window planning against a source whose contents are a set of slots."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.cycle import HOUR, Slot, floor_cycle, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.aiwp import AIWP
from corrdiff_core.sources.ecmwf import ECMWF
from corrdiff_core.sources.gefs import GEFS
from corrdiff_core.sources.gfs import GFS
from corrdiff_core.sources.source import ForecastSource
from flows.window import Window, choose_window, first_window, forced_window, holes, missing, newest_slot

AT = datetime(2025, 8, 1, 10)
NEWEST, OLDER, OLDEST = datetime(2025, 8, 1, 6), datetime(2025, 8, 1, 0), datetime(2025, 7, 31, 18)
DUE = NEWEST + timedelta(hours=4)
NOT_DUE = NEWEST + timedelta(hours=3)


class Listed(GFS):
    """GFS whose objects are a set of slots."""

    def __init__(self, *slots: Slot) -> None:
        self.slots = set(slots)

    def available(self, slot: Slot) -> bool:
        return slot in self.slots


def whole(init_time: datetime) -> list[Slot]:
    return [Slot.forecast(init_time, lead * HOUR) for lead in range(121)]


def begun(init_time: datetime) -> list[Slot]:
    return whole(init_time)[:6]


def choose(*slots: Slot, now: datetime = DUE, fallback: bool = True, at: datetime = AT) -> Window:
    return choose_window(Listed(*slots), at, 13, now, fallback)


def test_the_newest_whole_cycle_is_used() -> None:
    window = choose(*whole(NEWEST), *whole(OLDER))
    assert window.init_time == NEWEST
    assert [slot.valid_time for slot in window.slots] == hours_from(AT, 13)
    assert (window.late, window.fallback) == (None, False)


def test_a_cycle_earlier_than_the_clock_expects_is_used() -> None:
    assert choose(*whole(NEWEST), *whole(OLDER), now=NOT_DUE).init_time == NEWEST


def test_a_cycle_that_is_neither_there_nor_due_is_passed_over_silently() -> None:
    window = choose(*whole(OLDER), now=NOT_DUE)
    assert (window.init_time, window.late, window.fallback) == (OLDER, None, False)


def test_the_previous_cycle_stands_in_for_one_that_has_begun() -> None:
    window = choose(*begun(NEWEST), *whole(OLDER), now=NOT_DUE)
    assert (window.init_time, window.fallback) == (OLDER, True)
    assert window.late == "gfs 20250801T06Z has begun to arrive but is not whole up to +016h"


def test_the_previous_cycle_stands_in_for_one_that_is_overdue() -> None:
    window = choose(*whole(OLDER))
    assert (window.init_time, window.fallback, window.late) == (OLDER, True, "gfs 20250801T06Z is overdue")


def test_without_fallback_the_late_cycle_is_made_from_what_is_there() -> None:
    window = choose(*begun(NEWEST), *whole(OLDER), fallback=False)
    assert (window.init_time, window.fallback) == (NEWEST, False)
    assert window.late


def test_where_no_cycle_is_whole_the_newest_that_has_begun_is_taken() -> None:
    window = choose(*whole(OLDER)[:12], *whole(OLDEST)[:20])
    assert (window.init_time, window.fallback) == (OLDER, True)


def test_where_nothing_is_there_the_window_is_late() -> None:
    assert choose().late == "gfs 20250801T06Z is overdue"
    nothing_due = choose(now=AT - timedelta(days=9))
    assert nothing_due.init_time == NEWEST
    assert nothing_due.late == "no cycle of gfs with 20250801T10Z is there yet"


@given(
    st.sets(st.tuples(st.sampled_from([NEWEST, OLDER, OLDEST]), st.integers(0, 40))),
    st.integers(0, 23),
    st.integers(1, 13),
    st.booleans(),
    st.integers(-12, 24),
)
def test_a_window_is_always_one_cycle_and_says_when_it_is_not_the_one_it_should_be(
    there: set[tuple[datetime, int]], hour: int, hours: int, fallback: bool, now: int
) -> None:
    source = Listed(*(Slot.forecast(init_time, lead * HOUR) for init_time, lead in there))
    at = datetime(2025, 8, 1) + hour * HOUR
    window = choose_window(source, at, hours, at + now * HOUR, fallback)
    assert [slot.valid_time for slot in window.slots] == hours_from(at, hours)
    assert {slot.init_time for slot in window.slots} == {window.init_time}
    if window.fallback:
        assert fallback
        assert window.late
    if window.late is None:
        assert source.available(window.slots[0])
        assert source.available(window.slots[-1])
    newer = floor_cycle(at, 6 * HOUR)
    if window.init_time < newer and not window.fallback:
        assert at + now * HOUR < newer + source.publication_delay


def test_a_forced_cycle_takes_the_leads_it_is_given() -> None:
    window = forced_window(GFS(), NEWEST, [0 * HOUR, 3 * HOUR, 120 * HOUR])
    assert [slot.lead_hours for slot in window.slots] == [0, 3, 120]


def test_leads_and_cycles_that_the_source_has_not_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="gfs has no lead time of 121, 500 h"):
        forced_window(GFS(), NEWEST, [3 * HOUR, 121 * HOUR, 500 * HOUR])
    with pytest.raises(ConfigurationError, match="no cycle at 2025-08-01T07:00"):
        forced_window(GFS(), NEWEST + HOUR, [0 * HOUR])


def test_published_slots_are_not_missing() -> None:
    window = Window(NEWEST, tuple(whole(NEWEST)[:3]))
    assert [slot.lead_hours for slot in missing(window, {window.slots[1]})] == [0, 2]


def test_holes_begin_at_the_first_hour_made_and_end_before_the_window() -> None:
    made = [AT - 30 * HOUR, AT - 5 * HOUR, AT - 3 * HOUR, AT, AT + HOUR]
    assert holes(made, AT) == [AT - HOUR, AT - 2 * HOUR, AT - 4 * HOUR]
    assert holes([AT - 30 * HOUR, AT], AT) == []
    assert holes([], AT) == []


@given(st.sets(st.integers(-60, 20)))
def test_holes_and_what_was_made_fill_the_last_day_without_overlap(hours: set[int]) -> None:
    made = {AT + hour * HOUR for hour in hours}
    found = holes(made, AT)
    assert found == sorted(found, reverse=True)
    assert not made & set(found)
    recent = [time for time in made if AT - 24 * HOUR <= time < AT]
    span = set(hours_from(min(recent), (AT - min(recent)) // HOUR)) if recent else set()
    assert set(found) | (made & span) == span


def test_a_hole_is_filled_from_the_newest_cycle_that_has_it() -> None:
    source = Listed(*whole(OLDER), *begun(NEWEST))
    assert newest_slot(source, NEWEST + 5 * HOUR) == Slot.forecast(NEWEST, 5 * HOUR)
    assert newest_slot(source, NEWEST + 6 * HOUR) == Slot.forecast(OLDER, 12 * HOUR)
    assert newest_slot(Listed(), AT) is None


# Sources whose steps are 3 or 6 hours apart

COARSE: dict[str, tuple[ForecastSource, int]] = {
    "gefs-p19": (GEFS("p19"), 3),
    "ecmwf-ifs": (ECMWF("ifs"), 3),
    "aiwp-four-gfs": (AIWP("four-gfs"), 6),
    "ecmwf-aifs": (ECMWF("aifs"), 6),
}
COARSELY = pytest.mark.parametrize(("source", "step"), COARSE.values(), ids=COARSE)
MIDNIGHT = datetime(2026, 6, 1)


def steps_of(step: int, at: datetime) -> list[datetime]:
    return [time for time in hours_from(at, 13) if time.hour % step == 0]


class Probed:
    """Stands for a source's storage: which slots are there, and which were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: ForecastSource, there: set[Slot] | None = None) -> None:
        self.asked: list[Slot] = []
        self.there = there
        monkeypatch.setattr(source, "available", self.available)

    def available(self, slot: Slot) -> bool:
        self.asked.append(slot)
        return self.there is None or slot in self.there


@COARSELY
def test_a_window_of_thirteen_hours_holds_the_steps_in_it(
    monkeypatch: pytest.MonkeyPatch, source: ForecastSource, step: int
) -> None:
    Probed(monkeypatch, source)
    for at in (MIDNIGHT, MIDNIGHT + 1 * HOUR, MIDNIGHT + 8 * HOUR):
        window = choose_window(source, at, 13, at + 12 * HOUR, True)
        assert [slot.valid_time for slot in window.slots] == [
            time for time in hours_from(at, 13) if time.hour % step == 0
        ]
        assert (window.late, window.fallback) == (None, False)
    assert len(choose_window(source, MIDNIGHT, 13, MIDNIGHT, True).slots) == 12 // step + 1


@COARSELY
def test_the_older_cycle_stands_in_with_the_same_valid_times(
    monkeypatch: pytest.MonkeyPatch, source: ForecastSource, step: int
) -> None:
    newest = next(source.cycles(MIDNIGHT + 13 * HOUR))
    at, now = MIDNIGHT + 13 * HOUR, newest + source.publication_delay
    older = list(source.cycles(at))[1]
    Probed(monkeypatch, source, set(source.plan(older, hours_from(older, 49))))
    window = choose_window(source, at, 13, now, True)
    assert (window.init_time, window.fallback) == (older, True)
    assert [slot.valid_time for slot in window.slots] == steps_of(step, at)
    assert window.late == f"{source.name} {newest:%Y%m%dT%H}Z is overdue"


@COARSELY
def test_a_window_between_two_steps_says_so(source: ForecastSource, step: int) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{source.name} has no step in 2 h from 20260601T01Z on: .* ask for more"
    ):
        choose_window(source, MIDNIGHT + HOUR, 2, MIDNIGHT, True)


@COARSELY
def test_a_forced_cycle_takes_its_steps_in_the_hours_asked(source: ForecastSource, step: int) -> None:
    window = first_window(source, MIDNIGHT, 13)
    assert [slot.lead_hours for slot in window.slots] == list(range(0, 13, step))
    with pytest.raises(ConfigurationError, match=f"{source.name} has no lead time of 1 h"):
        forced_window(source, MIDNIGHT, [0 * HOUR, HOUR])
    last = source.plan(MIDNIGHT, hours_from(MIDNIGHT, 500))[-1].lead_hours
    assert first_window(source, MIDNIGHT, last + 1).slots[-1].lead_hours == last
    with pytest.raises(
        ConfigurationError, match=rf"{source.name} 20260601T00Z ends at \+{last}h: ask for fewer --hours"
    ):
        first_window(source, MIDNIGHT, last + 2)


def test_the_first_hours_of_an_hourly_source_are_all_steps() -> None:
    assert [slot.lead_hours for slot in first_window(GFS(), NEWEST, 13).slots] == list(range(13))
    with pytest.raises(ConfigurationError, match=r"gfs 20250801T06Z ends at \+120h: ask for fewer --hours than 122"):
        first_window(GFS(), NEWEST, 122)


@COARSELY
def test_healing_looks_for_no_hour_between_the_steps(
    monkeypatch: pytest.MonkeyPatch, source: ForecastSource, step: int
) -> None:
    probed = Probed(monkeypatch, source)
    at = MIDNIGHT + 24 * HOUR
    missed = holes([MIDNIGHT], at)
    assert len(missed) == 23
    found = [slot for slot in (newest_slot(source, valid_time) for valid_time in missed) if slot is not None]
    assert [slot.valid_time for slot in found] == [time for time in missed if time.hour % step == 0]
    assert probed.asked == found
