"""prefect.yaml on a real Prefect server with a real process worker."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

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
from tests.small_domain import PRESET

PREFECT = [sys.executable, "-m", "prefect"]
DEPLOYMENT = "hourly/hourly"


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in the background, interrupted at the end and killed where that does not help."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Server:
    """A Prefect server on a free port of the loopback, and the `prefect` command set to use it."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.folder = folder
        self.environment = environment | {
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    def prefect(self, *arguments: str, **extra: str) -> str:
        command = [*PREFECT, "--no-prompt", *arguments]
        environment = self.environment | extra
        done = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.api}/{path}", data, {"Content-Type": "application/json"})  # noqa: S310
        with urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)

    def runs(self, state: str) -> list[dict[str, object]]:
        """Flow runs in a state of that type."""
        found = self.call("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})
        assert isinstance(found, list)
        return found

    def emit(self, event: str, resource: str, payload: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat()
        said = {"id": str(uuid4()), "occurred": now, "event": event, "payload": payload}
        body = json.dumps([{**said, "resource": {"prefect.resource.id": resource}}]).encode()
        with urlopen(Request(f"{self.api}/events", body, {"Content-Type": "application/json"}), timeout=30):  # noqa: S310
            pass

    def heard(self, event: str) -> bool:
        found = self.call("events/filter", {"filter": {"event": {"name": [event]}}})
        assert isinstance(found, dict)
        return bool(found["events"])

    def healthy(self) -> bool:
        try:
            return self.call("health") is True
        except (URLError, OSError):
            return False


def until(happened: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not in {seconds} s:\n{log.read_text()[-6000:]}"
        time.sleep(0.5)


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    made = Server(environment, tmp_path)
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(made.port), "--no-ui"]
    log = tmp_path / "server.log"
    with running(command, made.environment, log):
        until(made.healthy, 120, log)
        yield made


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
    server.prefect("work-pool", "create", "corrdiff", "--type", "process")
    server.prefect("gcl", "create", "corrdiff-gpu", "--limit", "1")
    server.prefect("gcl", "create", "corrdiff-operations", "--limit", "100")
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


@pytest.mark.timeout(600)
def test_a_backfill_works_in_a_queue_of_its_own(server: Server, small_checkpoint: Path, tmp_path: Path) -> None:
    start = datetime(2021, 6, 7, 10)
    write_arco(str(tmp_path / "era5"), start, start + 3 * HOUR)
    server.prefect("work-pool", "create", "corrdiff", "--type", "process")
    server.prefect("gcl", "create", "corrdiff-gpu", "--limit", "1")
    server.prefect("gcl", "create", "corrdiff-operations", "--limit", "100")
    server.prefect("work-queue", "create", "backfill", "--pool", "corrdiff", "--priority", "100")
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
        "times": 2,
        "members": 2,
        "rules": {"spread_skill": [0.0, 1e9], "days": 2},
    }
    copy = tmp_path / "prefect.yaml"
    copy.write_text(yaml.safe_dump(document))
    server.prefect("work-pool", "create", "corrdiff", "--type", "process")
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
    from flows.retrain import retrain

    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    flows = {
        "flows/hourly.py:hourly": hourly,
        "flows/backfill.py:backfill": backfill,
        "flows/retrain.py:retrain": retrain,
    }
    named = {deployment["name"]: deployment["entrypoint"] for deployment in document["deployments"]}
    assert list(named) == ["hourly", "backfill", "era5", "retrain"]
    assert set(named.values()) == set(flows)
    for deployment in document["deployments"]:
        flows[deployment["entrypoint"]].validate_parameters(deployment.get("parameters", {}))
    strategies = [deployment["concurrency_limit"]["collision_strategy"] for deployment in document["deployments"]]
    assert strategies == ["CANCEL_NEW", "ENQUEUE", "CANCEL_NEW", "ENQUEUE"]


def test_no_path_of_a_machine_is_in_the_deployment_file() -> None:
    text = (REPOSITORY / "prefect.yaml").read_text()
    assert "{{ $CORRDIFF_HOME }}" in text
    assert str(REPOSITORY) not in text
