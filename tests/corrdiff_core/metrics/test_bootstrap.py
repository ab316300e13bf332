"""The bootstrap: against the plain loop that it stands for, and against theory."""

from datetime import datetime

import numpy as np
import pytest
from scipy.stats import norm

from corrdiff_core.cycle import HOUR, hours_from
from corrdiff_core.metrics import Resamples, ratio

START = datetime(2021, 6, 1)


def test_the_first_row_is_the_sample_itself():
    series = np.random.default_rng(0).normal(size=(50, 3))
    found = Resamples.of(hours_from(START, 50), count=10).means(series)
    assert found.shape == (11, 3)
    np.testing.assert_allclose(found[0], series.mean(axis=0))


def test_every_resample_is_the_mean_over_the_hours_of_drawn_days():
    """Days of unequal length, spelled out: the mean over all hours that were drawn, as often as they were."""
    times = [*hours_from(START, 30), *hours_from(START + 100 * HOUR, 7)]
    series = np.random.default_rng(1).normal(size=len(times))
    resamples = Resamples.of(times, count=50)
    days = sorted({time.date() for time in times})
    assert resamples.blocks == len(days)
    for row, found in zip(resamples.draws, resamples.means(series), strict=True):
        drawn = [
            value
            for day, often in zip(days, row.astype(int), strict=True)
            for _ in range(often)
            for time, value in zip(times, series, strict=True)
            if time.date() == day
        ]
        assert found == pytest.approx(np.mean(drawn))
    assert (resamples.draws.sum(axis=1) == len(days)).all()


def test_the_interval_of_independent_times_is_the_normal_one():
    series = np.random.default_rng(2).normal(5, 2, 400)
    resamples = Resamples.of(hours_from(START, 400), count=4000, by_day=False)
    found = resamples.estimate(resamples.means(series))
    half = norm.ppf(0.975) * series.std() / 20
    assert found.value == pytest.approx(series.mean())
    assert (found.low, found.high) == pytest.approx((series.mean() - half, series.mean() + half), abs=0.03)


def test_hours_of_a_day_that_are_alike_make_the_interval_wide():
    """24 equal hours tell no more than one: the interval is that of the days."""
    days = np.random.default_rng(3).normal(size=60)
    times, series = hours_from(START, 60 * 24), np.repeat(days, 24)
    by_day, by_time = (Resamples.of(times, by_day=blocks) for blocks in (True, False))
    widths = [np.ptp(r.estimate(r.means(series))[1:]) for r in (by_day, by_time)]
    assert widths[0] == pytest.approx(2 * norm.ppf(0.975) * days.std() / np.sqrt(60), rel=0.1)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(24), rel=0.15)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(4)
    resamples = Resamples.of(hours_from(START, 200), count=400, by_day=False)
    hits = 0
    for _ in range(400):
        found = resamples.estimate(resamples.means(rng.exponential(size=200)))
        hits += found.low <= 1 <= found.high
    assert 0.91 < hits / 400 < 0.98


def test_what_is_paired_is_far_better_known_than_either():
    rng = np.random.default_rng(5)
    weather = rng.gamma(1.0, 1.0, 300)
    first, second = 0.95 * weather + 0.01 * rng.normal(size=300), weather
    resamples = Resamples.of(hours_from(START, 300), by_day=False)
    means = resamples.means(first), resamples.means(second)
    alone, paired = resamples.estimate(means[0]), resamples.estimate(ratio(*means))
    assert alone.high - alone.low > 0.15
    assert paired.value == pytest.approx(0.95, abs=0.005)
    assert paired.high - paired.low < 0.01


def test_the_key_decides():
    times, series = hours_from(START, 100), np.arange(100.0)
    first, again, other = (Resamples.of(times, 20, seed).means(series) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_of_one_day_there_is_no_interval():
    resamples = Resamples.of(hours_from(START, 24))
    found = resamples.estimate(resamples.means(np.arange(24.0)))
    assert found.value == pytest.approx(11.5)
    assert np.isnan([found.low, found.high]).all()


def test_a_ratio_to_nothing_has_no_interval():
    times = [START + 24 * day * HOUR for day in range(4)]
    resamples = Resamples.of(times)
    found = resamples.estimate(ratio(resamples.means(np.ones(4)), resamples.means([0.0, 0.0, 0.0, 1.0])))
    assert found.value == pytest.approx(4)
    assert np.isnan(found.high), "some resamples have no day with a denominator"


@pytest.mark.parametrize(("times", "count"), [([], 10), ([START], 0)])
def test_nothing_to_draw(times, count):
    with pytest.raises(ValueError, match="at least one of each"):
        Resamples.of(times, count)


def test_another_number_of_times():
    with pytest.raises(ValueError, match="3 times, the resamples are of 2"):
        Resamples.of(hours_from(START, 2)).means(np.zeros(3))
