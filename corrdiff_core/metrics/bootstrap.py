"""Bootstrap over times: how far a mean, or the ratio of two, could have come out otherwise on other weather.

Hours of one day are alike, so whole days are drawn (block bootstrap; Kunsch 1989, Ann. Stat. 17), unless told
otherwise. All statistics of one `Resamples` see the same draws: what is compared is compared on the same weather.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value and its 95 % interval (percentiles), NaN where that is unknown."""

    value: float
    low: float
    high: float


def ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, NaN where the denominator is 0; arrays broadcast."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(denominator == 0, np.nan, numerator / denominator), np.float64)


@dataclass(frozen=True, eq=False)
class Resamples:
    """Draws with replacement of the blocks that times fall in.

    `block` (time,) numbers each time's block; `draws` (1 + resamples, block) says how often each block is taken: once
    each in row 0, which is the sample itself.
    """

    block: NDArray[np.intp]
    draws: Array

    @classmethod
    def of(cls, times: Sequence[datetime], count: int = 2000, seed: int = 0, by_day: bool = True) -> "Resamples":
        """`count` resamples of `times`, keyed by `seed`: whole days (UTC), or single times where not `by_day`."""
        if not times or count < 1:
            raise ValueError(f"{len(times)} times and {count} resamples: at least one of each is needed")
        days = [time.toordinal() for time in times] if by_day else range(len(times))
        _, block = np.unique(np.asarray(days), return_inverse=True)
        blocks = int(block.max()) + 1
        rng = np.random.Generator(np.random.Philox(key=seed))
        drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=count)
        return cls(block, np.concatenate([np.ones((1, blocks)), drawn]))

    @property
    def blocks(self) -> int:
        return int(self.draws.shape[1])

    def means(self, series: ArrayLike) -> Array:
        """Mean over the times of `series` (time, ...) in the sample itself and in each resample: (1 + resamples, ...).

        Any function of such means has its `estimate`, be it a ratio or a root.
        """
        values = np.asarray(series, np.float64)
        if len(values) != len(self.block):
            raise ValueError(f"a series of {len(values)} times, the resamples are of {len(self.block)}")
        sums = np.zeros((self.blocks, *values.shape[1:]))
        np.add.at(sums, self.block, values)
        sizes = self.draws @ np.bincount(self.block, minlength=self.blocks)
        return np.asarray(np.tensordot(self.draws, sums, axes=1) / sizes.reshape(-1, *[1] * (values.ndim - 1)))

    def estimate(self, statistic: Array) -> Estimate:
        """Value and interval of a `statistic` (1 + resamples,) of `means`.

        Of fewer than two blocks, and where a resample has no such number (a ratio to 0), there is no interval.
        """
        if self.blocks < 2 or not np.isfinite(statistic).all():
            return Estimate(float(statistic[0]), float("nan"), float("nan"))
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(statistic[1:], [tail, 100 - tail])
        return Estimate(float(statistic[0]), float(low), float(high))
