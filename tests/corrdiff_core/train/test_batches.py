"""What a step sees: keyed by position, whichever process asks."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.dataset import WindowedSamples, sample_statistics
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.train.batches import KeyedWindows, Share, key, loader, share_of
from corrdiff_core.train.processes import Processes
from tests.small_domain import PRESET
from tests.training_cases import SAMPLES

STATISTICS = sample_statistics(SAMPLES)
CPU = torch.device("cpu")


def keyed(label="diffusion training", preset=PRESET, *, noisy=True):
    return KeyedWindows(SAMPLES, STATISTICS, preset, label, noisy=noisy)


class TestKeyedWindows:
    def test_a_position_is_always_the_same(self):
        one, other = keyed(), pickle.loads(pickle.dumps(keyed()))  # noqa: S301 (as loader workers get it)
        for position in (0, 7, 10**9):
            assert all(torch.equal(a, b) for a, b in zip(one[position], other[position], strict=True))

    @pytest.mark.parametrize("other", [keyed("diffusion validation"), keyed(preset=replace(PRESET, seed=2))])
    def test_another_purpose_or_seed_sees_other_noise_and_other_windows(self, other):
        mine, others = ([windows[n] for n in range(8)] for windows in (keyed(), other))
        for part in ("noise", "sigma", "corners", "inputs"):
            assert not any(torch.equal(getattr(a, part), getattr(b, part)) for a, b in zip(mine, others, strict=True))

    def test_windows_are_the_dataset_s(self):
        windows = keyed()
        expected = WindowedSamples(SAMPLES, *STATISTICS, 16, 2, windows.seed)[3]
        assert all(torch.equal(a, b) for a, b in zip(windows[3][:3], expected, strict=True))
        whole = keyed(preset=replace(PRESET, window="domain"))[3]
        assert whole.truth.shape == whole.noise.shape == (2, 4, 32, 32)

    def test_noise_is_normal_and_sigma_lognormal(self):
        batches = [keyed()[position] for position in range(400)]
        noise = torch.cat([batch.noise.flatten() for batch in batches]).numpy()
        assert noise.mean() == pytest.approx(0, abs=4 / np.sqrt(noise.size))
        assert noise.std() == pytest.approx(1, abs=4 / np.sqrt(2 * noise.size))
        sigma = torch.cat([batch.sigma for batch in batches]).log().numpy()
        assert sigma.mean() == pytest.approx(PRESET.sigma_mean, abs=4 * PRESET.sigma_std / np.sqrt(sigma.size))
        assert sigma.std() == pytest.approx(PRESET.sigma_std, rel=4 / np.sqrt(2 * sigma.size))

    def test_the_regression_has_none(self):
        batch = keyed(noisy=False)[0]
        assert batch.noise.numel() == batch.sigma.numel() == 0

    def test_keys_are_of_63_bits_and_differ(self):
        keys = {key("seed", 1, position) for position in range(1000)}
        assert len(keys) == 1000
        assert 0 <= min(keys) < max(keys) < 2**63


class TestShare:
    @given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
    def test_all_processes_together_see_what_one_would(self, world, passes, times, first, steps):
        each = passes * times
        shares = [Share(world * each, times, rank, world) for rank in range(world)]
        mine = [list(share.positions(first, first + steps)) for share in shares]
        assert {len(share.positions(first, first + steps)) for share in shares} == set(map(len, mine))
        for step in range(steps):
            seen = [position for part in mine for position in part[step * each : (step + 1) * each]]
            begin = (first + step) * world * each
            assert seen == list(range(begin, begin + world * each))

    def test_a_step_that_cannot_be_shared_equally_is_refused(self):
        with pytest.raises(ConfigurationError, match="3 times in passes of 1 cannot be shared equally by 2 processes"):
            Share(3, 1, 0, 2)
        with pytest.raises(ConfigurationError, match="8 times in passes of 3"):
            Share(8, 3, 0, 1)

    def test_passes_are_no_longer_than_a_share(self):
        preset = replace(PRESET, times_per_step=4, times_per_pass=4)
        assert share_of(preset, Processes(1, 4, CPU)) == Share(4, 1, 1, 4)
        assert share_of(preset, Processes(0, 1, CPU)).passes == 1


class TestLoader:
    def test_batches_come_in_the_order_of_positions_from_workers_too(self):
        windows, positions = keyed(), Share(4, 2, 0, 1).positions(3, 5)
        here, there = (list(loader(windows, positions, 2, workers, CPU)) for workers in (0, 1))
        assert len(here) == 4
        for position, (a, b) in zip(range(12, 20, 2), zip(here, there, strict=True), strict=True):
            assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
            assert torch.equal(a.truth[1], windows[position + 1].truth)

    def test_on_a_device_the_windows_of_all_times_stand_in_one_row(self):
        batch = next(iter(loader(keyed(), range(3), 3, 0, CPU)))
        flat = batch.on(CPU)
        assert [tuple(part.shape) for part in flat] == [(6, 12, 16, 16), (6, 4, 16, 16), (6, 2), (6, 4, 16, 16), (6,)]
        assert torch.equal(flat.noise[3], batch.noise[1, 1])
