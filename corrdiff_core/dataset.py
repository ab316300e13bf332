"""Training samples: what the networks are given beside the 2-km truth that they are to learn."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import Dataset

from corrdiff_core import nature, terrain
from corrdiff_core.grid import Box, Domain
from corrdiff_core.normalization import Statistics
from corrdiff_core.prepare import prepare
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

INVARIANTS = ("elevation", "land_fraction")
_STEP = 0.25  # degrees, of the coarse inputs


def box_lines(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude lines of a 0.25-degree grid over `box`, edges included."""
    return (
        np.arange(box.south, box.north + _STEP / 2, _STEP),
        np.arange(box.west, box.east + _STEP / 2, _STEP),
    )


@dataclass(frozen=True)
class NatureRun:
    """Synthetic weather by index: sample i is a random hour of [start, end), chosen by (seed, i)."""

    domain: Domain
    seed: int
    start: datetime
    end: datetime

    def time(self, index: int) -> datetime:
        hours = (self.end - self.start) // timedelta(hours=1)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        return self.start + int(rng.integers(hours)) * timedelta(hours=1)

    def pair(self, index: int) -> tuple[xr.Dataset, xr.Dataset]:
        """Coarse inputs (latitude, longitude) and the 2-km truth (y, x), physical units."""
        inputs = nature.weather(self.seed, self.time(index), *box_lines(self.domain.input_box))
        return inputs, nature.truth(inputs, self.seed, self.domain, sample=index)


def statistics(run: NatureRun, samples: int) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation of inputs and outputs over the first `samples` of a run."""
    pairs = [run.pair(index) for index in range(samples)]
    found = []
    for names, column in ((INPUT_NAMES, 0), (OUTPUT_NAMES, 1)):
        stacks = [np.stack([pair[column][name].values for pair in pairs]).astype(np.float64) for name in names]
        found.append(Statistics(names, tuple(s.mean().item() for s in stacks), tuple(s.std().item() for s in stacks)))
    return found[0], found[1]


def terrain_invariants(domain: Domain) -> Tensor:
    """Elevation and land fraction on `domain`, each to mean 0 and standard deviation 1; (invariant, y, x) float32."""
    lines = domain.longitude, domain.latitude
    fields = np.stack([terrain.elevation(*lines), terrain.land_fraction(*lines)])
    mean, std = fields.mean(axis=(1, 2), keepdims=True), fields.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy(((fields - mean) / std).astype(np.float32))


class TrainingSamples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples of a run by index, normalized by `inputs` and `outputs`, as `crops` random windows of `size` x `size`."""

    def __init__(
        self, run: NatureRun, inputs: Statistics, outputs: Statistics, size: int, count: int, crops: int = 1
    ) -> None:
        self.run, self.inputs, self.outputs = run, inputs, outputs
        self.size, self.count, self.crops = size, count, crops

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and truth, (crop, channel, size, size) each, and the first row and column of each crop, (crop, 2)."""
        coarse, truth = self.run.pair(index)
        given = prepare(coarse, self.run.domain, self.inputs).values
        target = self.outputs.normalize(truth).to_dataarray("channel").values
        rng = np.random.Generator(np.random.Philox(key=[self.run.seed + 1, index]))
        rows, columns = self.run.domain.shape
        corners = rng.integers(0, (rows - self.size + 1, columns - self.size + 1), size=(self.crops, 2))
        windows = [(slice(None), slice(r, r + self.size), slice(c, c + self.size)) for r, c in corners]
        stack = [torch.from_numpy(np.stack([field[w] for w in windows])) for field in (given, target)]
        return stack[0], stack[1], torch.from_numpy(corners)
