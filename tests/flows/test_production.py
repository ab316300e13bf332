"""The order in which slots are fetched and made, and who waits for whom, with threads in place of weather."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from corrdiff_core.cycle import HOUR, Slot
from flows.limits import Turns
from flows.outcome import Outcome
from flows.production import Stages, produce

SLOTS = [Slot(datetime(2021, 6, 7) + number * HOUR) for number in range(4)]
MADE = {"inputs": {"warnings": []}, "seconds": {"sample": 1.0}, "members": 2}


class Wanted:
    """A device that somebody wants once `now` is set, until way was given."""

    def __init__(self) -> None:
        self.now, self.given = threading.Event(), threading.Event()

    def wanted(self) -> bool:
        return self.now.is_set() and not self.given.is_set()

    def give_way(self) -> None:
        self.given.set()


@contextmanager
def held(turns: Turns) -> Iterator[Turns]:
    yield turns


@pytest.mark.parametrize("stalled", [0, 1, 2])  # with nothing, one slot and two in the making before it
def test_a_fetch_that_stalls_keeps_no_device_from_operations(stalled: int) -> None:
    turns, arrive = Wanted(), threading.Event()
    made: list[Slot] = []

    def fetch(slot: Slot) -> None:
        if slot == SLOTS[stalled]:
            time.sleep(0.3)  # the others are under way, and the flow waits for this one
            turns.now.set()
            assert arrive.wait(5)

    def generate(slot: Slot) -> dict[str, Any]:
        made.append(slot)
        return MADE

    with ThreadPoolExecutor(4) as fetching, ThreadPoolExecutor(1) as generating:
        stages = Stages(
            fetch=lambda slot: fetching.submit(fetch, slot),
            generate=lambda slot: generating.submit(generate, slot),
            ready=lambda future: bool(wait([future], 0.05).done),  # type: ignore[list-item]
        )
        threading.Thread(target=lambda: turns.given.wait(5) and arrive.set()).start()
        outcomes = produce(SLOTS, "a period", lambda event: None, stages, held(turns))
    assert turns.given.is_set()
    assert [outcome.slot for outcome in outcomes] == made == SLOTS


def test_after_enough_failures_in_a_row_the_rest_is_left() -> None:
    def fail(slot: Slot) -> None:
        raise OSError("no space")

    with ThreadPoolExecutor(1) as pool:
        stages = Stages(fetch=lambda slot: pool.submit(fail, slot), generate=pool.submit, ahead=1, patience=2)
        outcomes: list[Outcome] = produce(SLOTS, "a period", lambda event: None, stages, held(Wanted()))
    assert [outcome.status for outcome in outcomes] == ["failed"] * 4
    assert [outcome.detail.partition(",")[0] for outcome in outcomes[2:]] == ["not tried", "not tried"]
