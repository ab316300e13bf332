"""Mean and standard deviation of each channel over many samples: one pass in float64, in parts that add up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, runtime_checkable

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from corrdiff_core.dataset.samples import Samples
from corrdiff_core.errors import DatasetError
from corrdiff_core.normalization import Statistics

_TOGETHER = 16  # samples to a Dask task

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Number of values, mean and sum of squared deviations from it, by channel; float64."""

    count: int
    mean: Array
    squares: Array

    @classmethod
    def of(cls, fields: NDArray[np.floating]) -> "Moments":
        """Of one (channel, ...) field."""
        values = fields.reshape(len(fields), -1)
        mean = values.mean(axis=1, dtype=np.float64)
        squares = [np.square(channel - center).sum() for channel, center in zip(values, mean, strict=True)]
        return cls(values.shape[1], mean, np.array(squares, np.float64))

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets of values together (Chan, Golub and LeVeque 1983, Am. Stat. 37, eq. 2.1)."""
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * (other.count / count),
            self.squares + other.squares + shift**2 * (self.count * other.count / count),
        )

    def statistics(self, names: tuple[str, ...]) -> Statistics:
        """Mean as center, standard deviation as scale; DatasetError for a channel that is constant."""
        scale = np.sqrt(self.squares / self.count)
        constant = [name for name, value in zip(names, scale, strict=True) if not value > 0]
        if constant:
            raise DatasetError(
                f"{', '.join(constant)} has the same value at all {self.count} points: no statistics can be made of "
                "that; check where it came from"
            )
        return Statistics(names, tuple(self.mean.tolist()), tuple(scale.tolist()))


Pair = tuple[Moments, Moments]


@runtime_checkable
class Measured(Protocol):
    """Samples that know the moments of each without reading it."""

    def moments(self, index: int) -> Pair:
        """Of inputs and truth of the sample at `index`."""
        ...


def sample_statistics(samples: Samples, limit: int | None = None) -> tuple[Statistics, Statistics]:
    """Statistics of inputs and of truth over all points of all samples, or of `limit` evenly spread over the index.

    Read in parallel by Dask, on the scheduler in use; the result does not depend on it. Raises DatasetError for no
    samples, for one that cannot be read, for a constant channel.
    """
    count = len(samples)
    if count < 1 or (limit is not None and limit < 1):
        raise DatasetError(f"statistics of {limit} of {count} samples: at least one is needed")
    indices = range(count) if limit is None or limit >= count else [at * count // limit for at in range(limit)]
    if isinstance(samples, Measured):
        inputs, outputs = _sum(samples.moments(index) for index in indices)
    else:
        parts = [indices[first : first + _TOGETHER] for first in range(0, len(indices), _TOGETHER)]
        inputs, outputs = _sum(compute(*(delayed(_moments)(samples, part) for part in parts)))  # type: ignore[no-untyped-call]
    return inputs.statistics(samples.domain.inputs), outputs.statistics(samples.domain.outputs)


def _moments(samples: Samples, indices: Sequence[int]) -> Pair:
    return _sum((Moments.of(s.inputs), Moments.of(s.truth)) for s in (samples.read(index) for index in indices))


def _sum(pairs: Iterable[Pair]) -> Pair:
    return reduce(lambda one, other: (one[0] + other[0], one[1] + other[1]), pairs)
