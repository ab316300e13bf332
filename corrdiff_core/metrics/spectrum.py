"""Radial power spectra of fields on a limited area, by the two-dimensional discrete cosine transform.

Denis, Cote and Laprise (2002), Mon. Wea. Rev. 130, 1812-1829: the field continues as its own mirror image, so there is
no jump at the edges, and neither a trend has to be taken out nor a window laid over, which would change the variance.
Mode (m, n) of an (N, M) field with points d apart has the wavelength 2 d / sqrt((m / N)^2 + (n / M)^2); the powers of
all modes but (0, 0) add up to the variance of the field.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]

BANDS_PER_OCTAVE = 3


@dataclass(frozen=True, eq=False)
class Bands:
    """Wavelength bands, the shortest first: a third of an octave each, those that hold no mode left out.

    `wavelength` (band,) is the middle in metres, `modes` (band,) how many fall in; `order` sorts the modes, flattened
    without (0, 0), by band, and `starts` is where each band begins.
    """

    wavelength: Array
    modes: NDArray[np.intp]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]


@cache
def bands(shape: tuple[int, int], step: float) -> Bands:
    """The bands of fields of `shape` (y, x) with points `step` metres apart."""
    rows, columns = (np.arange(count) / count for count in shape)
    wavelength = 2 * step / np.hypot(rows[:, None], columns).ravel()[1:]
    shortest = np.sqrt(2.0) * step  # of the diagonal mode that no grid reaches
    band = np.floor(BANDS_PER_OCTAVE * np.log2(wavelength / shortest)).astype(np.intp)
    order = np.argsort(band, kind="stable")
    present, starts, modes = np.unique(band[order], return_index=True, return_counts=True)
    middle = shortest * 2 ** ((present + 0.5) / BANDS_PER_OCTAVE)
    return Bands(middle, modes, order, starts)


def power_spectrum(fields: NDArray[np.floating], step: float) -> Array:
    """Variance in each of `bands`: fields (..., y, x) with points `step` metres apart to (..., band), unit squared."""
    rows, columns = fields.shape[-2:]
    chosen = bands((rows, columns), step)
    modes = fft.dctn(np.asarray(fields, np.float64), axes=(-2, -1), norm="ortho")
    power = modes.reshape(*fields.shape[:-2], -1)[..., 1:] ** 2 / (rows * columns)
    return np.asarray(np.add.reduceat(power[..., chosen.order], chosen.starts, axis=-1), np.float64)
