"""Whether a version may go into production, and what its history is to say of it."""

from typing import Any

from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.evaluate.scores import Scores, read_scores
from corrdiff_core.gate import Decision, decide
from corrdiff_core.registry import Registry, Version


def admit(
    registry: Registry, version: Version, scores: str | None, production: str | None, force: str | None
) -> dict[str, Any]:
    """The reason that `Registry.promote` is to keep: in words under "why", and the gate's decision with its numbers.

    `scores` and `production` are files of the candidate's scores and of those of the version in production. Raises
    CheckpointError where the gate rejects the candidate, ConfigurationError where scores are missing, of other models
    or not comparable. `force` overrules all of that, and is kept beside what it overruled.
    """
    if force is None:
        decision = _decide(registry, version, scores, production)
        if not decision.promote:
            raise CheckpointError(
                f"{version.ref} stays out of production: {'; '.join(decision.reasons)}; --force REASON overrules that"
            )
        return {"why": "; ".join(decision.reasons), "decision": decision.to_dict()}
    if not force.strip():
        raise ConfigurationError("--force without a reason: say why, the history keeps it")
    try:
        overruled: dict[str, Any] = {"decision": _decide(registry, version, scores, production).to_dict()}
    except ConfigurationError as error:
        overruled = {"undecided": str(error)}
    return {"why": f"forced: {force}", "forced": force, **overruled}


def _decide(registry: Registry, version: Version, scores: str | None, production: str | None) -> Decision:
    if scores is None:
        raise ConfigurationError(
            f"{version.ref} has no scores: name those of `corrdiff evaluate --out` with --scores, or --force REASON"
        )
    return decide(_scores_of(version, scores, "--scores"), _in_production(registry, version, production))


def _in_production(registry: Registry, version: Version, url: str | None) -> Scores | None:
    """Scores of the version in production; None where there is none."""
    number = registry.production_number(version.name)
    if number is None:
        return None
    if url is None:
        raise ConfigurationError(
            f"{version.name}@{number} is in production: name its scores on the same samples with --production"
        )
    return _scores_of(registry.version(version.name, number), url, "--production")


def _scores_of(version: Version, url: str, option: str) -> Scores:
    scores = read_scores(url)
    if scores.evaluation.digest != version.manifest.digest:
        raise ConfigurationError(
            f"{option} {url}: scores of {scores.evaluation.model} ({scores.evaluation.digest[:12]}), {version.ref} is"
            f" {version.manifest.identity} ({version.manifest.digest[:12]}): evaluate {version.ref}"
        )
    return scores
