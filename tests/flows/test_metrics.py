"""`corrdiff ops metrics` on archives that real runs filled, read by Prometheus' own parser."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from prefect.client.orchestration import get_client
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.census import Made
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot, floor_hour, utc_now
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.manifest import read_manifest
from flows.gauges import GAUGES, Gauges
from flows.metrics import Watch, serve_metrics, tell_series, write_metrics
from flows.server_metrics import server_gauges
from flows.settings import Settings
from flows.slots import fetch_slot, generate_slot, open_run
from tests.archive_cases import run
from tests.conftest import reach_s3
from tests.flows.flow_cases import INIT, Corrdiff, Gfs
from tests.flows.prefect_server import Server, called_on
from tests.flows.test_janitor import Runs

UNITS = ("_seconds", "_bytes", "_per_second")
COUNTS = "up|info|slots(_\\w+)?|valid_times_\\w+|flow_runs|workers_online|objects"


class Read:
    """What a scrape says."""

    def __init__(self, told: str | Iterable[Metric]) -> None:
        self.families = list(text_string_to_metric_families(told) if isinstance(told, str) else told)
        self.samples: list[Sample] = [sample for family in self.families for sample in family.samples]

    def __getitem__(self, name: str) -> float:
        (sample,) = (sample for sample in self.samples if sample.name == name)
        return sample.value

    def __contains__(self, name: str) -> bool:
        return any(sample.name == name for sample in self.samples)

    def of(self, name: str, /, **labels: str) -> float:
        """The one sample with these labels, whatever else it has."""
        found = [one for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0].value


def clock(nominal: datetime) -> str:
    return f"{nominal.isoformat()}@{utc_now().isoformat(timespec='seconds')}"


async def heartbeat(worker: str) -> None:
    async with get_client() as client:
        await client.send_worker_heartbeat("corrdiff", worker, heartbeat_interval_seconds=30)


@pytest.mark.service
def test_an_hour_of_a_stand_in_cycle_is_told_as_it_was(
    gfs: Gfs, corrdiff: Corrdiff, archive: Archive, series: Series, small_checkpoint: Path, tmp_path: Path
) -> None:
    gfs.put(INIT, 6, 7, 8)
    made = open_run(Settings.of(archive=archive.url, model=str(small_checkpoint), source_url=str(gfs.root)))
    slots = [Slot.forecast(INIT, lead * HOUR) for lead in (6, 7, 8)]
    for slot in slots:
        fetch_slot(made, slot)
        generate_slot(made, slot, fallback="gfs 20250801T12Z is overdue")
    archive.update_latest(series, slots)
    at = INIT + 6 * HOUR
    told = tmp_path / "corrdiff.prom"
    now = at + timedelta(hours=1, minutes=30)
    done = corrdiff("ops", "metrics", "--textfile", str(told), "--sizes", CORRDIFF_CLOCK=clock(now), CORRDIFF_HOURS="3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.glob("corrdiff.prom*")] == ["corrdiff.prom"]
    read = Read(told.read_text())
    provenance = [archive.provenance(series, slot) for slot in slots]
    assert (read["corrdiff_archive_up"], read["corrdiff_model_up"]) == (1, 1)
    assert read.of("corrdiff_slots_published", source="gfs", model=series.model) == 3
    assert read["corrdiff_slots_fallback"] == 3
    # At 13:30 the hours from the first slot, 12, to that of the window of the run at 12, 14, have been due for an hour.
    assert (read["corrdiff_valid_times_due"], read["corrdiff_valid_times_missing"]) == (3, 0)
    # The cycle of 06 was there at 09:45; so the slot of 12 was due at 10, that of 14 at 12. The run was just now.
    assert read["corrdiff_worst_slot_lateness_seconds"] == pytest.approx(3.5 * 3600, abs=120)
    assert read["corrdiff_newest_slot_lateness_seconds"] == pytest.approx(1.5 * 3600, abs=120)
    assert 0 <= read["corrdiff_newest_slot_age_seconds"] < 120
    assert read["corrdiff_newest_valid_ahead_seconds"] == pytest.approx(1800, abs=60)
    assert read["corrdiff_latest_init_age_seconds"] == pytest.approx((now - INIT).total_seconds(), abs=60)
    assert 0 <= read["corrdiff_latest_age_seconds"] < 120
    for stage in ("fetch", "load", "sample", "write"):
        mean = sum(one["seconds"][stage] for one in provenance) / 3
        assert read.of("corrdiff_stage_seconds", stage=stage) == pytest.approx(mean)
    spent = sum(one["seconds"]["sample"] for one in provenance)
    assert read["corrdiff_sampled_members_per_second"] == pytest.approx(9 / spent)
    files = [path for path in (tmp_path / "archive" / "forecast" / "gfs" / series.model).rglob("*") if path.is_file()]
    assert read["corrdiff_series_objects"] == len(files)
    assert read["corrdiff_series_stored_bytes"] == sum(path.stat().st_size for path in files)
    identity = read_manifest(str(small_checkpoint)).identity
    assert read.of("corrdiff_model_info", name="small", identity=identity, ref=str(small_checkpoint)) == 1
    assert "corrdiff_server_up" not in read
    (tmp_path / "archive" / series.store_key(INIT) / "generated_at" / "c" / "7").unlink()
    look = made.settings.model_copy(update={"clock": clock(now), "hours": 3})
    write_metrics(Watch(look, 24 * HOUR), str(told))
    read = Read(told.read_text())
    assert (read["corrdiff_valid_times_due"], read["corrdiff_valid_times_missing"]) == (3, 1)
    assert read["corrdiff_slots_published"] == 2
    assert "corrdiff_series_objects" not in read


def test_what_a_promoted_model_makes_again_is_not_late() -> None:
    """Two models, one window: the first makes it in time, the second three hours later, with one lead more."""
    due = floor_hour(utc_now()) - 6 * HOUR
    slots = [Slot.forecast(due, lead * HOUR) for lead in range(3)]
    earlier, promoted = (Series("forecast", "gfs", model) for model in ("small-11111111", "small-22222222"))
    made = [Made(earlier, slot, due + timedelta(minutes=5), {}) for slot in slots[:2]]
    made += [Made(promoted, slot, due + timedelta(hours=3), {}) for slot in slots]
    gauges = Gauges()
    tell_series(gauges, made, Settings.of(), utc_now(), due - HOUR, lambda slot: due)
    read = Read(gauges.families())
    assert read.of("corrdiff_worst_slot_lateness_seconds", model=earlier.model) == 300
    assert read.of("corrdiff_worst_slot_lateness_seconds", model=promoted.model) == 3 * 3600  # the one that was missing
    assert read.of("corrdiff_slots_published", model=promoted.model) == 3


def test_an_archive_or_a_model_that_is_away_is_a_zero_and_says_why(
    tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reach_s3("http://127.0.0.1:9", monkeypatch)
    settings = Settings.of(archive=s3_url, model=str(tmp_path / "none"))
    write_metrics(Watch(settings, 24 * HOUR), str(tmp_path / "away.prom"))
    read = Read((tmp_path / "away.prom").read_text())
    assert {family.name for family in read.families} == {
        "corrdiff_census_timestamp_seconds",
        "corrdiff_archive_up",
        "corrdiff_model_up",
    }
    assert (read["corrdiff_archive_up"], read["corrdiff_model_up"]) == (0, 0)
    model, archive = capsys.readouterr().err.splitlines()
    assert re.match(r"corrdiff_model_up 0: .*none", model)
    assert re.match(rf"corrdiff_archive_up 0: {s3_url}.*tried 6 times", archive)


def test_scrapes_within_a_minute_are_answered_from_memory(
    tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(str(tmp_path), [Slot.forecast(INIT, HOUR)])
    monkeypatch.setenv("CORRDIFF_CLOCK", clock(INIT + 2 * HOUR))
    settings = Settings.of(archive=str(tmp_path), model=str(small_checkpoint), source_url=str(tmp_path))
    watch, ready, heard = Watch(settings, 24 * HOUR), threading.Event(), list[str]()

    def told(address: str) -> None:
        heard.append(address)
        ready.set()

    threading.Thread(target=serve_metrics, args=(watch, "127.0.0.1", 0, told), daemon=True).start()
    assert ready.wait(20)

    def scrape() -> Read:
        with urlopen(heard[0], timeout=20) as answer:  # noqa: S310
            return Read(answer.read().decode())

    first = scrape()
    assert first["corrdiff_slots_published"] == 1
    assert "corrdiff_stage_seconds" not in first, "this slot's provenance has no times"
    run(str(tmp_path), [Slot.forecast(INIT, 2 * HOUR)])
    assert scrape().samples == first.samples
    watch.cache = 0.0
    assert scrape()["corrdiff_slots_published"] == 2


@pytest.mark.service
@pytest.mark.timeout(300)
def test_the_server_is_told_of_and_so_is_its_absence(
    server: Server, corrdiff: Corrdiff, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "corrdiff.prom"
    settings = Settings.of(archive=environment["CORRDIFF_ARCHIVE"], model=environment["CORRDIFF_MODEL"])

    def told() -> Read:
        with called_on(server):
            write_metrics(Watch(settings, 24 * HOUR, server=server_gauges), str(file))
        return Read(file.read_text())

    bare = told()
    assert (bare["corrdiff_server_up"], bare["corrdiff_workers_online"]) == (1, 0)
    assert bare.of("corrdiff_limit_slots", limit="corrdiff-gpu") == 0, "nothing was made yet"
    server.bootstrap()
    runs, began = Runs(server), utc_now()
    for last in ("COMPLETED", "FAILED"):
        runs.make("PENDING", "RUNNING", last)
    runs.make("PENDING", "RUNNING")
    runs.make("PENDING")
    with called_on(server):
        asyncio.run(heartbeat("one"))
    server.call("v2/concurrency_limits/increment", {"names": ["corrdiff-gpu"], "slots": 1, "mode": "concurrency"})
    read = told()
    longest = (utc_now() - began).total_seconds()
    for state in ("Completed", "Failed", "Running", "Pending"):
        assert read.of("corrdiff_flow_runs", deployment="hourly", type=state.upper(), state=state) == 1
    for state in ("running", "pending"):
        assert 0 <= read.of("corrdiff_oldest_flow_run_age_seconds", deployment="hourly", state=state) <= longest
    assert read.of("corrdiff_limit_slots_taken", limit="corrdiff-gpu") == 1
    assert read.of("corrdiff_limit_slots", limit="corrdiff-gpu") == 1
    assert read["corrdiff_workers_online"] == 1
    assert 0 <= read["corrdiff_worker_heartbeat_age_seconds"] <= longest
    done = corrdiff("ops", "metrics", "--textfile", str(file), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 0
    assert done.stderr.startswith("corrdiff_server_up 0: ConnectionError")
    away = Read(file.read_text())
    assert (away["corrdiff_server_up"], away["corrdiff_archive_up"], "corrdiff_flow_runs" in away) == (0, 1, False)


def test_names_keep_to_prometheus_conventions() -> None:
    for name, (labels, meaning) in GAUGES.items():
        assert re.fullmatch(rf"corrdiff_[a-z_]+({'|'.join(UNITS)})|corrdiff_([a-z]+_)?({COUNTS})", name), name
        assert not name.endswith(("_total", "_count", "_sum")), "only counters and their like"
        assert meaning.endswith("."), name
        assert all(re.fullmatch("[a-z]+", label) for label in labels)
    gauges = Gauges()
    with pytest.raises(KeyError):
        gauges.set("corrdiff_unheard_of", 1)


def test_what_makes_no_sense_is_refused(corrdiff: Corrdiff, tmp_path: Path) -> None:
    done = corrdiff("ops", "metrics")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "either --textfile FILE.prom or --port" in done.stderr
    with pytest.raises(ConfigurationError, match=r"names in \.prom"):
        write_metrics(Watch(Settings.of(archive=str(tmp_path)), HOUR), str(tmp_path / "metrics.txt"))
    with pytest.raises(ConfigurationError, match="has no cycles"):
        write_metrics(Watch(Settings.of(archive=str(tmp_path), source="era5"), HOUR), str(tmp_path / "a.prom"))
    with pytest.raises(ConfigurationError, match="no such folder"):
        write_metrics(Watch(Settings.of(archive=str(tmp_path)), HOUR), str(tmp_path / "none" / "a.prom"))
    assert list(tmp_path.glob("*.prom*")) == []
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="choose another"):
        serve_metrics(Watch(Settings.of(archive=str(tmp_path)), HOUR), "127.0.0.1", taken.getsockname()[1], print)
