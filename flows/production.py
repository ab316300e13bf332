"""Slots on their way through fetch and generate: fetched ahead, sampled one at a time, written behind."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import CorrdiffError
from corrdiff_core.sources.source import NotYet
from flows.outcome import Outcome, in_words
from flows.report import Began, Report
from flows.slots import Run
from flows.tasks import fetch, generate, gpu

AHEAD = 4  # inputs that are fetched while a slot is sampled
BEHIND = 2  # one slot is sampled while the one before it is written
RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=AHEAD + BEHIND)


def make(run: Run, slots: Sequence[Slot], what: str, report: Report, fallback: str | None = None) -> list[Outcome]:
    """What became of each of `slots`, which are made in their order; one that fails does not stop the others.

    `fallback` is noted in their provenance. Memory holds two slots, however many there are. Call it in a flow whose
    task runner is RUNNER.
    """
    if not slots:
        return []
    report(Began(what, len(slots)))
    outcomes = []
    with gpu():
        for outcome in _outcomes(run, slots, fallback):
            report(outcome)
            outcomes.append(outcome)
    return outcomes


def _outcomes(run: Run, slots: Sequence[Slot], fallback: str | None) -> Iterator[Outcome]:
    coming, fetching, making = deque(slots), deque[_Pending](), deque[_Pending]()
    while coming or fetching or making:
        while coming and len(fetching) < AHEAD:
            slot = coming.popleft()
            fetching.append((slot, fetch.submit(run, slot)))
        if not fetching or len(making) == BEHIND:
            yield _made(*making.popleft(), fallback)
            continue
        slot, future = fetching.popleft()
        problem = _fetched(slot, future)
        if problem is None:
            making.append((slot, generate.submit(run, slot, fallback)))
        else:
            yield problem


_Pending = tuple[Slot, PrefectFuture[Any]]


def _fetched(slot: Slot, future: PrefectFuture[Any]) -> Outcome | None:
    """None where the slot's inputs are there."""
    try:
        answer = future.result()
    except (CorrdiffError, OSError) as error:
        return Outcome(slot, "failed", in_words(error))
    return Outcome(slot, "not there yet", f"{answer.reason}") if isinstance(answer, NotYet) else None


def _made(slot: Slot, future: PrefectFuture[Any], fallback: str | None) -> Outcome:
    try:
        provenance = future.result()
    except (CorrdiffError, OSError) as error:
        return Outcome(slot, "failed", in_words(error))
    detail = "" if fallback is None else f"in place of a later cycle: {fallback}"
    warnings = "; ".join(provenance["inputs"]["warnings"])
    return Outcome(
        slot,
        "published",
        "; ".join(filter(None, (detail, warnings))),
        provenance["seconds"]["sample"],
        provenance["members"],
    )
