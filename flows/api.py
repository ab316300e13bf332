"""Prefect's API for a run from a terminal: the user's server where one is set, else a temporary one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from corrdiff_core.errors import CorrdiffError
from flows import database
from flows.children import ended_with_this_process

POOL = "corrdiff"  # the work pool
GPU_LIMIT = "corrdiff-gpu"  # one slot: whoever holds it uses the GPU
OPERATIONS_LIMIT = "corrdiff-operations"  # many slots: while one is taken, whoever works in the background gives way
LIMITS = {GPU_LIMIT: 1, OPERATIONS_LIMIT: 100}
_DRAIN_SECONDS = 5
STARTUP_SECONDS = 120  # 7 s on two idle cores, 23 s where the database is not kept from an earlier time
# The run's own report is what belongs on the terminal; a server still receives Prefect's log.
_QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}

# They write the history of runs, which a server that goes with its run has no use for, and contend for the database.
_IDLE_SERVICES = ("EVENT_PERSISTER", "TASK_RUN_RECORDER")


def quieten() -> None:
    """Keep Prefect off the terminal and off the network; to be called before Prefect is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_api() -> Iterator[bool]:
    """Run what is inside against Prefect's API; yields whether it is a temporary one.

    A temporary server has a database of its own, so that runs side by side share no locks and a killed run leaves
    nothing behind, and the limits. A user's server has the limits that its operator made.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().api.url:
        yield False
        return
    with _temporary_server():
        _make_limits()
        yield True


@contextmanager
def _temporary_server() -> Iterator[None]:
    from prefect.events.worker import EventsWorker
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        temporary_settings,
    )

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corrdiff-", ignore_cleanup_errors=True)))
        file = home / "prefect.db"
        settings = {
            PREFECT_HOME: str(home),
            PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{file}",
            PREFECT_LOGGING_TO_API_ENABLED: False,  # nobody reads the log of a server that goes with the run
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        stack.enter_context(temporary_settings(settings))
        for service in _IDLE_SERVICES:  # the server inherits this process's environment
            os.environ[f"PREFECT_SERVER_SERVICES_{service}_ENABLED"] = "false"
        begun = database.begin(file)
        server = SubprocessASGIServer()
        stack.callback(server.stop)
        try:
            server.start(timeout=STARTUP_SECONDS)
        except RuntimeError as error:
            raise CorrdiffError(f"{error} Try again, or set PREFECT_API_URL to a Prefect server that runs") from error
        if server.server_process is not None:
            stack.enter_context(ended_with_this_process(server.server_process.pid, home))
        if not begun:
            database.keep(file)
        stack.enter_context(temporary_settings({PREFECT_API_URL: server.api_url}))
        stack.callback(EventsWorker.drain_all, timeout=_DRAIN_SECONDS)
        yield


def _make_limits() -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for name, limit in LIMITS.items():
            client.upsert_global_concurrency_limit_by_name(name, limit)
