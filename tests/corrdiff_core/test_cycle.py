"""Time arithmetic: slots, cycles, lead times, and what a user types for them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from corrdiff_core.cycle import (
    HOUR,
    Clock,
    Slot,
    as_utc,
    compact,
    floor_cycle,
    floor_hour,
    hours_from,
    parse_leads,
    parse_time,
    utc_now,
    whole_hours,
)

times = st.datetimes(datetime(1940, 1, 1), datetime(2200, 1, 1))
whole_times = times.map(floor_hour)
steps = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]).map(lambda hours: hours * HOUR)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


class TestSlot:
    @given(whole_times, st.integers(0, 384))
    def test_valid_time_is_init_time_plus_lead_time(self, init_time, hours):
        slot = Slot.forecast(init_time, hours * HOUR)
        assert slot.valid_time - slot.lead_time == slot.init_time == init_time
        assert slot.lead_hours == hours
        assert slot == Slot(valid_time=init_time + timedelta(hours=hours), init_time=init_time)

    def test_hindcast_has_no_lead_time(self):
        slot = Slot(datetime(1980, 5, 1))
        assert slot.init_time is None
        assert slot.lead_time == timedelta(0)
        assert slot.lead_hours == 0

    def test_says_itself(self):
        assert str(Slot(datetime(1980, 5, 1, 7))) == "19800501T07Z"
        slot = Slot.forecast(datetime(2025, 7, 31, 18), 13 * HOUR)
        assert str(slot) == "20250731T18Z+013h (valid 20250801T07Z)"

    @given(st.lists(whole_times, min_size=2))
    def test_sorts_by_valid_time(self, valid_times):
        assert [slot.valid_time for slot in sorted(map(Slot, valid_times))] == sorted(valid_times)

    @given(whole_times, st.integers(0, 120), st.integers(0, 120))
    def test_sorts_forecasts_of_one_cycle_by_lead_time(self, init_time, first, second):
        a, b = Slot.forecast(init_time, first * HOUR), Slot.forecast(init_time, second * HOUR)
        assert (a < b) == (first < second)

    def test_is_a_value(self):
        assert len({Slot(datetime(2025, 1, 1)), Slot(datetime(2025, 1, 1))}) == 1
        with pytest.raises(AttributeError):
            Slot(datetime(2025, 1, 1)).valid_time = datetime(2025, 1, 2)  # type: ignore[misc]


class TestParseTime:
    @given(whole_times)
    def test_reads_what_compact_writes(self, time):
        assert parse_time(compact(time)) == time

    @given(times, st.sampled_from(["T", " "]))
    def test_reads_iso_without_offset_as_utc(self, time, separator):
        assert parse_time(time.isoformat(separator)) == time

    @given(times, offsets)
    def test_turns_any_offset_into_utc(self, time, offset):
        aware = time.replace(tzinfo=UTC).astimezone(offset)
        assert parse_time(aware.isoformat()) == time
        assert parse_time(aware.isoformat()).tzinfo is None

    def test_reads_z_a_bare_date_and_surrounding_blanks(self):
        assert parse_time("2025-08-01T06:00Z") == datetime(2025, 8, 1, 6)
        assert parse_time("2025-08-01") == parse_time("20250801") == datetime(2025, 8, 1)
        assert parse_time(" 20250801T06\n") == datetime(2025, 8, 1, 6)

    def test_now_is_this_hour(self):
        before = floor_hour(utc_now())
        assert before <= parse_time("now") <= floor_hour(utc_now())
        assert parse_time("now").tzinfo is None

    @pytest.mark.parametrize("text", ["", "yesterday", "20250801T24", "2025-13-01", "2025-08-01T06:00+99:00", "72"])
    def test_refuses_in_one_line_that_shows_the_cure(self, text):
        with pytest.raises(
            ValueError, match=r"is no time: write ISO 8601 UTC such as 2025-08-01T06:00, or 'now'"
        ) as error:
            parse_time(text)
        assert repr(text) in str(error.value)
        assert "\n" not in str(error.value)

    @given(times)
    def test_as_utc_leaves_naive_times_alone(self, time):
        assert as_utc(time) is time


class TestFloors:
    @given(times, steps)
    def test_cycle_is_the_newest_at_or_before(self, time, step):
        cycle = floor_cycle(time, step)
        assert cycle <= time < cycle + step
        assert (cycle - cycle.replace(hour=0, minute=0, second=0, microsecond=0)) % step == timedelta(0)

    @given(times, steps)
    def test_a_cycle_is_its_own(self, time, step):
        cycle = floor_cycle(time, step)
        assert floor_cycle(cycle, step) == cycle
        assert floor_cycle(cycle - timedelta(microseconds=1), step) == cycle - step

    @given(times)
    def test_hour_is_the_cycle_of_one_hour(self, time):
        assert floor_hour(time) == floor_cycle(time, HOUR)

    def test_gfs_cycles(self):
        assert floor_cycle(datetime(2025, 8, 1, 5, 59), 6 * HOUR) == datetime(2025, 8, 1, 0)
        assert floor_cycle(datetime(2025, 8, 1, 6, 0), 6 * HOUR) == datetime(2025, 8, 1, 6)


class TestHours:
    @given(whole_times, st.integers(0, 300))
    def test_run_on_from_the_start(self, start, count):
        hours = hours_from(start, count)
        assert len(hours) == count
        assert all(whole_hours(hour - start) == position for position, hour in enumerate(hours))

    @given(st.integers(-10_000, 10_000), st.timedeltas(timedelta(0), HOUR))
    def test_whole_hours_or_an_error(self, hours, rest):
        assume(rest < HOUR)
        delta = hours * HOUR + rest
        if not rest:
            assert whole_hours(delta) == hours
            return
        with pytest.raises(ValueError, match="is not a whole number of hours"):
            whole_hours(delta)


class TestParseLeads:
    @given(st.lists(st.tuples(st.integers(0, 384), st.integers(0, 20)), min_size=1, max_size=8), st.booleans())
    def test_is_the_union_of_its_parts(self, spans, spaced):
        words = [f"{first}-{first + extra}" if extra else str(first) for first, extra in spans]
        expected = sorted({hour for first, extra in spans for hour in range(first, first + extra + 1)})
        assert parse_leads((" , " if spaced else ",").join(words)) == [hour * HOUR for hour in expected]

    @pytest.mark.parametrize(
        ("text", "hours"),
        [("72", [72]), ("0-3", [0, 1, 2, 3]), ("6,0,3,3", [0, 3, 6]), ("0 - 1", [0, 1]), ("4-4", [4])],
    )
    def test_forms(self, text, hours):
        assert [lead // HOUR for lead in parse_leads(text)] == hours

    @pytest.mark.parametrize("text", ["", "a", "1.5", "-3", "1,,2", "0-", "0-12-24", "3h", "0..6", "1,"])
    def test_refuses_what_it_does_not_understand(self, text):
        with pytest.raises(ValueError, match=r"not understood at .*: write hours such as 72, 0-12 or 0,3,6"):
            parse_leads(text)

    def test_refuses_a_span_that_runs_backwards(self):
        with pytest.raises(ValueError, match="lead times '0,12-6': '12-6' runs backwards"):
            parse_leads("0,12-6")


class TestClock:
    @given(times, times, st.integers(1, 3600), st.timedeltas(timedelta(days=-1), timedelta(days=1)))
    def test_shows_as_many_nominal_seconds_as_its_speed_says(self, nominal, real, speed, passed):
        clock = Clock.parse(f"{nominal.isoformat()}@{real.isoformat()}x{speed}")
        expected = nominal + speed * passed
        assert clock.at(real + passed) == expected

    def test_is_the_wall_clock_unless_it_says_otherwise(self):
        before = utc_now()
        assert before <= Clock().now() <= utc_now()
        assert Clock.parse("2021-06-07T12:00@2026-11-25T23:40").speed == 1.0

    @pytest.mark.parametrize("text", ["", "2021-06-07", "2021@2022x0", "2021-06-07T12@2026-11-25x-1", "now@x60", "a@b"])
    def test_refuses_what_is_no_clock(self, text):
        with pytest.raises(ValueError, match=r"no (clock|time)"):
            Clock.parse(text)
