"""Which slots a backfill makes: every step once, what is there never again, and again for a reason only."""

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Layout
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources import as_forecasts, open_source
from corrdiff_core.sources.gfs import GFS
from flows.planning import FINAL, asked, first_slot, plan
from tests.archive_cases import FORECAST, HINDCAST, LAYOUT, ensemble, inputs

START = datetime(2020, 1, 30)
HINDCAST_LAYOUT = Layout(LAYOUT.domain, LAYOUT.members, [], LAYOUT.input_latitude, LAYOUT.input_longitude)


@dataclass(frozen=True)
class Analyses:
    """Steps every `step` hours from `first` on; there before `end`, final before `final_end`."""

    step: int = 1
    first: datetime = datetime(1940, 1, 1)
    end: datetime = datetime(2030, 1, 1)
    final_end: datetime = datetime(2030, 1, 1)
    name: str = "era5"
    kind: str = "hindcast"

    def hours(self, start, end):
        count = max(0, (end - start) // HOUR + 1)
        times = hours_from(start.replace(minute=0), count)
        return [time for time in times if start <= time < end and not (time - self.first) % (self.step * HOUR)]

    def available(self, slot):
        return slot.valid_time < self.end

    def final(self, slot):
        return slot.valid_time < self.final_end


def publish(archive, *slots, series=HINDCAST, layout=HINDCAST_LAYOUT, preliminary=False):
    for slot in slots:
        archive.create(series, slot, layout)
        archive.write_inputs(series, slot, inputs(layout), {})
        archive.write(series, slot, ensemble(layout))
        archive.publish(series, slot, {"made": "first"}, preliminary)


@pytest.fixture(params=["local", "s3"])
def archive(request, tmp_path):
    return Archive(str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_url"))


class TestAsked:
    @given(
        st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)),
        st.integers(1, 400),
        st.integers(1, 48),
        st.sampled_from([1, 3, 6]),
    )
    def test_every_step_of_a_hindcast_once(self, start, hours, every, step):
        start = start.replace(minute=0, second=0, microsecond=0)
        end, source = start + hours * HOUR, Analyses(step)
        expected = [
            time
            for time in (start + n * HOUR for n in range(hours))
            if not (time - source.first) % (step * HOUR) and not (time - start) % (every * HOUR)
        ]
        if not expected:
            with pytest.raises(ConfigurationError, match="no step in"):
                asked(source, start, end, every * HOUR)
            return
        assert [slot.valid_time for slot in asked(source, start, end, every * HOUR)] == expected

    def test_without_an_end_up_to_the_newest_that_is_there(self):
        source = Analyses(end=START + 5 * HOUR)
        assert [slot.valid_time for slot in asked(source, START, None)] == hours_from(START, 5)
        assert asked(Analyses(end=START), START, None) == []

    @given(st.integers(0, 200), st.integers(1, 60))
    def test_forecasts_cover_every_hour_once_from_the_newest_cycle(self, first, hours):
        start = datetime(2025, 1, 1) + first * HOUR
        end = start + hours * HOUR
        cycles = [time for time in hours_from(start, hours) if time.hour % 6 == 0]
        if not cycles:
            with pytest.raises(ConfigurationError, match="no step in"):
                asked(GFS("nowhere"), start, end)
            return
        slots = asked(GFS("nowhere"), start, end)
        assert sorted({slot.init_time for slot in slots}) == cycles
        assert [slot.valid_time for slot in slots] == hours_from(cycles[0], 6 * len(cycles))

    def test_cycles_and_leads_that_are_asked_for(self):
        slots = asked(GFS("nowhere"), START, START + 24 * HOUR, 12 * HOUR, [0 * HOUR, 3 * HOUR])
        cycles = [START, START + 12 * HOUR]
        assert slots == [Slot.forecast(cycle, lead * HOUR) for cycle in cycles for lead in (0, 3)]

    def test_a_source_without_every_cycle_is_covered_all_the_same(self):
        """AIWP has cycles at 00 and 12 UTC from 2024 on, where its step allows four a day."""
        source, start = as_forecasts(open_source("aiwp-four-gfs", "nowhere")), datetime(2024, 6, 1, 3)
        slots = asked(source, start, start + 24 * HOUR)
        assert {slot.init_time for slot in slots} == {datetime(2024, 6, 1, 12), datetime(2024, 6, 2)}
        assert [slot.valid_time for slot in slots] == [datetime(2024, 6, 1, 12) + n * 6 * HOUR for n in range(4)]

    def test_the_newest_hour_is_found_by_few_questions(self):
        asked_for = []

        class Counted(Analyses):
            def available(self, slot):
                asked_for.append(slot)
                return super().available(slot)

        start = datetime(1980, 1, 1)
        slots = asked(Counted(end=datetime(1980, 3, 1, 5)), start, None)
        assert slots[-1] == Slot(datetime(1980, 3, 1, 4))
        assert len(asked_for) < 30

    def test_what_makes_no_sense_is_named(self):
        with pytest.raises(ConfigurationError, match="is no period"):
            asked(Analyses(), START, START)
        with pytest.raises(ConfigurationError, match="has no lead times"):
            asked(Analyses(), START, START + HOUR, HOUR, [HOUR])
        with pytest.raises(ConfigurationError, match="may have a cycle every 6 h: --every 8h is no multiple"):
            asked(GFS("nowhere"), START, START + HOUR, 8 * HOUR)


class TestPlan:
    def test_what_is_there_is_not_made_again(self, archive):
        slots = [Slot(time) for time in hours_from(START, 72)]
        publish(archive, slots[1], slots[60])
        found = plan(archive, HINDCAST, Analyses(), slots)
        assert found.slots == tuple(slots)
        assert found.todo == tuple(slot for slot in slots if slot not in (slots[1], slots[60]))
        assert (found.there, found.redo) == (2, {})

    def test_forecasts_too(self, archive):
        slots = asked(GFS("nowhere"), START, START + 12 * HOUR, 6 * HOUR, [0 * HOUR, 2 * HOUR])
        publish(archive, slots[1], series=FORECAST, layout=LAYOUT)
        assert plan(archive, FORECAST, GFS("nowhere"), slots).todo == (slots[0], *slots[2:])

    def test_preliminary_slots_are_made_again_once_final_data_are_there(self, archive):
        slots = [Slot(time) for time in hours_from(START, 4)]
        publish(archive, slots[0])
        publish(archive, slots[1], slots[2], preliminary=True)
        nothing_final, some_final = Analyses(final_end=START), Analyses(final_end=START + 2 * HOUR)
        assert plan(archive, HINDCAST, nothing_final, slots).todo == (slots[3],)
        found = plan(archive, HINDCAST, some_final, slots)
        assert (found.todo, found.redo) == ((slots[1], slots[3]), {slots[1]: FINAL})
        archive.retract(HINDCAST, slots[1], FINAL)
        publish(archive, slots[1])
        assert archive.preliminary(HINDCAST, START) == {slots[2]}
        assert plan(archive, HINDCAST, some_final, slots).todo == (slots[3],)

    def test_an_overwrite_goes_on_where_it_was_stopped(self, archive):
        slots = [Slot(time) for time in hours_from(START, 3)]
        publish(archive, *slots[:2])
        found = plan(archive, HINDCAST, Analyses(), slots, "the seed was wrong")
        assert found.todo == tuple(slots)
        assert found.redo == dict.fromkeys(slots[:2], "the seed was wrong")
        archive.retract(HINDCAST, slots[0], "the seed was wrong")
        publish(archive, slots[0])
        assert plan(archive, HINDCAST, Analyses(), slots, "the seed was wrong").todo == tuple(slots[1:])
        assert plan(archive, HINDCAST, Analyses(), slots, "another reason").todo == tuple(slots)

    @pytest.mark.parametrize("step", ["begun", "outputs", "record"])
    def test_a_retraction_that_was_cut_off_is_done_again(self, archive, step, monkeypatch):
        slot = Slot(START)
        publish(archive, slot)
        calls = {"begun": ("create", 1), "outputs": ("remove", 1), "record": ("create", 2)}
        name, number = calls[step]
        real, count = getattr(type(archive._objects), name), 0

        def cut_off(self, *arguments):
            nonlocal count
            count += 1
            if count == number:
                raise KeyboardInterrupt
            return real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(type(archive._objects), name, cut_off)
            with pytest.raises(KeyboardInterrupt):
                archive.retract(HINDCAST, slot, "why")
        assert plan(archive, HINDCAST, Analyses(), [slot], "why").todo == (slot,)
        kept = archive._objects.names(f"{HINDCAST.store_key(START.replace(day=1))}/replaced")
        assert (archive.published(HINDCAST, START) == set()) <= bool(kept), "what it was made of is never lost"
        publish(archive, slot)
        archive.retract(HINDCAST, slot, "why")
        publish(archive, slot)
        assert plan(archive, HINDCAST, Analyses(), [slot], "why").todo == ()

    def test_eleven_years_of_hours_are_planned_in_seconds(self, tmp_path):
        archive = Archive(str(tmp_path))
        publish(archive, Slot(START))
        started = time.process_time()
        slots = asked(Analyses(), datetime(2015, 1, 1), datetime(2015, 1, 1) + 100_000 * HOUR)
        assert len(plan(archive, HINDCAST, Analyses(), slots).todo) == 100_000 - 1
        assert time.process_time() - started < 5

    def test_only_months_that_are_there_are_listed(self, s3_url, monkeypatch):
        archive = Archive(s3_url)
        publish(archive, Slot(START), Slot(datetime(2019, 5, 3)))
        slots = asked(Analyses(), datetime(2019, 1, 1), datetime(2021, 1, 1))
        requests = []
        filesystem = type(archive._objects._filesystem)
        real = filesystem._call_s3

        async def counted(self, method, *arguments, **options):
            requests.append(method)
            return await real(self, method, *arguments, **options)

        monkeypatch.setattr(filesystem, "_call_s3", counted)
        listings = []
        names = type(archive._objects).names
        monkeypatch.setattr(type(archive._objects), "names", lambda self, key: listings.append(key) or names(self, key))
        assert len(plan(archive, HINDCAST, Analyses(), slots).todo) == len(slots) - 2
        assert len(listings) == 1 + 2 * 2, "the stores; of two months the published slots and the preliminary ones"
        assert len(requests) <= 2 * len(listings)


def test_the_first_slot_of_a_series(archive):
    with pytest.raises(ConfigurationError, match="has no slot of hindcast/era5/demo-1a2b3c4d yet"):
        first_slot(archive, HINDCAST)
    publish(archive, Slot(START + 50 * HOUR), Slot(START + 3 * HOUR))
    assert first_slot(archive, HINDCAST) == START + 3 * HOUR


def test_what_was_replaced_is_kept(tmp_path):
    archive, slot = Archive(str(tmp_path)), Slot(START)
    publish(archive, slot)
    archive.retract(HINDCAST, slot, "the seed was wrong")
    assert archive.published(HINDCAST, START) == set()
    (kept,) = (Path(archive.store_url(HINDCAST, slot)) / "replaced").iterdir()
    assert '"reason": "the seed was wrong"' in kept.read_text()
    assert '"made": "first"' in kept.read_text()
    assert kept.name.startswith("20200130T00.")
    assert kept.name.endswith(".json")
    publish(archive, slot)
    assert kept.exists()
