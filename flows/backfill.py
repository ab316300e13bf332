"""The backfill flow: a period's missing slots, planned from the archive; failures tried again, and named at the end."""

import time
from datetime import datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from corrdiff_core.cycle import Slot, parse_duration, parse_leads, parse_time
from corrdiff_core.errors import ConfigurationError
from flows.background import threads
from flows.estimate import estimate
from flows.limits import background
from flows.outcome import NOT_TRIED, Backfilled, Outcome
from flows.planning import Plan, asked, first_slot, plan
from flows.production import produce
from flows.report import Event, Report, Said, open_report
from flows.retries import jittered
from flows.settings import Settings, parsed
from flows.slots import DEMO, DEMO_WARNING, Run, open_run

SAID = 3  # slots in a row that are not there yet and are named one by one
PAUSE_SECONDS = 10.0  # before failed slots are tried again; three times as long before the next time


@flow(name="backfill")
def backfill(
    source: str,
    start: str | None = None,
    end: str | None = None,
    every: str = "1h",
    leads: str | None = None,
    members: int | None = None,
    model: str | None = None,
    models: str | None = None,
    archive: str | None = None,
    cache: str | None = None,
    seed: int | None = None,
    steps: int | None = None,
    solver: str | None = None,
    source_url: str | None = None,
    batch: int | None = None,
    device: str | None = None,
    dask: str | None = None,
    ahead: int | None = None,
    dry_run: bool = False,
    overwrite: str | None = None,
    tries: int = 3,
) -> State[Backfilled]:
    """Make the slots of [start, end) that are missing; a parameter left out is the setting of that name.

    Without `start` from the first slot that the archive has of this source and model, without `end` up to the newest
    that the source has. Slots made of preliminary inputs are made again once final ones are there; all of them where
    `overwrite` says why. `dry_run` says what would be done, and what it would take. Run again, it goes on.

    Completed: every slot is there, or NotYet by name. Slots that failed `tries` times raise SlotError, at the end.
    """
    options = {name: value for name, value in locals().items() if name in Settings.model_fields}
    report, run = open_report(), open_run(Settings.of(**options))
    period = _period(run, start, end)
    wanted = plan_of(run, period, every, leads, overwrite)
    if dry_run:
        report(Said(str(estimate(run, wanted))))
        return Completed(name="DryRun", data=Backfilled(len(wanted.slots), wanted.there, (), run.series.key))
    if run.model == DEMO:
        report(Said(f"model {run.manifest.identity} {DEMO_WARNING}", warning=True))
    result = Backfilled(len(wanted.slots), wanted.there, tuple(make_all(run, wanted, report, tries)), run.series.key)
    report(result)
    result.raise_failures()
    return Completed(name="NotYet" if result.exit_code else "Completed", message=result.summary, data=result)


def plan_of(
    run: Run, period: tuple[datetime, datetime | None], every: str, leads: str | None, overwrite: str | None
) -> Plan:
    """What is to be made. ConfigurationError where the period, the leads or the reason make no sense."""
    if overwrite is not None and not overwrite.strip():
        raise ConfigurationError("overwrite: an empty reason; say why published slots are to be made again")
    source = run.source()
    lead_times = None if leads is None else parsed(parse_leads, leads)
    slots = asked(source, *period, parsed(parse_duration, every), lead_times)
    return plan(run.archive(), run.series, source, slots, overwrite)


def make_all(run: Run, wanted: Plan, report: Report, tries: int) -> list[Outcome]:
    """What became of every slot that was to be made, in their order, failures tried again."""
    outcomes: dict[Slot, Outcome] = {}
    todo, pause = list(wanted.todo), PAUSE_SECONDS
    for turn in range(tries):
        what = run.series.key if not turn else f"{run.series.key}, try {turn + 1} of {tries}"
        with threads(run, wanted.redo) as stages:
            made = produce(todo, what, briefly(report), stages, background())
        outcomes |= {outcome.slot: outcome for outcome in made}
        todo = [outcome.slot for outcome in made if outcome.status == "failed"]
        if not todo:
            break
        if turn + 1 < tries:
            report(Said(f"{len(todo)} slots failed and are tried again in about {pause:.0f} s", warning=True))
            time.sleep(jittered(pause))
            pause *= 3
    return sorted(outcomes.values(), key=lambda outcome: outcome.slot)


def briefly(report: Report) -> Report:
    """`report`, which is not told of every slot that is not there yet or was not tried: the summary counts them."""
    in_a_row = 0

    def tell(event: Event) -> None:
        nonlocal in_a_row
        left = isinstance(event, Outcome) and (event.status == "not there yet" or event.detail.startswith(NOT_TRIED))
        in_a_row = in_a_row + 1 if left else 0
        if in_a_row <= SAID:
            report(event)

    return tell


def _period(run: Run, start: str | None, end: str | None) -> tuple[datetime, datetime | None]:
    first = first_slot(run.archive(), run.series) if start is None else parsed(parse_time, start)
    return first, None if end is None else parsed(parse_time, end)
