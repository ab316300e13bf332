"""Scores of the event that a field reaches a threshold: Brier score, reliability, fractions skill score."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from corrdiff_core.metrics.bootstrap import ratio

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Events = NDArray[np.bool_]


def brier(probability: Array, event: Events) -> Array:
    """Squared error of a probability (Brier 1950, Mon. Wea. Rev. 78), 0 the best; arrays broadcast."""
    return np.asarray((probability - event) ** 2, np.float64)


def fair_brier(votes: Counts, members: int, event: Events) -> Array:
    """Brier score of `votes` of `members` that foresee the event, unbiased in ensemble size; arrays broadcast.

    (p - o)^2 - p (1 - p) / (m - 1) with p = votes / m (Ferro 2014, Q. J. R. Meteorol. Soc. 140). Its
    integral over all thresholds is the fair CRPS. Needs two members or more.
    """
    if members < 2:
        raise ValueError(f"the fair Brier score needs at least 2 members, not {members}")
    p = votes / members
    return np.asarray((p - event) ** 2 - p * (1 - p) / (members - 1), np.float64)


def reliability(votes: Counts, members: int, event: Events) -> tuple[Counts, Counts]:
    """For each number of votes 0..members: how often it was given, and how often the event then came; (members + 1,).

    The forecast is reliable where the second over the first is votes / members (Wilks 2019, section 9.4).
    """
    issued = np.bincount(votes.ravel(), minlength=members + 1)
    came = np.bincount(votes[event].ravel(), minlength=members + 1)
    return issued.astype(np.int64), came.astype(np.int64)


def fractions_terms(probability: Array, event: Events, widths: Sequence[int]) -> tuple[Array, Array]:
    """Mean squared error of neighborhood fractions, and its largest possible value, for squares of odd `widths` points.

    `probability` (0 or 1 for a single field) and `event` are (y, x); points outside count as no event. Sums over times
    of both terms give the fractions skill score (Roberts and Lean 2008, Mon. Wea. Rev. 136, equations 5 and 7; for
    ensembles Schwartz et al. 2010, Wea. Forecasting 25). Each result has the length of `widths`.
    """
    even = [width for width in widths if width % 2 == 0 or width < 1]
    if even:
        raise ValueError(f"neighborhoods of {even} points have no middle: use odd widths")
    error, reference = [], []
    for width in widths:
        said, came = (uniform_filter(np.asarray(f, np.float64), width, mode="constant") for f in (probability, event))
        error.append(np.mean((said - came) ** 2))
        reference.append(np.mean(said**2) + np.mean(came**2))
    return np.array(error, np.float64), np.array(reference, np.float64)


def fractions_skill(error: Array, reference: Array) -> Array:
    """1 - error / reference: 1 the best, 0 no overlap, NaN where neither forecast nor truth has an event."""
    return 1 - ratio(error, reference)
