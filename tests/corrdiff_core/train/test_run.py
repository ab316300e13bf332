"""Both stages, from samples to a checkpoint that generates, and what is refused on the way."""

import json
import shutil
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest
import torch

from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.dataset import NatureRun
from corrdiff_core.errors import ConfigurationError, DatasetError, TrainingError
from corrdiff_core.generate import generate
from corrdiff_core.manifest import Sampling, read_manifest
from corrdiff_core.train import train
from corrdiff_core.train.run import _outcome
from corrdiff_core.train.state import Progress
from tests.small_domain import PRESET, SMALL
from tests.training_cases import HELD_OUT, QUICK, SAMPLES, START, FixedSamples

pytestmark = pytest.mark.usefixtures("one_thread")


def run(folder, preset=QUICK, samples=SAMPLES, validation=HELD_OUT, initial=None):
    return train(preset, samples, folder, validation, initial=initial, workers=0, report=lambda line: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    run(folder)
    return folder


class TestCheckpoint:
    def test_its_manifest_says_what_it_was_trained_on_and_how(self, undisturbed):
        manifest = load_checkpoint(undisturbed / "checkpoint").manifest
        assert (manifest.name, manifest.domain, manifest.defaults) == ("quick", SMALL, QUICK.defaults)
        told = manifest.training
        assert (told["data"], told["data_digest"]) == ("24 fixed samples", SAMPLES.digest)
        assert told["validation"] == {"data": "6 fixed samples", "data_digest": HELD_OUT.digest}
        assert told["preset"] == QUICK.to_dict()
        assert told["version"]
        for stage, samples in (("regression", 10), ("diffusion", 12)):
            assert (told[stage]["samples"], told[stage]["skipped_steps"]) == (samples, 0)
            assert told[stage]["loss"] > 0
            assert told[stage]["validation"][-1][0] == samples

    def test_its_statistics_are_those_of_the_samples(self, undisturbed):
        """All 16 of the preset's: standard normal fields, put into physical units by the public dataset's."""
        manifest = read_manifest(str(undisturbed / "checkpoint"))
        from corrdiff_core.normalization import CWA_INPUT_STATISTICS as CWA

        found = manifest.input_statistics
        assert found.names == CWA.names
        deviation = 1 / (16 * 32 * 32) ** 0.5
        for name, center, scale in zip(found.names, found.center, found.scale, strict=True):
            position = CWA.names.index(name)
            assert abs(center - CWA.center[position]) < 5 * deviation * CWA.scale[position]
            assert scale == pytest.approx(CWA.scale[position], rel=5 * deviation)

    def test_both_networks_have_moved(self, undisturbed):
        checkpoint = load_checkpoint(undisturbed / "checkpoint")
        for network in (checkpoint.regression, checkpoint.diffusion):
            last = [value for name, value in network.named_parameters() if "aux_conv.bias" in name]
            assert len(last) == 1
            assert float(last[0].abs().min()) > 0  # it starts at 0

    def test_of_a_long_validation_it_tells_some_and_the_last(self):
        history = [(seen, 1.0 / seen) for seen in range(1, 102)]
        told = _outcome(QUICK, Progress(5, 1, 0.5, history))["validation"]
        assert told[-1] == [101, 1 / 101]
        assert len(told) <= 20
        assert {later[0] - sooner[0] for sooner, later in pairwise(told)} == {6}

    def test_a_finished_run_is_returned(self, undisturbed):
        before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
        again = run(undisturbed)
        assert again.manifest.digest == read_manifest(str(undisturbed / "checkpoint")).digest
        assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before

    def test_without_validation_nothing_is_followed(self, tmp_path):
        told = run(tmp_path, validation=None).manifest.training
        assert "validation" not in told
        assert told["diffusion"]["validation"] == []

    @pytest.mark.service
    def test_it_trains_on_the_nature_run_with_workers_and_generates(self, tmp_path):
        weather = NatureRun(SMALL, 1, datetime(2018, 5, 1), datetime(2018, 9, 1), count=40)
        preset = replace(PRESET, window="domain", regression_samples=4, diffusion_samples=4)
        checkpoint = train(preset, weather, tmp_path, workers=1, report=lambda line: None)
        assert "synthetic" in checkpoint.manifest.training["data"]
        assert generate(checkpoint, weather.pair(0)[0]).sizes["member"] == 3

    def test_it_learns(self, tmp_path):
        """The mean explains the part 5/6 of the truth's variance that the inputs carry; a twentieth is soon learned."""
        preset = replace(
            QUICK, regression_samples=400, windows_per_time=8, learning_rate=5e-3, window="domain", validate_every=100
        )
        told = run(tmp_path, replace(preset, diffusion_samples=8)).manifest.training["regression"]["validation"]
        assert told[-1][1] < 0.95 * told[0][1]


class TestRefusals:
    @pytest.fixture
    def folder(self, undisturbed, tmp_path):
        """The state of a finished training, without its checkpoint."""
        for name in ("statistics.json", "regression.state", "diffusion.state"):
            shutil.copy(undisturbed / name, tmp_path / name)
        return tmp_path

    def test_the_states_alone_end_in_the_same_checkpoint(self, undisturbed, folder):
        assert run(folder).manifest == read_manifest(str(undisturbed / "checkpoint"))

    @pytest.mark.parametrize("change", [{"seed": 1}, {"count": 23}, {"start": START.replace(day=2)}])
    def test_statistics_of_other_samples(self, folder, change):
        with pytest.raises(TrainingError, match=r"statistics\.json: statistics of other data: samples is .* there and"):
            run(folder, samples=replace(SAMPLES, **change))

    @pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"sha256": "no"}'])
    def test_damaged_statistics(self, folder, content):
        (folder / "statistics.json").write_bytes(content)
        with pytest.raises(TrainingError, match=r"statistics\.json: damaged statistics: remove the file"):
            run(folder)

    def test_statistics_with_one_digit_changed(self, folder):
        values = json.loads((folder / "statistics.json").read_text())
        values["input"]["center"][0] += 1
        (folder / "statistics.json").write_text(json.dumps(values))
        with pytest.raises(TrainingError, match=r"statistics\.json: damaged"):
            run(folder)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"learning_rate": 1e-4}, r"training\.preset\.learning_rate is 0\.0015 there and 0\.0001 here"),
            ({"window": 8}, r"preset\.window is 16 there and 8 here"),
            ({"defaults": Sampling(1)}, r"defaults\.members is 3 there and 1 here"),
            ({"name": "b"}, "name is quick there and b here"),
        ],
    )
    def test_a_state_of_another_preset(self, folder, change, told):
        with pytest.raises(TrainingError, match=rf"regression\.state: .*another task: .*{told}.*another folder"):
            run(folder, replace(QUICK, **change))

    def test_a_state_with_other_validation(self, folder):
        with pytest.raises(TrainingError, match=r"training\.validation\.data_digest is .* there and"):
            run(folder, validation=replace(HELD_OUT, seed=3))

    @pytest.mark.parametrize("name", ["regression.state", "diffusion.state"])
    @pytest.mark.parametrize("content", [b"", b"no state", None])
    def test_damaged_state(self, folder, name, content):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(TrainingError, match=rf"{name}: .*remove it"):
            run(folder)
        assert not (folder / "checkpoint").exists()

    def test_the_state_of_the_other_stage(self, folder):
        shutil.copy(folder / "diffusion.state", folder / "regression.state")
        with pytest.raises(TrainingError, match=r"regression\.state: .* tensors do not fit the networks"):
            run(folder)

    def test_a_checkpoint_of_another_task(self, undisturbed):
        with pytest.raises(TrainingError, match=r"a checkpoint of another task: training\.preset\.learning_rate"):
            run(undisturbed, replace(QUICK, learning_rate=1e-4))

    def test_samples_that_no_checkpoint_could_have_learned_from(self, tmp_path):
        with pytest.raises(DatasetError, match=r"24 fixed samples: the center of mrr is .*, beyond the possible"):
            run(tmp_path, samples=FixedSamples(huge=6))

    def test_what_does_not_fit_each_other(self, tmp_path):
        folder = tmp_path / "run"
        with pytest.raises(ConfigurationError, match=r"windows of \(64, 64\) points, the domain small"):
            run(folder, replace(QUICK, window=64))
        with pytest.raises(ConfigurationError, match="no samples to train on"):
            run(folder, samples=FixedSamples(count=0))
        with pytest.raises(ConfigurationError, match="no samples to train on or to validate"):
            run(folder, validation=FixedSamples(count=0))
        with pytest.raises(ConfigurationError, match="validation on the domain elsewhere, training on small"):
            run(folder, validation=replace(HELD_OUT, domain=replace(SMALL, name="elsewhere")))
        with pytest.raises(ConfigurationError, match="6 times are in training and validation, first 2019-06-01T00"):
            run(folder, validation=FixedSamples(count=6))
        assert not folder.exists()


class TestGoingOnFromACheckpoint:
    def test_it_begins_with_those_weights_and_keeps_their_statistics(self, tmp_path):
        first = run(tmp_path / "first")
        still = replace(QUICK, learning_rate=1e-12)
        other = FixedSamples(seed=3)
        second = run(tmp_path / "second", still, other, initial=first)
        for name in ("regression", "diffusion"):
            before, after = (getattr(one, name).state_dict() for one in (first, second))
            for key in before:
                torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-7)
        assert second.manifest.input_statistics == first.manifest.input_statistics
        assert second.manifest.training["initial_digest"] == first.manifest.digest
        assert second.manifest.training["data_digest"] == other.digest

    def test_a_run_from_other_weights_is_another_task(self, tmp_path):
        first = run(tmp_path / "first")
        run(tmp_path / "second", initial=first)
        with pytest.raises(TrainingError, match="initial"):
            run(tmp_path / "second")

    def test_other_networks_are_refused_by_name(self, tmp_path):
        first = run(tmp_path / "first")
        wider = replace(QUICK, model_channels=8)
        with pytest.raises(ConfigurationError, match=r"quick-.*diffusion.unet.model_channels is 4 there and 8 here"):
            run(tmp_path / "second", wider, SAMPLES, initial=first)
        dropping = replace(QUICK, dropout=0.2)
        run(tmp_path / "third", dropping, SAMPLES, initial=first)
