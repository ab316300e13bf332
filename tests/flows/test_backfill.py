"""The backfill flow on ERA5 of the nature run, from a real S3 server, against a real Prefect server."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster
from prefect.concurrency.sync import concurrency

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.errors import ConfigurationError, CorrdiffError
from corrdiff_core.manifest import read_manifest
from corrdiff_core.nature_era5 import write_arco
from flows.api import GPU_LIMIT, OPERATIONS_LIMIT
from flows.backfill import backfill
from flows.outcome import Backfilled, Outcome, SlotError
from flows.report import Event, Said
from flows.slots import _source
from tests.corrdiff_core.test_archive_races import digests
from tests.small_domain import SMALL

pytestmark = [pytest.mark.usefixtures("api"), pytest.mark.service]

START = datetime(2021, 1, 31, 21)  # across the end of a month, and so of a store
BOX = SMALL.input_box
AREA = (np.arange(BOX.south - 0.5, BOX.north + 0.6, 0.25), np.arange(BOX.west - 0.5, BOX.east + 0.6, 0.25))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.backfill.PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("flows.limits.LOOK_SECONDS", 0.1)


@pytest.fixture
def era5(tmp_path: Path) -> str:
    """Six hours, and an axis that goes on without data."""
    root = str(tmp_path / "era5")
    write_arco(root, START, START + 6 * HOUR, area=AREA)
    return root


@pytest.fixture
def series(small_checkpoint: Path) -> Series:
    return Series("hindcast", "era5", read_manifest(str(small_checkpoint)).identity)


@pytest.fixture
def run(era5: str, archive: Archive, small_checkpoint: Path, tmp_path: Path, told: list[Event]) -> Any:
    def call(hours: int | None = 6, **options: Any) -> Backfilled:
        given = {
            "source": "era5",
            "source_url": era5,
            "start": START.isoformat(),
            "end": None if hours is None else (START + hours * HOUR).isoformat(),
            "archive": archive.url,
            "cache": str(tmp_path / "cache"),
            "model": str(small_checkpoint),
        } | options
        result = backfill(**given)
        assert isinstance(result, Backfilled)
        return result

    return call


def published(archive: Archive, series: Series) -> list[datetime]:
    starts = archive.stores(series)
    return sorted(slot.valid_time for start in starts for slot in archive.published(series, start))


def chunks(store: str, variable: str) -> list[Path]:
    """One for each hour."""
    return sorted((Path(store) / variable).glob("*.0.0"), key=lambda path: int(path.name.partition(".")[0]))


def said(told: list[Event]) -> str:
    return "\n".join(event.text for event in told if isinstance(event, Said))


def test_a_period_is_made_once(run: Any, archive: Archive, series: Series) -> None:
    first = run()
    assert (first.exit_code, first.asked, first.there) == (0, 6, 0)
    assert published(archive, series) == hours_from(START, 6)
    made = archive.provenance(series, Slot(START))
    assert made["inputs"]["stream"] == "final"
    assert made["stored_bytes"] > 0
    again = run()
    assert (again.exit_code, again.there, again.outcomes) == (0, 6, ())
    assert archive.provenance(series, Slot(START)) == made
    opened = xr.open_zarr(archive.store_url(series, Slot(START)), decode_coords="all")
    assert list(opened.generated_at.notnull().values.nonzero()[0]) == [741, 742, 743]


def test_beyond_the_end_of_the_store_nothing_is_made_and_the_end_is_named(
    run: Any, archive: Archive, series: Series
) -> None:
    result = run(hours=9)
    assert result.exit_code == 75
    assert published(archive, series) == hours_from(START, 6)
    assert "3 are not there yet, from 20210201T03Z on" in result.summary
    assert "2021-02-01T02:00" in result.summary, "where the data end"
    for start in archive.stores(series):
        store = xr.open_zarr(archive.store_url(series, Slot(start)))
        there = store.generated_at.notnull().values
        assert np.isfinite(store.t2m.isel(time=there)).all()


def test_without_an_end_it_goes_up_to_the_newest_hour_and_grows_with_the_store(
    run: Any, era5: str, archive: Archive, series: Series, told: list[Event]
) -> None:
    with pytest.raises(ConfigurationError, match=r"has no slot of .* yet: say where to begin"):
        run(hours=None, start=None)
    assert run(hours=None, every="2h").exit_code == 0
    assert published(archive, series) == hours_from(START, 6)[::2]
    write_arco(era5, START + 6 * HOUR, START + 8 * HOUR, area=AREA)
    result = run(hours=None, start=None)
    assert (result.exit_code, result.asked, result.there) == (0, 8, 3)
    assert published(archive, series) == hours_from(START, 8)


def test_preliminary_slots_are_redone_once_final_data_are_there(
    run: Any, tmp_path: Path, archive: Archive, series: Series
) -> None:
    root = str(tmp_path / "grows")
    write_arco(root, START, START + 3 * HOUR, area=AREA, era5t_from=START + HOUR)
    run(hours=3, source_url=root)
    assert archive.preliminary(series, START) == {Slot(START + HOUR), Slot(START + 2 * HOUR)}
    before = archive.provenance(series, Slot(START + HOUR))
    assert before["inputs"]["stream"] == "ERA5T"
    assert run(hours=3, source_url=root).outcomes == ()
    write_arco(root, START + 3 * HOUR, START + 4 * HOUR, area=AREA)  # what came before is final now
    _source.cache_clear()  # a process looks at the ends every five minutes
    result = run(hours=3, source_url=root)
    assert sorted(outcome.slot.valid_time for outcome in result.outcomes) == hours_from(START + HOUR, 2)
    assert archive.preliminary(series, START) == set()
    assert archive.provenance(series, Slot(START + HOUR))["inputs"]["stream"] == "final"
    assert run(hours=3, source_url=root).outcomes == ()


def test_an_overwrite_needs_a_reason_and_keeps_what_was_there(run: Any, archive: Archive, series: Series) -> None:
    run(hours=2)
    with pytest.raises(ConfigurationError, match="an empty reason"):
        run(hours=2, overwrite=" ")
    result = run(hours=2, seed=5, overwrite="the seed was wrong")
    assert len(result.outcomes) == 2
    assert archive.provenance(series, Slot(START))["seed"] == 5
    kept = sorted((Path(archive.store_url(series, Slot(START))) / "replaced").iterdir())
    assert len(kept) == 2
    assert '"seed": 0' in kept[0].read_text()
    assert run(hours=2, seed=5, overwrite="the seed was wrong").outcomes == (), "the same reason is done with"


def test_a_slot_that_fails_is_named_and_stops_nothing(
    run: Any, era5: str, archive: Archive, series: Series, told: list[Event]
) -> None:
    chunks(era5, "2m_temperature")[2].unlink()
    with pytest.raises(SlotError) as caught:
        run(tries=2)
    assert "1 failed: 20210131T23Z: " in str(caught.value)
    assert "2m_temperature" in str(caught.value)
    assert published(archive, series) == [time for time in hours_from(START, 6) if time != START + 2 * HOUR]
    failures = [event for event in told if isinstance(event, Outcome) and event.status == "failed"]
    assert len(failures) == 2
    assert "1 slots failed and are tried again" in said(told)


def test_what_fails_again_and_again_is_left(run: Any, era5: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.background.PATIENCE", 2)
    for chunk in chunks(era5, "2m_temperature"):
        chunk.unlink()
    with pytest.raises(SlotError, match="not tried, 2 before it failed"):
        run(tries=1, ahead=1)


def test_a_dry_run_says_what_it_would_take_and_does_nothing(
    run: Any, archive: Archive, series: Series, told: list[Event]
) -> None:
    run(hours=48, dry_run=True)
    assert "48 slots, 0 are there, 48 to make" in said(told)
    assert "to read   unknown" in said(told)
    assert not Path(archive.url).exists()
    run(hours=2)
    made = archive.provenance(series, Slot(START))
    told.clear()
    run(hours=48, dry_run=True)
    text = said(told)
    assert "48 slots, 2 are there, 46 to make" in text
    assert "measured on 2 of the newest slots" in text
    for line, value in (("to store", made["stored_bytes"]), ("to read", made["inputs"]["bytes"])):
        total = next(part for part in text.splitlines() if line in part).split()[2]
        assert float(total) == pytest.approx(46 * value / 1000 ** (1 if value * 46 < 999_500 else 2), rel=0.2)
    assert published(archive, series) == hours_from(START, 2)


@pytest.mark.parametrize("look", [0.1, 1.0])  # s; less and more than a slot takes
def test_it_gives_way_to_operations(
    run: Any, archive: Archive, series: Series, look: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an hourly run wants the GPU nothing is sampled, and the GPU is free for it."""
    monkeypatch.setattr("flows.limits.LOOK_SECONDS", look)
    done = threading.Event()

    def work() -> None:
        try:
            run(steps=20)
        finally:
            done.set()

    backfilling = threading.Thread(target=work)
    with concurrency(OPERATIONS_LIMIT, strict=True):
        backfilling.start()
        time.sleep(3)
        with concurrency(GPU_LIMIT, strict=True, timeout_seconds=20):
            assert published(archive, series) == []
    while not published(archive, series):
        assert not done.is_set()
        time.sleep(0.05)
    with concurrency(OPERATIONS_LIMIT, strict=True), concurrency(GPU_LIMIT, strict=True, timeout_seconds=60):
        count = len(published(archive, series))
        time.sleep(2)
        assert len(published(archive, series)) == count < 6
    backfilling.join(120)
    assert published(archive, series) == hours_from(START, 6)


def test_a_slot_that_another_run_has_made_meanwhile_is_left_alone(
    run: Any, archive: Archive, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a long wait for the GPU: the plan is old by then."""
    import flows.backfill

    make_all = flows.backfill.make_all

    def after_another(*arguments: Any) -> Any:
        monkeypatch.setattr("flows.backfill.make_all", make_all)
        run(hours=3)
        return make_all(*arguments)

    monkeypatch.setattr("flows.backfill.make_all", after_another)
    result = run(hours=4)
    statuses = {outcome.slot.valid_time: outcome.status for outcome in result.outcomes}
    assert list(statuses.values()) == ["already there"] * 3 + ["published"]
    assert result.summary.startswith("4 of 4 slots")
    assert published(archive, series) == hours_from(START, 4)


def test_a_slot_stays_published_until_its_replacement_is_there(
    run: Any, archive: Archive, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(hours=1)
    with monkeypatch.context() as patch:
        patch.setattr("flows.slots.check_ensemble", lambda *arguments: (_ for _ in ()).throw(CorrdiffError("bad")))
        with pytest.raises(SlotError, match="bad"):
            run(hours=1, seed=5, overwrite="another seed", tries=1)
    assert archive.provenance(series, Slot(START))["seed"] == 0
    assert published(archive, series) == [START]
    assert len(run(hours=1, seed=5, overwrite="another seed").outcomes) == 1
    assert archive.provenance(series, Slot(START))["seed"] == 5


def test_final_data_that_are_announced_and_not_there_change_nothing(
    run: Any, tmp_path: Path, archive: Archive, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "late")
    write_arco(root, START, START + 1 * HOUR, area=AREA, era5t_from=START)
    run(hours=1, source_url=root)
    before = archive.provenance(series, Slot(START))
    monkeypatch.setattr("corrdiff_core.sources.era5.ERA5.final", lambda self, slot: True)
    result = run(hours=1, source_url=root)
    assert [(o.status, o.detail) for o in result.outcomes] == [
        ("already there", "not made again: its final data are not there yet")
    ]
    assert result.exit_code == 0
    assert archive.provenance(series, Slot(START)) == before
    assert archive.preliminary(series, START) == {Slot(START)}


def test_a_cluster_by_address_fetches(run: Any, archive: Archive, series: Series, tmp_path: Path) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert run(hours=3, dask=cluster.scheduler_address, archive=str(tmp_path / "cluster")).exit_code == 0
    run(hours=3)
    assert digests(str(tmp_path / "cluster")) == digests(archive.url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end": START.isoformat()}, "is no period"),
        ({"every": "1w"}, "'1w' is no duration"),
        ({"leads": "0-3"}, "has no lead times"),
        ({"start": "yesterday"}, "'yesterday' is no time"),
        ({"source": "icon"}, "no source is called 'icon'"),
    ],
)
def test_arguments_that_make_no_sense_are_named(run: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CorrdiffError, match=message):
        run(**options)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hours", [4, pytest.param(48, marks=pytest.mark.slow)])
def test_killed_twice_under_faults_it_ends_in_the_bytes_of_an_undisturbed_run(
    hours: int,
    run: Any,
    archive: Archive,
    series: Series,
    tmp_path: Path,
    s3_url: str,
    request: pytest.FixtureRequest,
    environment: dict[str, str],
) -> None:
    """From S3 into S3 as a process that is killed without warning; what was published is not made again."""
    root = f"{s3_url}/era5"
    write_arco(root, START, START + hours * HOUR, area=AREA)
    run(hours=hours, source_url=root)
    faulty = request.getfixturevalue("faulty")
    faulty.faults.rate = 0.1
    faulty.faults.kinds = tuple(kind for kind in faulty.faults.kinds if kind != "stale")
    disturbed = Archive(f"{s3_url}/archive")
    settings = environment | {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_", "OMP_"))
    }
    settings |= {"CORRDIFF_ERA5_URL": root, "CORRDIFF_ARCHIVE": disturbed.url}
    command = [
        sys.executable, "-m", "flows.cli", "backfill", "--source", "era5", "--start", START.isoformat(),
        "--end", (START + hours * HOUR).isoformat(),
    ]  # fmt: skip
    before: dict[datetime, Any] = {}
    for kill_after in (1, hours // 2, None):
        process = subprocess.Popen(
            command, env=settings, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while kill_after is not None and len(published(disturbed, series)) < kill_after:
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.2)
        if kill_after is not None:
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=1200)
        assert kill_after is not None or process.returncode == 0, output
        now = {time: disturbed.provenance(series, Slot(time)) for time in published(disturbed, series)}
        assert {time: now[time] for time in before} == before, "nothing is made twice"
        before = now
    faulty.faults.rate = 0.0
    assert faulty.faults.happened.total() >= 10
    assert published(disturbed, series) == hours_from(START, hours)
    assert digests(disturbed.url) == digests(archive.url)
