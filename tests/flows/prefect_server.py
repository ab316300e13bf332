"""A real Prefect server on loopback, and processes beside it, for tests."""

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
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from flows import database
from flows.api import LIMITS
from tests.flows.flow_cases import REPOSITORY

PREFECT = [sys.executable, "-m", "prefect"]


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


def answer(request: Request) -> bytes:
    """What the server answers; a busy one says 503 or is late, which Prefect's own clients wait for too."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with urlopen(request, timeout=30) as response:  # noqa: S310
                body: bytes = response.read()
                return body
        except HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


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
        return self._run(*PREFECT, "--no-prompt", *arguments, **extra)

    def bootstrap(self, *arguments: str, **extra: str) -> list[str]:
        """`corrdiff ops bootstrap`; its lines."""
        return self._run(sys.executable, "-m", "flows.cli", "ops", "bootstrap", *arguments, **extra).splitlines()

    def _run(self, *command: str, **extra: str) -> str:
        environment = self.environment | extra
        done = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        return json.loads(answer(Request(f"{self.api}/{path}", data, {"Content-Type": "application/json"})))  # noqa: S310

    def runs(self, state: str) -> list[dict[str, object]]:
        """Flow runs in a state of that type."""
        found = self.call("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})
        assert isinstance(found, list)
        return found

    def emit(
        self,
        event: str,
        resource: str,
        payload: dict[str, object],
        labels: dict[str, str] | None = None,
        occurred: datetime | None = None,
    ) -> None:
        when = (occurred or datetime.now(UTC)).isoformat()
        said = {"id": str(uuid4()), "occurred": when, "event": event, "payload": payload}
        body = json.dumps([{**said, "resource": {"prefect.resource.id": resource, **(labels or {})}}]).encode()
        answer(Request(f"{self.api}/events", body, {"Content-Type": "application/json"}))  # noqa: S310

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


@contextmanager
def prefect_server(environment: dict[str, str], folder: Path) -> Iterator[Server]:
    """A server of its own, with its database and log in `folder`."""
    made, log = Server(environment, folder), folder / "server.log"
    home = Path(environment["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    begun = (home / "prefect.db").exists() or database.begin(home / "prefect.db")
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(made.port), "--no-ui"]
    with running(command, made.environment, log):
        until(made.healthy, 120, log)
        if not begun:
            database.keep(home / "prefect.db")
        yield made


@contextmanager
def called_on(server: Server) -> Iterator[None]:
    """Flows that are called in this process run on the server.

    Prefect's workers of a process keep the server that they were started for, also when it is gone: the events of
    what is called later, on another, would be lost.
    """
    with temporary_settings({PREFECT_API_URL: server.api}):
        try:
            yield
        finally:
            for worker in (APILogWorker, EventsWorker):
                drained = worker.drain_all(timeout=120)
                assert isinstance(drained, tuple), "called in an event loop"
                assert not drained[1], f"{worker.__name__} has not sent all it holds to {server.api}"


@contextmanager
def prefect_with_limits() -> Iterator[None]:
    """A Prefect server with our limits, for flows that are called."""
    quiet = temporary_settings({PREFECT_SERVER_ANALYTICS_ENABLED: False})
    with quiet, prefect_test_harness(server_startup_timeout=120):
        with get_client(sync_client=True) as client:
            for name, limit in LIMITS.items():
                client.upsert_global_concurrency_limit_by_name(name, limit)
        yield
