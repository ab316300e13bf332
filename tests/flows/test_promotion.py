"""`corrdiff models promote | rollback`: what the gate lets into production, and what the history says of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.registry import Registry
from flows.cli import app
from tests.flows.flow_cases import Corrdiff
from tests.score_cases import VARIABLES, daily, fabricate, weather


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False)


def write_scores(path: Path, registry: Registry, number: int, factor: float = 1.0, **more: Any) -> str:
    """A file of scores of that version: 40 days, `factor` times the CRPS of every other's."""
    manifest = registry.version("small", number).manifest
    told = {"model": manifest.identity, "digest": manifest.digest} | more
    scores = fabricate(dict.fromkeys(VARIABLES, factor * weather(40)), daily(40), **told)
    path.write_text(scores.to_json())
    return str(path)


@pytest.fixture
def files(registry: Registry, tmp_path: Path) -> tuple[str, ...]:
    """Options: where the registry is, scores of a version 2 that is better than the version 1 in production."""
    candidate = write_scores(tmp_path / "candidate.json", registry, 2, 0.9)
    production = write_scores(tmp_path / "production.json", registry, 1)
    return "--models", registry.url, "--scores", candidate, "--production", production


class TestPromote:
    def test_a_better_one_goes_into_production(self, registry: Registry, files: tuple[str, ...]) -> None:
        done = models("promote", "small@2", *files)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith("small@2 is in production: CRPS is 0.900 (0.900..0.900) of production's")
        assert registry.production("small").number == 2
        change = registry.history("small")[-1]
        assert (change["action"], change["version"], change["previous"]) == ("promote", 2, 1)
        assert change["reason"]["decision"]["promote"]
        assert change["reason"]["decision"]["numbers"]["crps_ratio"]["t2m"] == pytest.approx([0.9, 0.9, 0.9])
        assert (
            change["reason"]["decision"]["numbers"]["production"]["digest"]
            == registry.version("small", 1).manifest.digest
        )

    def test_and_back_and_again(self, registry: Registry, files: tuple[str, ...]) -> None:
        assert models("promote", "small@2", *files).exit_code == 0
        done = models("rollback", "small", "--reason", "rain everywhere", "--models", registry.url)
        assert done.stdout == "small@1 is in production again, small@2 no more\n"
        assert registry.production("small").number == 1
        assert models("promote", "small@2", *files).exit_code == 0
        assert registry.production("small").number == 2
        assert [change["action"] for change in registry.history("small")] == ["first", "promote", "rollback", "promote"]
        assert registry.history("small")[2]["reason"] == {"why": "rain everywhere"}

    def test_a_worse_one_stays_out(
        self, registry: Registry, files: tuple[str, ...], tmp_path: Path, corrdiff: Corrdiff
    ) -> None:
        write_scores(tmp_path / "candidate.json", registry, 2, 1.1)
        before = registry.history("small")
        done = corrdiff("models", "promote", "small@2", *files)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(
            "corrdiff: small@2 stays out of production: not better overall: mean CRPS ratio 1.100"
        )
        assert done.stderr.count("\n") == 1
        assert registry.history("small") == before

    def test_what_is_in_production_already_stays(self, registry: Registry) -> None:
        done = models("promote", "small@1", "--models", registry.url)
        assert (done.exit_code, done.stdout) == (0, "small@1 is in production already: nothing to do\n")
        assert len(registry.history("small")) == 1

    def test_scores_in_object_storage(self, registry: Registry, files: tuple[str, ...], s3_url: str) -> None:
        import fsspec

        with fsspec.open(f"{s3_url}/candidate.json", "w") as file:
            file.write(Path(files[3]).read_text())
        done = models("promote", "small@2", *files[:2], "--scores", f"{s3_url}/candidate.json", *files[4:])
        assert done.exit_code == 0
        assert registry.production("small").number == 2

    def test_a_name_without_production_needs_calibration_only(self, registry: Registry, files: tuple[str, ...]) -> None:
        Path(registry.url, "small", "production.json").unlink()
        done = models("promote", "small@2", *files[:4])
        assert done.stdout == "small@2 is in production: calibrated, and nothing is in production yet\n"

    def test_it_is_quick(self, files: tuple[str, ...], corrdiff: Corrdiff) -> None:
        done = corrdiff("models", "promote", "small@2", *files, PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode == 0
        heavy = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert not heavy & {"torch", "prefect", "matplotlib"}


class TestRefusals:
    """Nothing changes."""

    @pytest.fixture(autouse=True)
    def _unchanged(self, registry: Registry) -> Any:
        yield
        assert registry.production("small").number == 1
        assert len(registry.history("small")) == 1

    def test_without_scores(self, registry: Registry) -> None:
        with pytest.raises(ConfigurationError, match="small@2 has no scores: name those of `corrdiff evaluate --out`"):
            models("promote", "small@2", "--models", registry.url)

    def test_without_those_of_production(self, files: tuple[str, ...]) -> None:
        with pytest.raises(ConfigurationError, match="small@1 is in production: name its scores"):
            models("promote", "small@2", *files[:4])

    def test_scores_of_another_model(self, registry: Registry, files: tuple[str, ...], tmp_path: Path) -> None:
        swapped = [*files[:3], files[5], files[4], files[3]]
        with pytest.raises(ConfigurationError, match=r"--scores .*production.json: scores of small-.*evaluate small@2"):
            models("promote", "small@2", *swapped)
        write_scores(tmp_path / "production.json", registry, 2)
        with pytest.raises(ConfigurationError, match=r"--production .*evaluate small@1"):
            models("promote", "small@2", *files)

    def test_scores_on_another_test_set(self, registry: Registry, files: tuple[str, ...], tmp_path: Path) -> None:
        write_scores(tmp_path / "production.json", registry, 1, samples="6b" * 32)
        with pytest.raises(ConfigurationError, match="samples 5a5a5a5a5a5a and 6b6b6b6b6b6b"):
            models("promote", "small@2", *files)

    def test_a_version_that_is_not_there(self, registry: Registry) -> None:
        with pytest.raises(CheckpointError, match="small@3 is not in"):
            models("promote", "small@3", "--models", registry.url, "--force", "why not")

    def test_force_needs_a_reason(self, registry: Registry) -> None:
        with pytest.raises(ConfigurationError, match="say why"):
            models("promote", "small@2", "--models", registry.url, "--force", " ")

    def test_nothing_to_go_back_to(self, registry: Registry) -> None:
        with pytest.raises(CheckpointError, match="nothing was in production before small@1"):
            models("rollback", "small", "--models", registry.url)


class TestForce:
    def test_it_leaves_a_trace(self, registry: Registry) -> None:
        done = models("promote", "small@2", "--force", "the old one is on fire", "--models", registry.url)
        assert done.stdout == "small@2 is in production: forced: the old one is on fire\n"
        reason = registry.history("small")[-1]["reason"]
        assert reason["forced"] == "the old one is on fire"
        assert reason["undecided"].startswith("small@2 has no scores")

    def test_with_what_it_overruled(self, registry: Registry, files: tuple[str, ...], tmp_path: Path) -> None:
        write_scores(tmp_path / "candidate.json", registry, 2, 1.1)
        assert models("promote", "small@2", "--force", "for a demonstration", *files).exit_code == 0
        reason = registry.history("small")[-1]["reason"]
        assert registry.production("small").number == 2
        assert not reason["decision"]["promote"]
        assert json.dumps(reason["decision"]["reasons"]).startswith('["not better overall')
