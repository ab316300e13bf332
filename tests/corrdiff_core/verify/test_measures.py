"""Measures of one slot against scoringrules, closed forms, loops and xarray."""

import numpy as np
import pytest
import scoringrules
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.evaluate.one_time import THRESHOLDS
from corrdiff_core.grid import TAIWAN
from corrdiff_core.metrics import spread_skill
from corrdiff_core.variables import OUTPUT_NAMES
from corrdiff_core.verify.coarse import cells
from corrdiff_core.verify.measures import Archived, analyzed, checked, scored
from tests.small_domain import SMALL
from tests.verify_cases import DOMAIN, INIT, LINES, ensemble, inputs, members, truth

SLOT = Slot.forecast(INIT, 2 * HOUR)


def archived(count=5, spread=1.0, bias=0.0, coarse=None) -> Archived:
    values = ensemble(members(SLOT, spread, bias, count))
    return Archived.of(SLOT, DOMAIN, OUTPUT_NAMES, values, inputs(SLOT) if coarse is None else coarse)


class TestScored:
    def test_crps_and_errors_are_those_of_others(self):
        made, observed = archived(), truth(SLOT.valid_time)
        row = scored(made, observed)
        for index in range(4):
            crps = scoringrules.crps_ensemble(observed[index], made.members[:, index], m_axis=0, estimator="fair")
            assert row["crps"][index] == pytest.approx(crps.mean(), rel=1e-5)
        off = made.members.mean(axis=0, dtype=float) - observed
        np.testing.assert_allclose(row["absolute_error"], np.abs(off).mean(axis=(1, 2)), rtol=1e-6)
        np.testing.assert_allclose(row["squared_error"], (off**2).mean(axis=(1, 2)), rtol=1e-6)
        np.testing.assert_allclose(row["bias"], off.mean(axis=(1, 2)), atol=1e-6)

    def test_the_interpolated_input_is_xarray_s_and_unknown_of_reflectivity(self):
        made, observed = archived(), truth(SLOT.valid_time)
        points = {name: (("y", "x"), getattr(DOMAIN, name)) for name in ("latitude", "longitude")}
        fine = made.inputs.astype(float).interp({n: xr.DataArray(v, dims=d) for n, (d, v) in points.items()})
        expected = [float(np.abs(fine[name].values - observed[i]).mean()) for i, name in enumerate(OUTPUT_NAMES) if i]
        found = scored(made, observed)["interpolation_error"]
        assert np.isnan(found[0])
        np.testing.assert_allclose(found[1:], expected, rtol=1e-5)

    def test_ranks_count_every_point_and_shares_are_counted(self):
        made, observed = archived(), truth(SLOT.valid_time)
        row = scored(made, observed)
        assert (row["ranks"].sum(axis=1) == DOMAIN.shape[0] * DOMAIN.shape[1]).all()
        below = (made.members[:, 1] < observed[1]).sum(axis=0)  # of temperature, which has no ties
        np.testing.assert_array_equal(row["ranks"][1], np.bincount(below.ravel(), minlength=6))
        assert row["observed_share"] == [float(np.mean(observed[0] >= at)) for at in THRESHOLDS]
        for at, found in zip(THRESHOLDS, row["brier"], strict=True):
            votes, event = (made.members[:, 0] >= at).mean(axis=0), observed[0] >= at
            # Ferro (2014): unbiased, what the mean over pairs of members of (a - o)(b - o) is
            pairs = [
                (np.asarray(a >= at, float) - event) * (np.asarray(b >= at, float) - event)
                for i, a in enumerate(made.members[:, 0])
                for j, b in enumerate(made.members[:, 0])
                if i != j
            ]
            assert found == pytest.approx(float(np.mean(pairs)), abs=1e-9)
            assert 0 <= votes.min() <= votes.max() <= 1

    @pytest.mark.parametrize(("spread", "bias"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.0), (1.0, 0.7)])
    def test_a_known_spread_and_bias(self, spread, bias):
        """Truth N(0, 1), members N(bias, spread^2): the mean's squared error is 1 + bias^2 + spread^2 / m."""
        count = 20
        made = archived(count, spread, bias)
        row, looked = scored(made, truth(SLOT.valid_time)), checked(made)
        error = 1 + bias**2 + spread**2 / count
        for index in (1, 2, 3):
            assert row["bias"][index] == pytest.approx(bias, abs=0.15)
            assert row["squared_error"][index] == pytest.approx(error, rel=0.2)
            ratio = spread_skill(np.array(looked["variance"][index]), np.array(row["squared_error"][index]), count)
            assert ratio == pytest.approx(np.sqrt((count + 1) / count * spread**2 / error), rel=0.12)


class TestChecked:
    def test_means_variances_and_shares(self):
        made = archived()
        row = checked(made)
        expected = [float(field.mean(dtype=float)) for field in made.inputs.data_vars.values()]
        np.testing.assert_allclose(row["input_mean"], expected, rtol=1e-9)
        np.testing.assert_allclose(row["variance"], made.members.astype(float).var(axis=0, ddof=1).mean(axis=(1, 2)))
        assert row["reflectivity_share"] == [float((made.members[:, 0] >= at).mean()) for at in THRESHOLDS]

    def test_an_ensemble_that_is_its_input_is_consistent_and_one_that_is_warmer_is_so_by_as_much(self):
        """Fields that are linear in place have their cell means in the middle of a cell."""
        coarse = inputs(SLOT)
        slope = 0.5 * (coarse.latitude - 23) + 0.8 * (coarse.longitude - 120)
        for name in ("t2m", "u10m", "v10m"):
            coarse[name] = slope.astype("f4")
        fine = 0.5 * (DOMAIN.latitude - 23) + 0.8 * (DOMAIN.longitude - 120)
        for warmer in (0.0, 1.5):
            values = np.broadcast_to(fine + warmer, (3, 4, *DOMAIN.shape)).astype("f4")
            row = checked(Archived.of(SLOT, DOMAIN, OUTPUT_NAMES, ensemble(values), coarse))
            np.testing.assert_allclose(row["coarse_bias"], warmer, atol=0.02)
            np.testing.assert_allclose(np.sqrt(row["coarse_squared_error"]), warmer, atol=0.03)

    def test_one_member_has_no_variance(self):
        assert np.isnan(checked(archived(count=1))["variance"]).all()


class TestAnalyzed:
    def test_beside_an_analysis_on_the_same_lines(self):
        made = archived()
        analysis = inputs(Slot(SLOT.valid_time + HOUR))
        row = analyzed(made, analysis)
        for index, name in enumerate(made.channels):
            off = made.inputs[name].values.astype(float) - analysis[name].values
            assert row["input_bias"][index] == pytest.approx(off.mean(), rel=1e-4, abs=1e-4)
            assert row["input_squared_error"][index] == pytest.approx((off**2).mean(), rel=1e-4, abs=1e-6)

    def test_one_on_finer_lines_is_interpolated_to_those_of_the_inputs(self):
        made = archived()
        finer = {"latitude": np.linspace(23.0, 24.25, 11), "longitude": np.linspace(119.5, 120.75, 11)}
        analysis = made.inputs.astype(float).interp(finer).astype("f4")
        row = analyzed(made, analysis)
        scale = np.abs([float(made.inputs[name].mean()) for name in made.channels]) + 1
        assert (np.abs(row["input_bias"]) / scale < 1e-6).all(), "every second line is one of the inputs'"


class TestCells:
    @pytest.mark.parametrize("domain", [DOMAIN, SMALL], ids=lambda domain: domain.name)
    def test_means_are_those_of_a_loop_over_whole_cells(self, domain):
        box = domain.input_box
        latitude, longitude = np.arange(box.south, box.north + 0.1, 0.25), np.arange(box.west, box.east + 0.1, 0.25)
        chosen = cells(latitude, longitude, domain)
        field = np.random.default_rng(0).normal(size=domain.shape)
        expected = []
        for row, column in np.argwhere(chosen.kept):
            inside = (np.abs(domain.latitude - latitude[row]) < 0.125) & (
                np.abs(domain.longitude - longitude[column]) < 0.125
            )
            assert inside.sum() >= 4
            expected.append(field[inside].mean())
        np.testing.assert_allclose(chosen.average(field), expected, rtol=1e-12)
        assert 0 < len(chosen) < chosen.kept.size

    def test_on_taiwan_all_but_the_rim(self):
        """0.25 degrees are about 13 x 14 points of 2 km; a cell that sticks out has fewer."""
        chosen = cells(np.arange(19.25, 28.01, 0.25), np.arange(116, 125.76, 0.25), TAIWAN)
        points = 1 / chosen.weights.data[chosen.weights.indptr[:-1]]
        assert len(chosen) > 0.8 * chosen.kept.size
        assert 140 < points.min() < points.max() < 220

    def test_a_domain_that_is_as_coarse_as_the_grid_has_none(self):
        assert len(cells(DOMAIN.latitude[:, 0], DOMAIN.longitude[0], DOMAIN)) == 0

    @given(st.floats(1e-3, 1e4), st.integers(0, 5))
    def test_a_constant_stays_itself(self, value, index):
        chosen = cells(*LINES, DOMAIN)
        np.testing.assert_allclose(chosen.average(np.full(DOMAIN.shape, value)), value, rtol=1e-12)
        coarse = np.zeros((6, 6))
        coarse[index] = value
        assert set(chosen.pick(coarse)) <= {0.0, value}
