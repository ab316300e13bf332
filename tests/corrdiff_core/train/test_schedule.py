"""Learning rate and moving average, as functions of the samples seen."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.train import read_preset
from corrdiff_core.train.schedule import average_weight, due, learning_rate

DEMO, FULL = read_preset("demo"), read_preset("taiwan")
stages = st.sampled_from(["regression", "diffusion"])


class TestLearningRate:
    @given(stages, st.integers(0, 100_000_000), st.sampled_from([DEMO, FULL]))
    def test_it_is_positive_and_at_most_the_preset_s(self, stage, seen, preset):
        assert 0 < learning_rate(preset, stage, seen % preset.samples(stage)) <= preset.learning_rate

    @pytest.mark.parametrize("stage", ["regression", "diffusion"])
    def test_it_rises_in_the_warm_up_and_falls_after_it(self, stage):
        rates = [learning_rate(DEMO, stage, step * DEMO.batch) for step in range(DEMO.steps(stage))]
        top = rates.index(max(rates))
        assert top == pytest.approx(DEMO.warm_up / DEMO.batch, abs=5)
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert max(rates) == pytest.approx(DEMO.learning_rate, rel=0.05)
        assert rates[0] == pytest.approx(DEMO.learning_rate * DEMO.batch / DEMO.warm_up)
        assert rates[-1] == pytest.approx(DEMO.final_rate * DEMO.learning_rate, rel=0.01)

    def test_taiwan_s_is_constant_after_the_warm_up(self):
        """The reference's decay compounds: 5.5e-8 after 512 thousand samples and 1.8e-23 after 563 thousand."""
        late = [learning_rate(FULL, "diffusion", seen) for seen in (10_000_000, 50_000_000, 99_999_744)]
        assert late == [2e-4] * 3
        assert learning_rate(FULL, "diffusion", 5_000_000 - FULL.batch) == pytest.approx(1e-4)

    def test_a_half_cosine_is_halfway_in_the_middle(self):
        preset = replace(DEMO, warm_up=0, final_rate=0.1)
        assert learning_rate(preset, "regression", 0) == preset.learning_rate
        assert learning_rate(preset, "regression", 3_600) == pytest.approx(0.55 * preset.learning_rate)

    @given(st.integers(1, 1000), st.integers(1, 50))
    def test_it_does_not_depend_on_how_the_steps_are_cut(self, seen, times):
        """The warm-up apart, whose first step is not zero."""
        other = replace(DEMO, times_per_step=times, times_per_pass=times, warm_up=0)
        total = other.steps("diffusion") * other.batch
        assert learning_rate(other, "diffusion", seen) == pytest.approx(
            DEMO.learning_rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * seen / total)))
        )


class TestAverage:
    def test_after_a_half_life_half_of_the_old_weights_is_left(self):
        """Once the ramp-up is over."""
        left, seen = 1.0, 20 * DEMO.half_life
        for _ in range(DEMO.half_life // DEMO.batch):
            seen += DEMO.batch
            left *= 1 - average_weight(DEMO, seen)
        assert left == pytest.approx(0.5)

    def test_the_start_is_forgotten(self):
        """Of the weights as initialized less than 1% is left after 2% of the training."""
        left = math.prod(1 - average_weight(DEMO, step * DEMO.batch) for step in range(1, 25))
        assert left < 0.01

    @given(st.integers(1, 10**8))
    def test_it_is_a_weight(self, seen):
        assert 0 < average_weight(FULL, seen) <= 1


@given(st.integers(1, 40), st.integers(1, 30))
def test_something_is_due_once_for_every_multiple_it_reaches(every, times):
    preset = replace(DEMO, times_per_step=times, times_per_pass=times)
    steps = [step for step in range(60) if due(preset, every, step)]
    seen = [divmod((step + 1) * preset.batch, every) for step in steps]
    assert all(rest < preset.batch for _, rest in seen)
    if every >= preset.batch:
        assert [count for count, _ in seen] == list(range(1, len(seen) + 1))
