"""The retraining flow: freeze the data, train, judge beside production on one test set, promote only what is better."""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from corrdiff_core.errors import ConfigurationError, CorrdiffError
from corrdiff_core.gate import Decision, Rules
from corrdiff_core.registry import Version
from flows import events, retraining
from flows.report import Said, open_report
from flows.retraining import Plan
from flows.settings import Settings

_SHARE = {"regression": 0.0, "diffusion": 50.0}  # percent of the training that is done when a stage begins


@flow(name="retrain")
def retrain(
    dataset: str | None = None,
    name: str = "taiwan",
    preset: str = "taiwan",
    models: str | None = None,
    runs: str | None = None,
    start: str | None = None,
    test_start: str | None = None,
    end: str | None = None,
    test_days: int = 60,
    validation_days: int = 14,
    times: int | None = 120,
    members: int = 8,
    least_new: int = 720,
    processes: int = 1,
    device: str | None = None,
    reason: Any = None,
    cooldown: float = 24.0,
    rules: dict[str, Any] | None = None,
    force: bool = False,
) -> State[dict[str, Any]]:
    """Train a candidate for `name` on `dataset`, and put it into production if the gate finds it better.

    `reason` is what asks for it, an event's payload; without one, a schedule does. An event within `cooldown` hours of
    the last verdict, and a schedule with fewer than `least_new` new samples, end Completed, in a word; `force` passes
    over both. The test set is what is newest; the days before it tell how a training goes, and are not trained on
    either. `rules` are bounds of the gate other than its own. Run again, a retraining that was stopped goes on.
    At most `times` of the test set are scored, None: all.
    """
    settings = Settings.of(dataset=dataset, models=models, runs=runs, device=device)
    if settings.dataset is None:
        return skipped("no dataset is named: give one, or set CORRDIFF_DATASET")
    places = settings.dataset, settings.models, settings.runs
    plan = freeze(name, preset, *places, start, test_start, end, test_days, validation_days)
    early = None if force else too_early(plan, reason, least_new, cooldown)
    if early is not None:
        return skipped(early)
    checkpoint = train(plan, processes, settings.device)
    candidate = enter(plan, checkpoint)
    decision = judge(plan, candidate, rules_of(rules), members, times, settings.device)
    conclude(plan, candidate, decision, reason)
    tell(plan, candidate, decision, members, times)
    open_report()(Said(f"{candidate.ref}: {decision}"))
    return Completed(message=f"{candidate.ref}: {decision}", data={"candidate": candidate.ref, **decision.to_dict()})


def skipped(why: str) -> State[dict[str, Any]]:
    """The end of a run that had nothing to do."""
    open_report()(Said(f"no retraining: {why}"))
    return Completed(name="Skipped", message=why, data={"skipped": why})


def rules_of(given: dict[str, Any] | None) -> Rules:
    """The gate's rules, those that are given in place of its own; ConfigurationError for what it has no rule of."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in (given or {}).items()}
    try:
        return Rules(**values)
    except TypeError as error:
        raise ConfigurationError(f"rules {given}: {error}; the gate has margin, spread_skill and days") from None


def too_early(plan: Plan, reason: Any, least_new: int, cooldown: float) -> str | None:
    """Why nothing is to be done now, None where something is."""
    return retraining.too_little_new(plan, least_new) if reason is None else retraining.in_cooldown(plan, cooldown)


@task(cache_policy=NO_CACHE)
def freeze(*arguments: Any) -> Plan:
    """The data's span and digest, as it stands now."""
    return retraining.freeze(*arguments)


@task(cache_policy=NO_CACHE)
def train(plan: Plan, processes: int, device: str | None) -> str:
    """The checkpoint's folder, once its training process has ended."""
    report, bar = open_report(), create_progress_artifact(0.0, key="training", description=plan.name)
    report(
        Said(f"training {plan.name} on {plan.samples} samples, followed on {plan.validation_samples}, in {plan.folder}")
    )

    def tell(beat: retraining.Beat) -> None:
        report(Said(f"{beat['stage']} {beat['seen']}/{beat['total']} samples, loss {beat['loss']:.4f}"))
        update_progress_artifact(bar, _SHARE[beat["stage"]] + 50.0 * beat["seen"] / beat["total"])  # type: ignore[arg-type]

    return retraining.train_apart(plan, processes, device, tell)


@task(cache_policy=NO_CACHE)
def enter(plan: Plan, checkpoint: str) -> Version:
    """The candidate is a version in the registry, not in production."""
    return retraining.enter(plan, checkpoint)


@task(cache_policy=NO_CACHE)
def judge(
    plan: Plan, candidate: Version, rules: Rules, members: int, times: int | None, device: str | None
) -> Decision:
    """The gate's decision."""
    return retraining.judge(plan, candidate, rules, members, times, device)


@task(cache_policy=NO_CACHE)
def conclude(plan: Plan, candidate: Version, decision: Decision, reason: Any) -> None:
    """The verdict is kept; a better candidate is in production."""
    retraining.conclude(plan, candidate, decision, reason)


def tell(plan: Plan, candidate: Version, decision: Decision, members: int, times: int | None) -> None:
    """An event for whoever waits for it, and the scores where a person looks."""
    identity = candidate.manifest.identity
    events.model_judged(plan.name, candidate.ref, identity, decision.promote, list(decision.reasons))
    try:
        create_markdown_artifact(retraining.in_words(plan, candidate, decision, members, times), key="retraining")
    except CorrdiffError as error:
        open_report()(Said(f"the verdict is kept, but: {error}", warning=True))
