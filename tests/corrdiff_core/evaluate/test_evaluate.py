"""Evaluations: a perfect model scores as the closed form, the others as plain means."""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom

from corrdiff_core import nature
from corrdiff_core.dataset import NatureRun, box_lines
from corrdiff_core.dataset.samples import Sample
from corrdiff_core.errors import ConfigurationError, DatasetError, QualityError
from corrdiff_core.evaluate import forecasts as forecasting
from corrdiff_core.evaluate.evaluate import evaluate, held_out
from corrdiff_core.evaluate.forecasts import forecast, prepare_sample
from corrdiff_core.generate import generate, regression_mean
from corrdiff_core.grid import TAIWAN
from corrdiff_core.metrics import normal_exceedance
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from tests.small_domain import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Plain:
    """Samples of which nobody knows the distribution."""

    run: NatureRun
    domain = SMALL

    @property
    def times(self):
        return self.run.times

    @property
    def digest(self):
        return self.run.digest

    @property
    def description(self):
        return "plain"

    def __len__(self):
        return len(self.run)

    def read(self, index):
        return self.run.read(index)


@pytest.fixture(scope="module")
def scores(made):
    lines = []
    return evaluate(made, held_out(SMALL, 2), 3, report=lines.append), lines


def draws_of_the_truth(checkpoint, prepared, members, num_steps, solver, seed):
    """What a perfect model would generate."""
    time = prepared.valid_time.values.astype("datetime64[s]").item()
    inputs = nature.weather(nature.SEED, time, *box_lines(SMALL.input_box))
    fields = [nature.truth(inputs, 99, SMALL, sample=member) for member in range(members)]
    return xr.concat(fields, "member", join="exact")


@pytest.fixture(scope="module")
def found(made):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecasting, "generate_prepared", draws_of_the_truth)
        return evaluate(made, held_out(SMALL, 40), members=8)


class TestAPerfectForecast:
    @pytest.mark.parametrize("name", OUTPUT_NAMES)
    def test_it_scores_as_the_closed_form(self, found, name):
        assert found.against_perfect(name).value == pytest.approx(1, abs=0.03)
        assert found.spread_skill(name).value == pytest.approx(1, abs=0.08)
        assert found.outliers(name).value == pytest.approx(1, abs=0.1)
        assert found.resolved_power(name, "ensemble").value == pytest.approx(1, abs=0.1)
        crps = {forecast: found.mean_error("crps", name, forecast).value for forecast in found.forecasts}
        assert crps["bilinear"] > 1.05 * crps["perfect"]

    def test_its_mean_has_the_error_of_an_ensemble_of_eight(self, found):
        """The mean of m draws errs as the distribution's mean, and by 1 / m of its variance more."""
        squared = {name: found.rmse("t2m", name).value ** 2 for name in ("ensemble", "perfect")}
        assert squared["ensemble"] / squared["perfect"] == pytest.approx(9 / 8, rel=0.02)

    def test_its_exceedance_scores_as_the_closed_form(self, found):
        """Fair Brier scores, where there are events; fractions are blurred by so few members only."""
        brier = [found.brier(20.0, name).value for name in ("ensemble", "perfect", "bilinear")]
        assert brier[0] == pytest.approx(brier[1], rel=0.05)
        assert brier[1] < 0.8 * brier[2]
        ensemble, perfect = (found.fractions_skill(20.0, name) for name in ("ensemble", "perfect"))
        np.testing.assert_allclose(ensemble[1:], perfect[1:], atol=0.03)
        assert (np.diff(perfect) > 0).all(), "larger neighborhoods forgive more"

    def test_votes_and_events_are_those_of_the_binomial(self, found):
        """Where an event has probability p, v of 8 members say so binomially, and it comes with p whatever they say."""
        issued, came = np.zeros(9), np.zeros(9)
        for time in found.evaluation.times:
            given = nature.conditional(nature.weather(nature.SEED, time, *box_lines(SMALL.input_box)), SMALL)
            p = normal_exceedance(given.mean[0], given.spread[0], 20.0).ravel()
            chance = binom.pmf(np.arange(9)[:, None], 8, p)
            issued, came = issued + chance.sum(axis=1), came + (chance * p).sum(axis=1)
        counts = found.values[["issued", "came"]].sel(threshold=20.0).sum("time")
        np.testing.assert_allclose(counts.issued, issued, rtol=0.1, atol=60)
        np.testing.assert_allclose(counts.came, came, rtol=0.1, atol=60)


class TestPlainMeans:
    def test_single_fields(self, made, scores):
        run = held_out(SMALL, 2)
        errors = {"bilinear": [], "regression": []}
        for index in range(2):
            sample = run.read(index)
            bilinear, truth = sample.inputs[INPUT_NAMES.index("t2m")], sample.truth[OUTPUT_NAMES.index("t2m")]
            errors["bilinear"].append(np.abs(bilinear - truth).mean())
            errors["regression"].append(np.abs(regression_mean(made, run.pair(index)[0]).t2m - truth).mean())
        for name, values in errors.items():
            assert scores[0].mean_error("crps", "t2m", name).value == pytest.approx(np.mean(values), rel=1e-4)
            assert scores[0].mean_error("absolute_error", "t2m", name).value == pytest.approx(np.mean(values), rel=1e-4)

    def test_no_input_has_reflectivity(self, scores):
        """Its bilinear forecast is 0 dBZ."""
        expected = np.mean([held_out(SMALL, 2).read(index).truth[0].mean() for index in range(2)])
        assert scores[0].mean_error("crps", "mrr", "bilinear").value == pytest.approx(expected, rel=1e-5)

    def test_the_ensemble_is_what_generate_makes(self, made):
        """On the domain already, or on the source's grid: the same members but for rounding."""
        run = held_out(SMALL, 3)
        found = forecast(made, run, 1, replace(made.manifest.defaults, members=2), seed=4)
        expected = generate(made, run.pair(1)[0], members=2, seed=4)
        for index, name in enumerate(OUTPUT_NAMES):
            np.testing.assert_allclose(found.members[:, index], expected[name].values, rtol=1e-4, atol=2e-3)
        assert found.members.dtype == found.truth.dtype == np.float32
        assert found.time == run.times[1]


class TestIdentity:
    def test_it_says_how_it_was_made(self, made, scores):
        found, lines = scores
        run, told = held_out(SMALL, 2), found.evaluation
        assert (told.samples, told.data, told.times) == (run.digest, run.description, run.times)
        assert (told.members, told.num_steps, told.solver, told.seed) == (3, 2, "euler", 0)
        assert (told.model, told.digest) == (made.manifest.identity, made.manifest.digest)
        assert found.variables == list(OUTPUT_NAMES)
        assert found.forecasts == ["bilinear", "regression", "ensemble", "perfect"]
        assert [line.split(" (")[0] for line in lines] == ["scored 1/2", "scored 2/2"]

    def test_it_repeats_itself_to_the_last_bit(self, made, scores):
        assert evaluate(made, held_out(SMALL, 2), 3).to_json() == scores[0].to_json()

    def test_steps_solver_and_seed_are_asked_for(self, made, scores):
        other = evaluate(made, held_out(SMALL, 2), 3, num_steps=4, solver="heun", seed=1)
        assert (other.evaluation.num_steps, other.evaluation.solver, other.evaluation.seed) == (4, "heun", 1)
        assert not np.array_equal(other.values["crps"], scores[0].values["crps"])

    def test_times_are_spread_over_the_samples(self, made):
        run = held_out(SMALL, 9)
        found = evaluate(made, run, 2, times=3)
        assert found.evaluation.times == (run.times[0], run.times[3], run.times[6])
        assert found.evaluation.samples == run.digest

    def test_without_a_known_distribution_there_is_no_perfect_forecast(self, made, scores):
        found = evaluate(made, Plain(held_out(SMALL, 2)), 3)
        assert found.forecasts == ["bilinear", "regression", "ensemble"]
        assert found.evaluation.data == "plain"
        assert found.values["crps"].equals(scores[0].values["crps"].sel(forecast=found.forecasts))

    def test_every_time_can_be_looked_at(self, made):
        seen = []
        evaluate(made, held_out(SMALL, 2), 2, look=seen.append)
        assert [forecasts.members.shape for forecasts in seen] == [(2, 4, 32, 32)] * 2

    def test_held_out_times_are_of_a_year_that_no_training_touches(self):
        run = held_out(SMALL, 5)
        assert (run.start, run.end, run.domain, len(run)) == (datetime(2021, 1, 1), datetime(2022, 1, 1), SMALL, 5)


class TestRefusals:
    @pytest.mark.parametrize("times", [0, -1, 4])
    def test_times_that_are_not_there(self, made, times):
        with pytest.raises(ConfigurationError, match=f"{times} times of 3 samples.*choose 1..3"):
            evaluate(made, held_out(SMALL, 3), 2, times=times)

    def test_an_ensemble_of_one(self, made):
        with pytest.raises(ConfigurationError, match="1 members have no spread"):
            evaluate(made, held_out(SMALL, 3), 1)

    def test_one_step(self, made):
        with pytest.raises(ConfigurationError, match="1 steps"):
            evaluate(made, held_out(SMALL, 3), 2, num_steps=1)

    def test_another_domain(self, made):
        with pytest.raises(
            ConfigurationError, match=r"samples on taiwan \(448, 448\), small-.* is of small \(32, 32\)"
        ):
            evaluate(made, held_out(TAIWAN, 3), 2)

    def test_geopotential_height(self, made):
        """A factor of 9.8 in one channel is no weather."""
        sample = held_out(SMALL, 1).read(0)
        inputs = sample.inputs.copy()
        inputs[INPUT_NAMES.index("z500")] /= 9.80665
        with pytest.raises(QualityError, match=r"z500.*looks like gpm"):
            prepare_sample(made, Sample(sample.time, inputs, sample.truth))

    def test_a_sample_that_cannot_be_read(self, made):
        class Broken(Plain):
            def read(self, index):
                raise DatasetError("sample 0 has holes")

        with pytest.raises(DatasetError, match="holes"):
            evaluate(made, Broken(held_out(SMALL, 1)), 2)
