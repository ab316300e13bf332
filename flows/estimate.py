"""What a backfill would take, from what the slots in the archive have taken."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import compact
from flows.planning import Plan
from flows.slots import Run

MEASURED = 20  # slots that a rate is the median of, the newest ones


@dataclass(frozen=True)
class Estimate:
    """What there is to do, and what each slot takes; None where no slot in the archive tells."""

    plan: Plan
    what: str
    fetched: float | None  # bytes
    stored: float | None  # bytes
    sampled: float | None  # s
    measured: str

    def __str__(self) -> str:
        slots, todo, redo = self.plan.slots, len(self.plan.todo), len(self.plan.redo)
        span = f"{compact(slots[0].valid_time)}Z to {compact(slots[-1].valid_time)}Z" if slots else "nothing to do"
        again = f", {redo} of them again" if redo else ""
        return "\n".join(
            [
                f"{self.what}, {span}: {len(slots)} slots, {self.plan.there} are there, {todo} to make{again}",
                _line("to read", self.fetched, todo, in_bytes),
                _line("to store", self.stored, todo, in_bytes),
                _line("sampling", self.sampled, todo, in_time),
                f"{self.measured}; nothing was fetched or written",
            ]
        )


def estimate(run: Run, wanted: Plan) -> Estimate:
    """From the newest slots of the same series; where it has none, sampling and storage from the model's others."""
    archive, series = run.archive(), run.series
    own = list(islice(_newest(archive, series), MEASURED))
    others = own or list(islice(_elsewhere(run, archive), MEASURED))
    known = "the newest slots in the archive" if own else "slots of this model from other sources"
    told = f"measured on {len(others)} of {known}" if others else "no slot was made yet that tells: make one, ask again"
    return Estimate(
        wanted,
        f"{series.key}, {run.sampling.members} members",
        _median([made["inputs"].get("bytes") for made in own if not made["inputs"].get("cached")]),
        _median([_by_member(made, "stored_bytes", run) for made in others]),
        _median([_by_member(made["seconds"] | {"members": made["members"]}, "sample", run) for made in others]),
        told,
    )


def _newest(archive: Archive, series: Series) -> Iterator[dict[str, Any]]:
    """What the slots of a series were published with, newest first."""
    for start in reversed(archive.stores(series)):
        for slot in sorted(archive.published(series, start), reverse=True):
            yield archive.provenance(series, slot)


def _elsewhere(run: Run, archive: Archive) -> Iterator[dict[str, Any]]:
    for series in archive.series():
        if series.model == run.series.model and series != run.series:
            yield from _newest(archive, series)


def _by_member(made: dict[str, Any], name: str, run: Run) -> float | None:
    """A figure of a slot, scaled to the members of this run."""
    value = made.get(name)
    return None if value is None else float(value) * run.sampling.members / int(made["members"])


def _median(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return median(known) if known else None


def _line(name: str, each: float | None, count: int, words: Any) -> str:
    if each is None:
        return f"  {name:9} unknown"
    return f"  {name:9} {words(each * count)} ({words(each)} a slot)"


def in_bytes(count: float) -> str:
    """
    >>> in_bytes(69_120), in_bytes(6.3e8)
    ('69.1 kB', '630 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def in_time(seconds: float) -> str:
    """
    >>> in_time(4.21), in_time(3800), in_time(200_000)
    ('4.2 s', '1 h 03 min', '2 d 8 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
