"""Prefect's tasks: retries, timeouts and limits around the plain functions of `slots` and `window`."""

from datetime import datetime, timedelta
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from corrdiff_core.cycle import Slot
from corrdiff_core.sources.source import NotYet
from flows.events import slot_published
from flows.report import report_members
from flows.retries import PAUSES, is_transient
from flows.slots import Run, There, draw_slot, fetch_slot, generate_slot
from flows.window import HEALED, Window, choose_window, holes, newest_slot

LONGEST_LEAD = timedelta(hours=384)


def _transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    return is_transient(state.result(raise_on_failure=False))


def retried(timeout_seconds: float | None = None) -> dict[str, Any]:
    """Options of a task that talks to a network.

    A timeout is for tasks of the flow's own thread: Prefect cannot interrupt others while they are blocked.
    """
    return {
        "retries": len(PAUSES),
        "retry_delay_seconds": list(PAUSES),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _transient,
        "timeout_seconds": timeout_seconds,
        "cache_policy": NO_CACHE,
    }


@task(**retried(300))
def find_window(run: Run, at: datetime) -> Window:
    """The window from `at` on, from the newest cycle that is there now."""
    return choose_window(run.forecasts(), at, run.settings.hours, run.settings.time.now(), run.settings.fallback)


@task(**retried(300))
def find_published(run: Run, window: Window) -> set[Slot]:
    """The slots of the window's cycle that are in the archive."""
    return run.archive().published(run.series, window.init_time)


@task(**retried(600))
def find_holes(run: Run, at: datetime) -> list[Slot]:
    """The missed hours of the last day, newest first, each from the newest cycle that has it."""
    archive, source, first = run.archive(), run.forecasts(), at - HEALED - LONGEST_LEAD
    cycles = [init_time for init_time in archive.stores(run.series) if first <= init_time < at]
    made = {slot.valid_time for init_time in cycles for slot in archive.published(run.series, init_time)}
    found = (newest_slot(source, valid_time) for valid_time in holes(made, at))
    return [slot for slot in found if slot is not None]


@task(task_run_name="fetch {slot}", **retried())
def fetch(run: Run, slot: Slot) -> NotYet | There | None:
    """The slot's inputs are in the archive, or NotYet; There where the slot itself is."""
    return fetch_slot(run, slot)


@task(task_run_name="generate {slot}", cache_policy=NO_CACHE)
def generate(run: Run, slot: Slot, fallback: str | None) -> dict[str, Any]:
    """The slot is published, and whoever waits for it is told."""
    provenance = generate_slot(run, slot, fallback, report_members(slot))
    slot_published(run, slot, provenance)
    return provenance


@task(cache_policy=NO_CACHE)
def update_latest(run: Run, window: Window) -> bool:
    """`latest.json` names this window, unless it names a newer one."""
    return run.archive().update_latest(run.series, window.slots)


@task(timeout_seconds=300, cache_policy=NO_CACHE)
def draw(run: Run, slot: Slot) -> str:
    """The picture of a published slot, drawn anew; where it is."""
    return draw_slot(run.archive(), run.series, slot)
