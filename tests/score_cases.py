"""Scores with chosen numbers, time by time, as an evaluation would have left them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from corrdiff_core.evaluate.scores import Evaluation, Scores

VARIABLES = ("mrr", "t2m", "u10m", "v10m")
MEMBERS = 8
START = datetime(2021, 3, 1)


def daily(count: int) -> list[datetime]:
    return [START + timedelta(days=day) for day in range(count)]


def weather(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How hard each time is to forecast: CRPS of a model, alike for all variables and all models."""
    return np.random.default_rng(seed).gamma(4.0, 0.1, count)


def fabricate(
    crps: Mapping[str, ArrayLike],
    times: Sequence[datetime],
    spread_skill: Mapping[str, float] | None = None,
    **identity: Any,
) -> Scores:
    """Scores whose ensembles have `crps` (time,) by variable and that spread-skill ratio, 1 where none is named."""
    variables, count = list(crps), len(times)
    series = np.stack([np.asarray(crps[name], np.float64) for name in variables], axis=1)
    ratios = np.array([(spread_skill or {}).get(name, 1.0) for name in variables])
    forecasts, bands = ["bilinear", "regression", "ensemble"], [10.0, 30.0, 90.0, 300.0]
    by_forecast = np.stack([3 * series, 2 * series, series], axis=2)
    squared = by_forecast**2 + 1e-6
    ranks = np.full((count, len(variables), MEMBERS + 1), 10)
    dims = ("time", "variable", "forecast")
    values = xr.Dataset(
        {
            "crps": (dims, by_forecast),
            "absolute_error": (dims, by_forecast),
            "squared_error": (dims, squared),
            "variance": (dims[:2], squared[:, :, 2] * MEMBERS / (MEMBERS + 1) * ratios**2),
            "ranks": ((*dims[:2], "rank"), ranks),
            "power": ((*dims[:2], "field", "band"), np.ones((count, len(variables), 4, len(bands)))),
        },
        coords={
            "time": np.array(times, "datetime64[s]"),
            "variable": variables,
            "forecast": forecasts,
            "field": ["truth", *forecasts],
            "rank": np.arange(MEMBERS + 1),
            "band": bands,
        },
    )
    told = {
        "samples": "5a" * 32, "data": "made up", "members": MEMBERS, "num_steps": 6, "solver": "heun", "seed": 0,
        "model": "candidate-00000000", "digest": "00" * 32, "version": "0",
    }  # fmt: skip
    return Scores(Evaluation(times=tuple(times), **(told | identity)), values)
