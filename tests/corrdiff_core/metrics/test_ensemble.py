"""Scores of ensembles against plain double sums, closed forms, and scoringrules."""

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.metrics import crps_ensemble, rank_histogram, spread_skill


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=12),
    st.floats(-100, 100),
    st.randoms(use_true_random=False),
)
def test_ensemble_is_the_plain_double_sum(members, observed, random):
    array = np.array(members)
    count = len(members)
    pairs = np.abs(array[:, None] - array[None, :]).sum() / (2 * count * (count - 1))
    expected = np.abs(array - observed).mean() - pairs
    assert crps_ensemble(array, np.float64(observed)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    random.shuffle(members)
    assert crps_ensemble(np.array(members), np.float64(observed)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_ensemble_is_unbiased_in_its_size(count):
    """Its mean is that of the distribution it was drawn from, which for N(0, 1) in itself is 1 / sqrt(pi)."""
    rng = np.random.default_rng(count)
    members, observed = rng.normal(size=(count, 200_000)), rng.normal(size=200_000)
    scores = crps_ensemble(members, observed)
    assert scores.shape == observed.shape
    assert scores.mean() == pytest.approx(1 / np.sqrt(np.pi), abs=5 * scores.std() / np.sqrt(scores.size))


def test_float32_fields_are_scored_in_float64():
    rng = np.random.default_rng(0)
    members = (300 + rng.normal(size=(8, 5, 6))).astype(np.float32)
    scores = crps_ensemble(members, members[0])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, crps_ensemble(members.astype(np.float64), members[0].astype(np.float64)))


def test_one_member_has_no_fair_score():
    with pytest.raises(ValueError, match="at least 2 members, not 1"):
        crps_ensemble(np.zeros((1, 3)), np.zeros(3))


@given(st.integers(0, 2**32), st.integers(2, 20))
def test_scoringrules_agrees(seed, count):
    rng = np.random.default_rng(seed)
    members, observed = rng.normal(size=(count, 7, 5)), rng.normal(size=(7, 5))
    expected = scoringrules.crps_ensemble(observed, members, m_axis=0, estimator="fair")
    np.testing.assert_allclose(crps_ensemble(members, observed), expected, rtol=1e-9, atol=1e-12)


class TestSpreadSkill:
    @pytest.mark.parametrize("count", [2, 5, 40])
    def test_it_is_one_where_truth_is_one_of_the_draws(self, count):
        """Truth and members are draws of one distribution: its variance cancels, whatever the ensemble's size."""
        rng = np.random.default_rng(count)
        center, spread = rng.normal(0, 5, 200_000), rng.uniform(0.5, 3, 200_000)
        members, truth = center + spread * rng.normal(size=(count, 200_000)), center + spread * rng.normal(size=200_000)
        variance, error = members.var(axis=0, ddof=1).mean(), ((members.mean(axis=0) - truth) ** 2).mean()
        assert spread_skill(variance, error, count) == pytest.approx(1, abs=0.015)

    def test_half_the_spread_is_half(self):
        """Members of spread s / 2 around the mean: the error has variance s^2 (1 + 1 / (4 m))."""
        rng = np.random.default_rng(0)
        members, truth = 0.5 * rng.normal(size=(10, 200_000)), rng.normal(size=200_000)
        variance, error = members.var(axis=0, ddof=1).mean(), ((members.mean(axis=0) - truth) ** 2).mean()
        expected = np.sqrt(11 / 10 * 0.25 / (1 + 0.25 / 10))
        assert spread_skill(variance, error, 10) == pytest.approx(expected, abs=0.01)

    def test_without_error_there_is_no_ratio(self):
        found = spread_skill(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.1]), 10)
        assert np.isnan(found[:2]).all()
        assert found[2] == pytest.approx(1)


class TestRanks:
    def test_they_count_the_members_below(self):
        members = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]])
        found = rank_histogram(members, np.array([0.0, 1.5, 2.5, 9]), np.random.default_rng(0))
        assert found.tolist() == [1, 1, 1, 1]

    def test_a_calibrated_ensemble_is_flat(self):
        rng = np.random.default_rng(1)
        counts = rank_histogram(rng.normal(size=(7, 300, 300)), rng.normal(size=(300, 300)), rng)
        expected = 300 * 300 / 8
        assert counts.sum() == 300 * 300
        assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi-squared with 7 degrees of freedom, 0.1 %

    def test_ties_are_drawn_evenly(self):
        """Without rain anywhere nobody can be told apart: flat, and not the lowest rank alone."""
        counts = rank_histogram(np.zeros((4, 50_000)), np.zeros(50_000), np.random.default_rng(2))
        assert ((counts - 10_000) ** 2 / 10_000).sum() < 18.5  # 4 degrees of freedom

    def test_ties_among_some_members_only(self):
        """One member below, two equal, one above: ranks 1, 2 and 3."""
        members = np.repeat([[0.0], [1.0], [1.0], [2.0]], 30_000, axis=1)
        counts = rank_histogram(members, np.ones(30_000), np.random.default_rng(3))
        assert counts[[0, 4]].tolist() == [0, 0]
        assert ((counts[1:4] - 10_000) ** 2 / 10_000).sum() < 13.8

    def test_the_key_decides(self):
        ties = np.zeros((4, 1000)), np.zeros(1000)
        first, again, other = (rank_histogram(*ties, np.random.Generator(np.random.Philox(key=k))) for k in (1, 1, 2))
        assert first.tolist() == again.tolist() != other.tolist()
