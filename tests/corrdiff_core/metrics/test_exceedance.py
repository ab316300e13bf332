"""Exceedance scores against brute force and against what must hold between them."""

from itertools import pairwise

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.metrics import (
    brier,
    crps_ensemble,
    fair_brier,
    fractions_skill,
    fractions_terms,
    reliability,
)


def test_brier_is_the_squared_error_of_the_probability():
    probability, event = np.array([0.0, 1.0, 0.25, 0.25]), np.array([False, False, True, False])
    np.testing.assert_allclose(brier(probability, event), [0, 1, 0.5625, 0.0625])
    np.testing.assert_allclose(brier(probability, event), scoringrules.brier_score(event.astype(float), probability))


@given(st.integers(0, 2**32), st.integers(2, 9))
def test_fair_brier_over_all_thresholds_is_the_fair_crps(seed, count):
    """CRPS is the integral of the Brier score over thresholds, and so is the fair one of the fair one."""
    rng = np.random.default_rng(seed)
    members, observed = rng.normal(size=count), rng.normal()
    edges = np.sort([*members, observed])
    total = 0.0
    for low, high in pairwise(edges):  # between two edges nothing changes
        threshold = (low + high) / 2
        votes = np.array((members >= threshold).sum())
        total += (high - low) * float(fair_brier(votes, count, np.array(observed >= threshold)))
    assert total == pytest.approx(float(crps_ensemble(members, np.float64(observed))), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_fair_brier_does_not_depend_on_the_size_of_the_ensemble(count):
    """Its mean is that of the probability itself, p (1 - p) where truth has the same one."""
    rng = np.random.default_rng(count)
    votes, event = rng.binomial(count, 0.3, 400_000), rng.uniform(size=400_000) < 0.3
    scores = fair_brier(votes, count, event)
    assert scores.mean() == pytest.approx(0.21, abs=5 * scores.std() / np.sqrt(scores.size))


def test_one_member_has_no_fair_score():
    with pytest.raises(ValueError, match="at least 2 members, not 1"):
        fair_brier(np.array(1), 1, np.array(True))


def test_reliability_counts_votes_and_events():
    votes = np.array([[0, 0, 2], [1, 2, 2]])
    event = np.array([[False, True, True], [False, False, True]])
    issued, came = reliability(votes, 3, event)
    assert issued.tolist() == [2, 1, 3, 0]
    assert came.tolist() == [1, 0, 2, 0]


def test_probabilities_that_come_true_are_reliable():
    rng = np.random.default_rng(4)
    probability = rng.uniform(size=500_000)
    issued, came = reliability(rng.binomial(1, probability), 1, rng.uniform(size=500_000) < probability)
    # P(event | one vote) = E[p^2] / E[p] = 2/3 for p uniform in 0..1
    np.testing.assert_allclose(came / issued, [1 / 3, 2 / 3], atol=0.005)


# --- fractions skill --------------------------------------------------------------------------------------------------


def brute_force(field, width):
    """Share of events in the square around each point; none beyond the edges."""
    half = width // 2
    padded = np.pad(np.asarray(field, float), half)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width))
    return windows.mean(axis=(-2, -1))


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 5, 9]))
def test_fractions_are_those_of_brute_force(seed, width):
    rng = np.random.default_rng(seed)
    probability, event = rng.uniform(size=(11, 14)), rng.uniform(size=(11, 14)) < 0.3
    said, came = brute_force(probability, width), brute_force(event, width)
    error, reference = fractions_terms(probability, event, [width])
    np.testing.assert_allclose(error, [((said - came) ** 2).mean()], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(reference, [(said**2).mean() + (came**2).mean()], rtol=1e-9)


def test_a_displaced_rain_band_is_forgiven_with_distance():
    """A band 1 point wide, 4 points off: no overlap up to 4 points, 1 - 4 / n in squares of n (Roberts and Lean)."""
    truth, forecast = np.zeros((201, 201), bool), np.zeros((201, 201))
    truth[:, 98], forecast[:, 102] = True, 1.0
    widths = [1, 3, 5, 9, 21, 41]
    skill = fractions_skill(*fractions_terms(forecast, truth, widths))
    np.testing.assert_allclose(skill, [max(0.0, 1 - 4 / n) for n in widths], atol=1e-9)


def test_the_truth_itself_has_all_the_skill():
    event = np.random.default_rng(0).uniform(size=(20, 20)) < 0.2
    np.testing.assert_allclose(fractions_skill(*fractions_terms(event.astype(float), event, [1, 5])), 1)


def test_without_an_event_there_is_no_skill_to_speak_of():
    nothing = np.zeros((9, 9), bool)
    assert np.isnan(fractions_skill(*fractions_terms(nothing.astype(float), nothing, [1, 3]))).all()


@pytest.mark.parametrize("width", [0, 2, -1])
def test_a_square_needs_a_middle(width):
    with pytest.raises(ValueError, match="no middle"):
        fractions_terms(np.zeros((9, 9)), np.zeros((9, 9), bool), [3, width])
