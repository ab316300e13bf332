"""What a run says while it runs: lines and a progress bar on a terminal, log and artifacts under a Prefect server."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from corrdiff_core.cycle import Slot
from flows.outcome import Backfilled, Outcome, Result


@dataclass(frozen=True)
class Said:
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Began:
    """`total` slots are to be made."""

    what: str
    total: int


@dataclass(frozen=True)
class Sampling:
    """`done` of the slot's `members` are there."""

    slot: Slot
    done: int
    members: int


Event = Said | Began | Sampling | Outcome | Result | Backfilled
BAR_SECONDS = 1.0  # between two updates of a server's progress bar
SHOWN = 500  # rows of a table that a server keeps, at most
Report = Callable[[Event], None]

_listeners: ContextVar[tuple[Report, ...]] = ContextVar("listeners", default=())


@contextmanager
def reporting_to(*listeners: Report) -> Iterator[None]:
    """Flows that run inside report to `listeners`; others to Prefect's server."""
    token = _listeners.set(listeners)
    try:
        yield
    finally:
        _listeners.reset(token)


def open_report() -> Report:
    """Where the run that begins now reports to."""
    listeners = _listeners.get() or (server_report(),)

    def report(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return report


def report_members(slot: Slot) -> Callable[[int, int], None]:
    """For the `on_member` of a slot's sampling: tells terminals, since a server need not know of every member."""
    terminals = [listener for listener in _listeners.get() if isinstance(listener, TerminalReport)]

    def report(done: int, members: int) -> None:
        for terminal in terminals:
            terminal(Sampling(slot, done, members))

    return report


def server_report() -> Report:
    """Prefect's run log, a progress artifact, a table of the slots, the picture."""
    from prefect import get_run_logger
    from prefect.artifacts import (
        create_markdown_artifact,
        create_progress_artifact,
        create_table_artifact,
        update_progress_artifact,
    )

    bar: UUID | None = None
    done = total = 0
    told = 0.0

    def report(event: Event) -> None:
        nonlocal bar, done, total, told
        log = get_run_logger()
        match event:
            case Said(text, warning):
                (log.warning if warning else log.info)(text)
            case Began(what, total):
                log.info(f"{what}: {total} to make")
                bar, done = cast(UUID, create_progress_artifact(0.0, key="slots-progress", description=what)), 0
            case Outcome():
                (log.info if event.good else log.warning)(f"{event.slot}: {event}")
                done += 1
                if bar is not None and (done == total or time.monotonic() - told > BAR_SECONDS):
                    told = time.monotonic()
                    update_progress_artifact(bar, 100.0 * done / total)
            case Result():
                rows = [_row(outcome) for outcome in (*event.outcomes, *event.healed)]
                create_table_artifact(rows, key="slots", description=event.summary)
                if event.picture:
                    create_markdown_artifact(f"![quicklook]({event.picture})\n\n{event.picture}", key="quicklook")

            case Backfilled():
                log.info(event.summary)
                left = [_row(outcome) for outcome in event.left[:SHOWN]]
                create_table_artifact(left, key="slots-left", description=event.summary)

    return report


class TerminalReport:
    """Rich progress on a terminal, plain lines elsewhere; a table and where everything is at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._progress: Progress | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Said(text, warning):
                self._line(f"warning: {text}" if warning else text)
            case Began(what, total):
                self._line(f"{what}: {total} to make")
                self._start(total)
            case Sampling(slot, done, members):
                self._stage(f"sampling {slot}: {done} of {members} members")
            case Outcome():
                self._line(f"{event.slot}: {event}")
                if self._progress is not None:
                    self._progress.advance(self._progress.task_ids[0])
            case Result():
                self.close()
                self._end(event)
            case Backfilled():
                self.close()
                self._line(event.summary)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _start(self, total: int) -> None:
        self.close()
        if self._console.is_terminal:
            bar = (
                SpinnerColumn(),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._progress = Progress(*bar, console=self._console, transient=True)
            self._progress.add_task("fetching inputs", total=total)
            self._progress.start()

    def _stage(self, text: str) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], description=text)

    def _end(self, result: Result) -> None:
        if any(outcome.status != "already there" for outcome in result.outcomes):
            self._console.print(_table([_row(outcome) for outcome in result.outcomes]))
        self._line(result.summary)
        if result.picture:
            self._line(f"picture: {result.picture}")


def _row(outcome: Outcome) -> dict[str, str]:
    return {
        "slot": str(outcome.slot),
        "status": outcome.status,
        "sampling, s": f"{outcome.seconds:.1f}" if outcome.seconds else "",
        "members/s": f"{outcome.members / outcome.seconds:.2f}" if outcome.seconds else "",
        "detail": outcome.detail,
    }


def _table(rows: list[dict[str, str]]) -> Table:
    table = Table(box=None)
    names = [name for name in rows[0] if name != "detail" and any(row[name] for row in rows)]
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == "slot")
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table
