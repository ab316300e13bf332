"""Scores of an ensemble or of a closed-form forecast against what happened."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi), np.float64)


def crps_normal(mean: Array, spread: Array, observed: Array) -> Array:
    """CRPS of N(mean, spread^2); arrays broadcast. Gneiting et al. (2005), Mon. Wea. Rev. 133, equation 5."""
    z = (observed - mean) / spread
    return np.asarray(spread * (z * (2 * ndtr(z) - 1) + 2 * _density(z) - 1 / np.sqrt(np.pi)), np.float64)


def crps_censored_normal(mean: Array, spread: Array, observed: Array) -> Array:
    """CRPS of max(0, N(mean, spread^2)), all mass below zero moved to zero; `observed` >= 0; arrays broadcast.

    Integral of (F - 1[x >= observed])^2 over x >= 0, with F the normal CDF there (Jordan et al. 2019, J. Stat. Softw.
    90, censored normal).
    """
    z, c = (observed - mean) / spread, -mean / spread
    root2 = np.sqrt(2.0)
    inner = (
        z * (2 * ndtr(z) - 1)
        + 2 * (_density(z) - _density(c) * ndtr(c))
        - c * ndtr(c) ** 2
        - (1 - ndtr(root2 * c)) / np.sqrt(np.pi)
    )
    return np.asarray(spread * inner, np.float64)


def crps_ensemble(members: NDArray[np.floating], observed: NDArray[np.floating]) -> Array:
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
