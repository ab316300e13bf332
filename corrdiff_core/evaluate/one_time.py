"""The scores of all forecasts of one time, each a mean or a count over the points of the domain."""

from collections.abc import Iterable
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
    order of `variables`. `bilinear` is the input interpolated to the domain (0 dBZ for reflectivity, which no input
    has), `regression` the regression mean; `perfect` the distribution that the truth was drawn from, where known.
    """

    time: datetime
    domain: Domain
    variables: tuple[str, ...]
    truth: Float32
    bilinear: Float32
    regression: Float32
    members: Float32
    perfect: Conditional | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return FORECASTS if self.perfect is not None else FORECASTS[:-1]


def score(forecasts: Forecasts, seed: int) -> xr.Dataset:
    """Every score of one time, as `scores.Scores` says, without a time dimension. Ties in rank are keyed by `seed`."""
    rows = [_variable(forecasts, index, seed) for index in range(len(forecasts.variables))]
    scores = xr.concat(rows, xr.Variable("variable", list(forecasts.variables)), join="exact")
    if REFLECTIVITY in forecasts.variables:
        scores = scores.merge(_exceedance(forecasts, forecasts.variables.index(REFLECTIVITY)))
    return scores


# --- one variable -----------------------------------------------------------------------------------------------------


def _variable(forecasts: Forecasts, index: int, seed: int) -> xr.Dataset:
    domain, truth, members = forecasts.domain, forecasts.truth[index], forecasts.members[:, index]
    fields = {
        "bilinear": forecasts.bilinear[index],
        "regression": forecasts.regression[index],
        "ensemble": members.mean(axis=0, dtype=np.float64),
    }
    crps = {name: mean_absolute_error(fields[name], truth) for name in ("bilinear", "regression")}
    crps["ensemble"] = float(crps_ensemble(members, truth).mean())
    power = power_spectrum(np.stack([truth, forecasts.bilinear[index], forecasts.regression[index]]), domain.spacing)
    drawn = np.mean([power_spectrum(member, domain.spacing) for member in members], axis=0)
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
            "power": (("field", "band"), np.concatenate([power, drawn[None]])),
        },
        coords={
            "forecast": list(forecasts.names),
            "rank": np.arange(len(ranks)),
            "field": ["truth", "bilinear", "regression", "ensemble"],
            "band": bands(domain.shape, domain.spacing).wavelength / 1000,
        },
    )


def _generator(seed: int, time: datetime, index: int) -> np.random.Generator:
    minutes = int((time - datetime(1970, 1, 1)).total_seconds() // 60)
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, index, minutes, 0]))


# --- reflectivity beyond thresholds -----------------------------------------------------------------------------------


def _exceedance(forecasts: Forecasts, index: int) -> xr.Dataset:
    rows = [_one_threshold(forecasts, index, threshold) for threshold in THRESHOLDS]
    return xr.concat(rows, xr.Variable("threshold", list(THRESHOLDS)), join="exact")


def _one_threshold(forecasts: Forecasts, index: int, threshold: float) -> xr.Dataset:
    step, event = forecasts.domain.spacing, forecasts.truth[index] >= threshold
    count = len(forecasts.members)
    votes = (forecasts.members[:, index] >= threshold).sum(axis=0)
    issued, came = reliability(votes, count, event)
    probabilities = _probabilities(forecasts, index, threshold, votes / count)
    scores = {name: brier(probability, event) for name, probability in probabilities.items()}
    scores["ensemble"] = fair_brier(votes, count, event)
    widths = sorted({odd_width(side, step) for side in NEIGHBORHOODS})
    terms = np.array([fractions_terms(probability, event, widths) for probability in probabilities.values()])
    return xr.Dataset(
        {
            "brier": ("forecast", [float(scores[name].mean()) for name in forecasts.names]),
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


def _probabilities(forecasts: Forecasts, index: int, threshold: float, ensemble: Float64) -> dict[str, Float64]:
    """Of reaching the threshold, (y, x), by forecast in the order of their names."""
    found = {name: (field >= threshold).astype(np.float64) for name, field in _single_fields(forecasts, index)}
    found["ensemble"] = ensemble
    if forecasts.perfect is not None:
        found["perfect"] = normal_exceedance(forecasts.perfect.mean[index], forecasts.perfect.spread[index], threshold)
    return found


def _single_fields(forecasts: Forecasts, index: int) -> Iterable[tuple[str, Float32]]:
    return (("bilinear", forecasts.bilinear[index]), ("regression", forecasts.regression[index]))


def odd_width(side: float, step: float) -> int:
    """The odd number of points, `step` metres apart, whose square comes nearest to `side` km.

    >>> [odd_width(side, 2000.0) for side in (2, 10, 30, 150)]
    [1, 5, 15, 75]
    """
    return 2 * max(0, round((side * 1000 / step - 1) / 2)) + 1
