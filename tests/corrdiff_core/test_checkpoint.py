"""Checkpoints: weights come back bit for bit, and whatever is missing, damaged or misfit is refused by name."""

import json
import pickle
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch

from corrdiff_core.checkpoint import DIFFUSION, INVARIANTS, REGRESSION, load_checkpoint, save_checkpoint
from corrdiff_core.errors import CheckpointError
from corrdiff_core.manifest import MANIFEST, Manifest, read_manifest
from tests.small_domain import SMALL, checkpoint

FILES = (REGRESSION, DIFFUSION, INVARIANTS)


@pytest.fixture(scope="module")
def made():
    return checkpoint()


def save(made, path, **changes):
    return save_checkpoint(
        str(path), replace(made.manifest, **changes), made.regression, made.diffusion, made.invariants
    )


@pytest.fixture
def folder(made, tmp_path):
    save(made, tmp_path / "model")
    return tmp_path / "model"


def resign(folder: Path) -> None:
    """Make the manifest agree with the files as they are."""
    manifest = read_manifest(str(folder))
    files = {name: (folder / name).read_bytes() for name in FILES}
    (folder / MANIFEST).write_text(manifest.with_files(files).to_json())


def edit(folder: Path, **changes) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | changes))


def assert_equal(first, second):
    for one, other in ((first.regression, second.regression), (first.diffusion, second.diffusion)):
        ours, theirs = one.state_dict(), other.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(first.invariants, second.invariants)


class TestRoundTrip:
    def test_weights_come_back_bit_for_bit(self, made, folder):
        loaded = load_checkpoint(str(folder))
        assert_equal(loaded, made)
        assert loaded.manifest == made.manifest.with_files({name: (folder / name).read_bytes() for name in FILES})
        assert loaded.device.type == "cpu"

    def test_it_predicts_the_same(self, made, folder):
        inputs = torch.randn(12, *SMALL.shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(load_checkpoint(str(folder)).model.mean(inputs), made.model.mean(inputs))

    def test_it_is_ready_for_use(self, folder):
        loaded = load_checkpoint(str(folder))
        for network in (loaded.regression, loaded.diffusion):
            assert not network.training
            assert not any(weight.requires_grad for weight in network.parameters())

    def test_the_folder_holds_nothing_else(self, folder):
        assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, MANIFEST))

    def test_saving_twice_gives_the_same_bytes(self, made, folder, tmp_path):
        save(made, tmp_path / "again")
        for name in (*FILES, MANIFEST):
            assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    def test_any_url(self, made):
        url = f"memory://{uuid.uuid4().hex}/model"
        saved = save(made, url)
        assert_equal(load_checkpoint(url), made)
        assert read_manifest(url) == saved
        with pytest.raises(CheckpointError, match="stands here already"):
            save(made, url)
        fsspec.filesystem("memory").rm(url.rsplit("/", 1)[0], recursive=True)

    def test_no_invariants(self, made, tmp_path):
        bare = replace(made, invariants=torch.empty(0, *SMALL.shape))
        save_checkpoint(
            str(tmp_path), replace(made.manifest, invariants=()), bare.regression, bare.diffusion, bare.invariants
        )
        assert load_checkpoint(str(tmp_path)).invariants.shape == (0, *SMALL.shape)

    @pytest.mark.parametrize(("name", "scaled"), [("EDMPrecondSR", True), ("EDMPrecondSuperResolution", False)])
    def test_the_preconditioning_is_the_manifest_s(self, made, tmp_path, name, scaled):
        save(made, tmp_path, preconditioning=name, sigma_data=0.7)
        loaded = load_checkpoint(str(tmp_path))
        assert loaded.diffusion.scale_conditioning is scaled
        assert loaded.diffusion.sigma_data == 0.7


class TestSaving:
    def test_a_checkpoint_is_never_changed(self, made, folder):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(CheckpointError, match="stands here already; write to another folder"):
            save(made, folder, name="other")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_what_a_killed_writer_left_is_written_over(self, made, folder):
        (folder / MANIFEST).unlink()
        (folder / REGRESSION).write_bytes(b"half")
        save(made, folder)
        assert_equal(load_checkpoint(str(folder)), made)


class TestRefusals:
    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=rf"{name} is missing: copy the whole"):
            load_checkpoint(str(folder))

    @pytest.mark.parametrize("name", FILES)
    def test_a_flipped_bit(self, folder, name):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(bytes(content))
        with pytest.raises(CheckpointError, match=rf"{name}: SHA-256 .*the manifest says"):
            load_checkpoint(str(folder))

    @pytest.mark.parametrize("name", FILES)
    def test_a_truncated_file(self, folder, name):
        (folder / name).write_bytes((folder / name).read_bytes()[:-10])
        with pytest.raises(CheckpointError, match=rf"{name}: SHA-256"):
            load_checkpoint(str(folder))
        resign(folder)
        with pytest.raises(CheckpointError, match=rf"{name}: not a safetensors file"):
            load_checkpoint(str(folder))

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match="no checkpoint here"):
            load_checkpoint(str(tmp_path))

    def test_a_manifest_without_digests(self, folder):
        edit(folder, files={})
        with pytest.raises(CheckpointError, match=rf"no digest of {REGRESSION}"):
            load_checkpoint(str(folder))

    def test_weights_of_another_network(self, made, folder):
        weights = dict(made.regression.state_dict())
        first = next(iter(weights))
        for wrong in (
            {**weights, first: weights[first][:1]},
            dict(list(weights.items())[1:]),
            weights | {"x": torch.ones(1)},
        ):
            (folder / REGRESSION).write_bytes(safetensors.torch.save({k: v.contiguous() for k, v in wrong.items()}))
            resign(folder)
            with pytest.raises(CheckpointError, match=rf"{REGRESSION}: weights do not fit"):
                load_checkpoint(str(folder))

    def test_invariants_of_another_domain(self, folder):
        for wrong in ({"invariants": torch.zeros(2, 8, 8)}, {"elevation": torch.zeros(2, 32, 32)}, {}):
            (folder / INVARIANTS).write_bytes(safetensors.torch.save(wrong))
            resign(folder)
            with pytest.raises(CheckpointError, match=r"the manifest needs \(2, 32, 32\)"):
                load_checkpoint(str(folder))

    @pytest.mark.parametrize("change", [{"model_channels": 6}, {"model_channels": "four"}, {"depth": 3}])
    def test_a_network_that_cannot_be(self, folder, change):
        unet = read_manifest(str(folder)).diffusion.unet | change
        edit(folder, diffusion={"unet": unet, "conditioning": ["mean", "input", "invariants"]})
        with pytest.raises(CheckpointError, match=rf"{MANIFEST}: describes no network"):
            load_checkpoint(str(folder))

    def test_a_pickle_is_not_opened(self, folder, tmp_path):
        """A file that would run code when unpickled, with a digest that agrees."""

        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "sprung",))

        (folder / DIFFUSION).write_bytes(pickle.dumps({"weights": Trap()}))
        resign(folder)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load_checkpoint(str(folder))
        torch.save({"weights": torch.ones(1)}, folder / DIFFUSION)
        resign(folder)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load_checkpoint(str(folder))
        assert not (tmp_path / "sprung").exists()


def test_a_manifest_read_alone_is_the_checkpoint_s(folder):
    assert isinstance(read_manifest(str(folder)), Manifest)
    assert read_manifest(str(folder)).digest == load_checkpoint(str(folder)).manifest.digest
