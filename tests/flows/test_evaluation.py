"""`corrdiff evaluate`: a report in a folder, two models side by side, samples by URL."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.errors import CheckpointError, ConfigurationError, DatasetError
from corrdiff_core.evaluate.evaluate import held_out
from corrdiff_core.evaluate.report import markdown
from corrdiff_core.evaluate.scores import read_scores
from corrdiff_core.registry import Registry
from flows.cli import app
from tests.small_domain import SMALL


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)


def test_a_report(small_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    done = evaluate("--model", str(small_checkpoint), "--times", "2", "--members", "3", "--out", str(out))
    assert done.exit_code == 0
    scores = read_scores(str(out / "scores.json"))
    assert done.stdout == f"{markdown(scores)}\n" == (out / "report.md").read_text()
    assert [line.split(" (")[0] for line in done.stderr.splitlines()] == ["scored 1/2", "scored 2/2"]
    told = scores.evaluation
    assert (told.samples, told.members) == (held_out(SMALL, 2).digest, 3)
    assert told.digest == load_checkpoint(str(small_checkpoint)).manifest.digest
    with Image.open(out / "panel.png") as picture:
        assert picture.size[0] > 2000, "maps and diagrams"
    assert sorted(path.name for path in out.iterdir()) == ["panel.png", "report.md", "scores.json"]


def test_two_models_side_by_side_and_the_gate(registry: Registry, tmp_path: Path) -> None:
    """From the evaluation to the registry's refusal, without a step between."""
    out, where = tmp_path / "scores", ("--models", registry.url)
    sizes = ("--times", "3", "--members", "2")
    done = evaluate("--model", "small@2", "--against", "small", *where, *sizes, "--out", str(out))
    assert done.exit_code == 0
    scores, against = (read_scores(str(out / name)) for name in ("scores.json", "against.json"))
    versions = registry.versions("small")
    assert [s.evaluation.digest for s in (against, scores)] == [version.manifest.digest for version in versions]
    assert (scores.evaluation.num_steps, against.evaluation.num_steps) == (5, 2), "each as its manifest says"
    assert scores.evaluation.times == against.evaluation.times
    decision = json.loads((out / "decision.json").read_text())
    assert not decision["promote"]
    assert done.stdout.splitlines()[-1].startswith("reject: the test set has 3 days, 10 are needed")
    files = ("--scores", str(out / "scores.json"), "--production", str(out / "against.json"))
    with pytest.raises(CheckpointError, match="small@2 stays out of production: the test set has 3 days"):
        CliRunner().invoke(app, ["models", "promote", "small@2", *where, *files], catch_exceptions=False)


def test_samples_by_url(small_checkpoint: Path) -> None:
    """The default dataset, spelled out; its hours are chosen by number."""
    url = "nature:1:2021-01-01:2022-01-01:2"
    plain, named = (
        evaluate("--model", str(small_checkpoint), "--members", "2", "--times", "2", *more).stdout
        for more in ((), ("--dataset", url))
    )
    assert plain == named


def test_object_storage(small_checkpoint: Path, s3_url: str) -> None:
    out = f"{s3_url}/scores"
    assert evaluate("--model", str(small_checkpoint), "--times", "1", "--members", "2", "--out", out).exit_code == 0
    assert read_scores(f"{out}/scores.json").evaluation.members == 2


def test_what_is_no_dataset(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        evaluate("--model", str(small_checkpoint), "--dataset", str(tmp_path))


def test_more_times_than_samples(small_checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="24 times of 5 samples"):
        evaluate("--model", str(small_checkpoint), "--dataset", "nature:1:2021-01-01:2022-01-01:5")
