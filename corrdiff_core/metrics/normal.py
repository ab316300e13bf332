"""Closed forms of a normal forecast, and of one that is censored at 0 as reflectivity is."""

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


def censored_normal_mean(mean: Array, spread: Array) -> Array:
    """Expected value of max(0, N(mean, spread^2)); arrays broadcast (Tobin 1958, Econometrica 26)."""
    z = mean / spread
    return np.asarray(mean * ndtr(z) + spread * _density(z), np.float64)


def normal_exceedance(mean: Array, spread: Array, threshold: float) -> Array:
    """Probability that N(mean, spread^2) is `threshold` or more; for a threshold above 0 the censored one's too."""
    return np.asarray(ndtr((mean - threshold) / spread), np.float64)
