"""Errors of a single field. The mean absolute error is also the CRPS of a forecast without spread."""

import numpy as np
from numpy.typing import NDArray

Floating = NDArray[np.floating]


def mean_absolute_error(field: Floating, observed: Floating) -> float:
    """Over all points, in the fields' unit, summed in float64."""
    return float(np.abs(field.astype(np.float64) - observed).mean())


def mean_squared_error(field: Floating, observed: Floating) -> float:
    """Over all points, in the square of the fields' unit; its root, after all averaging, is the RMSE."""
    return float(((field.astype(np.float64) - observed) ** 2).mean())
