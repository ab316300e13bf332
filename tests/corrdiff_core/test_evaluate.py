"""Scores: a perfect ensemble scores as the closed form, and the table says so."""

from datetime import datetime

import numpy as np
import pytest
import xarray as xr

from corrdiff_core import evaluate, nature
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.evaluate import FORECASTS, Scores, evaluate_on_nature, held_out
from corrdiff_core.generate import regression_mean
from corrdiff_core.regrid import regrid
from corrdiff_core.train import DEMO
from corrdiff_core.variables import OUTPUT_NAMES
from tests.small_domain import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scores(made):
    lines = []
    return evaluate_on_nature(made, 2, 3, report=lines.append), lines


def draws_of_the_truth(made, inputs, members, num_steps, solver):
    """What a perfect model would generate."""
    fields = [nature.truth(inputs, 99, SMALL, sample=member) for member in range(members)]
    return xr.concat(fields, "member", join="exact")


def test_a_perfect_forecast_scores_as_the_closed_form(made, monkeypatch):
    monkeypatch.setattr(evaluate, "generate", draws_of_the_truth)
    found = evaluate_on_nature(made, times=24, members=8, num_steps=1)
    for name in OUTPUT_NAMES:
        crps = found.crps[name]
        assert crps["ensemble"] == pytest.approx(crps["perfect"], rel=0.06)
        assert found.spread_skill[name] == pytest.approx(1, abs=0.1)
        assert crps["bilinear"] > 1.05 * crps["perfect"]


def test_scores_are_plain_means(made, scores):
    found, _ = scores
    run = held_out(made)
    errors = {"bilinear": [], "regression": []}
    for index in range(2):
        inputs, observed = run.pair(index)
        errors["bilinear"].append(np.abs(regrid(inputs.t2m, SMALL).values - observed.t2m.values).mean())
        errors["regression"].append(np.abs(regression_mean(made, inputs).t2m - observed.t2m).mean())
    for forecast, values in errors.items():
        assert found.crps["t2m"][forecast] == pytest.approx(np.mean(values), rel=1e-5)


def test_no_input_has_reflectivity(made, scores):
    """Its bilinear forecast is 0 dBZ."""
    expected = np.mean([held_out(made).pair(index)[1].mrr.mean() for index in range(2)])
    assert scores[0].crps["mrr"]["bilinear"] == pytest.approx(expected, rel=1e-5)


def test_it_says_how_it_was_made(scores):
    found, lines = scores
    assert (found.times, found.members, found.num_steps, found.solver) == (2, 3, 2, "euler")
    assert list(found.crps) == list(found.spread_skill) == list(OUTPUT_NAMES)
    assert all(tuple(row) == FORECASTS for row in found.crps.values())
    assert [line.split(" (")[0] for line in lines] == ["scored 1/2", "scored 2/2"]
    assert all(np.isfinite([*row.values()]).all() for row in found.crps.values())


def test_it_repeats_itself(made, scores):
    assert evaluate_on_nature(made, 2, 3) == scores[0]


def test_held_out_times_are_of_a_year_that_no_training_touches(made):
    run = held_out(made)
    assert run.start >= DEMO.end
    assert (run.start, run.end, run.domain) == (datetime(2021, 1, 1), datetime(2022, 1, 1), SMALL)


@pytest.mark.parametrize(("times", "members"), [(0, 4), (3, 1), (-1, 2)])
def test_too_few_are_refused(made, times, members):
    with pytest.raises(ConfigurationError, match="at least 1 and 2"):
        evaluate_on_nature(made, times, members)


def test_the_table():
    row = {"bilinear": 2.0, "regression": 1.25, "ensemble": 0.9, "perfect": 0.6}
    scores = Scores(5, 4, 18, "heun", {"mrr": row, "t2m": row}, {"mrr": 0.987, "t2m": 1.0})
    assert scores.table().splitlines() == [
        "| variable | bilinear | regression mean | ensemble | perfect | ensemble / perfect | spread / skill |",
        "|---|---|---|---|---|---|---|",
        "| mrr (dBZ) | 2.000 | 1.250 | **0.900** | 0.600 | 1.50 | 0.99 |",
        "| t2m (K) | 2.000 | 1.250 | **0.900** | 0.600 | 1.50 | 1.00 |",
    ]
