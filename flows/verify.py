"""The verification flow: every slot looked at once, beside truth as that arrives; a model that does worse is named."""

from dataclasses import replace
from datetime import timedelta
from functools import reduce
from operator import add
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from corrdiff_core.cycle import parse_duration
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.verify import work
from corrdiff_core.verify.verdict import Rules
from corrdiff_core.verify.work import Done, Job, Todo
from flows import events, verifying
from flows.report import Report, Said, open_report
from flows.settings import Settings, parsed
from flows.tasks import retried
from flows.verifying import Verified

SAID = 3  # slots that are left out and are named one by one


@flow(name="verify")
def verify(
    archive: str | None = None,
    source: str | None = None,
    model: str | None = None,
    truth: str | None = None,
    start: str | None = None,
    end: str | None = None,
    window: str = "1d",
    degraded: int = 3,
    of: int = 5,
    rules: dict[str, Any] | None = None,
    out: str | None = None,
    models: str | None = None,
    cache: str | None = None,
) -> State[Verified]:
    """Verify the published slots with start <= valid_time < end; a parameter left out is the setting of that name.

    Of every model that the archive has of the source, or of `model` alone. `truth` is 2-km truth or a source of
    analyses; without one, inputs, spread and consistency are looked at. The model in use is degraded where a bound is
    broken in `degraded` of the newest `of` windows; `rules` are bounds other than those of `verdict.Rules`.

    Completed, or Degraded by name, with one event; NotYet where nothing is archived yet. Truth that is late is counted,
    and left to a later run. Slots that failed raise SlotError, at the end.
    """
    options = {name: value for name, value in locals().items() if name in Settings.model_fields and name != "model"}
    report, settings = open_report(), Settings.of(**options)
    bounds, length = rules_of({"degraded": degraded, "of": of} | (rules or {})), parsed(parse_duration, window)
    jobs = verifying.open_jobs(settings, model, start, end)
    if not jobs:
        nothing = Verified(f"{settings.archive}, {settings.source}", Done())
        report(Said(nothing.summary, warning=True))
        return Completed(name="NotYet", message=nothing.summary, data=nothing)
    *retired, in_use = jobs
    before = [verify_series(job, length, bounds, report) for job in retired]
    result = verify_series(in_use, length, bounds, report, out, in_use=True)
    result = replace(result, done=reduce(add, (one.done for one in before), result.done))
    tell(in_use, result, report, verifying.replaced_by(settings, model, in_use.series))
    result.raise_failures()
    return Completed(name="Degraded" if result.degraded else "Completed", message=result.summary, data=result)


def verify_series(
    job: Job, length: timedelta, rules: Rules, report: Report, out: str | None = None, in_use: bool = False
) -> Verified:
    """Measure what is new of a series, then judge and draw what there is; where nothing is new, that in use only."""
    if job.statistics is None:
        words = "not the model in use, in no registry and not the demo: z-scores and scales are left out"
        report(Said(f"{job.series.key}: its manifest is not at hand ({words})", warning=True))
    done = reduce(add, (measure(job, todo) for todo in plan(job)), Done())
    for line in done.left_out[:SAID]:
        report(Said(f"left out: {line}", warning=True))
    if not (in_use or done.checked or done.compared):
        return Verified(job.rows.key, done)
    return conclude(job, done, length, rules, out)


def rules_of(given: dict[str, Any]) -> Rules:
    """Rules with those that are given; ConfigurationError for what there is no rule of."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    try:
        return Rules(**values)
    except TypeError as error:
        known = ", ".join(Rules.__dataclass_fields__)
        raise ConfigurationError(f"rules {given}: {error}; there are {known}") from None


@task(**retried(600))
def plan(job: Job) -> list[Todo]:
    """What is new, or has waited for truth, by store of the archive."""
    return work.plan(job)


@task(task_run_name="measure {job.series.key} {todo.begin}", **retried())
def measure(job: Job, todo: Todo) -> Done:
    """The rows of those slots are written."""
    return work.work(job, todo)


@task(cache_policy=NO_CACHE)
def conclude(job: Job, done: Done, length: timedelta, rules: Rules, out: str | None) -> Verified:
    """The verdict on all rows, and their picture."""
    return verifying.conclude(job, done, length, rules, out)


def tell(job: Job, result: Verified, report: Report, replaced_by: str | None) -> None:
    """What a person reads; and, of a degraded model, an event for whoever waits, unless it is replaced by now."""
    report(Said(result.summary, warning=result.degraded))
    for reason in result.verdict.reasons if result.verdict else []:
        report(Said(reason, warning=True))
    if result.windows:
        create_table_artifact([*result.windows], key="verification", description=result.summary)
    if result.picture:
        create_markdown_artifact(f"![verification]({result.picture})\n\n{result.picture}", key="verification-figure")
        report(Said(f"picture: {result.picture}"))
    if result.degraded and replaced_by is not None:
        report(Said(f"{job.series.model} is replaced by {replaced_by}, of which nothing is archived yet: no event"))
    elif result.degraded and result.verdict is not None:
        payload = {
            "series": job.series.key,
            "model": job.series.model,
            "reasons": result.verdict.reasons,
            "numbers": result.verdict.numbers,
        }
        events.skill_degraded(job.series.model.rpartition("-")[0], payload)
