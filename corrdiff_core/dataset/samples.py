"""What training and evaluation read: coarse inputs on the domain beside the 2-km truth, one sample per time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.cycle import compact
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Domain

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """One time in physical units; every value is finite.

    `inputs` is (input, y, x), regridded to the domain, `truth` is (output, y, x), both float32 in the order of
    the domain's inputs and outputs and in our units; `time` is the valid time, UTC.
    """

    time: datetime
    inputs: Float32
    truth: Float32


@runtime_checkable
class Samples(Protocol):
    """Samples by index. They travel to loader workers, which are spawned processes, so they can be pickled."""

    @property
    def domain(self) -> Domain: ...

    @property
    def times(self) -> Sequence[datetime]:
        """The valid time of every sample, in the order of the index."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """The sample at `index`; DatasetError where it is missing, has holes or is not finite."""
        ...

    def select(self, start: datetime, end: datetime) -> "Samples":
        """Those with start <= time < end, in the same order."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of what the samples are, content and order, and not of where they lie."""
        ...

    @property
    def description(self) -> str:
        """One line for a manifest: what this is, how many samples, which span."""
        ...


def digest_of(described: Any) -> str:
    """SHA-256 of plain JSON values, whatever the order of their keys."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def span(times: Sequence[datetime]) -> str:
    """How many samples and from when to when, in words.

    >>> span([datetime(2020, 5, 1, 7), datetime(2020, 5, 1)])
    '2 samples of 20200501T00..20200501T07'
    """
    return f"{len(times)} samples of {compact(min(times))}..{compact(max(times))}" if times else "no samples"


def refuse_holes(where: str, values: Float32, names: Sequence[str]) -> None:
    """DatasetError where a channel of `values` (channel, ...) is not finite at some point."""
    if np.isfinite(values).all():
        return
    broken = {name: int((~np.isfinite(field)).sum()) for name, field in zip(names, values, strict=True)}
    listed = ", ".join(f"{name} at {count} of {values[0].size} points" for name, count in broken.items() if count)
    raise DatasetError(f"{where}: {listed} not finite: leave this time out, or get it anew")
