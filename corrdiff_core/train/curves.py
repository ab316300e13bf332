"""How a stage is seen from outside: lines for people, TensorBoard event files, and a heartbeat for what waits on it."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.train.preset import StageName

HEARTBEAT = "progress.json"
CURVES = "curves"
EVERY = 10.0  # s between two lines

Report = Callable[[str], None]


@dataclass
class Pace:
    """Samples per second since the last time it was asked."""

    seen: int
    since: float = field(default_factory=time.monotonic)

    def lap(self, seen: int) -> float:
        now = time.monotonic()
        rate = (seen - self.seen) / max(now - self.since, 1e-9)
        self.seen, self.since = seen, now
        return rate


class Curves:
    """Curves of one stage over the samples seen, in `folder`/curves/<stage>; `folder`/progress.json is the newest line.

    `first` is how many samples have been seen: what an earlier run wrote beyond is void.
    """

    def __init__(self, folder: Path, stage: StageName, first: int, total: int, report: Report) -> None:
        self._objects, self._stage, self._total, self._report = open_objects(str(folder)), stage, total, report
        self._writer = SummaryWriter(str(folder / CURVES / stage), purge_step=first + 1)
        self._pace = Pace(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def step(self, seen: int, loss: float, smoothed: float, **others: float) -> None:
        """After each step: its loss and what else is to be drawn; every 10 s a line with the smoothed loss.

        What is not finite is not drawn: `skipped` tells of it.
        """
        finite = {name: value for name, value in {"loss": loss, **others}.items() if math.isfinite(value)}
        for name, value in finite.items():
            self._writer.add_scalar(name, value, seen)
        if time.monotonic() - self._pace.since >= EVERY or seen == self._total:
            self.tell(seen, smoothed)

    def tell(self, seen: int, loss: float) -> None:
        """A line and the heartbeat."""
        rate = self._pace.lap(seen)
        self._writer.add_scalar("samples_per_second", rate, seen)
        self._report(f"{self._stage} {seen}/{self._total} samples, loss {loss:.4f}, {rate:.1f} samples/s")
        self._beat(seen=seen, loss=loss, samples_per_second=rate)

    def validated(self, seen: int, loss: float) -> None:
        self._writer.add_scalar("validation", loss, seen)
        self._report(f"{self._stage} {seen}/{self._total} samples, validation loss {loss:.4f}")

    def skipped(self, seen: int, norm: float, count: int, limit: int) -> None:
        self._writer.add_scalar("skipped", count, seen)
        self._report(
            f"{self._stage} {seen}/{self._total} samples, gradient {norm}: step skipped, {count} of at most {limit}"
        )

    def flush(self) -> None:
        """To disk; before the state that follows it."""
        self._writer.flush()

    def _beat(self, **values: Any) -> None:
        beat = {
            "stage": self._stage,
            "total": self._total,
            **values,
            "written": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        self._objects.put(HEARTBEAT, json.dumps(beat).encode())
