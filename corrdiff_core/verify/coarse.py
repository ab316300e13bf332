"""A 2-km field averaged back onto the cells of the grid that it was made from."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from corrdiff_core.grid import Domain, Float64

LEAST = 4  # points in a cell, below which their mean is none of the cell


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a latitude-longitude grid that lie whole inside a domain and hold at least LEAST of its points.

    A cell reaches half way to the neighboring lines. Those that stick out of the domain, and those with too few points
    (of a domain that is no finer than the grid), are left out. `weights` is (cell, point) of the domain, rows sum to 1:
    all points of a cell count alike, since a projection's scale changes by less than 1 % across one. `kept` says which
    points of the grid, (latitude, longitude), have such a cell, in its order.
    """

    weights: sparse.csr_array
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.kept.sum())

    def average(self, fine: ArrayLike) -> Float64:
        """(y, x) of the domain to (cell,): area means, in float64."""
        return np.asarray(self.weights @ np.asarray(fine, np.float64).ravel(), np.float64)

    def pick(self, coarse: ArrayLike) -> Float64:
        """(latitude, longitude) to (cell,), in the same order."""
        return np.asarray(np.asarray(coarse, np.float64)[self.kept], np.float64)


def cells(latitude: ArrayLike, longitude: ArrayLike, domain: Domain) -> Cells:
    """Of the grid with these lines (degrees, ascending), made once per process for grids of the same content."""
    lines = (np.asarray(values, np.float64).tobytes() for values in (latitude, longitude))
    return _cells(*lines, domain)


@lru_cache(maxsize=4)
def _cells(latitude: bytes, longitude: bytes, domain: Domain) -> Cells:
    rows, columns = (_edges(np.frombuffer(lines, np.float64)) for lines in (latitude, longitude))
    shape = len(rows) - 1, len(columns) - 1
    row = np.searchsorted(rows, domain.latitude.ravel(), side="right") - 1
    column = np.searchsorted(columns, domain.longitude.ravel(), side="right") - 1
    on_grid = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    cell = np.where(on_grid, row * shape[1] + column, -1)
    counts = np.bincount(cell[on_grid], minlength=shape[0] * shape[1])
    kept = _inside(rows, columns, domain) & (counts.reshape(shape) >= LEAST)
    number = np.full(counts.size, -1)
    number[kept.ravel()] = np.arange(kept.sum())
    used = np.flatnonzero(on_grid & (number[cell] >= 0))
    values = 1 / counts[cell[used]]
    weights = sparse.csr_array((values, (number[cell[used]], used)), shape=(int(kept.sum()), cell.size))
    assert np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)  # noqa: S101
    return Cells(weights, kept)


def _edges(lines: Float64) -> Float64:
    """Half way between the lines, and as far beyond the outermost ones."""
    middle = (lines[1:] + lines[:-1]) / 2
    return np.concatenate([[2 * lines[0] - middle[0]], middle, [2 * lines[-1] - middle[-1]]])


def _inside(rows: Float64, columns: Float64, domain: Domain) -> NDArray[np.bool_]:
    """Of each cell, whether all four corners lie on the domain, which reaches half a step beyond its points."""
    x, y = domain.project(*np.meshgrid(columns, rows))
    half = domain.step / 2
    within = (x >= domain.x[0] - half) & (x <= domain.x[-1] + half)
    within &= (y >= domain.y[0] - half) & (y <= domain.y[-1] + half)
    return np.asarray(within[:-1, :-1] & within[:-1, 1:] & within[1:, :-1] & within[1:, 1:])
