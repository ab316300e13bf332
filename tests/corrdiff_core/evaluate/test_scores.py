"""Scores as a file, their summary, their tables and their picture."""

import json
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.evaluate.one_time import Forecasts, odd_width, score
from corrdiff_core.evaluate.panel import Example, draw, figure
from corrdiff_core.evaluate.report import markdown, write_report
from corrdiff_core.evaluate.scores import Evaluation, Scores, crps_ratios, read_scores
from corrdiff_core.nature import Conditional
from corrdiff_core.variables import OUTPUT_NAMES
from tests.score_cases import MEMBERS, daily, fabricate, weather
from tests.small_domain import SMALL

CENTER, SPREAD = np.array([5.0, 290.0, -2.0, 1.0]), np.array([12.0, 1.0, 2.0, 2.0])


def forecasts(seed: int, names=OUTPUT_NAMES, perfect=True, wet=True) -> Forecasts:
    """White noise on the small domain: truth, members and everything else."""
    rng = np.random.default_rng(seed)
    shape = (len(names), *SMALL.shape)
    order = [OUTPUT_NAMES.index(name) for name in names]
    center, spread = (np.broadcast_to(v[order, None, None], shape).copy() for v in (CENTER, SPREAD))

    def drawn(*more):
        fields = center + spread * rng.normal(size=(*more, *shape))
        if "mrr" in names:
            fields[..., names.index("mrr"), :, :] *= wet
            fields[..., names.index("mrr"), :, :].clip(0, None, out=fields[..., names.index("mrr"), :, :])
        return fields.astype(np.float32)

    known = Conditional(center, spread) if perfect else None
    time = datetime(2021, 7, 1 + seed)
    truth, singles = drawn(), {"bilinear": drawn(), "regression": drawn()}
    return Forecasts(time, SMALL, names, truth, singles, drawn(MEMBERS), known)


def scored(*given: Forecasts) -> Scores:
    times = tuple(f.time for f in given)
    told = Evaluation("ab" * 32, "white noise", times, MEMBERS, 6, "heun", 0, "noise-00000000", "cd" * 32, "0")
    rows = [score(f, seed=0) for f in given]
    return Scores(told, xr.concat(rows, xr.Variable("time", np.array(times, "datetime64[s]")), join="exact"))


@pytest.fixture(scope="module")
def scores():
    return scored(*(forecasts(seed) for seed in range(6)))


class TestFile:
    def test_it_restores_everything_to_the_last_bit(self, scores):
        again = Scores.from_json(scores.to_json())
        assert again.evaluation == scores.evaluation
        assert again.values.identical(scores.values)
        assert again.to_json() == scores.to_json()

    def test_the_summary_is_in_it(self, scores):
        document = json.loads(scores.to_json())
        assert document["summary"] == scores.summary()
        value, low, high = document["summary"]["crps"]["t2m"]["ensemble"]
        assert low <= value <= high
        assert value == pytest.approx(1 / np.sqrt(np.pi), rel=0.02), "of N(290, 1), drawn from itself"
        assert document["summary"]["spread_skill"]["t2m"][0] == pytest.approx(1, abs=0.02)

    def test_object_storage(self, scores, s3_url):
        write_report(f"{s3_url}/scores", scores)
        assert read_scores(f"{s3_url}/scores/scores.json").to_json() == scores.to_json()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "JSONDecodeError"),
            (b"[]", "TypeError"),
            (b'{"format": 2}', "scores of format 2, this package reads 1"),
            (b'{"format": 1}', "evaluation"),
        ],
    )
    def test_what_is_no_scores_is_named(self, tmp_path, content, message):
        path = tmp_path / "scores.json"
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=message) as error:
            read_scores(str(path))
        assert str(path) in str(error.value)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"no such file; name the scores\.json"):
            read_scores(str(tmp_path / "scores.json"))

    def test_a_hole_is_refused(self, scores):
        values = scores.values.copy(deep=True)
        values["crps"][2, 1, 2] = np.nan
        with pytest.raises(ConfigurationError, match=r"\['crps'\] not finite"):
            replace(scores, values=values)

    def test_other_times_are_refused(self, scores):
        with pytest.raises(ConfigurationError, match="6 times that are not the 5"):
            replace(scores, evaluation=replace(scores.evaluation, times=scores.evaluation.times[1:]))


class TestNumbers:
    def test_white_noise_against_white_noise(self, scores):
        """Single fields err by sqrt(2) of the spread, draws by as much; the perfect mean by the spread."""
        assert scores.rmse("t2m", "bilinear").value == pytest.approx(np.sqrt(2), rel=0.02)
        assert scores.rmse("t2m", "perfect").value == pytest.approx(1, rel=0.02)
        assert scores.against_perfect("u10m").value == pytest.approx(1, rel=0.02)
        np.testing.assert_allclose(scores.power_ratio("t2m", "ensemble")[:6], 1, atol=0.1)
        assert scores.resolved_power("v10m", "regression").value == pytest.approx(1, abs=0.05)
        assert scores.outliers("v10m").value == pytest.approx(1, abs=0.05)

    def test_ties_at_zero_are_no_outliers(self):
        """A third of reflectivity is 0 dBZ in truth and in the members: still flat."""
        found = scored(*(forecasts(seed) for seed in range(6)))
        counts = found.values["ranks"].sel(variable="mrr").sum("time").values
        np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.12)

    def test_ratios_are_paired(self):
        times, hard = daily(30), weather(30)
        candidate, production = (fabricate({"t2m": factor * hard}, times) for factor in (0.9, 1.0))
        np.testing.assert_allclose(crps_ratios(candidate, production)["t2m"], 0.9)

    def test_other_variables_than_reflectivity(self):
        found = scored(*(forecasts(seed, names=("t2m", "v10m"), perfect=False) for seed in range(3)))
        assert (found.variables, found.thresholds) == (["t2m", "v10m"], [])
        assert Scores.from_json(found.to_json()).values.identical(found.values)
        assert "Reflectivity" not in markdown(found)
        assert draw(found, forecasts(0, names=("t2m", "v10m"))).startswith(b"\x89PNG")

    def test_no_rain_at_all(self):
        """Nothing to divide by: no ratio, no event, and a file and a picture all the same."""
        found = scored(*(forecasts(seed, perfect=False, wet=False) for seed in range(3)))
        assert np.isnan(found.spread_skill("mrr").value)
        summary = json.loads(found.to_json())["summary"]
        assert summary["spread_skill"]["mrr"] == [None, None, None]
        assert "no event" in markdown(found)
        assert draw(found, forecasts(0, wet=False)).startswith(b"\x89PNG")

    def test_neighborhoods_are_odd_and_near(self):
        assert [odd_width(side, 8000.0) for side in (2, 10, 30, 50, 90, 150)] == [1, 1, 3, 7, 11, 19]


class TestReport:
    def test_the_table(self, scores):
        lines = markdown(scores).splitlines()
        assert lines[0].startswith("noise-00000000 on white noise: 6 times on 6 days, 8 members, 6 heun steps, seed 0.")
        assert lines[2] == (
            "| variable | bilinear | regression mean | ensemble | perfect | ensemble / perfect | spread / skill |"
            " outliers | power 8-100 km |"
        )
        crps = scores.mean_error("crps", "t2m", "ensemble")
        assert lines[5].startswith("| t2m (K) | ")
        assert f"| **{crps.value:.3f} ({crps.low:.3f}..{crps.high:.3f})** |" in lines[5]
        tables = [line for line in lines if line.startswith("|")]
        widths = {line.count("|") for line in tables[:6]}
        assert len(widths) == 1

    def test_a_comparison(self):
        times, hard = daily(20), weather(20)
        candidate = fabricate({"t2m": 0.9 * hard}, times)
        production = fabricate({"t2m": hard}, times, model="production-11111111")
        text = markdown(candidate, production)
        assert "CRPS of candidate-00000000 beside production-11111111" in text
        assert "| 0.900 (0.900..0.900) |" in text

    def test_of_one_day_there_are_no_intervals(self):
        found = scored(forecasts(0))
        assert ".." not in markdown(found).splitlines()[5]

    def test_all_files_are_written(self, scores, tmp_path):
        write_report(str(tmp_path), scores, forecasts(0), against=scores)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "against.json", "panel.png", "report.md", "scores.json",
        ]  # fmt: skip
        assert (tmp_path / "report.md").read_text() == f"{markdown(scores, scores)}\n"


@pytest.fixture(scope="module")
def drawn(scores):
    """The picture with maps, rendered once."""
    page = figure(scores, forecasts(1))
    FigureCanvasAgg(page).draw()
    return page


class TestPanel:
    def test_it_is_a_picture_of_its_own_page(self, scores):
        found = draw(scores)
        with Image.open(BytesIO(found)) as image:
            assert image.size == (1520, 1684)
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50, "it is not empty"
        assert draw(scores) == found, "the same scores give the same bytes"

    def test_every_axes_stays_on_the_page_and_off_the_others(self, drawn):
        boxes = [axes.get_position() for axes in drawn.axes]
        assert len(boxes) == 4 * (4 + 1 + 3) + 4
        for number, box in enumerate(boxes):
            assert 0 < box.x0 < box.x1 < 1
            assert 0 < box.y0 < box.y1 < 1
            assert not any(box.overlaps(other) for other in boxes[:number])

    def test_text_does_not_run_over_other_diagrams(self, drawn):
        """Tick labels and titles of one axes stay outside the frames of the others."""
        frames = [axes.get_window_extent() for axes in drawn.axes]
        for axes, own in zip(drawn.axes, frames, strict=True):
            around = axes.get_tightbbox()
            assert not any(around.overlaps(frame) for frame in frames if frame is not own)

    def test_whiskers_are_the_intervals(self, scores, drawn):
        crps = next(axes for axes in drawn.axes if axes.get_xlabel() == "K")
        whiskers = [line.get_xdata() for line in crps.lines]
        expected = [scores.mean_error("crps", "t2m", name)[1:] for name in scores.forecasts]
        np.testing.assert_allclose(whiskers, expected)

    def test_the_example_is_the_time_of_most_rain(self):
        example, given = Example(), [forecasts(0), forecasts(1), forecasts(2)]
        wettest = replace(given[1], truth=given[1].truth + 1)
        for each in (given[0], wettest, given[2]):
            example(each)
        assert example.forecasts is wettest
