"""A flow run from a terminal: Prefect kept quiet, progress on the screen, one interrupt and it is over."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer


def run_flow(name: str, options: dict[str, Any]) -> Any:
    """Run a flow from this terminal; its result."""
    from flows.api import prefect_api, quieten

    quieten()
    from importlib import import_module

    from flows.report import TerminalReport, reporting_to, server_report

    terminal = TerminalReport()
    _leave_at_once_on_interrupt(terminal.close)
    flow = getattr(import_module(f"flows.{name}"), name)
    try:
        with prefect_api() as temporary, reporting_to(terminal, *([] if temporary else [server_report()])):
            return flow(**options)
    finally:
        terminal.close()


def _leave_at_once_on_interrupt(restore: Callable[[], None]) -> None:
    """A run may stop at any instant: what it has published stays, the next one goes on from there."""

    def leave(number: int, frame: FrameType | None) -> None:
        restore()
        typer.echo("interrupted; the next run goes on from here", err=True)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, leave)
