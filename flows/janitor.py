"""The janitor: what nobody needs any more, runs that are dead and hold a place, limits that nobody holds."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import dead
from flows.pruning import prune_series
from flows.report import Report, Said, open_report
from flows.settings import Settings


@flow(name="janitor")
def janitor(
    archive: str | None = None, keep: str | None = None, patience: float = 15.0, dry_run: bool = False
) -> State[dict[str, int]]:
    """Remove forecasts older than `keep`, put dead runs away, free what they held; say all of it.

    Nothing is removed where `keep` is not set. A run is dead that is pending or cancelling for `patience` minutes,
    late by a day, or running without a sign of life for `patience` minutes. Run twice, it does nothing more.
    """
    settings, report = Settings.of(archive=archive, keep=keep), open_report()
    done = {
        "stores removed": retention(settings, dry_run, report),
        "runs put away": put_away(patience, dry_run, report),
        "limits freed": free(dry_run, report),
    }
    message = ", ".join(f"{count} {what}" for what, count in done.items())
    report(Said(f"{message}{' (dry run: nothing was changed)' if dry_run else ''}"))
    return Completed(message=message, data=done)


def retention(settings: Settings, dry_run: bool, report: Report) -> int:
    """How many stores went."""
    if settings.keep is None:
        report(Said("retention: CORRDIFF_KEEP is not set, every forecast stays"))
        return 0
    lines = list(prune_series(settings.archive, settings.keep, settings.time.now(), dry_run=dry_run))
    for line in lines:
        report(Said(line))
    return len(lines) - 1  # the last one sums up


def put_away(patience: float, dry_run: bool, report: Report) -> int:
    """How many dead runs were given a state in which they hold nothing."""
    found = dead.runs(patience)
    for run, why in found:
        report(Said(f"run {run.name}: {why}", warning=True))
        if not dry_run:
            dead.put_away(run, why)
    return len(found)


def free(dry_run: bool, report: Report) -> int:
    """How many limits were given back whose places nobody holds."""
    found = dead.held_by_nobody()
    for limit, places in found:
        report(Said(f"limit {limit}: {places} places are held, by no run", warning=True))
        if not dry_run:
            dead.give_back(limit)
    return len(found)
