"""The parts of a stack, in the order in which they start: what each runs, and how it answers that it is well."""

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from infra.bare_metal.places import REPOSITORY, Places, StackError, python
from infra.bare_metal.postgres import Postgres
from infra.bare_metal.s3 import Ceph

POOL = "corrdiff"
# Operations have a worker to themselves: nothing in the background can take its place or bring it down.
QUEUES = {"operations": ("operations",), "background": ("watch", "training", "backfill")}


@dataclass(frozen=True)
class Part:
    name: str
    where: str
    command: Callable[[], Sequence[str]]
    environment: Callable[[], Mapping[str, str]]
    healthy: Callable[[], bool]
    end: signal.Signals = signal.SIGTERM
    patience: float = 30.0  # s that it is given to end
    user: str | None = None
    attempts: int = 1  # to start it, a second apart
    prepare: Callable[[], None] = lambda: None  # before it starts
    finish: Callable[[], None] = lambda: None  # once it is well


class Stack:
    """All parts of the stack in `places`, and the environment in which it is reached."""

    def __init__(self, places: Places, environment: Mapping[str, str]) -> None:
        self.places, self._environment = places, dict(environment)
        self.postgres = Postgres(places, places.port("postgres", environment.get("STACK_POSTGRES_PORT")))
        self.port = places.port("server", environment.get("STACK_SERVER_PORT"))
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.ceph = self._choose_s3()

    def _choose_s3(self) -> Ceph | None:
        chosen = self._environment.get("STACK_S3") or "none"
        if chosen not in ("none", "ceph"):
            raise StackError(f"STACK_S3={chosen}: choose ceph, or none for storage of your own")
        return Ceph(self.places, self.places.port("s3")) if chosen == "ceph" else None

    @property
    def parts(self) -> list[Part]:
        s3 = [] if self.ceph is None else [self._s3(self.ceph)]
        return [self._postgres(), *s3, self._server(), *(self._worker(name) for name in QUEUES)]

    @property
    def reach(self) -> dict[str, str]:
        """What a shell, a worker and `infra/stack run` need to use the stack."""
        own = {
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.places.home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "CORRDIFF_HOME": str(REPOSITORY),
        }
        return (self.ceph.reach if self.ceph else {}) | self.places.read_settings() | own

    def _postgres(self) -> Part:
        postgres = self.postgres
        return Part(
            "postgres",
            f"127.0.0.1:{postgres.port}",
            lambda: postgres.command,
            lambda: {"PATH": os.defpath, "LC_ALL": "C"},
            postgres.ready,
            end=signal.SIGINT,  # rolls back what is open; SIGTERM would wait for every client to leave
            user=postgres.user,
            attempts=10,  # the processes of a postmaster that was killed take a moment to go
            prepare=postgres.create,
            finish=postgres.create_database,
        )

    def _s3(self, ceph: Ceph) -> Part:
        def well() -> bool:
            return answers(ceph.url) and bool(ceph.reach)

        return Part("s3", ceph.url, lambda: ceph.command, lambda: ceph.environment, well, patience=60)

    def _server(self) -> Part:
        of_server = {
            "PREFECT_API_DATABASE_CONNECTION_URL": self.postgres.url,
            "PGPASSFILE": str(self.postgres.passwords),
            "PREFECT_SERVER_UI_API_URL": self.api,
            "PREFECT_UI_ENABLED": "true",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "true",
            # In memory, the default, they go with a restart, and a place in a limit that was held is never given back.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
        command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        return Part(
            "server",
            f"http://127.0.0.1:{self.port}",
            lambda: [python(), *command],
            lambda: self._environment | self.reach | of_server,
            lambda: answers(f"{self.api}/ready"),
        )

    def _worker(self, name: str) -> Part:
        port = self.places.port(name)
        queues = [part for queue in QUEUES[name] for part in ("--work-queue", queue)]
        of_worker = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
        command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--with-healthcheck"]
        return Part(
            name,
            f"queues {', '.join(QUEUES[name])}",
            lambda: [python(), *command, *queues, "--name", name],
            lambda: self._environment | self.reach | of_worker,
            lambda: answers(f"http://127.0.0.1:{port}/health"),
        )


def answers(url: str) -> bool:
    """Whether a server of the loopback answers with success, or with a refusal as S3 does who asks without a key."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 403
    except OSError:
        return False
