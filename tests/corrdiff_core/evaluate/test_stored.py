"""Evaluation on samples that lie in storage, beside the same weather made anew."""

import numpy as np
import pytest

from corrdiff_core import nature
from corrdiff_core.dataset import box_lines, open_samples
from corrdiff_core.evaluate.evaluate import evaluate
from corrdiff_core.evaluate.forecasts import forecast
from corrdiff_core.generate import generate
from corrdiff_core.variables import OUTPUT_NAMES
from tests.corrdiff_core.dataset.dataset_cases import HOURS, SEED, built
from tests.small_domain import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "data"
    built(path)
    return str(path)


def test_a_built_dataset_is_scored(made, url):
    samples = open_samples(url)
    found = evaluate(made, samples, 3, times=3)
    assert found.evaluation.samples == samples.digest
    assert found.evaluation.times == (HOURS[0], HOURS[2], HOURS[4])
    assert "perfect" not in found.forecasts, "storage does not know what its truth was drawn from"
    assert np.isfinite([found.mean_error("crps", name, "ensemble").value for name in found.variables]).all()


def test_stored_inputs_are_forecast_as_the_weather_that_they_are(made, url):
    """Regridded and then normalized, or the other way about: the same members but for rounding."""
    found = forecast(made, open_samples(url), 1, made.manifest.defaults, seed=3)
    weather = nature.weather(SEED, HOURS[1], *box_lines(SMALL.input_box))
    expected = generate(made, weather, seed=3)
    for index, name in enumerate(OUTPUT_NAMES):
        np.testing.assert_allclose(found.members[:, index], expected[name].values, rtol=1e-4, atol=2e-3)
    truth = nature.truth(weather, SEED, SMALL)
    np.testing.assert_array_equal(found.truth, np.stack([truth[name].values for name in OUTPUT_NAMES]))
