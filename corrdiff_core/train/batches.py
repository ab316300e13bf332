"""The batches of a stage: which windows a step sees and which noise is added to them, whoever asks and whenever.

All that is random is keyed by the seed, the stage and the position in the whole training. So a run that was stopped
continues exactly, and processes that share a step see together what one would have seen.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from corrdiff_core.dataset import Samples, WindowedSamples
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.edm import sample_sigma
from corrdiff_core.normalization import Statistics
from corrdiff_core.train.preset import Preset
from corrdiff_core.train.processes import Processes

PREFETCH = 4  # passes that each worker keeps ready


class Batch(NamedTuple):
    """Windows, (window, channel, y, x) float32 each; as the loader makes them, with the time in front.

    `corners` are the first row and column of each, (window, 2). `noise` is standard normal in the shape of `truth`,
    `sigma` is (window,); both are empty for the regression, which has none.
    """

    inputs: Tensor
    truth: Tensor
    corners: Tensor
    noise: Tensor
    sigma: Tensor

    def on(self, device: torch.device) -> "Batch":
        """The windows of all times in one row, all but the corners on `device`."""
        flat = Batch(*(part.flatten(0, 1) for part in self))
        moved = Batch(*(part.to(device, non_blocking=True) for part in flat))
        return moved._replace(corners=flat.corners)


def key(*parts: object) -> int:
    """A 63-bit number for one named purpose."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class KeyedWindows(Dataset[Batch]):
    """Windows of samples by position in the training of one stage, with the noise of that position."""

    def __init__(
        self, samples: Samples, statistics: tuple[Statistics, Statistics], preset: Preset, label: str, *, noisy: bool
    ) -> None:
        """`label` names the stage and the purpose; `noisy` is for the diffusion."""
        size = None if preset.window == "domain" else preset.window
        self.seed = key(preset.seed, label)
        self.windows = WindowedSamples(samples, *statistics, size, preset.windows_per_time, self.seed)
        self.spread = (preset.sigma_mean, preset.sigma_std) if noisy else None

    def __getitem__(self, position: int) -> Batch:
        """Raises DatasetError where the sample cannot be read."""
        inputs, truth, corners = self.windows[position]
        if self.spread is None:
            return Batch(inputs, truth, corners, truth.new_empty(len(truth), 0), truth.new_empty(len(truth), 0))
        generator = torch.Generator().manual_seed(key(self.seed, "noise", position))
        sigma = sample_sigma(len(truth), generator, *self.spread)
        return Batch(inputs, truth, corners, torch.randn(truth.shape, generator=generator), sigma)


@dataclass(frozen=True)
class Share:
    """One process's share of every step: `times` of them, `times_per_pass` at once.

    ConfigurationError where `times_per_step` times cannot be shared equally.
    """

    times_per_step: int
    times_per_pass: int
    rank: int
    world: int

    def __post_init__(self) -> None:
        if self.times_per_step % self.world or self.times % self.times_per_pass:
            raise ConfigurationError(
                f"steps of {self.times_per_step} times in passes of {self.times_per_pass} cannot be shared equally by "
                f"{self.world} processes: change times_per_step or times_per_pass of the preset, or the processes"
            )

    @property
    def times(self) -> int:
        return self.times_per_step // self.world

    @property
    def passes(self) -> int:
        return self.times // self.times_per_pass

    def positions(self, first: int, last: int) -> "Positions":
        """Positions that this process reads for steps first..last-1."""
        return Positions(self, first, last)


@dataclass(frozen=True)
class Positions(Sampler[int]):
    """Position n of step s is s times_per_step + n; each process reads a block of every step."""

    share: Share
    first: int
    last: int

    def __len__(self) -> int:
        return (self.last - self.first) * self.share.times

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first, self.last):
            start = step * self.share.times_per_step + self.share.rank * self.share.times
            yield from range(start, start + self.share.times)


def share_of(preset: Preset, processes: Processes) -> Share:
    """What this process does of each step of `preset`."""
    each = max(1, preset.times_per_step // processes.world)
    return Share(preset.times_per_step, min(preset.times_per_pass, each), processes.rank, processes.world)


def loader(
    windows: KeyedWindows, positions: Sampler[int] | range, times: int, workers: int, device: torch.device
) -> "DataLoader[Batch]":
    """Passes of `times` times at these positions, in their order, read ahead by spawned worker processes.

    `workers` 0 reads in this process. Workers live as long as the loader.
    """
    ahead: dict[str, Any] = {}
    if workers:
        ahead = {"prefetch_factor": PREFETCH, "multiprocessing_context": "spawn", "persistent_workers": True}
    return DataLoader(
        windows, batch_size=times, sampler=positions, num_workers=workers, pin_memory=device.type == "cuda",
        generator=torch.Generator(), **ahead,
    )  # fmt: skip
