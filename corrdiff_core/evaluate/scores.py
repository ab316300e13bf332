"""The scores of an evaluation, time by time, with what they are scores of; means and intervals on demand."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.metrics import Estimate, Resamples, fractions_skill, ratio, spread_skill

Array = NDArray[np.float64]

FORMAT = 1
RESOLVED = (8.0, 100.0)  # km, the wavelengths that downscaling is to add and that a domain of 900 km holds often


@dataclass(frozen=True)
class Evaluation:
    """What was scored on what. `samples` and `digest` are those of the samples and of the model's manifest."""

    samples: str
    data: str
    times: tuple[datetime, ...]
    members: int
    num_steps: int
    solver: str
    seed: int
    model: str
    digest: str
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` restores an equal Evaluation."""
        return asdict(self) | {"times": [time.isoformat() for time in self.times]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Evaluation":
        return cls(**values | {"times": tuple(map(datetime.fromisoformat, values["times"]))})


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores by time, so that two evaluations can be compared on the same weather. Units are the variables' own.

    `values` holds, for each time, means over the points:
      crps (time, variable, forecast)            of the ensemble the fair one; of a single field its absolute error
      absolute_error, squared_error (same dims)  of the ensemble's mean
      variance (time, variable)                  of the members
      ranks (time, variable, rank)               points whose truth has that rank among the members
      power (time, variable, field, band)        variance in each wavelength band (km); of the members their mean
    and for reflectivity at each threshold in dBZ, where the model gives it:
      brier (time, threshold, forecast)          of the ensemble the fair one
      issued, came (time, threshold, votes)      points where so many members reach it, and where the truth then did
      fss_error, fss_reference (time, threshold, forecast, neighborhood)  the terms of the fractions skill score

    The forecasts are "bilinear", "regression", "ensemble" and, where the truth's distribution is known, "perfect".
    """

    evaluation: Evaluation
    values: xr.Dataset

    def __post_init__(self) -> None:
        """ConfigurationError where a value is not finite, or times are not those of the evaluation."""
        if list(self.values.time.values.astype("datetime64[s]").tolist()) != list(self.evaluation.times):
            raise ConfigurationError(
                f"scores of {self.evaluation.model}: {self.values.sizes['time']} times that are not the "
                f"{len(self.evaluation.times)} of the evaluation: evaluate again"
            )
        broken = [name for name, values in self.values.items() if not np.isfinite(values.values).all()]
        if broken:
            raise ConfigurationError(f"scores of {self.evaluation.model}: {broken} not finite: evaluate again")

    @property
    def variables(self) -> list[str]:
        return [str(name) for name in self.values.variable.values]

    @property
    def forecasts(self) -> list[str]:
        return [str(name) for name in self.values.forecast.values]

    @property
    def thresholds(self) -> list[float]:
        """Of reflectivity, dBZ; empty where the model does not give it."""
        return [float(value) for value in self.values.threshold.values] if "threshold" in self.values.coords else []

    # Means and intervals

    @cached_property
    def resamples(self) -> Resamples:
        """The bootstrap over these times, whole days at once."""
        return Resamples.of(self.evaluation.times)

    def means(self, name: str, **where: str | float) -> Array:
        """A score's mean over the times, then over each of `resamples`: (1 + resamples, ...)."""
        return self.resamples.means(self.values[name].sel(where).values)

    def mean_error(self, name: str, variable: str, forecast: str) -> Estimate:
        """Of "crps", or of "absolute_error" (MAE)."""
        return self.resamples.estimate(self.means(name, variable=variable, forecast=forecast))

    def rmse(self, variable: str, forecast: str) -> Estimate:
        squared = self.means("squared_error", variable=variable, forecast=forecast)
        return self.resamples.estimate(np.sqrt(squared))

    def against_perfect(self, variable: str) -> Estimate:
        """CRPS of the ensemble over that of the perfect forecast, 1 at best."""
        ensemble, perfect = (self.means("crps", variable=variable, forecast=name) for name in ("ensemble", "perfect"))
        return self.resamples.estimate(ratio(ensemble, perfect))

    def spread_skill(self, variable: str) -> Estimate:
        """1 where calibrated, below 1 where underdispersed."""
        squared_error = self.means("squared_error", variable=variable, forecast="ensemble")
        found = spread_skill(self.means("variance", variable=variable), squared_error, self.evaluation.members)
        return self.resamples.estimate(found)

    def outliers(self, variable: str) -> Estimate:
        """How often the truth lies outside the ensemble, over how often it should, 2 / (members + 1)."""
        ranks = self.means("ranks", variable=variable)
        share = (ranks[:, 0] + ranks[:, -1]) / ranks.sum(axis=1)
        return self.resamples.estimate(share * (self.evaluation.members + 1) / 2)

    def power_ratio(self, variable: str, field: str) -> Array:
        """Variance over the truth's by wavelength band, (band,); NaN where the truth has none."""
        power = self.values["power"].sel(variable=variable).mean("time")
        return ratio(power.sel(field=field).values, power.sel(field="truth").values)

    def resolved_power(self, variable: str, field: str) -> Estimate:
        """Variance over the truth's at the wavelengths of RESOLVED, all together."""
        inside = self.resolved_bands
        sums = [self.means("power", variable=variable, field=name)[:, inside].sum(axis=1) for name in (field, "truth")]
        return self.resamples.estimate(ratio(*sums))

    @property
    def resolved_bands(self) -> NDArray[np.bool_]:
        """Which bands lie within RESOLVED."""
        wavelength = self.values.band.values
        return np.asarray((wavelength >= RESOLVED[0]) & (wavelength <= RESOLVED[1]))

    def brier(self, threshold: float, forecast: str) -> Estimate:
        return self.resamples.estimate(self.means("brier", threshold=threshold, forecast=forecast))

    def fractions_skill(self, threshold: float, forecast: str) -> Array:
        """By neighborhood, (neighborhood,); NaN where there was no event, in the forecast or in truth."""
        chosen = self.values.sel(threshold=threshold, forecast=forecast)[["fss_error", "fss_reference"]].mean("time")
        return fractions_skill(chosen.fss_error.values, chosen.fss_reference.values)

    def summary(self) -> dict[str, Any]:
        """All of these as plain JSON values: [value, low, high] with 95 % intervals, null where unknown."""
        names, truthless = self.forecasts, ("bilinear", "regression", "ensemble")
        found: dict[str, Any] = {
            "crps": self._by(lambda v, f: self.mean_error("crps", v, f), names),
            "mae": self._by(lambda v, f: self.mean_error("absolute_error", v, f), names),
            "rmse": self._by(self.rmse, names),
            "spread_skill": {name: _plain(self.spread_skill(name)) for name in self.variables},
            "outliers": {name: _plain(self.outliers(name)) for name in self.variables},
            "resolved_power": self._by(self.resolved_power, truthless),
        }
        if "perfect" in names:
            found["crps_over_perfect"] = {name: _plain(self.against_perfect(name)) for name in self.variables}
        if self.thresholds:
            found["brier"] = {f"{at:g}": {f: _plain(self.brier(at, f)) for f in names} for at in self.thresholds}
            found["fss"] = {
                f"{at:g}": {f: _plain(self.fractions_skill(at, f)) for f in names} for at in self.thresholds
            }
        return found

    def _by(self, estimate: Callable[[str, str], Estimate], names: Iterable[str]) -> dict[str, Any]:
        return {variable: {name: _plain(estimate(variable, name)) for name in names} for variable in self.variables}

    # JSON

    def to_json(self) -> str:
        """Everything, with the summary on top; `from_json` restores the same numbers to the last bit."""
        coordinates = {str(name): c.values.tolist() for name, c in self.values.coords.items() if name != "time"}
        values = {
            str(name): {"dims": list(array.dims), "values": array.values.tolist()}
            for name, array in self.values.data_vars.items()
        }
        document = {
            "format": FORMAT,
            "evaluation": self.evaluation.to_dict(),
            "summary": self.summary(),
            "coordinates": coordinates,
            "values": values,
        }
        return json.dumps(document, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Scores":
        """Raises ConfigurationError for what `to_json` did not write."""
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise ConfigurationError(f"scores of format {document['format']}, this package reads {FORMAT}")
            evaluation = Evaluation.from_dict(document["evaluation"])
            arrays = {name: (array["dims"], np.array(array["values"])) for name, array in document["values"].items()}
            times = np.array(evaluation.times, "datetime64[s]")
            values = xr.Dataset(arrays, coords=document["coordinates"] | {"time": times})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"no scores of an evaluation ({type(error).__name__}: {error})") from None
        return cls(evaluation, values)


def crps_ratios(candidate: Scores, production: Scores) -> dict[str, Array]:
    """CRPS of the candidate's ensemble over that of production's, by variable, (1 + resamples,).

    Paired: both have the same times in each resample. They must be scores of the same times and variables.
    """
    resamples = candidate.resamples
    ratios = {}
    for name in candidate.variables:
        series = (scores.values["crps"].sel(variable=name, forecast="ensemble") for scores in (candidate, production))
        ratios[name] = ratio(*map(resamples.means, series))
    return ratios


def _plain(numbers: Iterable[float]) -> list[float | None]:
    return [float(number) if np.isfinite(number) else None for number in numbers]


def read_scores(url: str) -> Scores:
    """The scores in the JSON file at `url`, a path or any fsspec URL; ConfigurationError where there are none."""
    folder, _, name = url.rpartition("/")
    data = open_objects(folder or ".").get(name)
    if data is None:
        raise ConfigurationError(f"{url}: no such file; name the scores.json that `corrdiff evaluate --out` writes")
    try:
        return Scores.from_json(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{url}: {error}: name a file that `corrdiff evaluate --out` wrote") from None
