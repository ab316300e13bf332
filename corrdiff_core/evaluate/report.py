"""Scores as Markdown tables; what `corrdiff evaluate --out` writes."""

from collections.abc import Iterable, Sequence

import numpy as np

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.evaluate.one_time import REFLECTIVITY, Forecasts
from corrdiff_core.evaluate.panel import draw
from corrdiff_core.evaluate.scores import RESOLVED, Scores, crps_ratios
from corrdiff_core.metrics import Estimate
from corrdiff_core.variables import OUTPUT

TITLES = {"bilinear": "bilinear", "regression": "regression mean", "ensemble": "ensemble", "perfect": "perfect"}
SIDE = 50.0  # km, of the neighborhood whose fractions skill is in the table


def write_report(url: str, scores: Scores, example: Forecasts | None = None, against: Scores | None = None) -> None:
    """Write scores.json, report.md and panel.png, and against.json where there is that, into the folder at `url`."""
    folder = open_objects(url)
    folder.put("scores.json", scores.to_json().encode())
    if against is not None:
        folder.put("against.json", against.to_json().encode())
    folder.put("report.md", f"{markdown(scores, against)}\n".encode())
    folder.put("panel.png", draw(scores, example))


def markdown(scores: Scores, against: Scores | None = None) -> str:
    """All tables, each under a line that says what it shows."""
    parts = [heading(scores), "", *accuracy(scores), "", "Error of the ensemble mean and of the single fields.", ""]
    parts += errors(scores)
    if scores.thresholds:
        words = f"Reflectivity beyond a threshold: Brier score, and fractions skill (FSS) within {SIDE:g} km."
        parts += ["", words, "", *exceedance(scores)]
    if against is not None:
        words = f"CRPS of {scores.evaluation.model} beside {against.evaluation.model} on the same times."
        parts += ["", words, "", *comparison(scores, against)]
    return "\n".join(parts)


def heading(scores: Scores) -> str:
    """What was scored on what, in one paragraph."""
    told = scores.evaluation
    return (
        f"{told.model} on {told.data}: {len(told.times)} times on {scores.resamples.blocks} days, {told.members}"
        f" members, {told.num_steps} {told.solver} steps, seed {told.seed}. CRPS is the fair one for the ensemble, the"
        " absolute error for a single field; in parentheses 95 % intervals, bootstrapped over days."
    )


def accuracy(scores: Scores) -> list[str]:
    """CRPS of every forecast, and the ensemble's calibration."""
    perfect = "perfect" in scores.forecasts
    low, high = RESOLVED
    head = [
        "variable",
        *(TITLES[name] for name in scores.forecasts),
        *(["ensemble / perfect"] if perfect else []),
        "spread / skill",
        "outliers",
        f"power {low:g}-{high:g} km",
    ]
    rows = []
    for variable in scores.variables:
        crps = {name: scores.mean_error("crps", variable, name) for name in scores.forecasts}
        cells = [f"**{_ranged(e, 3)}**" if name == "ensemble" else f"{e.value:.3f}" for name, e in crps.items()]
        judged = [scores.spread_skill(variable), scores.outliers(variable), scores.resolved_power(variable, "ensemble")]
        if perfect:
            judged.insert(0, scores.against_perfect(variable))
        rows.append([_named(variable), *cells, *(_ranged(estimate, 2) for estimate in judged)])
    return _table(head, rows)


def errors(scores: Scores) -> list[str]:
    """MAE and RMSE of every forecast."""
    head = ["variable", *(f"{score} {TITLES[name]}" for score in ("MAE", "RMSE") for name in scores.forecasts)]
    rows = [
        [
            _named(variable),
            *(f"{scores.mean_error('absolute_error', variable, name).value:.3f}" for name in scores.forecasts),
            *(f"{scores.rmse(variable, name).value:.3f}" for name in scores.forecasts),
        ]
        for variable in scores.variables
    ]
    return _table(head, rows)


def exceedance(scores: Scores) -> list[str]:
    """Brier score and fractions skill of reflectivity at each threshold."""
    sides = scores.values.neighborhood.values
    at = int(np.abs(sides - SIDE).argmin())
    names = scores.forecasts
    head = ["threshold", "how often", *(f"Brier {TITLES[n]}" for n in names), *(f"FSS {TITLES[n]}" for n in names)]
    rows = []
    for threshold in scores.thresholds:
        counts = scores.values.sel(threshold=threshold)
        often = float(counts.came.sum() / counts.issued.sum())
        brier = [f"{scores.brier(threshold, name).value:.2e}" for name in names]
        skill = [_score(float(scores.fractions_skill(threshold, name)[at])) for name in names]
        rows.append([f"{threshold:g} {OUTPUT[REFLECTIVITY].units}", f"{often:.2e}", *brier, *skill])
    return _table(head, rows)


def comparison(scores: Scores, against: Scores) -> list[str]:
    """CRPS and calibration of two models; the ratio is paired, below 1 where the first is better."""
    ratios = crps_ratios(scores, against)
    rows = []
    for variable in scores.variables:
        crps = [s.mean_error("crps", variable, "ensemble").value for s in (scores, against)]
        spread = [s.spread_skill(variable).value for s in (scores, against)]
        ratio = scores.resamples.estimate(ratios[variable])
        rows.append([_named(variable), *(f"{x:.3f}" for x in crps), _ranged(ratio, 3), *(f"{x:.2f}" for x in spread)])
    overall = scores.resamples.estimate(np.mean(list(ratios.values()), axis=0))
    rows.append(["overall", "", "", f"**{_ranged(overall, 3)}**", "", ""])
    names = (scores.evaluation.model, against.evaluation.model)
    return _table(["variable", *names, "ratio", *(f"spread / skill {name}" for name in names)], rows)


def _named(variable: str) -> str:
    return f"{variable} ({OUTPUT[variable].units})"


def _ranged(estimate: Estimate, digits: int) -> str:
    value = f"{estimate.value:.{digits}f}"
    if np.isnan(estimate.low):
        return value
    return f"{value} ({estimate.low:.{digits}f}..{estimate.high:.{digits}f})"


def _score(value: float) -> str:
    return "no event" if np.isnan(value) else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
