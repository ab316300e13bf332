"""The hourly flow: the window's missing slots, from the newest weather into the archive; then older hours missed."""

import random
import time
from datetime import datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from corrdiff_core.cycle import as_utc, floor_hour, parse_leads, parse_time
from corrdiff_core.errors import ConfigurationError, CorrdiffError
from flows.outcome import Outcome, Result, in_words
from flows.production import RUNNER, make
from flows.report import Report, Said, open_report
from flows.settings import Settings, parsed
from flows.slots import DEMO, DEMO_WARNING, Run, open_run
from flows.tasks import draw, find_holes, find_published, find_window, update_latest
from flows.window import Window, first_window, forced_window, missing

POLL_SECONDS = 30.0


@flow(name="hourly", task_runner=RUNNER)  # type: ignore[arg-type]  # Prefect wants it of its base future
def hourly(
    at: str = "now",
    init: str | None = None,
    leads: str | None = None,
    source: str | None = None,
    hours: int | None = None,
    members: int | None = None,
    model: str | None = None,
    models: str | None = None,
    archive: str | None = None,
    seed: int | None = None,
    steps: int | None = None,
    solver: str | None = None,
    wait: float | None = None,
    fallback: bool | None = None,
    source_url: str | None = None,
    batch: int | None = None,
    device: str | None = None,
    dask: str | None = None,
) -> State[Result]:
    """Make the slots of the window that are missing; a parameter left out is the setting of that name.

    The window is `hours` valid times from `at` on, from the newest cycle that is there; `init` forces the cycle,
    `leads` picks its leads. Completed: every slot is there, or NotYet by name. Failures raise SlotError, at the end.
    """
    options = {name: value for name, value in locals().items() if name in Settings.model_fields}
    report, run = open_report(), open_run(Settings.of(**options))
    start = floor_hour(nominal_now(run)) if at == "now" else parsed(parse_time, at)
    if run.model == DEMO:
        report(Said(f"model {run.manifest.identity} {DEMO_WARNING}", warning=True))
    window = newest(run, start, report) if init is None and leads is None else forced(run, at, init, leads)
    published = find_published(run, window)
    todo = missing(window, published)
    made = make(run, todo, f"window of {window.cycle}", report, window.late if window.fallback else None)
    there = [Outcome(slot, "already there") for slot in window.slots if slot in published]
    outcomes = sorted(there + made, key=lambda outcome: outcome.slot)
    picture = present(run, window, outcomes, report)
    healed = heal(run, start, report) if init is None else []
    result = Result(window, tuple(outcomes), run.store_url(window.slots[0]), picture, tuple(healed))
    report(result)
    result.raise_failures()
    return Completed(name="NotYet" if result.exit_code else "Completed", message=result.summary, data=result)


def nominal_now(run: Run) -> datetime:
    """The time of this run: the wall clock's, or that of its schedule by the clock that replays the past."""
    if run.settings.clock is None:
        return run.settings.time.now()
    return run.settings.time.at(as_utc(flow_run.scheduled_start_time))


def forced(run: Run, at: str, init: str | None, leads: str | None) -> Window:
    """The cycle and the leads that were asked for; its steps in the first `hours` hours where none were."""
    if init is None:
        raise ConfigurationError(f"leads {leads} of which cycle? name it by init, or leave leads out")
    if at != "now":
        raise ConfigurationError(f"at {at} and init {init} exclude each other: give one")
    source, init_time = run.forecasts(), parsed(parse_time, init)
    if leads is None:
        return first_window(source, init_time, run.settings.hours)
    return forced_window(source, init_time, parsed(parse_leads, leads))


def newest(run: Run, start: datetime, report: Report) -> Window:
    """The window from `start` on, once it is whole or the wait is over."""
    deadline = time.monotonic() + 60 * run.settings.wait
    window = find_window(run, start)
    while window.late and time.monotonic() < deadline:
        report(Said(f"{window.late}: waiting"))
        time.sleep(min(POLL_SECONDS * random.uniform(0.7, 1.3), max(deadline - time.monotonic(), 0.0)))  # noqa: S311
        window = find_window(run, start)
    if window.fallback:
        report(Said(f"{window.late}: {window.cycle} stands in for the whole window", warning=True))
    elif window.late:
        report(Said(f"{window.late}: making what is there", warning=True))
    return window


def present(run: Run, window: Window, outcomes: list[Outcome], report: Report) -> str | None:
    """Name a whole window the latest and draw the first slot that was made; where the picture is."""
    try:
        if all(outcome.good for outcome in outcomes):
            update_latest(run, window)
        made = [outcome.slot for outcome in outcomes if outcome.status == "published"]
        return draw(run, made[0]) if made else None
    except (CorrdiffError, OSError) as error:
        report(Said(f"the slots are published, but: {in_words(error)}", warning=True))
        return None


def heal(run: Run, start: datetime, report: Report) -> list[Outcome]:
    """Make the hours of the last day that were missed. What goes wrong here is a warning."""
    try:
        return make(run, find_holes(run, start), "hours missed before", report)
    except (CorrdiffError, OSError) as error:
        report(Said(f"missed hours are left: {in_words(error)}", warning=True))
        return []
