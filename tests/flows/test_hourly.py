"""The hourly flow in this process, against a real Prefect server of the tests' own."""

import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import ConfigurationError, CorrdiffError
from corrdiff_core.registry import Registry
from flows.hourly import hourly
from flows.outcome import Result, SlotError
from flows.report import Event, Said
from tests.flows.flow_cases import INIT, Gfs

pytestmark = pytest.mark.usefixtures("api")

NEXT = INIT + 6 * HOUR


@pytest.fixture
def run(gfs: Gfs, archive: Archive, small_checkpoint: Path, told: list[Event]) -> Any:
    """The flow with this test's source, archive and model; three hours unless told otherwise."""

    def call(**options: Any) -> Result:
        given = {
            "source_url": str(gfs.root),
            "archive": archive.url,
            "model": str(small_checkpoint),
            "hours": 3,
        } | options
        result = hourly(**given)
        assert isinstance(result, Result)
        return result

    return call


def statuses(result: Result) -> list[tuple[int, str]]:
    return [(outcome.slot.lead_hours, outcome.status) for outcome in result.outcomes]


def text(time: datetime) -> str:
    return time.isoformat()


def leads(archive: Archive, series: Series, init_time: datetime = INIT) -> list[int]:
    return sorted(slot.lead_hours for slot in archive.published(series, init_time))


def test_a_window_is_made_once(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 2, 3, 4)
    first = run(at=text(INIT + 2 * HOUR))
    assert statuses(first) == [(2, "published"), (3, "published"), (4, "published")]
    assert first.exit_code == 0
    assert first.picture is not None
    assert Path(first.picture).read_bytes().startswith(b"\x89PNG")
    slot = Slot.forecast(INIT, 2 * HOUR)
    made = archive.provenance(series, slot)
    again = run(at=text(INIT + 2 * HOUR))
    assert {status for _, status in statuses(again)} == {"already there"}
    assert archive.provenance(series, slot) == made, "nothing is written twice"


@pytest.mark.service
def test_object_storage_serves_as_source_and_archive(run: Any, gfs: Gfs, s3_url: str, series: Series) -> None:
    gfs.put(INIT, 0, 1)
    fsspec.filesystem("s3").put(f"{gfs.root}/", f"{s3_url}/gfs", recursive=True)
    result = run(init=text(INIT), hours=2, source_url=f"{s3_url}/gfs", archive=f"{s3_url}/archive")
    assert result.exit_code == 0
    assert leads(Archive(f"{s3_url}/archive"), series) == [0, 1]
    assert result.picture == f"{s3_url}/archive/quicklook/gfs/{series.model}/20250801T06.png"
    assert fsspec.filesystem("s3").exists(result.picture)


def test_provenance_says_how_a_slot_was_made(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 0)
    run(init=text(INIT), leads="0", seed=3, members=1, steps=3, solver="heun")
    made = archive.provenance(series, Slot.forecast(INIT, 0 * HOUR))
    assert made["inputs"]["file"]["url"] == str(gfs.file(INIT, 0))
    assert made["model"]["identity"] == series.model
    assert {name: made[name] for name in ("seed", "members", "steps", "solver", "fallback", "lead_hours")} == {
        "seed": 3, "members": 1, "steps": 3, "solver": "heun", "fallback": False, "lead_hours": 0,
    }  # fmt: skip
    assert set(made["outputs"]) == {"mrr", "t2m", "u10m", "v10m"}
    assert set(made["seconds"]) == {"fetch", "load", "sample", "write"}
    assert made["versions"]["prefect"]


def test_a_model_of_the_registry_is_asked_for_by_name(
    run: Any, gfs: Gfs, archive: Archive, series: Series, registry: Registry
) -> None:
    gfs.put(INIT, 0)
    assert run(init=text(INIT), leads="0", model="small", models=registry.url).exit_code == 0
    made = archive.provenance(series, Slot.forecast(INIT, 0 * HOUR))
    assert made["model"]["digest"] == registry.production("small").manifest.digest


@pytest.mark.service
def test_slots_not_there_yet_are_left_and_the_others_made(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 0, 2)
    result = run(init=text(INIT))
    assert statuses(result) == [(0, "published"), (1, "not there yet"), (2, "published")]
    assert result.exit_code == 75
    assert archive.latest("gfs") is None, "the window is not whole"
    gfs.put(INIT, 1)
    assert run(init=text(INIT)).exit_code == 0
    latest = archive.latest("gfs")
    assert latest is not None
    assert latest.leads == (0, 1, 2)


def test_a_deployed_run_that_is_not_whole_is_called_not_yet(gfs: Gfs, archive: Archive, small_checkpoint: Path) -> None:
    gfs.put(INIT, 0)
    state = hourly(
        init=text(INIT),
        leads="0-1",
        source_url=str(gfs.root),
        archive=archive.url,
        model=str(small_checkpoint),
        return_state=True,
    )
    assert (state.is_completed(), state.name) == (True, "NotYet")
    assert "1 of 2 slots" in str(state.message)


@pytest.mark.service
def test_a_wrong_input_fails_its_slot_alone_and_before_any_sampling(
    run: Any, gfs: Gfs, archive: Archive, series: Series, told: list[Event]
) -> None:
    gfs.put(INIT, 0, 1, 2)
    file = gfs.file(INIT, 1)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1000])
    with pytest.raises(SlotError) as caught:
        run(init=text(INIT))
    assert str(caught.value).startswith("1 of 3 slots failed: 20250801T06Z+001h (valid 20250801T07Z): ")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert leads(archive, series) == [0, 2]
    assert not archive.fetched(series, Slot.forecast(INIT, HOUR))
    assert archive.latest("gfs") is None


@pytest.mark.service
def test_the_previous_cycle_stands_in_and_says_so(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 6, 7, 8)
    gfs.put(NEXT, 0)
    result = run(at=text(NEXT))
    assert result.window.fallback
    assert result.exit_code == 0
    made = archive.provenance(series, Slot.forecast(INIT, 6 * HOUR))
    assert made["fallback"] is True
    assert made["fallback_reason"] == "gfs 20250801T12Z has begun to arrive but is not whole up to +002h"


@pytest.mark.service
def test_without_fallback_what_is_there_is_made(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 6, 7, 8)
    gfs.put(NEXT, 0)
    result = run(at=text(NEXT), fallback=False)
    assert statuses(result) == [(0, "published"), (1, "not there yet"), (2, "not there yet")]
    assert leads(archive, series, NEXT) == [0]
    assert leads(archive, series) == []


@pytest.mark.service
def test_a_late_cycle_is_waited_for(
    run: Any, gfs: Gfs, archive: Archive, series: Series, monkeypatch: pytest.MonkeyPatch, told: list[Event]
) -> None:
    monkeypatch.setattr("flows.hourly.POLL_SECONDS", 0.2)
    gfs.put(INIT, 6, 7, 8)
    gfs.put(NEXT, 0)
    arriving = threading.Timer(1.0, gfs.put, (NEXT, 1, 2))
    arriving.start()
    result = run(at=text(NEXT), wait=5)
    arriving.join()
    assert not result.window.fallback
    assert leads(archive, series, NEXT) == [0, 1, 2]
    assert any(isinstance(event, Said) and event.text.endswith("waiting") for event in told)


@pytest.mark.service
def test_missed_hours_are_healed_newest_first_from_the_newest_cycle(
    run: Any, gfs: Gfs, archive: Archive, series: Series, told: list[Event]
) -> None:
    gfs.put(INIT, *range(1, 9))
    gfs.put(NEXT, 0, 1, 2, 3, 4, 5)
    run(at=text(INIT + 2 * HOUR), hours=1)
    result = run(at=text(NEXT + 2 * HOUR))
    assert leads(archive, series, NEXT) == [0, 1, 2, 3, 4]
    assert leads(archive, series) == [2, 3, 4, 5], "not before the first hour made"
    healed = [(outcome.slot.init_time, outcome.slot.lead_hours) for outcome in result.healed]
    assert healed == [(NEXT, 1), (NEXT, 0), (INIT, 5), (INIT, 4), (INIT, 3)]


@pytest.mark.service
def test_what_fails_in_healing_changes_nothing(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 2, 3, 4, 5)
    run(at=text(INIT + 2 * HOUR), hours=1)
    file = gfs.file(INIT, 4)
    file.unlink()
    file.write_bytes(b"GRIB")
    result = run(at=text(INIT + 5 * HOUR), hours=1)
    assert result.exit_code == 0
    assert [(outcome.slot.lead_hours, outcome.status) for outcome in result.healed] == [(4, "failed"), (3, "published")]


@pytest.mark.service
def test_a_forced_cycle_heals_nothing(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 2, 3, 4, 5)
    run(at=text(INIT + 2 * HOUR), hours=1)
    run(init=text(INIT), leads="5")
    assert leads(archive, series) == [2, 5]


@pytest.mark.service
def test_latest_moves_forward_only(run: Any, gfs: Gfs, archive: Archive) -> None:
    gfs.put(INIT, 0)
    gfs.put(NEXT, 0)
    run(init=text(NEXT), hours=1)
    run(init=text(INIT), hours=1)
    latest = archive.latest("gfs")
    assert latest is not None
    assert latest.init_time == NEXT


@pytest.mark.service
def test_an_interrupted_run_reuses_the_inputs_it_fetched(run: Any, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 0, 1)
    run(init=text(INIT), hours=2)
    marker = next(Path(archive.store_url(series, Slot.forecast(INIT, HOUR))).glob("generated_at/c/1"))
    marker.unlink()
    gfs.file(INIT, 1).unlink()
    assert statuses(run(init=text(INIT), hours=2)) == [(0, "already there"), (1, "published")]


@pytest.mark.service
def test_another_member_count_is_refused(run: Any, gfs: Gfs) -> None:
    gfs.put(INIT, 0, 1)
    run(init=text(INIT), hours=1)
    with pytest.raises(SlotError, match="members is 3 in the store but 2 is asked for"):
        run(init=text(INIT), leads="1", members=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leads": "0-3"}, "of which cycle"),
        ({"at": "2025-08-01T06:00", "init": "2025-08-01T06:00"}, "exclude each other"),
        ({"init": "2025-08-01T07:00"}, "no cycle at 2025-08-01T07:00"),
        ({"init": "2025-08-01T06:00", "leads": "500"}, "no lead time of 500 h"),
        ({"at": "yesterday"}, "'yesterday' is no time"),
        ({"source": "icon"}, "no source is called 'icon'"),
        ({"model": "taiwan", "models": "./nowhere"}, "no model is called 'taiwan' in .*nowhere: none is there yet"),
        ({"model": "./nowhere"}, "no checkpoint here"),
    ],
)
def test_arguments_that_make_no_sense_are_named(run: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CorrdiffError, match=message):
        run(**options)


def test_a_server_without_the_gpu_limit_is_told_how_to_make_it(
    run: Any, gfs: Gfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.limits.GPU_LIMIT", "no-such-gpu")
    gfs.put(INIT, 0)
    with pytest.raises(ConfigurationError, match="no-such-gpu: make it with `corrdiff ops bootstrap`"):
        run(init=text(INIT), hours=1)
