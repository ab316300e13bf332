"""The loop against what is known of it: each trap of the reference's training, and that we are not in it."""

import json
from dataclasses import replace

import pytest
import torch

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.errors import ConfigurationError, TrainingError
from corrdiff_core.model.edm import Denoiser
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.train import loop, train
from corrdiff_core.train.batches import KeyedWindows
from corrdiff_core.train.loop import state_name
from corrdiff_core.train.processes import Processes
from corrdiff_core.train.schedule import average_weight, learning_rate
from corrdiff_core.train.stages import DiffusionStage, DomainFields, Objective, RegressionStage, cut
from corrdiff_core.train.state import _read
from corrdiff_core.train.validation import Validation
from tests.small_domain import SMALL
from tests.training_cases import HELD_OUT, QUICK, SAMPLES, FixedSamples, read_curve

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
# Every step is saved; the learning rate is in its warm-up, at its height and falling.
EVERY_STEP = replace(QUICK, regression_samples=24, diffusion_samples=4, save_every=2, warm_up=8, half_life=6)


def quiet(line):
    pass


def tensors(content, part):
    """Of one part of a saved state, float64."""
    _, found = _read(content, "state")
    return {name.removeprefix(f"{part}."): value.double() for name, value in found.items() if name.startswith(part)}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run of 12 + 2 steps: its folder and the regression's state after each step."""
    folder, states = tmp_path_factory.mktemp("followed"), []
    inner = loop.save_state

    def save_state(objects, name, *others):
        inner(objects, name, *others)
        if name == state_name("regression"):
            states.append(objects.get(name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_state", save_state)
        train(EVERY_STEP, SAMPLES, folder, HELD_OUT, workers=0, report=quiet)
    return folder, states


class TestLearningRate:
    def test_the_optimizer_gets_that_of_the_sample_count(self, followed):
        """Never the product of many decays: the recorded rates are the formula's."""
        rates = read_curve(followed[0], "regression", "learning_rate")
        assert [seen for seen, _ in rates] == list(range(2, 26, 2))
        for seen, rate in rates:
            assert rate == pytest.approx(learning_rate(EVERY_STEP, "regression", seen - 2), rel=1e-6)
        assert max(rate for _, rate in rates) > 0.8 * EVERY_STEP.learning_rate

    def test_the_first_step_is_as_long_as_the_rate(self, followed):
        """Adam's first step is lr g / (|g| + eps): as long as the rate where the gradient is not tiny."""
        torch.manual_seed(EVERY_STEP.seed)
        config = json.loads((followed[0] / "checkpoint" / "manifest.json").read_text())["regression"]["unet"]
        initial = UNet(UNetConfig.from_dict(config)).state_dict()
        after = tensors(followed[1][0], "network")
        moved = torch.cat([(after[f"model.{name}"] - value).abs().flatten() for name, value in initial.items()])
        rate = learning_rate(EVERY_STEP, "regression", 0)
        assert float(moved.max()) == pytest.approx(rate, rel=1e-3)


class TestAverage:
    def test_it_is_the_recursion_over_the_weights(self, followed):
        """In float64, from the weights of every step."""
        states = followed[1]
        assert len(states) == 12
        torch.manual_seed(EVERY_STEP.seed)
        expected = None
        for step, content in enumerate(states):
            weights = tensors(content, "network")
            weight = average_weight(EVERY_STEP, (step + 1) * EVERY_STEP.batch)
            if expected is None:
                expected = tensors(content, "average")  # the initial weights' part is below 1e-6 after one step
                assert weight == pytest.approx(1, abs=1e-5)
            expected = {name: value + weight * (weights[name] - value) for name, value in expected.items()}
        for name, value in tensors(states[-1], "average").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)

    def test_it_is_what_gets_saved_and_not_the_last_weights(self, followed):
        folder, states = followed
        saved = load_checkpoint(folder / "checkpoint").regression.state_dict()
        average, weights = (tensors(states[-1], part) for part in ("average", "network"))
        assert all(torch.equal(saved[name].double(), average[name]) for name in saved)
        assert any(not torch.equal(saved[name].double(), weights[name]) for name in saved)


class TestValidation:
    @pytest.fixture
    def dropping(self, followed):
        """A network with so much dropout that no two evaluations in training mode agree."""
        checkpoint = load_checkpoint(followed[0] / "checkpoint")
        config = replace(UNetConfig.from_dict(checkpoint.manifest.regression.unet), dropout=0.5)
        network = type(checkpoint.regression)(UNet(config))
        network.load_state_dict(checkpoint.regression.state_dict())
        stage = RegressionStage(DomainFields(checkpoint.invariants), checkpoint.manifest.regression.conditioning)
        statistics = checkpoint.manifest.input_statistics, checkpoint.manifest.output_statistics
        windows = KeyedWindows(HELD_OUT, statistics, EVERY_STEP, "regression validation", noisy=False)
        return network, stage, Validation(windows, 3, 1, 0, Processes(0, 1, CPU), bfloat16=False), windows

    def test_it_is_the_loss_without_dropout(self, dropping):
        network, stage, validation, windows = dropping
        network.eval()
        found = validation.loss(network, stage)
        assert not network.training
        errors = []
        for position in range(3):
            inputs, truth = windows[position][:2]
            parts = stage.fields.parts(windows[position])
            given = torch.cat([inputs, parts["grid"], parts["invariants"]], dim=1)
            with torch.no_grad():
                errors.append((network(given) - truth).square().mean())
        assert found == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
        assert validation.loss(network, stage) == found

    def test_a_network_in_training_mode_is_refused(self, dropping):
        network, stage, validation, _ = dropping
        with pytest.raises(TrainingError, match="validation of a network in training mode would use dropout"):
            validation.loss(network.train(), stage)

    def test_processes_share_it(self, dropping):
        """Sums over both are what one process finds."""
        network, stage, whole, windows = dropping
        totals = []

        class Rank(Processes):
            def total(self, values):
                totals.append(values.clone())
                return values

        for rank in range(2):
            Validation(windows, 3, 1, 0, Rank(rank, 2, CPU), bfloat16=False).loss(network.eval(), stage)
        squares, count = sum(totals).tolist()
        assert count == 3 * EVERY_STEP.windows_per_time
        assert squares / count == pytest.approx(whole.loss(network, stage), rel=1e-6)

    def test_one_that_is_not_finite_ends_the_training(self, tmp_path):
        with pytest.raises(TrainingError, match="validation loss is inf"):
            train(EVERY_STEP, SAMPLES, tmp_path, replace(HELD_OUT, huge=2, count=3), workers=0, report=quiet)

    def test_it_is_followed_with_the_same_windows_and_noise(self, followed):
        manifest = load_checkpoint(followed[0] / "checkpoint").manifest
        for stage, seen in (("regression", [6, 12, 18, 24]), ("diffusion", [4])):
            curve = read_curve(followed[0], stage, "validation")
            assert [at for at, _ in curve] == seen
            told = manifest.training[stage]["validation"]
            assert [(at, pytest.approx(loss, rel=1e-6)) for at, loss in told] == curve


class TestGradientsThatAreNotFinite:
    # Statistics are of samples 0, 6, 12 and 18; what follows the position of index 5 is the seed's.
    huge = FixedSamples(huge=5)
    preset = replace(EVERY_STEP, statistics_samples=4, regression_samples=48, skip_limit=2)

    def test_the_step_is_skipped_and_counted(self, tmp_path):
        """One epoch: index 5 comes once, and no weight of that step or after it is touched by it."""
        lines = []
        finished = train(self.preset, self.huge, tmp_path, workers=0, report=lines.append)
        assert finished.manifest.training["regression"]["skipped_steps"] == 1
        assert sum("step skipped, 1 of at most 2" in line for line in lines if line.startswith("regression")) == 1
        assert all(bool(torch.isfinite(value).all()) for value in finished.regression.state_dict().values())
        ((seen, count),) = read_curve(tmp_path, "regression", "skipped")
        assert count == 1
        losses = dict(read_curve(tmp_path, "regression", "loss"))
        assert len(losses) == 23
        assert seen not in losses

    def test_beyond_the_limit_it_is_fatal(self, tmp_path):
        with pytest.raises(
            TrainingError, match=r"regression step \d+: loss .*; 1 steps were skipped, the preset allows 0"
        ):
            train(replace(self.preset, skip_limit=0), self.huge, tmp_path, workers=0, report=quiet)
        assert not (tmp_path / "checkpoint").exists()

    def test_weights_that_are_lost_end_the_training(self, tmp_path):
        preset = replace(EVERY_STEP, learning_rate=1e30, warm_up=0)
        with pytest.raises(TrainingError, match=r"regression step 2: .*2 steps were skipped.*lower the learning rate"):
            train(preset, SAMPLES, tmp_path, workers=0, report=quiet)


class TestPasses:
    def test_gradients_add_up_to_those_of_one_pass(self, tmp_path):
        preset = replace(QUICK, times_per_step=4, times_per_pass=4, regression_samples=48, diffusion_samples=48)
        for passes, folder in ((1, tmp_path / "one"), (4, tmp_path / "four")):
            train(replace(preset, times_per_pass=4 // passes), SAMPLES, folder, workers=0, report=quiet)
        for stage in ("regression", "diffusion"):
            one, four = (read_curve(tmp_path / name, stage, "loss") for name in ("one", "four"))
            assert len(one) == 6
            assert [loss for _, loss in four] == pytest.approx([loss for _, loss in one], rel=1e-5)

    def test_windows_are_cut_from_the_fields_at_their_corners(self):
        field = torch.arange(2 * 5 * 6).reshape(2, 5, 6)
        found = cut(field, torch.tensor([[0, 0], [2, 3]]), (3, 2))
        assert torch.equal(found[1], field[:, 2:5, 3:5])
        assert found.shape == (2, 2, 3, 2)


class TestNoiseLevel:
    def test_a_diffusion_that_would_not_know_it_is_refused(self):
        config = UNetConfig(8, 4, 16, model_channels=4, channel_mult=(1,), num_blocks=1, embedding="zero")
        blind, fields = Denoiser(UNet(config), scale_conditioning=False), torch.zeros(1, 4, 16, 16)
        objective = Objective(blind, DiffusionStage(DomainFields(fields[0]), (), None, ()))
        with pytest.raises(ConfigurationError, match="embedding 'zero' and does not know the noise level"):
            objective(fields, fields, torch.ones(1), fields)

    def test_the_trained_one_knows_it(self, followed):
        denoiser = load_checkpoint(followed[0] / "checkpoint").diffusion
        assert denoiser.model.config.embedding == "positional"
        x, known = torch.ones(1, 4, 32, 32), torch.zeros(1, 18, 32, 32)
        with torch.no_grad():
            ones = [denoiser.model(torch.cat([x, known], 1), torch.tensor([label])) for label in (-1.0, 1.0)]
        assert not torch.equal(*ones)


class TestReports:
    def test_the_heartbeat_is_the_newest_line(self, followed):
        beat = json.loads(open_objects(str(followed[0])).get("progress.json"))
        assert (beat["stage"], beat["seen"], beat["total"]) == ("diffusion", 4, 4)
        assert beat["samples_per_second"] > 0
        assert beat["written"].endswith("Z")

    def test_the_caller_s_random_numbers_are_left_alone(self, tmp_path):
        torch.manual_seed(3)
        expected = torch.rand(2)[1]
        torch.manual_seed(3)
        torch.rand(1)
        train(
            replace(EVERY_STEP, regression_samples=2, diffusion_samples=2), SAMPLES, tmp_path, workers=0, report=quiet
        )
        assert torch.rand(1)[0] == expected


def test_small_samples_cover_the_small_domain():
    assert SAMPLES.domain == SMALL
