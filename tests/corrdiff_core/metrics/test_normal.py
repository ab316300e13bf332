"""Closed forms against the integrals that they are, and against scoringrules."""

from itertools import pairwise

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from corrdiff_core.metrics import (
    censored_normal_mean,
    crps_censored_normal,
    crps_ensemble,
    crps_normal,
    normal_exceedance,
)

means, spreads, values = st.floats(-20, 20), st.floats(0.05, 10), st.floats(-30, 30)


def integrated(cdf, observed, low, high, *kinks):
    """CRPS by its definition: the integral of (F(x) - 1[x >= observed])^2."""
    inside = sorted({low, *(p for p in (observed, *kinks) if low < p < high), high})
    return sum(quad(lambda x: (cdf(x) - (x >= observed)) ** 2, a, b, limit=200)[0] for a, b in pairwise(inside))


@given(means, spreads, values)
def test_normal_is_the_integral(mean, spread, observed):
    low, high = min(mean - 9 * spread, observed), max(mean + 9 * spread, observed)
    expected = integrated(lambda x: norm.cdf(x, mean, spread), observed, low, high, mean)
    assert crps_normal(mean, spread, observed) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(means, spreads, st.one_of(st.just(0.0), st.floats(0, 30)))
def test_censored_normal_is_the_integral(mean, spread, observed):
    high = max(mean + 9 * spread, observed, 1e-3)
    expected = integrated(lambda x: norm.cdf(x, mean, spread), observed, 0.0, high, mean)
    assert crps_censored_normal(mean, spread, observed) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_known_values():
    assert crps_normal(0.0, 1.0, 0.0) == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi))
    assert crps_normal(3.0, 2.0, 3.0) == pytest.approx(2 * (np.sqrt(2) - 1) / np.sqrt(np.pi))
    assert crps_normal(0.0, 1e-9, 5.0) == pytest.approx(5.0)  # a certain forecast: its absolute error
    assert crps_censored_normal(-50.0, 1.0, 4.0) == pytest.approx(4.0)  # all mass at 0
    assert crps_censored_normal(-50.0, 1.0, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert crps_censored_normal(30.0, 2.0, 31.0) == pytest.approx(crps_normal(30.0, 2.0, 31.0))  # nothing censored


@given(means, spreads, values, st.floats(0.1, 10))
def test_normal_scales_with_the_unit(mean, spread, observed, factor):
    scaled = crps_normal(factor * mean, factor * spread, factor * observed)
    assert scaled == pytest.approx(factor * crps_normal(mean, spread, observed), rel=1e-6, abs=1e-9)


def test_arrays_broadcast():
    mean, spread, observed = np.zeros((4, 1)), np.ones(3), np.full((2, 1, 1), 1.5)
    assert crps_normal(mean, spread, observed).shape == (2, 4, 3)
    assert crps_censored_normal(mean, spread, observed).shape == (2, 4, 3)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (-1.0, 2.0), (4.0, 3.0), (-8.0, 5.0)])
def test_censored_normal_is_the_score_of_its_draws(mean, spread):
    rng = np.random.default_rng(3)
    draws = np.maximum(rng.normal(mean, spread, (400, 300)), 0)
    observed = np.maximum(rng.normal(mean, spread, 300), 0)
    sampled = crps_ensemble(draws, observed)
    difference = sampled - crps_censored_normal(mean, spread, observed)
    assert abs(difference.mean()) < 5 * spread / np.sqrt(draws.size)
    assert np.abs(difference).max() < 0.3 * spread


@given(means, spreads, values)
def test_scoringrules_agrees(mean, spread, observed):
    assert crps_normal(mean, spread, observed) == pytest.approx(
        scoringrules.crps_normal(observed, mean, spread), rel=1e-9, abs=1e-12
    )
    wet, likely = abs(observed), max(mean, -5 * spread)  # theirs divides by the probability above 0
    assert crps_censored_normal(likely, spread, wet) == pytest.approx(
        scoringrules.crps_cnormal(wet, likely, spread, lower=0.0), rel=1e-6, abs=1e-9
    )


@given(means, spreads)
def test_mean_of_the_censored_normal_is_the_integral(mean, spread):
    low, high = max(mean - 9 * spread, 0.0), max(mean + 9 * spread, 0.0)
    expected = quad(lambda x: x * norm.pdf(x, mean, spread), low, high, limit=200)[0]
    assert censored_normal_mean(mean, spread) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(means, spreads, st.floats(0.01, 30))
def test_exceedance_is_the_survival_function(mean, spread, threshold):
    expected = norm.sf(threshold, mean, spread)
    assert normal_exceedance(mean, spread, threshold) == pytest.approx(expected, rel=1e-9, abs=1e-300)
