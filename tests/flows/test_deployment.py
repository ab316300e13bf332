"""prefect.yaml on a real Prefect server with a real process worker."""

from datetime import datetime
from pathlib import Path

import pytest
import yaml

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot, floor_cycle, utc_now
from corrdiff_core.manifest import read_manifest
from corrdiff_core.nature_era5 import write_arco
from corrdiff_core.registry import Registry
from tests.corrdiff_core.dataset.dataset_cases import built
from tests.flows.flow_cases import INIT, REPOSITORY, Gfs, toml
from tests.flows.prefect_server import PREFECT, Server, running, until
from tests.small_domain import PRESET

DEPLOYMENT = "hourly/hourly"


@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_schedule_and_a_person_both_start_runs_that_fill_the_archive(
    server: Server, gfs: Gfs, small_checkpoint: Path, tmp_path: Path
) -> None:
    cycle = floor_cycle(utc_now(), 6 * HOUR)
    gfs.put(cycle, *range((utc_now() - cycle) // HOUR, (utc_now() - cycle) // HOUR + 3))
    gfs.put(INIT, 3)
    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    document["deployments"][0]["schedules"][0]["cron"] = "* * * * *"
    copy = tmp_path / "prefect.yaml"
    copy.write_text(yaml.safe_dump(document))
    server.bootstrap()
    server.prefect("deploy", "--all", "--prefect-file", str(copy))

    worker_environment = server.environment | {"CORRDIFF_HOME": str(REPOSITORY), "CORRDIFF_HOURS": "2"}
    worker_environment.pop("PYTHONPATH")
    log = tmp_path / "worker.log"
    with running([*PREFECT, "worker", "start", "--pool", "corrdiff"], worker_environment, log):
        until(lambda: bool(server.runs("COMPLETED") or server.runs("FAILED")), 150, log)
        server.prefect("deployment", "schedule", "pause", "--all")
        server.prefect("deployment", "run", DEPLOYMENT, "-p", 'init="2025-08-01T06:00"', "-p", 'leads="3"')
        until(lambda: len(server.runs("COMPLETED")) >= 2 or bool(server.runs("FAILED")), 120, log)

    assert not server.runs("FAILED"), log.read_text()[-6000:]
    archive, series = (
        Archive(str(tmp_path / "archive")),
        Series("forecast", "gfs", read_manifest(str(small_checkpoint)).identity),
    )
    assert archive.published(series, INIT) == {Slot.forecast(INIT, 3 * HOUR)}
    assert len(archive.published(series, cycle)) >= 2
    artifacts = server.call("artifacts/filter", {})
    assert isinstance(artifacts, list)
    assert {"slots", "slots-progress", "quicklook"} <= {artifact["key"] for artifact in artifacts}


@pytest.mark.service
@pytest.mark.timeout(600)
def test_a_backfill_works_in_a_queue_of_its_own(server: Server, small_checkpoint: Path, tmp_path: Path) -> None:
    start = datetime(2021, 6, 7, 10)
    write_arco(str(tmp_path / "era5"), start, start + 3 * HOUR)
    server.bootstrap()
    server.prefect("deploy", "--all")
    queues = server.call("work_pools/corrdiff/queues/filter", {})
    assert isinstance(queues, list)
    priorities = {queue["name"]: queue["priority"] for queue in queues}
    assert priorities["operations"] < priorities["backfill"]

    worker_environment = server.environment | {
        "CORRDIFF_HOME": str(REPOSITORY),
        "CORRDIFF_ERA5_URL": str(tmp_path / "era5"),
        "CORRDIFF_CACHE": str(tmp_path / "cache"),
    }
    log = tmp_path / "worker.log"
    server.prefect("deployment", "schedule", "pause", "--all")
    with running([*PREFECT, "worker", "start", "--pool", "corrdiff"], worker_environment, log):
        period = ("-p", f'start="{start.isoformat()}"', "-p", f'end="{(start + 5 * HOUR).isoformat()}"')
        server.prefect("deployment", "run", "backfill/backfill", *period)
        until(lambda: bool(server.runs("COMPLETED") or server.runs("FAILED")), 150, log)

    assert not server.runs("FAILED"), log.read_text()[-6000:]
    (ended,) = server.runs("COMPLETED")
    assert (ended["state_name"], ended["work_queue_name"]) == ("NotYet", "backfill")
    series = Series("hindcast", "era5", read_manifest(str(small_checkpoint)).identity)
    assert Archive(str(tmp_path / "archive")).published(series, start) == {Slot(start + n * HOUR) for n in range(3)}
    artifacts = server.call("artifacts/filter", {})
    assert isinstance(artifacts, list)
    assert {"slots-left", "slots-progress"} <= {artifact["key"] for artifact in artifacts}


@pytest.mark.service
@pytest.mark.timeout(600)
def test_three_events_within_a_day_give_one_retraining(server: Server, small_checkpoint: Path, tmp_path: Path) -> None:
    built(tmp_path / "truth", datetime(2021, 1, 30), datetime(2021, 2, 1))
    (tmp_path / "small.toml").write_text(toml(PRESET.to_dict()))
    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    (retrain,) = (deployment for deployment in document["deployments"] if deployment["name"] == "retrain")
    document["deployments"] = [retrain]
    retrain["parameters"] = {
        "name": "small",
        "preset": str(tmp_path / "small.toml"),
        "test_start": "2021-01-31T00",
        "validation_days": 0,
        "times": 2,
        "members": 2,
        "rules": {"spread_skill": [0.0, 1e9], "days": 2},
    }
    copy = tmp_path / "prefect.yaml"
    copy.write_text(yaml.safe_dump(document))
    server.bootstrap()
    server.prefect("deploy", "--all", "--prefect-file", str(copy))

    worker_environment = server.environment | {
        "CORRDIFF_HOME": str(REPOSITORY),
        "CORRDIFF_DATASET": str(tmp_path / "truth"),
        "CORRDIFF_MODELS": str(tmp_path / "models"),
        "CORRDIFF_RUNS": str(tmp_path / "runs"),
    }
    log = tmp_path / "worker.log"
    with running([*PREFECT, "worker", "start", "--pool", "corrdiff"], worker_environment, log):
        for _ in range(3):
            server.emit("corrdiff.skill.degraded", "corrdiff.model.small", {"variable": "t2m"})
        until(lambda: len(server.runs("COMPLETED")) == 3 or bool(server.runs("FAILED")), 240, log)

    assert not server.runs("FAILED"), log.read_text()[-6000:]
    assert sorted(str(run["state_name"]) for run in server.runs("COMPLETED")) == ["Completed", "Skipped", "Skipped"]
    registry = Registry(str(tmp_path / "models"))
    assert registry.production("small").ref == "small@1"
    (verdict,) = registry.verdicts("small")
    assert verdict["reason"] == {"variable": "t2m"}
    assert server.heard("corrdiff.model.promoted")
    artifacts = server.call("artifacts/filter", {})
    assert isinstance(artifacts, list)
    assert {"training", "retraining"} <= {artifact["key"] for artifact in artifacts}


def test_the_deployments_name_flows_that_take_their_parameters() -> None:
    from flows.backfill import backfill
    from flows.hourly import hourly
    from flows.janitor import janitor
    from flows.retrain import retrain
    from flows.verify import verify

    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    flows = {
        "flows/hourly.py:hourly": hourly,
        "flows/backfill.py:backfill": backfill,
        "flows/verify.py:verify": verify,
        "flows/janitor.py:janitor": janitor,
        "flows/retrain.py:retrain": retrain,
    }
    named = {deployment["name"]: deployment["entrypoint"] for deployment in document["deployments"]}
    assert list(named) == ["hourly", "backfill", "era5", "verify", "janitor", "retrain"]
    assert set(named.values()) == set(flows)
    for deployment in document["deployments"]:
        flows[deployment["entrypoint"]].validate_parameters(deployment.get("parameters", {}))
    strategies = [deployment["concurrency_limit"]["collision_strategy"] for deployment in document["deployments"]]
    assert strategies == ["CANCEL_NEW", "ENQUEUE", "CANCEL_NEW", "CANCEL_NEW", "CANCEL_NEW", "ENQUEUE"]


def test_no_path_of_a_machine_is_in_the_deployment_file() -> None:
    text = (REPOSITORY / "prefect.yaml").read_text()
    assert "{{ $CORRDIFF_HOME }}" in text
    assert str(REPOSITORY) not in text
