"""Prefect's tasks: retries, timeouts and limits around the plain functions of `slots` and `window`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.tasks import exponential_backoff

from corrdiff_core.cycle import Slot, utc_now
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.source import NotYet
from flows.api import GPU_LIMIT
from flows.report import report_members
from flows.slots import Run, draw_slot, fetch_slot, generate_slot
from flows.window import HEALED, Window, choose_window, holes, newest_slot

LONGEST_LEAD = timedelta(hours=120)
_GPU_WAIT = 3600.0  # s
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


def _transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a retry may help: trouble with the network or the storage, never a named failure of ours."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError) and not isinstance(error, _LASTING)


def _retried(timeout_seconds: float | None = None) -> dict[str, Any]:
    """Options of a task that talks to a network.

    A timeout is for tasks of the flow's own thread: Prefect cannot interrupt others while they are blocked.
    """
    return {
        "retries": 4,
        "retry_delay_seconds": exponential_backoff(2),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _transient,
        "timeout_seconds": timeout_seconds,
        "cache_policy": NO_CACHE,
    }


@task(**_retried(300))
def find_window(run: Run, at: datetime) -> Window:
    """The window from `at` on, from the newest cycle that is there now."""
    return choose_window(run.source(), at, run.settings.hours, utc_now(), run.settings.fallback)


@task(**_retried(300))
def find_published(run: Run, window: Window) -> set[Slot]:
    """The slots of the window's cycle that are in the archive."""
    return run.archive().published(run.series, window.init_time)


@task(**_retried(600))
def find_holes(run: Run, at: datetime) -> list[Slot]:
    """The missed hours of the last day, newest first, each from the newest cycle that has it."""
    archive, source, first = run.archive(), run.source(), at - HEALED - LONGEST_LEAD
    cycles = [init_time for init_time in archive.stores(run.series) if first <= init_time < at]
    made = {slot.valid_time for init_time in cycles for slot in archive.published(run.series, init_time)}
    found = (newest_slot(source, valid_time) for valid_time in holes(made, at))
    return [slot for slot in found if slot is not None]


@task(task_run_name="fetch {slot}", **_retried())
def fetch(run: Run, slot: Slot) -> NotYet | None:
    """The slot's inputs are in the archive, or NotYet."""
    return fetch_slot(run, slot)


@task(task_run_name="generate {slot}", cache_policy=NO_CACHE)
def generate(run: Run, slot: Slot, fallback: str | None) -> dict[str, Any]:
    """The slot is published."""
    return generate_slot(run, slot, fallback, report_members(slot))


@task(cache_policy=NO_CACHE)
def update_latest(run: Run, window: Window) -> bool:
    """`latest.json` names this window, unless it names a newer one."""
    return run.archive().update_latest(run.series, window.slots)


@task(timeout_seconds=300, cache_policy=NO_CACHE)
def draw(run: Run, slot: Slot) -> str:
    """The picture of a published slot, drawn anew; where it is."""
    return draw_slot(run.archive(), run.series, slot)


@contextmanager
def gpu() -> Iterator[None]:
    """Hold the machine's GPU; TimeoutError after an hour of waiting, when the next run is due.

    A lease that cannot be renewed, because the server is away, does not end the run: an hour that is not made costs
    more than two runs that share a GPU.
    """
    from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError

    try:
        with concurrency(GPU_LIMIT, strict=True, timeout_seconds=_GPU_WAIT, raise_on_lease_renewal_failure=False):
            yield
    except ConcurrencySlotAcquisitionError as error:
        raise ConfigurationError(
            f"{error}; the server has no limit {GPU_LIMIT}: make it with `prefect gcl create {GPU_LIMIT} --limit 1`"
        ) from error
