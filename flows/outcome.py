"""What became of a run's slots, and the exit code that follows from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import CorrdiffError
from flows.window import Window

Status = Literal["published", "already there", "not there yet", "failed"]
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
NOT_TRIED = "not tried"  # begins the detail of a slot that was left after too many failures
TOLD = 5  # reasons of failure that a backfill's error names, at most


class SlotError(CorrdiffError):
    """Slots of a window failed; the message is one line that names every one."""


@dataclass(frozen=True)
class Outcome:
    """What became of one slot; `detail` says why it failed, is not there yet, or which cycle it stands in for."""

    slot: Slot
    status: Status
    detail: str = ""
    seconds: float = 0.0  # of sampling
    members: int = 0

    @property
    def good(self) -> bool:
        return self.status in ("published", "already there")

    def __str__(self) -> str:
        speed = f", {self.members} members in {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.status}{speed}{': ' if self.detail else ''}{self.detail}"


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 where every slot is there, 75 where some are not there yet, 1 where one failed."""
    statuses = {outcome.status for outcome in outcomes}
    return 1 if "failed" in statuses else TRY_AGAIN if "not there yet" in statuses else 0


@dataclass(frozen=True)
class Result:
    """A whole run: its window's slots in order and their store; older hours that it healed change no exit code."""

    window: Window
    outcomes: tuple[Outcome, ...]
    store: str
    picture: str | None = None
    healed: tuple[Outcome, ...] = ()

    @property
    def exit_code(self) -> int:
        return exit_code(self.outcomes)

    @property
    def summary(self) -> str:
        good = sum(outcome.good for outcome in self.outcomes)
        late = "; the others are not there yet, try again later" if self.exit_code == TRY_AGAIN else ""
        where = f": {self.store}" if good else ""
        return f"{good} of {len(self.outcomes)} slots of {self.window.cycle} are in the archive{where}{late}"

    def raise_failures(self) -> None:
        """SlotError where a slot of the window failed."""
        failed = [f"{outcome.slot}: {outcome.detail}" for outcome in self.outcomes if outcome.status == "failed"]
        if failed:
            count = f"{len(failed)} of {len(self.outcomes)} slots failed: " if len(self.outcomes) > 1 else ""
            raise SlotError(count + "; ".join(failed))


@dataclass(frozen=True)
class Backfilled:
    """A whole backfill: `asked` slots, of which `there` were in the archive before, and what became of the others."""

    asked: int
    there: int
    outcomes: tuple[Outcome, ...]
    where: str

    @property
    def left(self) -> tuple[Outcome, ...]:
        """Those that are not in the archive now."""
        return tuple(outcome for outcome in self.outcomes if not outcome.good)

    @property
    def exit_code(self) -> int:
        return exit_code(self.outcomes)

    @property
    def summary(self) -> str:
        made = sum(outcome.status == "published" for outcome in self.outcomes)
        stayed = sum(outcome.status == "already there" for outcome in self.outcomes)
        late = [outcome for outcome in self.left if outcome.status == "not there yet"]
        parts = [
            f"{self.there + stayed + made} of {self.asked} slots of {self.where} are in the archive, {made} of them new"
        ]
        if late:
            parts.append(f"{len(late)} are not there yet, from {late[0].slot} on: {late[0].detail}")
        if len(self.left) > len(late):
            parts.append(f"{len(self.left) - len(late)} failed")
        return "; ".join(parts)

    def raise_failures(self) -> None:
        """SlotError where a slot failed; names the first few, by reason."""
        reasons: dict[str, list[Slot]] = {}
        for outcome in self.left:
            if outcome.status == "failed":
                reasons.setdefault(outcome.detail, []).append(outcome.slot)
        if reasons:
            told = [f"{_slots(slots)}: {reason}" for reason, slots in list(reasons.items())[:TOLD]]
            more = [f"and {len(reasons) - TOLD} other reasons"] if len(reasons) > TOLD else []
            raise SlotError(f"{self.summary}: {'; '.join(told + more)}")


def _slots(slots: list[Slot]) -> str:
    return str(slots[0]) if len(slots) == 1 else f"{slots[0]} to {slots[-1]} ({len(slots)} slots)"


def in_words(error: Exception) -> str:
    """One line; an error that is not this package's says its kind."""
    message = " ".join(str(error).split())
    return message if isinstance(error, CorrdiffError) else f"{type(error).__name__}: {message}"
