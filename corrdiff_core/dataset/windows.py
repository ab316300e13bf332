"""What the training loop sees: normalized windows of samples, in an order that follows from the seed alone."""

import hashlib
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from corrdiff_core.dataset.samples import Float32, Samples
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.normalization import Statistics

Windows = tuple[Tensor, Tensor, Tensor]


def sample_at(seed: int, position: int, count: int) -> int:
    """The index of the sample at a position of the whole training: each epoch is a permutation of all `count`.

    It depends on nothing but (seed, position, count), so a resumed or a differently sharded run sees the same samples.
    """
    epoch, place = divmod(position, count)
    return int(_permutation(seed, epoch, count)[place])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.intp]:
    return np.argsort(_bits(count, "epoch", seed, epoch), kind="stable")


def _bits(count: int, *key: object) -> NDArray[np.uint64]:
    """Random 64-bit numbers for one named purpose; the raw stream of Philox, which no release of NumPy changes."""
    digest = hashlib.blake2b("|".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(count)


class WindowedSamples(Dataset[Windows]):
    """`windows` random windows of `size` x `size` points of each sample, normalized; size None is the whole domain.

    Item n is what the training sees at its position n, for any n from 0 on; its length is that of one epoch. Which
    sample and which windows that is follows from (seed, n). Raises ConfigurationError where the windows do not fit the
    domain, or the statistics are not those of all variables in order.
    """

    def __init__(
        self,
        samples: Samples,
        inputs: Statistics,
        outputs: Statistics,
        size: int | None = None,
        windows: int = 1,
        seed: int = 0,
    ) -> None:
        domain, shape = samples.domain, samples.domain.shape
        if (inputs.names, outputs.names) != (domain.inputs, domain.outputs):
            raise ConfigurationError(
                f"statistics of {', '.join(inputs.names)} and {', '.join(outputs.names)}: samples hold "
                f"{', '.join(domain.inputs)} and {', '.join(domain.outputs)}: compute the statistics of these samples"
            )
        if size is not None and not 1 <= size <= min(shape):
            raise ConfigurationError(
                f"windows of {size} points, the domain {samples.domain.name} has {shape}: choose smaller windows"
            )
        if windows < 1 or len(samples) < 1:
            raise ConfigurationError(f"{windows} windows of each of {len(samples)} samples: at least one is needed")
        self.samples, self.inputs, self.outputs = samples, inputs, outputs
        self.shape = shape if size is None else (size, size)
        self.windows, self.seed = windows, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Windows:
        """Inputs and truth, (window, channel, y, x) float32 each, and each window's first row and column, (window, 2).

        Raises DatasetError where the sample cannot be read.
        """
        sample = self.samples.read(sample_at(self.seed, position, len(self.samples)))
        corners = self._corners(position)
        given = _cut(sample.inputs, corners, self.shape, self.inputs)
        truth = _cut(sample.truth, corners, self.shape, self.outputs)
        return torch.from_numpy(given), torch.from_numpy(truth), torch.from_numpy(corners)

    def _corners(self, position: int) -> NDArray[np.int64]:
        """Uniform over all places where a window fits; (window, 2)."""
        places = np.array(self.samples.domain.shape) - self.shape + 1
        bits = _bits(2 * self.windows, "windows", self.seed, position).reshape(self.windows, 2) >> np.uint64(32)
        return (bits * places.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def _cut(field: Float32, corners: NDArray[np.int64], shape: tuple[int, int], statistics: Statistics) -> Float32:
    """Windows of (channel, y, x), normalized channel by channel in float64; (window, channel, *shape)."""
    (rows, columns), channels = shape, len(field)
    out = np.empty((len(corners), channels, rows, columns), np.float32)
    for window, (row, column) in enumerate(corners.tolist()):
        for channel, (center, scale) in enumerate(zip(statistics.center, statistics.scale, strict=True)):
            values = field[channel, row : row + rows, column : column + columns]
            out[window, channel] = (values.astype(np.float64) - center) / scale
    return out
