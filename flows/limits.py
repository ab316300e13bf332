"""Who may use the machine's GPU: one run at a time, and operations before everything else."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from corrdiff_core.errors import ConfigurationError
from flows.api import GPU_LIMIT, OPERATIONS_LIMIT

LOOK_SECONDS = 5.0  # between two looks at who waits
_GPU_WAIT = 3600.0  # s
LEASE_SECONDS = 120.0  # that a place outlives a killed run; longer than a server takes to restart


class Turns(Protocol):
    """The GPU, while it is held."""

    def wanted(self) -> bool:
        """Whether somebody waits who goes first; once they do, until way was given."""
        ...

    def give_way(self) -> None:
        """Let those go first; returns once the GPU is held again. Nothing may be sampled meanwhile."""
        ...


class _Kept:
    def wanted(self) -> bool:
        return False

    def give_way(self) -> None:
        pass


@contextmanager
def operations() -> Iterator[Turns]:
    """Hold the GPU for an hourly run; TimeoutError after an hour of waiting, when the next run is due.

    Before it waits it takes a place in the limit of operations, so that a background run sees it and gives way.
    """
    with _held(OPERATIONS_LIMIT, None), _held(GPU_LIMIT, _GPU_WAIT):
        yield _Kept()


@contextmanager
def background() -> Iterator[Turns]:
    """Hold the GPU for a run that yields to operations between two slots, however long it has to wait."""
    with ExitStack() as held:
        turns = _Background(held)
        turns.give_way()
        yield turns


class _Background:
    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self._looked = 0.0
        self._asked = False

    def wanted(self) -> bool:
        if not self._asked and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked, self._asked = time.monotonic(), _taken(OPERATIONS_LIMIT)
        return self._asked

    def give_way(self) -> None:
        self._held.close()
        while _taken(OPERATIONS_LIMIT):
            time.sleep(LOOK_SECONDS)
        self._held.enter_context(_held(GPU_LIMIT, None))
        self._looked, self._asked = time.monotonic(), False


def _taken(limit: str) -> bool:
    """Whether a slot of it is in use; False while the server is away, which ends no run."""
    try:
        with get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name(limit).active_slots > 0
    except ObjectNotFound as error:
        raise _absent(limit, error) from error
    except httpx.TransportError:
        return False


def _absent(limit: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{error}; the server has no limit {limit}: make it with `corrdiff ops bootstrap`")


@contextmanager
def _held(limit: str, timeout_seconds: float | None) -> Iterator[None]:
    """A slot of a limit that must exist.

    A lease that cannot be renewed, because the server is away, does not end the run: an hour that is not made costs
    more than two runs that share a GPU.
    """
    from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError

    try:
        held: AbstractContextManager[None] = concurrency(
            limit,
            strict=True,
            timeout_seconds=timeout_seconds,
            lease_duration=LEASE_SECONDS,
            raise_on_lease_renewal_failure=False,
        )
        with held:
            yield
    except ConcurrencySlotAcquisitionError as error:
        raise _absent(limit, error) from error
