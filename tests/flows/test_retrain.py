"""The retraining flow in this process, with training in its own, against a real Prefect server of the tests' own."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from corrdiff_core.checkpoint import Checkpoint, load_checkpoint
from corrdiff_core.cycle import HOUR
from corrdiff_core.dataset import open_samples
from corrdiff_core.errors import ConfigurationError, DatasetError
from corrdiff_core.registry import Registry
from flows.cli import app
from flows.retrain import retrain
from flows.retraining import enter, freeze
from tests.corrdiff_core.dataset.dataset_cases import built
from tests.flows.flow_cases import toml, writer
from tests.small_domain import PRESET

pytestmark = pytest.mark.usefixtures("api")

START, TEST, END = datetime(2021, 1, 28), datetime(2021, 1, 29), datetime(2021, 1, 31)
LENIENT = {"spread_skill": [0.0, 1e9], "days": 2, "margin": 1e9}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three days of the nature run: a day to train on and two to test with."""
    url = tmp_path_factory.mktemp("data") / "truth"
    built(url, START, END)
    return str(url)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("preset") / "small.toml"
    path.write_text(toml(PRESET.to_dict()))
    return str(path)


@pytest.fixture
def run(dataset: str, preset: str, tmp_path: Path) -> Any:
    def call(**options: Any) -> dict[str, Any]:
        given = {
            "dataset": dataset,
            "name": "small",
            "preset": preset,
            "models": str(tmp_path / "models"),
            "runs": str(tmp_path / "runs"),
            "test_start": f"{TEST:%Y-%m-%dT%H}",
            "validation_days": 0,
            "times": 4,
            "members": 2,
            "rules": LENIENT,
        } | options
        result = retrain(**given)
        assert isinstance(result, dict)
        return result

    return call


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "models"))


def put_into_production(models: Registry, small_checkpoint: Path) -> Checkpoint:
    """Untrained networks, which any training beats."""
    untrained = load_checkpoint(small_checkpoint)
    models.add("small", writer(untrained))
    return untrained


@pytest.mark.service
def test_a_better_candidate_takes_production_and_the_history_says_why(
    run: Any, models: Registry, small_checkpoint: Path
) -> None:
    put_into_production(models, small_checkpoint)
    result = run(times=1000)
    assert result["promote"], result["reasons"]
    assert models.production("small").ref == result["candidate"] == "small@2"
    change = models.history("small")[-1]
    assert change["action"] == "promote"
    assert change["reason"]["decision"]["numbers"]["crps_ratio"]["overall"][0] < 1
    assert change["reason"]["plan"]["samples"] == 24
    assert change["reason"]["decision"]["numbers"]["times"] == 48  # all there are, where more are asked
    trained = models.production("small").manifest.training
    assert change["reason"]["plan"]["digest"] in json.dumps(trained)

    back = models.rollback("small", {"why": "a test"})
    assert back.ref == "small@1"
    assert models.promote("small", 2, {"why": "again"}).ref == "small@2"


@pytest.mark.service
def test_a_candidate_that_is_no_better_is_rejected_and_production_stays(
    run: Any, models: Registry, small_checkpoint: Path, tmp_path: Path
) -> None:
    put_into_production(models, small_checkpoint)
    assert run()["promote"]
    again = run(runs=str(tmp_path / "elsewhere"), force=True)
    assert not again["promote"]
    assert "not better overall" in again["reasons"][0]
    assert models.production("small").ref == "small@2"
    assert [verdict["decision"]["promote"] for verdict in models.verdicts("small")] == [True, False]
    shown = CliRunner().invoke(app, ["models", "show", "small@3", "--models", models.url])
    assert "not better overall" in shown.output.partition("\nverdict\n")[2]


@pytest.mark.service
def test_a_miscalibrated_first_candidate_stays_out_of_production(run: Any, models: Registry, dataset: str) -> None:
    """Trained on the first day, followed on the second, tested on the third."""
    result = run(
        rules={"spread_skill": [0.99, 1.01]}, test_start=f"{TEST + timedelta(days=1):%Y-%m-%dT%H}", validation_days=1
    )
    assert not result["promote"]
    assert models.production_number("small") is None
    (version,) = models.versions("small")
    assert version.ref == "small@1"

    samples, training = open_samples(dataset), version.manifest.training
    validation = samples.select(TEST, TEST + timedelta(days=1))
    assert training["data_digest"] == samples.select(START, TEST).digest
    assert training["validation"]["data_digest"] == validation.digest
    assert all(training[stage]["validation"] for stage in ("regression", "diffusion"))


@pytest.mark.service
def test_an_event_within_a_day_of_the_last_verdict_is_passed_over_with_a_word(run: Any, models: Registry) -> None:
    run()
    result = run(reason={"event": "corrdiff.skill.degraded"})
    assert "judged 0.0 h ago" in result["skipped"]
    assert len(models.versions("small")) == 1


@pytest.mark.service
def test_a_schedule_without_new_truth_is_passed_over_with_a_word(run: Any, models: Registry) -> None:
    run()
    result = run(least_new=24)
    assert "0 new samples since 2021-01-29" in result["skipped"]
    later = run(least_new=24, test_start=f"{TEST + timedelta(days=1):%Y-%m-%dT%H}")
    assert later["candidate"] == "small@2"


@pytest.mark.service
def test_run_again_after_a_stop_goes_on_with_the_same_candidate(
    run: Any, models: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import retraining

    def stop(*arguments: Any) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(retraining, "judge", stop)
        with pytest.raises(OSError, match="power cut"):
            run()
    assert models.verdicts("small") == []
    result = run()
    assert result["candidate"] == "small@1"
    assert len(models.versions("small")) == 1


def test_a_test_set_that_grows_while_it_is_used_is_refused(preset: str, tmp_path: Path) -> None:
    url = str(tmp_path / "truth")
    built(url, START, END - 24 * HOUR)
    test_start, end = f"{TEST:%Y-%m-%dT%H}", f"{END:%Y-%m-%dT%H}"
    plan = freeze("small", preset, url, str(tmp_path / "models"), str(tmp_path), None, test_start, end, 1, 0)
    assert len(plan.test()) == 24
    built(url, START, END)
    with pytest.raises(DatasetError, match="truth has come since; run the retraining again"):
        plan.test()


def test_a_candidate_of_other_samples_than_were_frozen_is_refused(
    dataset: str, preset: str, tmp_path: Path, small_checkpoint: Path, models: Registry
) -> None:
    times = f"{TEST:%Y-%m-%dT%H}", None
    plan = freeze("small", preset, dataset, models.url, str(tmp_path), None, *times, 1, 0)
    made = load_checkpoint(small_checkpoint)
    other = writer(made, training={"data_digest": "0" * 64})(str(tmp_path / "other"))
    assert other.training["data_digest"] != plan.digest
    with pytest.raises(DatasetError, match="trained on samples 000000000000, frozen were"):
        enter(plan, str(tmp_path / "other"))
    assert models.names() == []


def test_an_empty_period_is_named_before_anything_is_trained(run: Any, models: Registry) -> None:
    with pytest.raises(ConfigurationError, match=r"0 samples of .* to train on, 0 up to .* and 72 of"):
        run(test_start=f"{START:%Y-%m-%dT%H}")
    assert models.names() == []


@pytest.mark.parametrize("days", [{"validation_days": -1}, {"test_days": -1}])
def test_negative_days_would_train_on_the_test_set(run: Any, models: Registry, days: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="neither can be negative"):
        run(**days)
    assert models.names() == []


@pytest.mark.service
def test_a_training_that_fails_is_named_with_its_last_words(run: Any, tmp_path: Path, preset: str) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(toml(replace(PRESET, learning_rate=1e30).to_dict()))
    with pytest.raises(Exception, match=r"training of small ended with exit code 1: corrdiff: "):
        run(preset=str(wrong))
