"""What one slot was worth: by itself, beside 2-km truth, beside an analysis. Arrays in, one row of measures out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.cycle import Slot
from corrdiff_core.evaluate.one_time import REFLECTIVITY, THRESHOLDS, Forecasts, accuracy, brier_scores
from corrdiff_core.grid import Domain, Float64
from corrdiff_core.regrid import Regridder, regridder
from corrdiff_core.verify.coarse import cells

Float32 = NDArray[np.float32]
Row = dict[str, Any]

_SEED = 0  # of the ranks among members that equal the truth


@dataclass(frozen=True, eq=False)
class Archived:
    """A published slot: `members` (member, variable, y, x) on `domain`, `inputs` (latitude, longitude) as archived."""

    slot: Slot
    domain: Domain
    variables: tuple[str, ...]
    members: Float32
    inputs: xr.Dataset

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.inputs.data_vars)

    @property
    def shared(self) -> list[str]:
        """The variables that are input and output."""
        return [name for name in self.variables if name in self.channels]

    @property
    def lines(self) -> tuple[Float64, Float64]:
        return self.inputs.latitude.values.astype(np.float64), self.inputs.longitude.values.astype(np.float64)

    @classmethod
    def of(
        cls, slot: Slot, domain: Domain, variables: Sequence[str], ensemble: xr.Dataset, inputs: xr.Dataset
    ) -> "Archived":
        """A slot as `Archive.read` and `Archive.read_inputs` return it."""
        members = np.stack([ensemble[name].values for name in variables], axis=1)
        return cls(slot, domain, tuple(variables), members, inputs)

    def mean(self, name: str) -> Float64:
        """Of the members, (y, x)."""
        field: Float64 = self.members[:, self.variables.index(name)].mean(axis=0, dtype=np.float64)
        return field


def checked(given: Archived) -> Row:
    """The measures of `layout.CHECKED`."""
    row: Row = {
        "input_mean": [float(given.inputs[name].mean(dtype=np.float64)) for name in given.channels],
        "variance": [_variance(given.members[:, index]) for index in range(len(given.variables))],
    }
    if REFLECTIVITY in given.variables:
        reflectivity = given.members[:, given.variables.index(REFLECTIVITY)]
        row["reflectivity_share"] = [float((reflectivity >= threshold).mean()) for threshold in THRESHOLDS]
    if given.shared:
        row["coarse_bias"], row["coarse_squared_error"] = _against_coarse(given, given.inputs)
    return row


def _variance(members: Float32) -> float:
    """Of m - 1 degrees of freedom, NaN of a single member, mean over the points."""
    return float(members.var(axis=0, ddof=1, dtype=np.float64).mean()) if len(members) > 1 else float("nan")


def scored(given: Archived, truth: Float32) -> Row:
    """The measures of `layout.SCORED` beside `truth` (variable, y, x); two members or more are needed."""
    single = np.stack([_interpolated(given, name) for name in given.variables])
    forecasts = Forecasts(
        given.slot.valid_time, given.domain, given.variables, truth, {"bilinear": single}, given.members
    )
    scores = accuracy(forecasts, _SEED)
    ensemble, bilinear = (scores.sel(forecast=name) for name in ("ensemble", "bilinear"))
    known = np.array([name in given.shared for name in given.variables])
    row: Row = {name: ensemble[name].values for name in ("crps", "absolute_error", "squared_error")}
    row["bias"] = [float((given.mean(name) - field).mean()) for name, field in zip(given.variables, truth, strict=True)]
    row["interpolation_error"] = np.where(known, bilinear["absolute_error"].values, np.nan)
    row["ranks"] = scores["ranks"].values
    if REFLECTIVITY in given.variables:
        observed = truth[given.variables.index(REFLECTIVITY)]
        row["brier"] = brier_scores(forecasts).brier.sel(forecast="ensemble").values
        row["observed_share"] = [float((observed >= threshold).mean()) for threshold in THRESHOLDS]
    return row


def _interpolated(given: Archived, name: str) -> Float32:
    """The input on the domain; where no input is called so, zeros that no score is kept of."""
    if name not in given.shared:
        return np.zeros(given.domain.shape, np.float32)
    return regridder(*given.lines, given.domain)(given.inputs[name].values)


def analyzed(given: Archived, analysis: xr.Dataset) -> Row:
    """The measures of `layout.ANALYZED` beside `analysis` (latitude, longitude), which covers the inputs' lines.

    Where its lines are other ones, it is interpolated to those of the inputs. GridError where it does not cover them.
    """
    row: Row = {}
    if given.shared:
        row["analysis_bias"], row["analysis_squared_error"] = _against_coarse(given, analysis)
    lines = (analysis.latitude.values.astype(np.float64), analysis.longitude.values.astype(np.float64))
    longitude, latitude = np.meshgrid(*given.lines[::-1])
    at_inputs = Regridder(*lines, latitude, longitude)
    off = [_difference(given.inputs[name].values, at_inputs(analysis[name].values)) for name in given.channels]
    row["input_bias"] = [float(field.mean()) for field in off]
    row["input_squared_error"] = [float((field**2).mean()) for field in off]
    return row


def _against_coarse(given: Archived, coarse: xr.Dataset) -> tuple[list[float], list[float]]:
    """Bias and squared error, by shared variable, of the ensemble mean over the cells of `coarse`; NaN without one."""
    chosen = cells(coarse.latitude.values, coarse.longitude.values, given.domain)
    if not len(chosen):
        return [float("nan")] * len(given.shared), [float("nan")] * len(given.shared)
    off = [chosen.average(given.mean(name)) - chosen.pick(coarse[name].values) for name in given.shared]
    return [float(field.mean()) for field in off], [float((field**2).mean()) for field in off]


def _difference(left: Any, right: Any) -> Float64:
    return np.asarray(left, np.float64) - np.asarray(right, np.float64)
