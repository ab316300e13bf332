"""Scores of an ensemble: its accuracy (fair CRPS), its spread beside its error, where the truth ranks in it."""

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.metrics.bootstrap import ratio

Array = NDArray[np.float64]
Floating = NDArray[np.floating]


def crps_ensemble(members: Floating, observed: Floating) -> Array:
    """Fair (unbiased in ensemble size) CRPS; members (member, ...), observed (...); needs two members or more.

    mean|x - y| - sum_ij |x_i - x_j| / (2 m (m - 1)) (Ferro 2014, Q. J. R. Meteorol. Soc. 140), the double sum from
    sorted members.
    """
    count = members.shape[0]
    if count < 2:
        raise ValueError(f"the fair CRPS needs at least 2 members, not {count}")
    ordered = np.sort(np.asarray(members, np.float64), axis=0)
    weights = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, *[1] * (ordered.ndim - 1))
    pairs = (weights * ordered).sum(axis=0)  # sum over i < j of x_j - x_i
    return np.asarray(np.abs(ordered - observed).mean(axis=0) - pairs / (count * (count - 1)), np.float64)


def spread_skill(variance: Array, squared_error: Array, members: int) -> Array:
    """Spread over the error of the ensemble mean: 1 where calibrated, below 1 where underdispersed, NaN without error.

    sqrt((m + 1) / m * mean variance / mean squared error), with the variance of m - 1 degrees of freedom, both averaged
    over points and times before the ratio; arrays broadcast (Fortin et al. 2014, J. Hydrometeorol. 15).
    """
    return np.asarray(np.sqrt((members + 1) / members * ratio(variance, squared_error)), np.float64)


def rank_histogram(members: Floating, observed: Floating, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many points have their truth at each rank of the ensemble, (member + 1,); flat where calibrated.

    Rank r: r members lie below the truth. Among members that equal it (0 dBZ) the rank is drawn from `rng` (Hamill
    2001, Mon. Wea. Rev. 129). `members` is (member, ...), `observed` (...).
    """
    below = (members < observed).sum(axis=0)
    equal = (members == observed).sum(axis=0)
    ranks = below + rng.integers(0, equal, endpoint=True)
    return np.bincount(ranks.ravel(), minlength=len(members) + 1).astype(np.int64)
