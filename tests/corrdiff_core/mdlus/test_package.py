"""NVIDIA's inference package as a checkpoint: what it becomes, what is chosen and said, what is refused."""

import hashlib
import logging
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.generate import generate, regression_mean
from corrdiff_core.grid import TAIWAN
from corrdiff_core.manifest import read_manifest
from corrdiff_core.mdlus import import_package, load_network, read_package
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from tests.corrdiff_core.mdlus.mdlus_cases import same_network, small_parts, state_of, with_state
from tests.corrdiff_core.mdlus.package_cases import DIFFUSION, REGRESSION, weather, write_package, zipped

CHANNELS_OF_OWN = {
    "regression": small_parts("CorrDiffRegressionUNet", conditioning=12, positions=4),
    "diffusion": small_parts("EDMPrecondSuperResolution", positions=4, seed=1),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("package") / "corrdiff_inference_package")


@pytest.fixture(scope="module")
def package(folder, tmp_path_factory):
    return zipped(folder, tmp_path_factory.mktemp("zip") / "corrdiff_inference_package.zip")


class TestImport:
    def test_a_zip_and_a_folder_give_the_same_checkpoint(self, folder, package, tmp_path):
        bare = zipped(folder, tmp_path / "bare.zip", root="")
        deep = zipped(folder, tmp_path / "deep.zip", root="a/b/")
        packages = (package, str(package), bare, deep, folder, folder.parent)
        digests = {import_package(each, tmp_path / str(i)).digest for i, each in enumerate(packages)}
        assert len(digests) == 1

    def test_the_manifest_says_what_it_is(self, folder, package, tmp_path):
        manifest = import_package(package, tmp_path / "model", name="cwa-2021")
        assert manifest == read_manifest(str(tmp_path / "model"))
        assert manifest.name == "cwa-2021"
        assert manifest.domain == replace(TAIWAN, crop=217)
        assert manifest.input_statistics.names == INPUT_NAMES
        assert manifest.output_statistics.names == OUTPUT_NAMES
        assert manifest.regression.conditioning == ("input", "grid")
        assert manifest.diffusion.conditioning == ("mean", "input")
        assert manifest.preconditioning == "EDMPrecondSR"
        defaults = manifest.defaults
        assert (defaults.num_steps, defaults.solver, defaults.rho) == (8, "euler", 7.0)
        assert (defaults.sigma_min, defaults.sigma_max) == (0.002, 80.0)
        for name, class_name in (("regression.mdlus", "UNet"), ("diffusion.mdlus", "EDMPrecondSR")):
            assert manifest.training["files"][name] == {
                "sha256": hashlib.sha256((folder / "checkpoints" / name).read_bytes()).hexdigest(),
                "class": class_name,
                "written_by": "physicsnemo 2.2",
            }

    @pytest.mark.parametrize("weights", ["float16", "float32"])
    def test_the_networks_come_back_bit_for_bit(self, package, tmp_path, weights):
        read = read_package(package, weights=weights)
        read.save(tmp_path / "model")
        loaded = load_checkpoint(tmp_path / "model")
        assert same_network(loaded.regression, read.regression)
        assert same_network(loaded.diffusion, read.diffusion)

    def test_weights_are_rounded_unless_told_otherwise(self, folder):
        rounded, kept = read_package(folder), read_package(folder, weights="float32")
        for name in ("regression", "diffusion"):
            original = load_network(folder / "checkpoints" / f"{name}.mdlus")
            assert same_network(getattr(kept, name), original)
            expected = {key: value.half().float() for key, value in original.state_dict().items()}
            found = getattr(rounded, name).state_dict()
            assert all(torch.equal(found[key], expected[key]) for key in expected)
            assert not all(torch.equal(found[key], value) for key, value in original.state_dict().items())

    def test_an_ensemble(self, package, tmp_path):
        manifest = import_package(package, tmp_path / "model")
        inputs = weather()
        checkpoint = load_checkpoint(Path(tmp_path / "model"))
        ensemble = generate(checkpoint, inputs, members=2)
        assert tuple(ensemble.data_vars) == OUTPUT_NAMES
        assert dict(ensemble.sizes) == {"member": 2, "y": 16, "x": 16}
        assert all(np.isfinite(ensemble[name]).all() for name in OUTPUT_NAMES)
        assert ensemble.attrs["model"] == manifest.identity
        np.testing.assert_allclose(ensemble.latitude, TAIWAN.latitude[216:232, 216:232])
        assert ensemble.equals(generate(load_checkpoint(str(tmp_path / "model")), inputs, members=2))

    def test_another_conditioning_gives_another_ensemble_of_the_same_mean(self, package, tmp_path):
        inputs, found = weather(), {}
        for conditioning in ("mean,input", "input,grid"):
            manifest = import_package(package, tmp_path / conditioning, diffusion_conditioning=conditioning)
            assert manifest.diffusion.conditioning == tuple(conditioning.split(","))
            checkpoint = load_checkpoint(tmp_path / conditioning)
            found[conditioning] = generate(checkpoint, inputs, members=1), regression_mean(checkpoint, inputs)
        (first, mean), (other, same_mean) = found.values()
        assert not np.allclose(first.t2m, other.t2m, atol=0.01)
        assert mean.equals(same_mean)

    def test_networks_with_positions_of_their_own(self, tmp_path):
        package = write_package(tmp_path / "package", **CHANNELS_OF_OWN)
        manifest = import_package(package, tmp_path / "model")
        assert manifest.regression.conditioning == ("input",)
        assert manifest.diffusion.conditioning == ("mean", "input")
        assert manifest.preconditioning == "EDMPrecondSuperResolution"
        read, loaded = read_package(package), load_checkpoint(tmp_path / "model")
        assert same_network(loaded.diffusion, read.diffusion)
        assert torch.equal(loaded.diffusion.model.pos_embd, read.diffusion.model.pos_embd)
        assert np.isfinite(generate(loaded, weather(), members=1).t2m).all()

    def test_any_url(self, package):
        url = f"memory://{uuid.uuid4().hex}/model"
        assert import_package(package, url) == load_checkpoint(url).manifest
        fsspec.filesystem("memory").rm(url.rsplit("/", 1)[0], recursive=True)

    def test_a_checkpoint_is_never_changed(self, package, tmp_path):
        import_package(package, tmp_path / "model")
        before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        with pytest.raises(CheckpointError, match="stands here already; write to another folder"):
            import_package(package, tmp_path / "model", weights="float32")
        assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


class TestAssumptions:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, ["conditioned on mean,input; earth2studio feeds it so since", "rounded to float16"]),
            (
                {"diffusion_conditioning": "input,grid", "weights": "float32"},
                ["conditioned on input,grid; modulus 0.5 trained so", "weights are as in the package"],
            ),
            ({"diffusion_conditioning": ("input", "mean")}, ["on input,mean; nobody documents this layout"]),
        ],
    )
    def test_one_warning_says_them_all(self, package, tmp_path, caplog, options, words):
        with caplog.at_level(logging.WARNING):
            manifest = import_package(package, tmp_path / "model", **options)
        (record,) = [record for record in caplog.records if record.name.startswith("corrdiff_core")]
        text = record.getMessage()
        assert record.levelno == logging.WARNING
        assert text.startswith(f"{manifest.identity} rests on assumptions:")
        assumptions = read_manifest(str(tmp_path / "model")).training["assumptions"]
        assert text.count("\n- ") == len(assumptions)
        assert all(f"\n- {line}" in text for line in assumptions)
        for word in (
            *words,
            "the regression network is conditioned on input,grid",
            "its conditioning is scaled by c_in",
            "without its outermost 217 points on each side",
            "z500 and z850 are geopotential",
            "8 euler steps from sigma 80 to 0.002, rho 7, are earth2studio's defaults within the file's bounds",
            "computed from its Lambert projection, up to",
            "inputs were ERA5 in training",
        ):
            assert sum(word in line for line in assumptions) == 1, word

    def test_an_unscaled_conditioning(self, tmp_path):
        found = read_package(write_package(tmp_path / "package", **CHANNELS_OF_OWN))
        assert (
            "the regression network is conditioned on input, the known layout of as many channels" in found.assumptions
        )
        assert any("its conditioning is not scaled by c_in" in line for line in found.assumptions)

    @pytest.mark.parametrize(
        ("given", "sigma_min", "sigma_max"),
        [
            ({"sigma_min": 0.0, "sigma_max": float("inf")}, 0.002, 80.0),
            ({"sigma_min": 0.01}, 0.01, 80.0),
            ({"sigma_max": 50}, 0.002, 50.0),
            ({"sigma_min": 0.01, "sigma_max": 800.0}, 0.01, 80.0),
        ],
    )
    def test_the_file_bounds_the_sampler(self, tmp_path, given, sigma_min, sigma_max):
        package = write_package(tmp_path / "package", diffusion=small_parts(**given))
        found = read_package(package)
        assert (found.manifest.defaults.sigma_min, found.manifest.defaults.sigma_max) == (sigma_min, sigma_max)
        assert any(f"from sigma {sigma_max:g} to {sigma_min:g}" in line for line in found.assumptions)


class TestChoices:
    @pytest.mark.parametrize("given", ["input,mean", ("input", "mean"), ["input", "mean"], " input, mean"])
    def test_a_layout_is_a_text_or_its_parts(self, folder, given):
        assert read_package(folder, diffusion_conditioning=given).manifest.diffusion.conditioning == ("input", "mean")

    @pytest.mark.parametrize("given", ["", "input,terrain", "input;grid", "grid,grid,grid,grid", (), ("mean,input",)])
    def test_an_unknown_conditioning(self, not_imported, folder, given):
        message = "diffusion conditioning .*: choose mean,input or input,grid"
        not_imported(folder, message, ConfigurationError, diffusion_conditioning=given)

    @pytest.mark.parametrize(("given", "count"), [("input", 12), ("mean,input,grid", 20)])
    def test_a_conditioning_of_other_channels(self, not_imported, folder, given, count):
        message = rf"16 channels, but {given} has {count}; choose another --diffusion-conditioning"
        not_imported(folder, message, diffusion_conditioning=given)

    def test_an_unknown_precision(self, not_imported, folder):
        not_imported(folder, "weights in 'bfloat16': choose float16 or float32", ConfigurationError, weights="bfloat16")

    def test_a_name_that_is_none(self, folder, tmp_path):
        with pytest.raises(CheckpointError, match="model name 'a/b': "):
            import_package(folder, tmp_path / "model", name="a/b")
        assert not (tmp_path / "model").exists()

    def test_weights_beyond_float16(self, not_imported, tmp_path):
        state = state_of(DIFFUSION)
        state["model.map_layer0.bias"][0] = 70000.0
        package = write_package(tmp_path / "package", diffusion=with_state(DIFFUSION, state))
        not_imported(package, r"model\.map_layer0\.bias does not fit float16, which ends at 65504; choose --weights")
        assert float(read_package(package, weights="float32").diffusion.model.map_layer0.bias[0]) == 70000


class TestRefusals:
    def test_swapped_files(self, not_imported, tmp_path):
        package = write_package(tmp_path / "package", regression=DIFFUSION, diffusion=REGRESSION)
        message = (
            r"regression\.mdlus: holds EDMPrecondSR, a diffusion network, where the regression is due; are the two"
        )
        not_imported(package, message)

    def test_the_regression_twice(self, not_imported, tmp_path):
        package = write_package(tmp_path / "package", diffusion=REGRESSION)
        not_imported(package, r"diffusion\.mdlus: holds UNet, a regression network, where the diffusion is due")

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"regression": small_parts("UNet", conditioning=20)}, r"regression\.mdlus: conditioning of 20 channels"),
            ({"diffusion": small_parts(conditioning=20)}, "20 channels, but mean,input has 16; choose another"),
            ({"diffusion": small_parts(sigma_max=0.001)}, r"sigma 0\.0\.\.0\.001, of which nothing lies"),
            ({"diffusion": small_parts(sigma_min=90, sigma_max=100)}, r"sigma 90\.\.100, of which nothing lies"),
            ({"diffusion": small_parts(sigma_min=None)}, r"supports sigma None\.\.inf, of which nothing lies"),
            ({"diffusion": DIFFUSION | {"model.pt": b""}}, r"diffusion\.mdlus: model\.pt is no PyTorch zip archive"),
        ],
    )
    def test_networks_of_no_package(self, not_imported, tmp_path, files, message):
        not_imported(write_package(tmp_path / "package", **files), message)
