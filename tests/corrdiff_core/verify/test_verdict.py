"""Windows against loops, bounds on made-up windows, k of n, the picture."""

from datetime import datetime, timedelta
from io import BytesIO

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from PIL import Image

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.evaluate.one_time import THRESHOLDS
from corrdiff_core.normalization import CWA_INPUT_STATISTICS
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from corrdiff_core.verify.diagrams import MARK
from corrdiff_core.verify.layout import ANALYZED, CHECKED, SCORED
from corrdiff_core.verify.panel import Shown, draw, figure
from corrdiff_core.verify.verdict import Rules, judge, k_of_n
from corrdiff_core.verify.windows import by_lead, by_window, windows_of
from tests.verify_cases import FORECAST, HINDCAST, days, slots

DAY = timedelta(days=1)
COARSE = ["t2m", "u10m", "v10m"]


def fabricate(times, leads=None, known=None, **changes) -> xr.Dataset:
    """Rows of a calibrated ensemble with half the CRPS of its input; `changes` are factors by slot."""
    count = len(times)
    factor = {
        name: np.asarray(changes.get(name, np.ones(count)), float) for name in ("crps", "variance", "z", "coarse")
    }
    there = np.ones(count, bool) if known is None else np.asarray(known)
    rng = np.random.default_rng(0)
    weather = 1 + 0.05 * rng.random((count, 1))
    center, scale = np.array(CWA_INPUT_STATISTICS.center), np.array(CWA_INPUT_STATISTICS.scale)
    z = np.tile(0.1 * rng.normal(size=(count, 1)), (1, 12))
    z[:, 2] += factor["z"] - 1
    truthful = np.where(there, 1.0, np.nan)[:, None]
    one = np.ones((count, 4))
    values = {
        "input_mean": ("channel", center + scale * z),
        "variance": ("variable", one * weather * factor["variance"][:, None]),
        "reflectivity_share": ("threshold", np.full((count, 3), 0.01)),
        "coarse_bias": ("coarse_variable", np.zeros((count, 3))),
        "coarse_squared_error": ("coarse_variable", np.ones((count, 3)) * factor["coarse"][:, None] ** 2),
        "crps": ("variable", 0.5 * weather * one * truthful * factor["crps"][:, None]),
        "absolute_error": ("variable", 0.7 * one * truthful),
        "squared_error": ("variable", 6 / 5 * one * weather * truthful),
        "bias": ("variable", 0 * one * truthful),
        "interpolation_error": ("variable", np.where(np.arange(4) == 0, np.nan, one * weather) * truthful),
        "brier": ("threshold", np.full((count, 3), 0.008) * truthful),
        "observed_share": ("threshold", np.full((count, 3), 0.01) * truthful),
    }
    arrays = {name: (("slot", dimension), array) for name, (dimension, array) in values.items()}
    arrays["ranks"] = ("slot", "variable", "rank"), np.ones((count, 4, 6)) * truthful[..., None]
    coordinates = {
        "valid_time": ("slot", np.array(times, "datetime64[ns]")),
        "lead_hours": ("slot", np.zeros(count, int) if leads is None else np.asarray(leads)),
        CHECKED: ("slot", np.ones(count, bool)),
        SCORED: ("slot", there),
        ANALYZED: ("slot", np.zeros(count, bool)),
        "variable": list(OUTPUT_NAMES),
        "channel": list(INPUT_NAMES),
        "coarse_variable": COARSE,
        "threshold": list(THRESHOLDS),
        "rank": np.arange(6),
    }
    return xr.Dataset(arrays, coordinates, {"members": 5})


def verdict_of(count=12, rules=None, known=None, **changes):
    rows = fabricate(days(count), known=known, **changes)
    return judge(by_window(rows, DAY, CWA_INPUT_STATISTICS), rules)


def last(count, value, of=12):
    """1, but `value` in the last `count`."""
    return np.where(np.arange(of) >= of - count, value, 1.0)


class TestWindows:
    def test_means_are_those_of_a_loop_and_unknown_is_no_zero(self):
        times = [datetime(2025, 7, 1) + hour * timedelta(hours=5) for hour in range(12)]
        known = np.arange(12) < 8
        rows = fabricate(times, leads=np.arange(12) % 3, known=known)
        found = by_window(rows, DAY, CWA_INPUT_STATISTICS)
        assert found.window.size == 3
        for number, start in enumerate(found.window.values):
            inside = [at for at, time in enumerate(times) if np.datetime64(time) - start < np.timedelta64(1, "D")]
            inside = [at for at in inside if np.datetime64(times[at]) >= start]
            assert int(found.checked[number]) == len(inside)
            scored = [at for at in inside if known[at]]
            assert int(found.scored[number]) == len(scored)
            crps = rows.crps.values[scored].mean(axis=0) if scored else np.full(4, np.nan)
            np.testing.assert_allclose(found.crps[number], crps)
            spread = np.sqrt(rows.variance.values[inside].mean(axis=0))
            np.testing.assert_allclose(found.spread[number], spread)
        assert np.isnan(found.spread_skill.values[-1]).all()
        np.testing.assert_allclose(found.spread_skill.values[0], 1)
        np.testing.assert_array_equal(by_lead(rows).lead, [0, 1, 2])

    def test_windows_begin_at_multiples_of_their_length(self):
        found = windows_of(slots(9), timedelta(hours=6))
        assert found == [datetime(2025, 7, 31, 18), datetime(2025, 8, 1)]


class TestKOfN:
    @given(st.lists(st.sampled_from([True, False, None]), max_size=30), st.integers(1, 8), st.integers(1, 8))
    def test_as_a_plain_count_of_the_newest_known(self, broken, k, n):
        newest = []
        for one in reversed(broken):
            if one is not None and len(newest) < n:
                newest.append(one)
        assert k_of_n(broken, k, n) == (newest.count(True) >= k)

    @given(st.lists(st.booleans(), max_size=20), st.integers(1, 6), st.integers(0, 14))
    def test_what_is_old_does_not_count_and_more_is_never_less(self, broken, k, older):
        found = k_of_n(broken, k, 6)
        if len(broken) >= 6:
            assert k_of_n([True] * older + broken, k, 6) == found
        assert not found or k_of_n([*broken, True], k, 6) or broken[-6:].count(True) == k
        assert not k_of_n(broken, k + 1, 6) or found


class TestVerdict:
    def test_a_model_that_does_what_it_did_is_within_all_bounds(self):
        found = verdict_of()
        assert (found.degraded, found.reasons, found.broken) == (False, [], {})

    @pytest.mark.parametrize(
        ("changes", "rule", "name"),
        [
            ({"crps": last(3, 2.2)}, "interpolation", "t2m"),
            ({"crps": last(3, 1.4)}, "growth", "u10m"),
            ({"variance": last(3, 0.2)}, "spread_skill", "mrr"),
            ({"variance": last(3, 4.5)}, "spread_skill", "v10m"),
            ({"variance": last(3, 0.2)}, "spread", "t2m"),
            ({"z": last(3, 4.5)}, "drift", "t500"),
            ({"z": last(3, -2.5)}, "drift", "t500"),
            ({"coarse": last(3, 7.0)}, "coarse", "t2m"),
        ],
    )
    def test_every_bound_in_three_of_five_windows(self, changes, rule, name):
        found = verdict_of(**changes)
        assert found.degraded
        assert (rule, name) in {(finding.rule, finding.name) for finding in found.worst}
        fewer = {key: np.where(np.arange(12) == 9, 1.0, values) for key, values in changes.items()}
        assert not verdict_of(**fewer).degraded, "two windows are not enough"

    def test_late_truth_does_not_hide_what_it_says(self):
        known = np.arange(12) < 9  # three days late
        crps = np.where((np.arange(12) >= 6) & (np.arange(12) < 9), 2.2, 1.0)
        found = verdict_of(known=known, crps=crps)
        assert found.degraded
        assert found.reasons[0].startswith(
            "t2m: CRPS below the interpolated input's error is asked, but 1.10, 1.10, 1.10"
        )

    def test_a_dry_week_is_weather(self):
        found = verdict_of(variance=last(5, 0.2), rules=Rules(spread_skill=(0.0, 9.0)))
        assert {finding.name for finding in found.worst} == {"t2m", "u10m", "v10m"}

    def test_the_windows_of_reference_are_no_measure_of_themselves(self):
        found = verdict_of(count=5, crps=last(3, 1.9, 5))
        assert "growth" not in {finding.rule for finding in found.worst}

    def test_without_statistics_there_is_no_drift(self):
        rows = fabricate(days(8), z=last(8, 9.0, 8))
        assert not judge(by_window(rows, DAY)).degraded

    @pytest.mark.parametrize(
        "bad", [{"degraded": 6}, {"degraded": 0}, {"reference": 0}, {"spread": (2.0, 1.0)}, {"drift": 0.0}]
    )
    def test_rules_that_nothing_can_meet(self, bad):
        with pytest.raises(ConfigurationError, match="needed"):
            Rules(**bad)


class TestPicture:
    def shown(self, series=FORECAST, known=None, **changes):
        rows = fabricate(days(12), known=known, **changes)
        windows = by_window(rows, DAY, CWA_INPUT_STATISTICS)
        return Shown(series, rows, windows, DAY, Rules(), judge(windows))

    @pytest.mark.parametrize("known", [np.ones(12, bool), np.zeros(12, bool), np.arange(12) < 7])
    def test_it_is_a_picture_and_no_axes_lie_on_each_other(self, known):
        shown = self.shown(known=known, variance=last(4, 6.0), z=last(3, 4.5))
        with Image.open(BytesIO(draw(shown))) as picture:
            assert picture.size[0] > 1500
        boxes = [axes.get_position() for axes in figure(shown).axes]
        for at, box in enumerate(boxes):
            assert 0 <= box.x0 < box.x1 <= 1
            assert 0 <= box.y0 < box.y1 <= 1
            assert not any(box.overlaps(other) for other in boxes[at + 1 :])

    def test_windows_that_break_a_bound_are_shaded_where_it_is_drawn(self):
        drawn = figure(self.shown(variance=last(4, 6.0)))
        marked = [sum(patch.get_facecolor() == to_rgba(MARK) for patch in axes.patches) for axes in drawn.axes]
        assert marked.count(4) == 5, "spread over skill of four variables, and the spread"
        assert sum(marked) == 20

    def test_a_hindcast_has_ranks_in_place_of_leads(self):
        with Image.open(BytesIO(draw(self.shown(HINDCAST)))) as picture:
            assert picture.size[0] > 1500
