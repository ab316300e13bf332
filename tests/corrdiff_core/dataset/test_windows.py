"""Windows of samples: normalized, chosen by the position alone, the same in every worker and every shard."""

import pickle
from datetime import datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from corrdiff_core.dataset import NatureRun, WindowedSamples, sample_at
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from corrdiff_core.prepare import prepare
from tests.small_domain import SMALL

RUN = NatureRun(SMALL, 1, datetime(2018, 1, 1), datetime(2021, 1, 1), count=7)


def windowed(size=16, windows=2, seed=0, run=RUN):
    return WindowedSamples(run, CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS, size, windows, seed)


class TestOrder:
    @given(st.integers(0, 2**31), st.integers(0, 100), st.integers(1, 50))
    def test_every_epoch_is_a_permutation(self, seed, epoch, count):
        seen = [sample_at(seed, epoch * count + place, count) for place in range(count)]
        assert sorted(seen) == list(range(count))

    def test_epochs_and_seeds_differ(self):
        epochs = [tuple(sample_at(seed, epoch * 30 + n, 30) for n in range(30)) for seed in (1, 2) for epoch in (0, 1)]
        assert len(set(epochs)) == 4

    def test_the_order_never_changes(self):
        """A resumed training relies on it: raw Philox bits, pinned."""
        assert [sample_at(1, n, 10) for n in range(12)] == PINNED


PINNED = [7, 2, 6, 5, 8, 0, 1, 9, 4, 3, 3, 8]


class TestWindows:
    @settings(max_examples=15)
    @given(st.integers(0, 10**9), st.sampled_from([8, 16, 31, 32, None]), st.integers(1, 3))
    def test_they_are_windows_of_the_normalized_fields(self, position, size, windows):
        given, truth, corners = windowed(size, windows, seed=3)[position]
        inputs, target = RUN.pair(sample_at(3, position, 7))
        whole = prepare(inputs, SMALL, CWA_INPUT_STATISTICS).values  # normalized before it is regridded
        wanted = CWA_OUTPUT_STATISTICS.normalize(target).to_dataarray("channel").values
        side = size or 32
        assert given.shape == (windows, 12, side, side)
        assert truth.shape == (windows, 4, side, side)
        assert (given.dtype, truth.dtype, corners.dtype) == (torch.float32, torch.float32, torch.int64)
        for window, (row, column) in enumerate(corners.tolist()):
            cut = np.s_[:, row : row + side, column : column + side]
            np.testing.assert_allclose(given[window], whole[cut], rtol=0, atol=2e-5)
            np.testing.assert_array_equal(truth[window], wanted[cut])

    def test_corners_reach_every_place_alike(self):
        corners = torch.cat([windowed(size=30, windows=64)[position][2] for position in range(8)])
        places, counts = np.unique(corners.numpy(), axis=0, return_counts=True)
        assert [tuple(place) for place in places] == [(r, c) for r in range(3) for c in range(3)]
        assert counts.min() > 512 / 9 / 2

    def test_a_position_gives_the_same_windows_always(self):
        first, again = windowed()[41], pickle.loads(pickle.dumps(windowed()))[41]  # noqa: S301 (as a worker gets it)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        assert not torch.equal(first[2], windowed()[48][2]), "the same sample in the next epoch has other windows"

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"windows of 33 points.*small.*\(32, 32\)"):
            windowed(size=33)
        with pytest.raises(ConfigurationError, match="0 windows"):
            windowed(windows=0)
        with pytest.raises(ConfigurationError, match="each of 0 samples"):
            windowed(run=RUN.select(datetime(2030, 1, 1), datetime(2031, 1, 1)))
        with pytest.raises(ConfigurationError, match="statistics of mrr"):
            WindowedSamples(RUN, CWA_OUTPUT_STATISTICS, CWA_OUTPUT_STATISTICS)


def batches(positions, workers=0, times=2):
    """As training reads them: spawned workers, prefetched."""
    ahead = {"prefetch_factor": 2, "multiprocessing_context": "spawn"} if workers else {}
    return list(DataLoader(windowed(), batch_size=times, sampler=positions, num_workers=workers, **ahead))


@pytest.mark.service
def test_workers_shards_and_a_resumed_run_see_the_same():
    whole = batches(range(12))
    torch.testing.assert_close(batches(range(12), workers=2), whole, rtol=0, atol=0)
    torch.testing.assert_close(batches(range(8, 12)), whole[4:], rtol=0, atol=0)
    shards = [batches(range(rank, 12, 2), times=1) for rank in range(2)]
    sharded = [[torch.cat(parts) for parts in zip(*pair, strict=True)] for pair in zip(*shards, strict=True)]
    torch.testing.assert_close(sharded, whole, rtol=0, atol=0)
    assert whole[0][0].shape == (2, 2, 12, 16, 16)
