"""A backfill's slots as plain threads: nothing is kept of a slot that is done, however many there are."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from corrdiff_core.cycle import Slot
from corrdiff_core.sources.source import NotYet
from flows.production import BEHIND, Stages
from flows.report import report_members
from flows.slots import Run, fetch_slot, generate_slot

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 24  # failures in a row after which the rest of a backfill is left: something is wrong with all of it


@contextmanager
def threads(run: Run, redo: Mapping[Slot, str]) -> Iterator[Stages]:
    """The stages of a run's slots in threads of their own.

    With a Dask scheduler inputs are fetched by its workers, which reach archive and cache by the same URLs.
    """
    ahead, local = run.settings.ahead, replace(run, settings=run.settings.model_copy(update={"dask": None}))
    fetch = fetch_slot if run.settings.dask is None else _on_cluster
    with ThreadPoolExecutor(ahead, "fetch") as fetching, ThreadPoolExecutor(BEHIND, "generate") as generating:
        try:
            yield Stages(
                fetch=lambda slot: _start(fetching, fetch, run, slot, redo.get(slot)),
                generate=lambda slot: _start(generating, generate_slot, local, slot, None, report_members(slot)),
                ahead=ahead,
                patience=PATIENCE,
            )
        finally:
            fetching.shutdown(cancel_futures=True)


def _start(pool: ThreadPoolExecutor, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """`call` in a thread that knows what this one knows: whom to report to, which flow runs."""
    return pool.submit(copy_context().run, call, *arguments)


def _on_cluster(run: Run, slot: Slot, redo: str | None) -> NotYet | None:
    """`fetch_slot` on a worker of the run's Dask scheduler."""
    client = _client(str(run.settings.dask))
    future = client.submit(fetch_slot, run, slot, redo, pure=False)
    answer: NotYet | None = future.result()
    return answer


@lru_cache(maxsize=1)
def _client(address: str) -> "Client":
    from distributed import Client  # costs half a second, and most runs need no scheduler

    return Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
