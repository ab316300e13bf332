"""How good a checkpoint is on weather that it has not seen, beside what it must beat and what nobody can beat."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.checkpoint import Checkpoint
from corrdiff_core.dataset import NatureRun
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.generate import generate, regression_mean
from corrdiff_core.metrics import crps_ensemble
from corrdiff_core.model.sampler import Solver
from corrdiff_core.regrid import regrid
from corrdiff_core.variables import OUTPUT

FORECASTS = ("bilinear", "regression", "ensemble", "perfect")


@dataclass(frozen=True)
class Scores:
    """Means over times and points, by variable, in the variable's unit.

    `crps` by forecast: "bilinear" (interpolated input; 0 dBZ for reflectivity, which no input has), "regression" (the
    mean alone; the CRPS of a single field is its absolute error), "ensemble" (fair CRPS), "perfect" (the nature run's
    own distribution). `spread_skill` is the ensemble's spread over the error of its mean, 1 when calibrated (Fortin et
    al. 2014, J. Hydrometeorol. 15).
    """

    times: int
    members: int
    num_steps: int
    solver: str
    crps: dict[str, dict[str, float]] = field(default_factory=dict)
    spread_skill: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Markdown."""
        head = "| variable | bilinear | regression mean | ensemble | perfect | ensemble / perfect | spread / skill |"
        rows = [
            f"| {name} ({OUTPUT[name].units}) | {crps['bilinear']:.3f} | {crps['regression']:.3f} | "
            f"**{crps['ensemble']:.3f}** | {crps['perfect']:.3f} | {crps['ensemble'] / crps['perfect']:.2f} | "
            f"{self.spread_skill[name]:.2f} |"
            for name, crps in self.crps.items()
        ]
        return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def held_out(checkpoint: Checkpoint) -> NatureRun:
    """The nature run's 2021, which no training preset touches."""
    return NatureRun(checkpoint.manifest.domain, nature.SEED, datetime(2021, 1, 1), datetime(2022, 1, 1))


def evaluate_on_nature(
    checkpoint: Checkpoint,
    times: int,
    members: int,
    num_steps: int | None = None,
    solver: Solver | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Scores:
    """Score `times` held-out hours with `members` each against the nature run's truth.

    Steps and solver are the manifest's when None; `report` is told of each time. Raises ConfigurationError for no
    times, or for fewer than 2 members, which have no spread.
    """
    if times < 1 or members < 2:
        raise ConfigurationError(f"{times} times with {members} members cannot be scored: at least 1 and 2 are needed")
    run = held_out(checkpoint)
    totals: dict[str, list[dict[str, float]]] = {name: [] for name in checkpoint.manifest.output_statistics.names}
    for index in range(times):
        inputs, observed = run.pair(index)
        ensemble = generate(checkpoint, inputs, members, num_steps=num_steps, solver=solver)
        for name, scores in _one_time(checkpoint, inputs, observed, ensemble).items():
            totals[name].append(scores)
        report(f"scored {index + 1}/{times} ({run.time(index):%Y-%m-%dT%H})")
    defaults = checkpoint.manifest.defaults
    means = {name: _mean(rows) for name, rows in totals.items()}
    return Scores(
        times,
        members,
        defaults.num_steps if num_steps is None else num_steps,
        defaults.solver if solver is None else solver,
        crps={name: {forecast: row[forecast] for forecast in FORECASTS} for name, row in means.items()},
        spread_skill={name: _spread_skill(row, members) for name, row in means.items()},
    )


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _spread_skill(row: dict[str, float], members: int) -> float:
    return float(np.sqrt((members + 1) / members * row["variance"] / row["squared_error"]))


def _one_time(
    checkpoint: Checkpoint, inputs: xr.Dataset, observed: xr.Dataset, ensemble: xr.Dataset
) -> dict[str, dict[str, float]]:
    mean = regression_mean(checkpoint, inputs)
    domain = checkpoint.manifest.domain
    perfect = nature.perfect_crps(nature.conditional(inputs, domain), observed)
    scores = {}
    for name in checkpoint.manifest.output_statistics.names:
        truth, members = observed[name].values, ensemble[name].values
        coarse = regrid(inputs[name], domain).values if name in inputs else np.zeros_like(truth)
        scores[name] = {
            "bilinear": float(np.abs(coarse - truth).mean()),
            "regression": float(np.abs(mean[name].values - truth).mean()),
            "ensemble": float(crps_ensemble(members, truth).mean()),
            "perfect": float(perfect[name].mean()),
            "variance": float(members.var(axis=0, ddof=1).mean()),
            "squared_error": float(((members.mean(axis=0) - truth) ** 2).mean()),
        }
    return scores
