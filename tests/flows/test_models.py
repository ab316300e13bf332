"""`corrdiff models`, and runs that ask for a model by name."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.errors import CheckpointError
from corrdiff_core.manifest import MANIFEST, Network
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.registry import Registry
from flows.cli import app
from flows.settings import Settings
from flows.slots import DEMO, open_run
from tests.flows.flow_cases import REPOSITORY, Corrdiff, writer
from tests.small_domain import manifest


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("CORRDIFF_")]:
        monkeypatch.delenv(name)


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False)


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def section(text: str, title: str) -> dict[str, list[str]]:
    """The rows under a heading, by their first cell."""
    lines = text.partition(f"\n{title}\n")[2].partition("\n\n")[0].splitlines()
    return {row[0]: row[1:] for row in map(cells, lines)}


class TestRuns:
    def test_a_name_is_the_version_in_production(self, registry: Registry) -> None:
        settings = Settings.of(model="small", models=registry.url)
        run = open_run(settings)
        assert (run.model, run.manifest) == (f"{registry.url}/small/0001", registry.production("small").manifest)
        registry.promote("small", 2, {})
        assert open_run(settings).manifest == registry.version("small", 2).manifest
        assert (open_run(settings).sampling.members, open_run(settings).sampling.num_steps) == (2, 5)

    @pytest.mark.parametrize("ref", ["small@2", "small@0002"])
    def test_a_version_is_asked_for_by_number(self, registry: Registry, ref: str) -> None:
        run = open_run(Settings.of(model=ref, models=registry.url))
        assert run.model == registry.version("small", 2).url
        assert load_checkpoint(run.model).manifest == run.manifest

    def test_a_path_is_no_name(self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for path in (f"{registry.url}/small/0002", "models/small/0002", "./models/small/0002"):
            assert open_run(Settings.of(model=path)).model == path
        assert open_run(Settings.of(model="small")).model == f"{tmp_path}/models/small/0001", "./models by default"

    def test_without_a_model_it_is_the_demo_checkpoint(self, registry: Registry) -> None:
        assert open_run(Settings.of(models=registry.url)).model == DEMO

    def test_models_in_object_storage(self, small_checkpoint: Path, s3_url: str) -> None:
        made, registry = load_checkpoint(str(small_checkpoint)), Registry(f"{s3_url}/models")
        registry.add("small", writer(made))
        run = open_run(Settings.of(model="small", models=f"{s3_url}/models/"))
        assert run.model == f"{s3_url}/models/small/0001"
        assert load_checkpoint(run.model).manifest == made.manifest

    @pytest.mark.parametrize(
        ("ref", "message"),
        [("mini", "no model is called 'mini' in .*: choose small, or"), ("small@3", "choose small@1 or small@2")],
    )
    def test_what_is_not_there_is_named(self, registry: Registry, ref: str, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            open_run(Settings.of(model=ref, models=registry.url))

    @pytest.mark.parametrize("command", [("hourly",), ("evaluate",), ("models", "show")])
    def test_every_command_looks_where_models_says(
        self, corrdiff: Corrdiff, registry: Registry, command: tuple[str, ...]
    ) -> None:
        asked = ["small@3"] if command[-1] == "show" else ["--model", "small@3"]
        done = corrdiff(*command, *asked, "--models", registry.url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"corrdiff: small@3 is not in {registry.url}: choose small@1 or small@2\n"


class TestAdd:
    def test_a_checkpoint_folder_becomes_a_version_under_the_name(self, small_checkpoint: Path, tmp_path: Path) -> None:
        url = str(tmp_path / "models")
        for number, in_production in ((1, "yes"), (2, "no")):
            result = models("add", str(small_checkpoint), "--name", "mine", "--models", url)
            assert result.exit_code == 0, result.output
            rows = dict(cells(line)[:2] for line in result.output.splitlines())
            assert rows["version"] == f"mine@{number}"
            assert rows["in production"].startswith(in_production)
        added = load_checkpoint(Registry(url).resolve("mine@2"))
        original = load_checkpoint(small_checkpoint)
        assert replace(added.manifest, name=original.manifest.name) == original.manifest
        assert all(
            (a == b).all() for a, b in zip(added.diffusion.parameters(), original.diffusion.parameters(), strict=True)
        )

    def test_a_folder_without_a_checkpoint_leaves_the_registry_without_a_version(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no checkpoint here"):
            models("add", str(tmp_path), "--name", "mine", "--models", str(tmp_path / "models"))
        assert not (tmp_path / "models").exists()


class TestList:
    def test_a_line_for_every_version(self, registry: Registry, small_checkpoint: Path) -> None:
        registry.add("another", writer(load_checkpoint(str(small_checkpoint))))
        registry.promote("small", 2, {})
        head, *lines = models("list", "--models", registry.url).stdout.splitlines()
        versions = [*registry.versions("another"), *registry.versions("small")]
        identities = [version.manifest.identity for version in versions]
        created = [str(registry.claimed(version)) for version in versions]
        assert cells(head) == ["name", "version", "identity", "production", "created", "members", "steps", "solver"]
        assert [cells(line) for line in lines] == [
            ["another", "1", identities[0], "yes", created[0], "3", "2", "euler"],
            ["small", "1", identities[1], created[1], "3", "2", "euler"],
            ["small", "2", identities[2], "yes", created[2], "2", "5", "heun"],
        ]
        assert len({line.index(time) for line, time in zip(lines, created, strict=True)}) == 1, "columns are aligned"

    def test_object_storage(self, small_checkpoint: Path, s3_url: str) -> None:
        Registry(s3_url).add("small", writer(load_checkpoint(str(small_checkpoint))))
        assert [cells(line)[:2] for line in models("list", "--models", s3_url).stdout.splitlines()[1:]] == [
            ["small", "1"]
        ]

    def test_an_empty_registry_says_how_to_fill_it(self, tmp_path: Path) -> None:
        done = models("list", "--models", str(tmp_path / "models"))
        assert (done.exit_code, done.stdout) == (0, "")
        assert "corrdiff models import PACKAGE --name NAME" in done.stderr

    def test_versions_without_one_in_production_are_listed(self, registry: Registry) -> None:
        Path(registry.url, "small", "production.json").unlink()
        assert [cells(line)[3][:2] for line in models("list", "--models", registry.url).stdout.splitlines()[1:]] == [
            "20",
            "20",
        ]

    def test_it_is_quick(self, corrdiff: Corrdiff, registry: Registry) -> None:
        done = corrdiff("models", "list", PYTHONPROFILEIMPORTTIME="1")
        assert done.stdout.count("small") == 4, "./models by default"
        heavy = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert not heavy & {"torch", "prefect", "matplotlib"}


class TestShow:
    def test_all_that_the_manifest_says(self, registry: Registry) -> None:
        version = registry.version("small", 2)
        described = version.manifest
        text = models("show", "small@2", "--models", registry.url).stdout
        head = {row[0]: row[1] for row in map(cells, text.partition("\n\n")[0].splitlines())}
        assert head == {
            "version": "small@2",
            "folder": version.url,
            "in production": "no, small@1 is",
            "identity": described.identity,
            "digest": described.digest,
        }
        assert section(text, "domain")["points"] == ["32 x 32, every 8 km"]
        assert section(text, "inputs")["tcwv"] == ["40.7562", "14.7012", "kg m-2"]
        assert list(section(text, "outputs")) == ["variable", "mrr", "t2m", "u10m", "v10m"]
        assert list(section(text, "invariants")) == list(described.invariants)
        networks = section(text, "networks")
        assert networks["conditioning"] == ["input, grid, invariants", "mean, input, invariants"]
        assert networks["preconditioning"] == ["EDMPrecondSuperResolution"]
        assert networks["model_channels"] == ["4", "4"]
        made = load_checkpoint(version.url)
        assert networks["parameters"] == [
            f"{sum(weights.numel() for weights in network.parameters()):,}"
            for network in (made.regression, made.diffusion)
        ]
        assert section(text, "sampler defaults")["num_steps"] == ["5"]
        assert section(text, "training") == {"data": ["none"]}
        assert "assumptions" not in text
        assert "scores" not in text

    def test_how_the_name_came_to_its_version(self, registry: Registry) -> None:
        registry.promote("small", 2, {"crps": {"t2m": 0.39}})
        registry.rollback("small", {"who": "the operator"})
        text = models("show", "small", "--models", registry.url).stdout
        assert "in production  yes\n" in text
        assert [row[1:] for row in map(cells, text.partition("\nhistory\n")[2].splitlines())] == [
            ["first", "1", "{}"],
            ["promote", "2", "after 1", '{"crps": {"t2m": 0.39}}'],
            ["rollback", "1", "after 2", '{"who": "the operator"}'],
        ]

    def test_assumptions_and_scores(self, registry: Registry, small_checkpoint: Path) -> None:
        told = {"training": {"data": "CWA", "assumptions": ["one thing", "another  thing"], "years": [2018, 2019]}}
        scores = {"scores": {"crps": {"t2m": {"ensemble": 0.39}}, "times": 24}}
        registry.add("told", writer(load_checkpoint(str(small_checkpoint)), **told, **scores))
        text = models("show", "told", "--models", registry.url).stdout
        assert section(text, "training") == {"data": ["CWA"], "years": ["2018, 2019"]}
        assert "\nassumptions\n  one thing\n  another  thing\n\n" in text
        assert section(text, "scores") == {"crps.t2m.ensemble": ["0.39"], "times": ["24"]}

    def test_a_folder_has_no_history(self, small_checkpoint: Path) -> None:
        text = models("show", str(small_checkpoint)).stdout
        assert text.startswith(f"folder    {small_checkpoint}\n")
        assert "history" not in text

    def test_the_networks_of_the_paper_are_counted_without_their_weights(self, tmp_path: Path) -> None:
        """Parameters as counted layer by layer from NVIDIA's description of the two networks."""
        described = replace(
            manifest(),
            regression=Network(UNetConfig(20, 4, embedding="zero").to_dict(), ("input", "grid")),
            diffusion=Network(UNetConfig(20, 4).to_dict(), ("mean", "input")),
        )
        (tmp_path / MANIFEST).write_text(described.to_json())
        assert section(models("show", str(tmp_path)).stdout, "networks")["parameters"] == ["79,673,988", "80,002,692"]


class TestImport:
    @pytest.fixture
    def package(self) -> str:
        path = (REPOSITORY / "../shared/reference/earth2studio-0.19.0/corrdiff_inference_package.zip").resolve()
        if not path.exists():
            pytest.skip(f"no reference package at {path}")
        return str(path)

    def test_the_first_goes_into_production_and_the_next_does_not(self, package: str, tmp_path: Path) -> None:
        url = str(tmp_path / "models")
        first = models("import", package, "--name", "taiwan", "--models", url)
        version = Registry(url).production("taiwan")
        assert first.exit_code == 0
        assert list(map(cells, first.stdout.splitlines())) == [
            ["version", "taiwan@1"],
            ["identity", version.manifest.identity],
            ["folder", version.url],
            ["diffusion conditioning", "mean, input"],
            ["in production", "yes"],
            ["next", f"corrdiff hourly --model taiwan --models {url}"],
        ]
        assert load_checkpoint(version.url).manifest == version.manifest
        other = models("import", package, "--name", "taiwan", "--models", url, "--diffusion-conditioning", "input,grid")
        rows = {row[0]: row[1] for row in map(cells, other.stdout.splitlines())}
        assert rows["diffusion conditioning"] == "input, grid"
        assert rows["in production"] == "no, taiwan@1 is"
        assert rows["next"] == f"corrdiff hourly --model taiwan@2 --models {url}"

    def test_every_assumption_is_a_line_of_the_warning(self, package: str, tmp_path: Path) -> None:
        url = str(tmp_path / "models")
        done = models("import", package, "--name", "taiwan", "--models", url)
        head, *lines = done.stderr.splitlines()
        assumptions = Registry(url).production("taiwan").manifest.training["assumptions"]
        assert head == "warning: the package does not say all; taiwan@1 assumes"
        assert [line.strip() for line in lines] == assumptions
        assert section(models("show", "taiwan", "--models", url).stdout, "networks")["conditioning"][1] == "mean, input"

    def test_weights_are_kept_when_asked_for(self, package: str, tmp_path: Path) -> None:
        url = str(tmp_path / "models")
        for kind in ("float16", "float32"):
            assert models("import", package, "--name", kind, "--models", url, "--weights", kind).exit_code == 0
        rounded, kept = (
            load_checkpoint(Registry(url).resolve(kind)).diffusion.state_dict() for kind in ("float16", "float32")
        )
        assert all((kept[name].half().float() == rounded[name]).all() for name in kept)
        assert any((kept[name] != rounded[name]).any() for name in kept)

    def test_what_is_no_package_leaves_no_version(self, corrdiff: Corrdiff, tmp_path: Path) -> None:
        (tmp_path / "package.zip").write_bytes(b"PK")
        done = corrdiff("models", "import", "package.zip", "--name", "taiwan")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "package.zip" in done.stderr
        assert not (tmp_path / "models").exists()
