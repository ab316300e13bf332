"""A backfill's slots as plain threads: nothing is kept of a slot that is done, however many there are."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from corrdiff_core.cycle import Slot
from corrdiff_core.sources.source import NotYet
from flows.limits import LOOK_SECONDS
from flows.production import BEHIND, Stages
from flows.report import report_members
from flows.slots import Run, There, fetch_slot, generate_slot

if TYPE_CHECKING:
    from distributed import Client

WORKERS_SECONDS = 120  # that a scheduler without workers is waited for
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
                generate=lambda slot: _start(
                    generating, generate_slot, local, slot, None, report_members(slot), redo.get(slot)
                ),
                ready=lambda future: bool(wait([cast("Future[Any]", future)], LOOK_SECONDS).done),
                ahead=ahead,
                patience=PATIENCE,
            )
        finally:
            fetching.shutdown(cancel_futures=True)


def _start(pool: ThreadPoolExecutor, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """`call` in a thread that knows what this one knows: whom to report to, which flow runs."""
    return pool.submit(copy_context().run, call, *arguments)


def _on_cluster(run: Run, slot: Slot, redo: str | None) -> NotYet | There | None:
    """`fetch_slot` on a worker of the run's Dask scheduler; ConnectionError where scheduler or worker went away."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm.core import CommClosedError

    address = str(run.settings.dask)
    try:
        return _submitted(address, run, slot, redo)
    except (KilledWorker, CancelledError, CommClosedError, TimeoutError) as error:
        _client.cache_clear()
        raise ConnectionError(f"the Dask scheduler at {address} or its worker went away: {error!r}") from error


def _submitted(address: str, run: Run, slot: Slot, redo: str | None) -> NotYet | There | None:
    client = _client(address)
    future = client.submit(fetch_slot, run, slot, redo, pure=False)
    answer: NotYet | There | None = future.result()
    return answer


@lru_cache(maxsize=1)
def _client(address: str) -> "Client":
    from distributed import Client  # costs half a second, and most runs need no scheduler

    client = Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
    client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    return client
