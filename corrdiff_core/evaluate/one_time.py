"""The scores of all forecasts of one time, each a mean or a count over the points of the domain."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.grid import Domain
from corrdiff_core.metrics import (
    bands,
    brier,
    censored_normal_mean,
    crps_censored_normal,
    crps_ensemble,
    crps_normal,
    fair_brier,
    fractions_terms,
    mean_absolute_error,
    mean_squared_error,
    normal_exceedance,
    power_spectrum,
    rank_histogram,
    reliability,
)
from corrdiff_core.nature import Conditional

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

FORECASTS = ("bilinear", "regression", "ensemble", "perfect")
REFLECTIVITY = "mrr"
THRESHOLDS = (20.0, 35.0, 45.0)  # dBZ: rain, convection, severe convection
NEIGHBORHOODS = (2.0, 10.0, 30.0, 50.0, 90.0, 150.0)  # km, sides of squares


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What is scored against `truth` at one time; everything in physical units, float32.

    Single fields and `truth` are (variable, y, x) on `domain`, `members` is (member, variable, y, x), variables in the
    order of `variables`. `singles` are forecasts without spread by name: "bilinear", the input interpolated to the
    domain (0 dBZ for reflectivity, which no input has), and "regression", the regression mean, where the networks are
    at hand. `perfect` is the distribution that the truth was drawn from, where known.
    """

    time: datetime
    domain: Domain
    variables: tuple[str, ...]
    truth: Float32
    singles: Mapping[str, Float32]
    members: Float32
    perfect: Conditional | None = None

    @property
    def names(self) -> tuple[str, ...]:
        there = {*self.singles, "ensemble", *(() if self.perfect is None else ("perfect",))}
        return tuple(name for name in FORECASTS if name in there)


def score(forecasts: Forecasts, seed: int) -> xr.Dataset:
    """Every score of one time, as `scores.Scores` says, without a time dimension. Ties in rank are keyed by `seed`."""
    scores = accuracy(forecasts, seed).merge(_spectra(forecasts))
    if REFLECTIVITY in forecasts.variables:
        scores = scores.merge(brier_scores(forecasts)).merge(_exceedance(forecasts))
    return scores


def accuracy(forecasts: Forecasts, seed: int) -> xr.Dataset:
    """Of the scores: errors of every forecast, and the members' variance and ranks."""
    rows = [_accuracy(forecasts, index, seed) for index in range(len(forecasts.variables))]
    return xr.concat(rows, xr.Variable("variable", list(forecasts.variables)), join="exact")


def brier_scores(forecasts: Forecasts) -> xr.Dataset:
    """Of the scores: Brier score of reflectivity, which must be among the variables, at each threshold."""
    found = [_brier(forecasts, threshold) for threshold in THRESHOLDS]
    return xr.Dataset(
        {"brier": (("threshold", "forecast"), np.array(found))},
        {"threshold": list(THRESHOLDS), "forecast": list(forecasts.names)},
    )


# --- one variable -----------------------------------------------------------------------------------------------------


def _accuracy(forecasts: Forecasts, index: int, seed: int) -> xr.Dataset:
    truth, members = forecasts.truth[index], forecasts.members[:, index]
    fields = {name: field[index] for name, field in forecasts.singles.items()}
    crps = {name: mean_absolute_error(field, truth) for name, field in fields.items()}
    fields["ensemble"] = members.mean(axis=0, dtype=np.float64)
    crps["ensemble"] = float(crps_ensemble(members, truth).mean())
    if forecasts.perfect is not None:
        mean, spread = forecasts.perfect.mean[index], forecasts.perfect.spread[index]
        censored = forecasts.variables[index] == REFLECTIVITY
        fields["perfect"] = censored_normal_mean(mean, spread) if censored else mean
        crps["perfect"] = float((crps_censored_normal if censored else crps_normal)(mean, spread, truth).mean())
    by_forecast = {
        "crps": [crps[name] for name in forecasts.names],
        "absolute_error": [mean_absolute_error(fields[name], truth) for name in forecasts.names],
        "squared_error": [mean_squared_error(fields[name], truth) for name in forecasts.names],
    }
    variance = members.var(axis=0, ddof=1, dtype=np.float64).mean()
    ranks = rank_histogram(members, truth, _generator(seed, forecasts.time, index))
    return xr.Dataset(
        {
            **{name: ("forecast", values) for name, values in by_forecast.items()},
            "variance": ((), variance),
            "ranks": ("rank", ranks),
        },
        coords={"forecast": list(forecasts.names), "rank": np.arange(len(ranks))},
    )


def _generator(seed: int, time: datetime, index: int) -> np.random.Generator:
    minutes = int((time - datetime(1970, 1, 1)).total_seconds() // 60)
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, index, minutes, 0]))


# --- all variables at once --------------------------------------------------------------------------------------------


def _spectra(forecasts: Forecasts) -> xr.Dataset:
    """Power of the truth, of each single field and, in the mean, of the members."""
    spacing = forecasts.domain.spacing
    single = [power_spectrum(field, spacing) for field in (forecasts.truth, *forecasts.singles.values())]
    members = np.mean([power_spectrum(member, spacing) for member in forecasts.members], axis=0)
    return xr.Dataset(
        {"power": (("variable", "field", "band"), np.stack([*single, members], axis=1))},
        coords={
            "variable": list(forecasts.variables),
            "field": ["truth", *forecasts.singles, "ensemble"],
            "band": bands(forecasts.domain.shape, spacing).wavelength / 1000,
        },
    )


# --- reflectivity beyond thresholds -----------------------------------------------------------------------------------


def _exceedance(forecasts: Forecasts) -> xr.Dataset:
    rows = [_one_threshold(forecasts, threshold) for threshold in THRESHOLDS]
    return xr.concat(rows, xr.Variable("threshold", list(THRESHOLDS)), join="exact")


def _one_threshold(forecasts: Forecasts, threshold: float) -> xr.Dataset:
    step, (event, votes) = forecasts.domain.spacing, _event_and_votes(forecasts, threshold)
    count = len(forecasts.members)
    issued, came = reliability(votes, count, event)
    widths = sorted({odd_width(side, step) for side in NEIGHBORHOODS})
    probabilities = _probabilities(forecasts, threshold, votes / count)
    terms = np.array([fractions_terms(probabilities[name], event, widths) for name in forecasts.names])
    return xr.Dataset(
        {
            "fss_error": (("forecast", "neighborhood"), terms[:, 0]),
            "fss_reference": (("forecast", "neighborhood"), terms[:, 1]),
            "issued": ("votes", issued),
            "came": ("votes", came),
        },
        coords={
            "forecast": list(forecasts.names),
            "neighborhood": np.array(widths) * step / 1000,
            "votes": np.arange(count + 1),
        },
    )


def _brier(forecasts: Forecasts, threshold: float) -> list[float]:
    """Of each forecast, in the order of their names; of the ensemble the fair one."""
    event, votes = _event_and_votes(forecasts, threshold)
    count = len(forecasts.members)
    probabilities = _probabilities(forecasts, threshold, votes / count)
    scores = {name: brier(probability, event) for name, probability in probabilities.items()}
    scores["ensemble"] = fair_brier(votes, count, event)
    return [float(scores[name].mean()) for name in forecasts.names]


def _event_and_votes(forecasts: Forecasts, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Where the truth reaches the threshold, and how many members do, (y, x) each."""
    index = forecasts.variables.index(REFLECTIVITY)
    return forecasts.truth[index] >= threshold, (forecasts.members[:, index] >= threshold).sum(axis=0)


def _probabilities(forecasts: Forecasts, threshold: float, ensemble: Float64) -> dict[str, Float64]:
    """Of reaching the threshold, (y, x), by forecast."""
    index = forecasts.variables.index(REFLECTIVITY)
    found = {name: (field[index] >= threshold).astype(np.float64) for name, field in forecasts.singles.items()}
    found["ensemble"] = ensemble
    if forecasts.perfect is not None:
        found["perfect"] = normal_exceedance(forecasts.perfect.mean[index], forecasts.perfect.spread[index], threshold)
    return found


def odd_width(side: float, step: float) -> int:
    """The odd number of points, `step` metres apart, whose square comes nearest to `side` km.

    >>> [odd_width(side, 2000.0) for side in (2, 10, 30, 150)]
    [1, 5, 15, 75]
    """
    return 2 * max(0, round((side * 1000 / step - 1) / 2)) + 1
