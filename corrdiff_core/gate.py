"""The gate: whether a candidate may take the place of the model in production, by scores on the same frozen test set.

A candidate is promoted if, and only if, all of this holds; every interval is the 95 % one of the paired bootstrap over
days (`metrics.bootstrap`), and CRPS is that of the ensemble, meant over times before any ratio is taken:

1. better overall: the mean over the variables of CRPS(candidate) / CRPS(production) is below 1, and so is the upper end
   of its interval;
2. not worse in any variable: the upper end of the interval of its CRPS ratio is below 1 + `margin`;
3. calibrated: the spread-skill ratio of every variable lies within `spread_skill`, both ends included;
4. the test set has at least `days` days: an interval of fewer is too narrow to be believed.

With nothing in production only 3 is asked.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.evaluate.scores import Scores, crps_ratios
from corrdiff_core.metrics import Estimate


@dataclass(frozen=True)
class Rules:
    """The bounds of the gate; ConfigurationError for bounds that nothing can meet."""

    margin: float = 0.02
    spread_skill: tuple[float, float] = (0.8, 1.25)
    days: int = 10

    def __post_init__(self) -> None:
        low, high = self.spread_skill
        if not (self.margin >= 0 and 0 <= low < high and self.days >= 2):
            raise ConfigurationError(f"{self}: a margin of 0 or more, low < high and 2 days or more are needed")


@dataclass(frozen=True)
class Decision:
    """`reasons` says in words what spoke for or against; `numbers` holds what was compared, as plain JSON values."""

    promote: bool
    reasons: list[str]
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For a model's history."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{'promote' if self.promote else 'reject'}: {'; '.join(self.reasons)}"


def decide(candidate: Scores, production: Scores | None, rules: Rules | None = None) -> Decision:
    """Whether `candidate` passes the gate against `production`, None where nothing is in production yet.

    ConfigurationError where the two cannot be compared, since they are not of the same samples, times, members and
    seed: that is no verdict on the candidate.
    """
    rules = rules or Rules()
    numbers: dict[str, Any] = {"candidate": _identity(candidate), "rules": asdict(rules)}
    objections = _miscalibrated(candidate, rules)
    numbers["spread_skill"] = {name: list(candidate.spread_skill(name)) for name in candidate.variables}
    if production is None:
        numbers["production"] = None
        return Decision(not objections, objections or ["calibrated, and nothing is in production yet"], _plain(numbers))
    _refuse_incomparable(candidate, production)
    ratios = crps_ratios(candidate, production)
    overall = candidate.resamples.estimate(np.mean(list(ratios.values()), axis=0))
    by_variable = {name: candidate.resamples.estimate(found) for name, found in ratios.items()}
    numbers |= {
        "production": _identity(production),
        "samples": candidate.evaluation.samples,
        "times": len(candidate.evaluation.times),
        "days": candidate.resamples.blocks,
        "crps_ratio": {"overall": list(overall)} | {name: list(found) for name, found in by_variable.items()},
    }
    objections = [
        *_too_few_days(candidate, rules),
        *_not_better(overall),
        *_worse(by_variable, rules),
        *objections,
    ]
    praise = f"CRPS is {_words(overall)} of production's, no variable is worse by {rules.margin:.0%}; calibrated"
    return Decision(not objections, objections or [praise], _plain(numbers))


def _too_few_days(candidate: Scores, rules: Rules) -> list[str]:
    days = candidate.resamples.blocks
    if days >= rules.days:
        return []
    return [f"the test set has {days} days, {rules.days} are needed: evaluate on more"]


def _not_better(overall: Estimate) -> list[str]:
    if overall.value < 1 and overall.high < 1:
        return []
    return [f"not better overall: mean CRPS ratio {_words(overall)}, all of it must be below 1"]


def _worse(ratios: dict[str, Estimate], rules: Rules) -> list[str]:
    bound = 1 + rules.margin
    return [
        f"{name} may be worse: CRPS ratio {_words(found)}, its upper end must be below {bound:.2f}"
        for name, found in ratios.items()
        if not found.high < bound
    ]


def _miscalibrated(candidate: Scores, rules: Rules) -> list[str]:
    low, high = rules.spread_skill
    found = {name: candidate.spread_skill(name).value for name in candidate.variables}
    return [
        f"{name} is {'under' if value < low else 'over'}dispersed: spread-skill {value:.2f}, {low:g}..{high:g} is asked"
        for name, value in found.items()
        if not low <= value <= high
    ]


def _refuse_incomparable(candidate: Scores, production: Scores) -> None:
    ours, theirs = candidate.evaluation, production.evaluation
    for what in ("samples", "times", "members", "seed"):
        mine, other = getattr(ours, what), getattr(theirs, what)
        if mine != other:
            shown = [_brief(value) for value in (mine, other)]
            raise ConfigurationError(
                f"scores of {ours.model} and {theirs.model} cannot be compared: {what} {shown[0]} and {shown[1]}:"
                " evaluate both with the same"
            )
    if candidate.variables != production.variables:
        raise ConfigurationError(
            f"scores of {ours.model} and {theirs.model} cannot be compared: variables {candidate.variables} and "
            f"{production.variables}: a model of other variables needs a name of its own"
        )


def _brief(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} from {value[0]:%Y-%m-%dT%H} to {value[-1]:%Y-%m-%dT%H}"
    return value[:12] if isinstance(value, str) else str(value)


def _identity(scores: Scores) -> dict[str, Any]:
    evaluation = scores.evaluation
    return {
        "model": evaluation.model,
        "digest": evaluation.digest,
        "num_steps": evaluation.num_steps,
        "solver": evaluation.solver,
        "crps": {name: scores.mean_error("crps", name, "ensemble").value for name in scores.variables},
    }


def _words(estimate: Estimate) -> str:
    if np.isnan(estimate.high):
        return f"{estimate.value:.3f} (no interval)"
    return f"{estimate.value:.3f} ({estimate.low:.3f}..{estimate.high:.3f})"


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
