"""Scores of an ensemble or of a closed-form forecast against what happened. Arrays in, arrays out."""

from corrdiff_core.metrics.bootstrap import Estimate, Resamples, ratio
from corrdiff_core.metrics.ensemble import crps_ensemble, rank_histogram, spread_skill
from corrdiff_core.metrics.exceedance import brier, fair_brier, fractions_skill, fractions_terms, reliability
from corrdiff_core.metrics.field import mean_absolute_error, mean_squared_error
from corrdiff_core.metrics.normal import censored_normal_mean, crps_censored_normal, crps_normal, normal_exceedance
from corrdiff_core.metrics.spectrum import Bands, bands, power_spectrum

__all__ = [
    "Bands",
    "Estimate",
    "Resamples",
    "bands",
    "brier",
    "censored_normal_mean",
    "crps_censored_normal",
    "crps_ensemble",
    "crps_normal",
    "fair_brier",
    "fractions_skill",
    "fractions_terms",
    "mean_absolute_error",
    "mean_squared_error",
    "normal_exceedance",
    "power_spectrum",
    "rank_histogram",
    "ratio",
    "reliability",
    "spread_skill",
]
