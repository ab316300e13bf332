"""The service as it runs, from nothing, and what befalls it: a late cycle, killed processes, no server, no storage."""

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.cycle import HOUR, compact, utc_now
from tests.faults import FaultyServer
from tests.flows.flow_cases import Corrdiff, Gfs
from tests.flows.service import Service, killed, service_of
from tests.flows.webhook import Webhook
from tests.infra.test_stack import needs_postgres

MINUTE = timedelta(minutes=1)
FIRST = datetime(2021, 6, 7, 10)  # the hour of the first run
EARLIER, LATE = datetime(2021, 6, 7, 0), datetime(2021, 6, 7, 6)  # cycles
HOURS = 3  # in a window


@pytest.fixture
def service(
    environment: dict[str, str], s3_url: str, faulty: FaultyServer, webhook: Webhook, tmp_path: Path
) -> Iterator[Service]:
    own = {
        "CORRDIFF_ARCHIVE": f"{s3_url}/archive",
        "CORRDIFF_HOURS": str(HOURS),
        "CORRDIFF_STEPS": "60",
        "CORRDIFF_WAIT": "0.1",
        "CORRDIFF_ALERT_URL": webhook.url,
    }
    aws = {name: os.environ[name] for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))}
    with service_of(environment | aws | own, tmp_path) as made:
        yield made


@needs_postgres
@pytest.mark.service
@pytest.mark.timeout(3000)
def test_every_hour_is_there_and_right_whatever_befalls_the_service(
    service: Service, gfs: Gfs, series: Series, corrdiff: Corrdiff, faulty: FaultyServer, webhook: Webhook, s3_url: str
) -> None:
    gfs.put(EARLIER, *range(10, 14))
    start = utc_now().replace(second=0, microsecond=0) + 3 * MINUTE
    service.environment["CORRDIFF_CLOCK"] = f"{FIRST:%Y-%m-%dT%H}:12@{start:%Y-%m-%dT%H:%M}x60"
    service.stack("start")
    assert "made" in service.run("flows.cli", "ops", "bootstrap", "--late", "1.3", "--silent", "0.8")
    time.sleep(max(0.0, (start - utc_now()).total_seconds() - 40))
    service.deploy({"hourly": {}})
    archive = Archive(f"{s3_url}/archive")

    # The first hour: its cycle is late, the one before stands in and is flagged.
    service.until(lambda: len(archive.published(series, EARLIER)) == HOURS, 180, "the first window")
    gfs.put(LATE, *range(4, 24))

    # A later hour: killed in the middle, worker and run.
    service.until(lambda: bool(archive.published(series, LATE)), 180, "a slot of the late cycle")
    killed(psutil.Process(service.pid("operations")))
    before = archive.published(series, LATE)
    service.stack("start")
    service.until(lambda: bool(service.runs("Stuck")), 240, "the dead run is put away")
    service.until(lambda: archive.published(series, LATE) > before, 240, "the hours after the kill")

    # The API server goes and comes back, between runs or in one.
    killed(psutil.Process(service.pid("server")))
    time.sleep(10)
    service.stack("start")
    count = len(service.runs("Completed"))
    service.until(lambda: len(service.runs("Completed")) > count, 240, "a run after the server's restart")

    # Storage that is away for a while: runs fail, later ones heal.
    failed = len(service.runs("Failed"))
    faulty.faults.kinds, faulty.faults.rate = ("error",), 1.0
    service.until(lambda: len(service.runs("Failed")) > failed, 240, "a run fails without storage")
    service.until(lambda: webhook.said("[day] failed run") > 0, 240, "the duty desk is told")
    faulty.faults.rate = 0.0
    over = utc_now()
    last = FIRST + 60 * (over - start) + HOUR
    last = last.replace(minute=0, second=0, microsecond=0)

    def there() -> set[datetime]:
        return {slot.valid_time for init in (EARLIER, LATE) for slot in archive.published(series, init)}

    wanted = {FIRST + n * HOUR for n in range((last - FIRST) // HOUR + 1)}
    service.until(lambda: wanted <= there(), 300, f"hours {compact(FIRST)} to {compact(last)}")
    service.run("prefect", "deployment", "schedule", "pause", "--all")
    service.until(lambda: not service.runs("Running", "Pending", "Late"), 180, "all runs to end")

    _equal_to_an_undisturbed_run(archive, series, corrdiff, gfs)
    flagged = {slot for slot in archive.published(series, EARLIER) if archive.provenance(series, slot)["fallback"]}
    assert {slot.valid_time for slot in flagged} >= {FIRST + n * HOUR for n in range(HOURS)}
    _metrics_are_right(service, archive, series)
    for subject in (
        "[page] late hour",
        "[note] late hour: over",
        "[day] stuck run",
        "[day] failed run",
        "[note] fallback",
    ):
        assert webhook.said(subject), (subject, webhook.texts)
    assert webhook.said("[note] late hour: over") <= webhook.said("[page] late hour")


def _equal_to_an_undisturbed_run(archive: Archive, series: Series, corrdiff: Corrdiff, gfs: Gfs) -> None:
    undisturbed = gfs.root.parent / "undisturbed"
    ours, theirs = open_objects(archive.url), open_objects(str(undisturbed))
    for init in (EARLIER, LATE):
        leads = sorted(slot.lead_hours for slot in archive.published(series, init))
        chosen = ("--init", f"{init:%Y-%m-%dT%H}", "--leads", ",".join(map(str, leads)))
        done = corrdiff("hourly", *chosen, "--archive", str(undisturbed), "--steps", "60")
        assert done.returncode == 0, done.stderr
        key = series.store_key(init)
        names = {name for name in theirs.sizes(key) if "provenance" not in name and "_at/c/" not in name}
        assert len(names) > 20
        different = [name for name in sorted(names) if ours.get(name) != theirs.get(name)]
        assert not different


def _metrics_are_right(service: Service, archive: Archive, series: Series) -> None:
    file = service.home / "corrdiff.prom"
    service.run("flows.cli", "ops", "metrics", "--textfile", str(file))
    samples = [sample for family in text_string_to_metric_families(file.read_text()) for sample in family.samples]

    def value(name: str, **labels: str) -> float:
        (found,) = [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]
        return found

    made = [slot for init in (EARLIER, LATE) for slot in archive.published(series, init)]
    flagged = [slot for slot in made if archive.provenance(series, slot)["fallback"]]
    assert value("corrdiff_archive_up") == value("corrdiff_server_up") == 1
    assert value("corrdiff_slots_published", model=series.model) == len(made)
    assert value("corrdiff_slots_fallback", model=series.model) == len(flagged) > 0
    assert value("corrdiff_limit_slots", limit="corrdiff-gpu") == 1
    assert value("corrdiff_limit_slots_taken", limit="corrdiff-gpu") == 0
    assert value("corrdiff_stage_seconds", stage="sample", model=series.model) > 0
    assert value("corrdiff_worst_slot_lateness_seconds", model=series.model) > 0
