"""The janitor on a real Prefect server, with runs and limits that are dead, and others that are not."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corrdiff_core.archive.archive import Archive
from corrdiff_core.cycle import HOUR, Slot, utc_now
from flows import dead
from flows.api import GPU_LIMIT, POOL
from flows.janitor import janitor, retention
from flows.report import Event, Said, reporting_to
from flows.settings import Settings
from tests.archive_cases import FORECAST, run
from tests.flows.prefect_server import Server, called_on


class Runs:
    """Flow runs of a deployment, put into states by the server's API."""

    def __init__(self, server: Server) -> None:
        self.server = server
        flow = server.call("flows/", {"name": "hourly"})
        assert isinstance(flow, dict)
        deployment = server.call(
            "deployments/", {"name": "hourly", "flow_id": flow["id"], "work_pool_name": POOL, "entrypoint": "x"}
        )
        assert isinstance(deployment, dict)
        self.deployment = deployment["id"]

    def make(self, *states: str) -> str:
        run = self.server.call(f"deployments/{self.deployment}/create_flow_run", {})
        assert isinstance(run, dict)
        for state in states:
            self.server.call(f"flow_runs/{run['id']}/set_state", {"state": {"type": state}, "force": True})
        return str(run["id"])

    def heartbeat(self, run: str, ago: timedelta) -> None:
        self.server.emit("prefect.flow-run.heartbeat", f"prefect.flow-run.{run}", {}, occurred=datetime.now(UTC) - ago)

    def state(self, run: str) -> str:
        found = self.server.call("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        assert isinstance(found, list)
        return str(found[0]["state_name"])


@pytest.mark.service
@pytest.mark.timeout(300)
def test_dead_runs_and_places_that_nobody_holds_are_given_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.bootstrap()
    runs, patience = Runs(server), 0.1
    pending = runs.make("PENDING")
    dead_one, alive, silent = (runs.make("PENDING", "RUNNING") for _ in range(3))
    runs.heartbeat(dead_one, timedelta(minutes=5))
    server.call("v2/concurrency_limits/increment", {"names": [GPU_LIMIT], "slots": 1, "mode": "concurrency"})
    time.sleep(8)
    runs.heartbeat(alive, timedelta(0))
    scheduled = runs.make()

    said: list[Event] = []
    with called_on(server), reporting_to(said.append):
        tried = janitor(archive=str(tmp_path / "archive"), patience=patience, dry_run=True)
        assert runs.state(pending) == "Pending"
        done = janitor(archive=str(tmp_path / "archive"), patience=patience)
        assert tried["runs put away"] == done["runs put away"] == 2, said
        assert {runs.state(run) for run in (pending, dead_one)} == {dead.STUCK}
        assert (runs.state(alive), runs.state(silent), runs.state(scheduled)) == ("Running", "Running", "Scheduled")
        assert done["limits freed"] == 0, "a run is at work, which may hold the place"
        for run in (alive, silent):
            server.call(f"flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
        monkeypatch.setattr(dead, "LEASE_SECONDS", -29.0)
        again = janitor(archive=str(tmp_path / "archive"), patience=patience)
        assert again == {"stores removed": 0, "runs put away": 0, "limits freed": 1}
        assert janitor(archive=str(tmp_path / "archive"), patience=patience)["limits freed"] == 0
    words = [event.text for event in said if isinstance(event, Said)]
    assert any("CORRDIFF_KEEP is not set" in text for text in words)
    assert any(f"limit {GPU_LIMIT}: 1 places are held, by no run" in text for text in words)


def test_forecasts_go_only_where_a_setting_says_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = datetime(2026, 1, 1)
    run(str(tmp_path), [Slot.forecast(init, HOUR)])
    archive, said = Archive(str(tmp_path)), list[Event]()
    assert retention(Settings.of(archive=archive.url), dry_run=False, report=said.append) == 0
    assert said == [Said("retention: CORRDIFF_KEEP is not set, every forecast stays")]
    monkeypatch.setenv("CORRDIFF_KEEP", "30d")
    assert retention(Settings.of(archive=archive.url), dry_run=True, report=said.append) == 1
    assert archive.stores(FORECAST) == [init]
    monkeypatch.setenv("CORRDIFF_CLOCK", f"2026-01-20@{utc_now():%Y-%m-%dT%H:%M}")
    assert retention(Settings.of(archive=archive.url), dry_run=False, report=said.append) == 0
    monkeypatch.delenv("CORRDIFF_CLOCK")
    assert retention(Settings.of(archive=archive.url), dry_run=False, report=said.append) == 1
    assert archive.stores(FORECAST) == []
