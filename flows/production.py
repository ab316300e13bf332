"""Slots on their way through fetch and generate: fetched ahead, sampled one at a time, written behind."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from prefect.task_runners import ThreadPoolTaskRunner

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import CorrdiffError
from corrdiff_core.sources.source import NotYet
from flows import tasks
from flows.limits import Turns, operations
from flows.outcome import NOT_TRIED, Outcome, in_words
from flows.report import Began, Report
from flows.slots import Run, There

AHEAD = 4  # inputs that are fetched while a slot is sampled
BEHIND = 2  # one slot is sampled while the one before it is written
RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=AHEAD + BEHIND)


class Future(Protocol):
    """Of Prefect or of a pool of threads."""

    def result(self) -> Any: ...


@dataclass(frozen=True)
class Stages:
    """How a slot's stages are started, each beside what is going on.

    The result of `fetch` is None, There or NotYet, that of `generate` the provenance. `ready` waits a little for a
    fetch; False where it still goes on. `ahead` inputs are fetched while a slot is sampled. After `patience` failures
    in a row the rest is left.
    """

    fetch: Callable[[Slot], Future]
    generate: Callable[[Slot], Future]
    ready: Callable[[Future], bool] = lambda future: True
    ahead: int = AHEAD
    patience: int | None = None


def make(run: Run, slots: Sequence[Slot], what: str, report: Report, fallback: str | None = None) -> list[Outcome]:
    """What became of each of `slots`, made as Prefect tasks of an operational run, whose task runner is RUNNER.

    `fallback` is noted in their provenance.
    """
    stages = Stages(
        fetch=lambda slot: tasks.fetch.submit(run, slot),
        generate=lambda slot: tasks.generate.submit(run, slot, fallback),
    )
    detail = "" if fallback is None else f"in place of a later cycle: {fallback}"
    return produce(slots, what, report, stages, operations(), detail)


def produce(
    slots: Sequence[Slot],
    what: str,
    report: Report,
    stages: Stages,
    device: AbstractContextManager[Turns],
    detail: str = "",
) -> list[Outcome]:
    """What became of each of `slots`, which are made in their order; one that fails does not stop the others.

    `device` is held meanwhile, and given away between two slots where somebody goes first. Memory holds two slots,
    however many there are. `detail` is said of every slot that is published.
    """
    if not slots:
        return []
    report(Began(what, len(slots)))
    outcomes = []
    with device as turns:
        for outcome in _outcomes(slots, stages, turns, detail):
            report(outcome)
            outcomes.append(outcome)
    return outcomes


def _outcomes(slots: Sequence[Slot], stages: Stages, turns: Turns, detail: str) -> Iterator[Outcome]:
    coming, fetching, making = deque(slots), deque[_Pending](), deque[_Pending]()
    failures = 0
    while coming or fetching or making:
        while coming and len(fetching) < stages.ahead:
            slot = coming.popleft()
            fetching.append((slot, stages.fetch(slot)))
        wanted = turns.wanted()
        if making and (wanted or not fetching or len(making) == BEHIND):
            outcome: Outcome | None = _made(*making.popleft(), detail)
        elif wanted:
            turns.give_way()
            continue
        elif not stages.ready(fetching[0][1]):
            continue
        else:
            slot, future = fetching.popleft()
            outcome = _fetched(slot, future)
            if outcome is None:
                making.append((slot, stages.generate(slot)))
        if outcome is None:
            continue
        failures = failures + 1 if outcome.status == "failed" else 0
        yield outcome
        if failures == stages.patience:
            yield from _left(coming, outcome, failures)
            coming.clear()


_Pending = tuple[Slot, Future]


def _left(coming: Sequence[Slot], last: Outcome, failures: int) -> Iterator[Outcome]:
    for slot in coming:
        yield Outcome(slot, "failed", f"{NOT_TRIED}, {failures} before it failed, the last with: {last.detail}")


def _fetched(slot: Slot, future: Future) -> Outcome | None:
    """None where the slot's inputs are there."""
    try:
        answer = future.result()
    except (CorrdiffError, OSError) as error:
        return Outcome(slot, "failed", in_words(error))
    if isinstance(answer, There):
        return Outcome(slot, "already there", answer.detail)
    return Outcome(slot, "not there yet", f"{answer.reason}") if isinstance(answer, NotYet) else None


def _made(slot: Slot, future: Future, detail: str) -> Outcome:
    try:
        provenance = future.result()
    except (CorrdiffError, OSError) as error:
        return Outcome(slot, "failed", in_words(error))
    warnings = "; ".join(provenance["inputs"]["warnings"])
    return Outcome(
        slot,
        "published",
        "; ".join(filter(None, (detail, warnings))),
        provenance["seconds"]["sample"],
        provenance["members"],
    )
