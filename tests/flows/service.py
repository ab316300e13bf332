"""The service on this host, as `infra/stack` runs it, deployed from prefect.yaml with other schedules, for tests."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil
import yaml

from tests.flows.flow_cases import REPOSITORY
from tests.flows.prefect_server import answer


@dataclass
class Service:
    """A stack in `home`; `checkout` is where it is deployed from."""

    home: Path
    environment: dict[str, str]
    checkout: Path

    def stack(self, *arguments: str) -> str:
        command = [sys.executable, str(REPOSITORY / "infra" / "stack"), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *command: str) -> str:
        """A command with the stack's environment."""
        return self.stack("run", sys.executable, "-m", *command)

    def deploy(self, parameters: dict[str, dict[str, Any]]) -> None:
        """These deployments of prefect.yaml with these parameters; those of a schedule run every minute."""
        document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
        document["deployments"] = [one for one in document["deployments"] if one["name"] in parameters]
        for deployment in document["deployments"]:
            deployment["parameters"] = parameters[deployment["name"]]
            if "triggers" not in deployment:
                deployment["schedules"][0]["cron"] = "* * * * *"
        file = self.checkout / "prefect.yaml"
        file.write_text(yaml.safe_dump(document))
        self.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file))

    def heard(self, event: str) -> bool:
        found = self.call("events/filter", {"filter": {"event": {"name": [event]}}})
        return bool(found["events"])

    @property
    def api(self) -> str:
        ports = json.loads((self.home / "ports.json").read_text())
        return f"http://127.0.0.1:{ports['server']}/api"

    def runs(self, *states: str) -> list[dict[str, object]]:
        """Flow runs whose state has one of these names."""
        found: list[dict[str, object]] = self.call(
            "flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": list(states)}}}}
        )
        return found

    def call(self, path: str, body: object) -> Any:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return json.loads(answer(Request(f"{self.api}/{path}", data, headers)))  # noqa: S310

    def pid(self, part: str) -> int:
        return int(json.loads((self.home / "run" / f"{part}.json").read_text())["pid"])

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-4000:]}" for log in (self.home / "logs").glob("*"))

    def until(self, happened: Callable[[], bool], seconds: float, what: str) -> None:
        """`seconds` are several times what a quiet machine of two cores needs; a busy one gets three times that."""
        deadline = time.monotonic() + 3 * seconds
        while not happened():
            assert time.monotonic() < deadline, f"{what}: not in 3 x {seconds} s\n{self.logs()}"
            time.sleep(0.5)


@contextmanager
def service_of(environment: dict[str, str], checkout: Path) -> Iterator[Service]:
    """A stack that is not started yet, in a folder that PostgreSQL can enter; nothing of it runs afterwards."""
    home = Path(tempfile.mkdtemp(prefix="stack-"))
    home.chmod(0o755)
    own = environment | {
        "STACK_HOME": str(home),
        "STACK_PYTHON": sys.executable,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    try:
        yield Service(home, own, checkout)
    finally:
        stop = [sys.executable, str(REPOSITORY / "infra" / "stack"), "stop"]
        subprocess.run(stop, env=own, capture_output=True, timeout=300, check=True)
        shutil.rmtree(home)


def killed(process: psutil.Process) -> None:
    """The process and all that it started, killed at once."""
    for one in [*process.children(recursive=True), process]:
        one.send_signal(signal.SIGKILL)
