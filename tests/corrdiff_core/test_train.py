"""Training: the schedule, a run that was killed and goes on as if it had not been, and what stops it."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core import train as training
from corrdiff_core.checkpoint import DIFFUSION, REGRESSION, load_checkpoint
from corrdiff_core.errors import ConfigurationError, TrainingError
from corrdiff_core.generate import generate
from corrdiff_core.grid import TAIWAN
from corrdiff_core.manifest import MANIFEST, Sampling, read_manifest
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.train import DEMO, Preset, learning_rate, networks, train
from tests.small_domain import PRESET, SMALL

SAVE_EVERY = 2
# What a child process runs: train, and die without a word before step DEATH of STAGE changes the weights.
DYING = """
import os, signal, sys
sys.path[:0] = sys.argv[4:]
import torch
from corrdiff_core import train
from tests.small_domain import PRESET, SMALL
folder, stage, death = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
train._SAVE_EVERY = 2
inner = train._generator
def generator(seed, of, step):
    if (of, step) == (stage, death):
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(seed, of, step)
train._generator = generator
train.train(PRESET, folder, SMALL)
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def save_often(monkeypatch):
    monkeypatch.setattr(training, "_SAVE_EVERY", SAVE_EVERY)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """One whole run: its folder and what it reported."""
    folder, lines = tmp_path_factory.mktemp("train") / "run", []
    train(PRESET, folder, SMALL, lines.append)
    return folder, lines


class StoppedError(Exception):
    pass


class TestPreset:
    def test_steps_are_whole_batches(self):
        assert (PRESET.batch, PRESET.steps("regression"), PRESET.steps("diffusion")) == (2, 5, 6)
        assert DEMO.batch == 6

    def test_the_demo_never_sees_the_held_out_year(self):
        assert DEMO.end <= datetime(2021, 1, 1)

    @pytest.mark.parametrize(
        "change",
        [
            {"crops_per_time": 0},
            {"times_per_step": 0},
            {"regression_samples": 1},
            {"diffusion_samples": 0},
            {"end": PRESET.start},
            {"statistics_samples": 0},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_one_that_trains_nothing_is_refused(self, change):
        with pytest.raises(ConfigurationError, match="preset small"):
            replace(PRESET, **change)

    def test_crops_beyond_the_domain_are_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"crops of 64 points, the domain small has \(32, 32\)"):
            train(replace(PRESET, crop=64), tmp_path / "run", SMALL)
        assert not (tmp_path / "run").exists()


stages = st.sampled_from(["regression", "diffusion"])


class TestLearningRate:
    @given(stages, st.integers(0, 2_699))
    def test_it_is_positive_and_at_most_the_preset_s(self, stage, step):
        if step < DEMO.steps(stage):
            assert 0 < learning_rate(DEMO, stage, step) <= DEMO.learning_rate

    @pytest.mark.parametrize("stage", ["regression", "diffusion"])
    def test_it_rises_in_the_warm_up_and_falls_after_it(self, stage):
        rates = [learning_rate(DEMO, stage, step) for step in range(DEMO.steps(stage))]
        top = rates.index(max(rates))
        assert top == pytest.approx(DEMO.warm_up / DEMO.batch, abs=5)
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert max(rates) == pytest.approx(DEMO.learning_rate, rel=0.05)
        assert rates[0] == pytest.approx(DEMO.learning_rate * DEMO.batch / DEMO.warm_up)
        assert rates[-1] == pytest.approx(0.02 * DEMO.learning_rate, rel=0.01)

    def test_no_warm_up_starts_at_the_top(self):
        assert learning_rate(replace(DEMO, warm_up=0), "regression", 0) == DEMO.learning_rate


class TestNetworks:
    def test_the_channels_are_those_of_the_conditioning(self):
        """4 outputs or blanks, 12 inputs, 4 of position or 4 of the mean, 2 invariants."""
        regression, diffusion = networks(DEMO, TAIWAN)
        for network, parts in (
            (regression, ("input", "grid", "invariants")),
            (diffusion, ("mean", "input", "invariants")),
        ):
            assert network.unet["in_channels"] == 4 + 12 + 4 + 2
            assert network.unet["out_channels"] == 4
            assert network.conditioning == parts
        assert (regression.unet["embedding"], diffusion.unet["embedding"]) == ("zero", "positional")

    def test_the_demo_fits_its_place_in_the_repository(self):
        weights = [UNet(UNetConfig.from_dict(network.unet)) for network in networks(DEMO, TAIWAN)]
        count = sum(weight.numel() for network in weights for weight in network.parameters())
        invariants = 2 * TAIWAN.shape[0] * TAIWAN.shape[1]
        assert 4 * (count + invariants) < 12e6


class TestRun:
    def test_it_writes_a_checkpoint_that_generates(self, undisturbed):
        folder, _ = undisturbed
        checkpoint = load_checkpoint(str(folder / "checkpoint"))
        manifest = checkpoint.manifest
        assert manifest.name == "small"
        assert manifest.domain == SMALL
        assert manifest.defaults == PRESET.defaults
        assert manifest.training["preset"]["learning_rate"] == PRESET.learning_rate
        assert "synthetic" in manifest.training["data"]
        inputs, _ = training.NatureRun(SMALL, 1, PRESET.start, PRESET.end).pair(0)
        assert generate(checkpoint, inputs).sizes["member"] == 3

    def test_both_networks_have_moved(self, undisturbed):
        folder, _ = undisturbed
        checkpoint = load_checkpoint(str(folder / "checkpoint"))
        for network in (checkpoint.regression, checkpoint.diffusion):
            last = [value for name, value in network.named_parameters() if "aux_conv.bias" in name]
            assert len(last) == 1
            assert float(last[0].abs().min()) > 0  # it starts at 0

    def test_killed_in_either_stage_it_ends_in_the_same_weights(self, undisturbed, tmp_path, monkeypatch):
        """SIGKILL in the regression, an exception in the diffusion, both between two saved states."""
        folder = tmp_path / "run"
        killed = subprocess.run([sys.executable, "-c", DYING, str(folder), "regression", "3", *sys.path])
        assert killed.returncode == -signal.SIGKILL
        assert torch.load(folder / "regression.pt", weights_only=True)["step"] == 2
        assert not (folder / "diffusion.pt").exists()

        inner = training._generator

        def stopping(seed, stage, step):
            if (stage, step) == ("diffusion", 5):
                raise StoppedError
            return inner(seed, stage, step)

        monkeypatch.setattr(training, "_generator", stopping)
        with pytest.raises(StoppedError):
            train(PRESET, folder, SMALL)
        assert torch.load(folder / "diffusion.pt", weights_only=True)["step"] == 4
        assert not (folder / "checkpoint").exists()

        monkeypatch.setattr(training, "_generator", inner)
        train(PRESET, folder, SMALL)
        for name in (REGRESSION, DIFFUSION, MANIFEST):
            expected = (undisturbed[0] / "checkpoint" / name).read_bytes()
            assert (folder / "checkpoint" / name).read_bytes() == expected
        assert not list(folder.glob("*.partial"))

    def test_a_finished_run_is_returned(self, undisturbed):
        folder, _ = undisturbed
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        again = train(PRESET, folder, SMALL)
        assert again.manifest.digest == read_manifest(str(folder / "checkpoint")).digest
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_progress_is_reported(self, tmp_path, undisturbed):
        assert undisturbed[1] == []  # every 50 steps, and this run has fewer


class TestRefusals:
    @pytest.fixture
    def folder(self, undisturbed, tmp_path):
        """The state of a finished training, without its checkpoint."""
        for name in ("statistics.json", "regression.pt", "diffusion.pt"):
            os.link(undisturbed[0] / name, tmp_path / name)
        return tmp_path

    def test_statistics_of_another_task(self, folder):
        with pytest.raises(TrainingError, match=r"statistics\.json: statistics of .*train into another folder"):
            train(replace(PRESET, seed=5), folder, SMALL)
        with pytest.raises(TrainingError, match=r"statistics\.json"):
            train(PRESET, folder, replace(SMALL, name="elsewhere", x0=-20000.0))

    @pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"crop": 8}, {"defaults": Sampling(1)}, {"name": "b"}])
    def test_state_of_another_task(self, folder, change):
        with pytest.raises(TrainingError, match=r"regression\.pt: training state of task .*train into another folder"):
            train(replace(PRESET, **change), folder, SMALL)

    def test_a_checkpoint_of_another_task(self, undisturbed):
        with pytest.raises(TrainingError, match="a checkpoint of another task stands here"):
            train(replace(PRESET, learning_rate=1e-4), undisturbed[0], SMALL)

    @pytest.mark.parametrize("content", [b"", b"no state", None])
    def test_damaged_state(self, folder, content):
        path = folder / "regression.pt"
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(TrainingError, match=r"regression\.pt: damaged training state.*remove it"):
            train(PRESET, folder, SMALL)
        assert not (folder / "checkpoint").exists()

    def test_a_loss_that_is_not_finite(self, tmp_path):
        with pytest.raises(TrainingError, match=r"regression step \d: loss .*lower the learning rate"):
            train(replace(PRESET, learning_rate=1e30, warm_up=0), tmp_path, SMALL)
        assert not (tmp_path / "checkpoint").exists()


def test_a_preset_is_plain_data():
    assert isinstance(DEMO, Preset)
    assert replace(DEMO) == DEMO
