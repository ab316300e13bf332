"""What a verification is made of: which series are looked at, what became of their slots, what is said of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from corrdiff_core.archive import Archive, Series
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.store import find_series
from corrdiff_core.cycle import Slot, parse_time
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.manifest import Manifest, read_manifest
from corrdiff_core.registry import Registry
from corrdiff_core.verify.truth import is_analysis
from corrdiff_core.verify.verdict import Rules, Verdict, judge
from corrdiff_core.verify.windows import by_window, history
from corrdiff_core.verify.work import Done, Job
from flows.outcome import TOLD, TRY_AGAIN, SlotError
from flows.settings import Settings, parsed
from flows.slots import DEMO, open_run

SHOWN = 60  # newest windows that are judged and drawn
FIGURE = "verification.png"
NEVER = datetime(1, 1, 1)


@dataclass(frozen=True)
class Verified:
    """A whole run: where, what became of the slots, the verdict on the model in use, its newest windows, the figure."""

    where: str
    done: Done
    verdict: Verdict | None = None
    windows: tuple[dict[str, str], ...] = ()
    picture: str | None = None

    @property
    def degraded(self) -> bool:
        return self.verdict is not None and self.verdict.degraded

    @property
    def exit_code(self) -> int:
        """0, also where slots wait for their truth; 75 where nothing has been archived yet."""
        return 0 if self.verdict is not None else TRY_AGAIN

    @property
    def summary(self) -> str:
        done = self.done
        if self.verdict is None and not done.failed:
            return f"{self.where}: no published slot yet; try again later"
        parts = [f"{self.where}: {done.checked} slots checked"]
        parts += [f"{done.compared} compared with truth"] if done.compared or done.waiting or done.left_out else []
        parts += [f"{done.waiting} wait for truth"] if done.waiting else []
        parts += [f"{len(done.left_out)} left out"] if done.left_out else []
        parts += [f"{len(done.failed)} failed"] if done.failed else []
        return f"{', '.join(parts)}; {'degraded' if self.degraded else 'within all bounds'}"

    def raise_failures(self) -> None:
        """SlotError where a slot failed; names the first few, by reason."""
        reasons: dict[str, list[Slot]] = {}
        for slot, reason in self.done.failed:
            reasons.setdefault(reason, []).append(slot)
        if reasons:
            told = [f"{slots[0]} ({len(slots)} slots): {reason}" for reason, slots in list(reasons.items())[:TOLD]]
            raise SlotError(f"{self.summary}: {'; '.join(told)}")


def open_jobs(settings: Settings, model: str | None, start: str | None, end: str | None) -> list[Job]:
    """A job for each series of the settings' source, or for that of `model`; the one in use is the last.

    `model` is one as archives spell it, or a REF. Empty where nothing has been archived yet. ConfigurationError where
    other sources or models have been, since then the name is wrong.
    """
    objects = open_objects(settings.archive)
    series = find_series(objects, source=settings.source)
    if model is not None:
        identity = model if any(model == one.model for one in series) else _identity(settings, model)
        series = [one for one in series if one.model == identity]
    if not series:
        _refuse_other_names(settings, model)
        return []
    period = [None if time is None else parsed(parse_time, time) for time in (start, end)]
    if None not in period and period[0] >= period[1]:  # type: ignore[operator]
        raise ConfigurationError(f"{start} to {end} is no period: end later, the end is left out")
    return [_job(settings, one, period) for one in _by_use(settings, series)]


def _identity(settings: Settings, model: str) -> str:
    return open_run(settings.model_copy(update={"model": model})).manifest.identity


def _refuse_other_names(settings: Settings, model: str | None) -> None:
    found = find_series(open_objects(settings.archive))
    if found:
        listed = ", ".join(f"{one.source} {one.model}" for one in found)
        raise ConfigurationError(
            f"{settings.archive} has nothing of source {settings.source}, model {model or 'any'}; it has {listed}:"
            " choose one of them with --source and --model"
        )


def _by_use(settings: Settings, series: Sequence[Series]) -> list[Series]:
    """The one in use last: that of the settings' model, else the one whose newest slot was published last."""
    archive = Archive(settings.archive)
    named = None if settings.model is None else open_run(settings).manifest.identity

    def used(one: Series) -> tuple[bool, datetime]:
        for begin in reversed(archive.stores(one)):
            slots = archive.published(one, begin)
            if slots:
                return one.model == named, archive.published_at(one, max(slots)) or NEVER
        return False, NEVER

    return sorted(series, key=used)


def replaced_by(settings: Settings, model: str | None, series: Series) -> str | None:
    """The model that hourly runs use in place of that of `series`; None where it is that one, or is asked for."""
    if model is not None or settings.model is None:
        return None
    identity = open_run(settings).manifest.identity
    return None if identity == series.model else identity


def _job(settings: Settings, series: Series, period: Sequence[datetime | None]) -> Job:
    truth, manifest = settings.truth, manifest_of(settings, series.model)
    url = Settings.of(source=truth).source_url if truth is not None and is_analysis(truth) else None
    return Job(
        archive=settings.archive,
        series=series,
        now=settings.time.now(),
        start=period[0],
        end=period[1],
        truth=truth,
        truth_url=url,
        cache=settings.cache,
        statistics=None if manifest is None else manifest.input_statistics,
    )


def manifest_of(settings: Settings, identity: str) -> Manifest | None:
    """The manifest of a model as archives spell it: the settings' model, a version of its name, or the demo's.

    None where none of these is it: then its inputs' statistics are not at hand.
    """
    name = identity.rpartition("-")[0]
    registry = Registry(settings.models)
    if settings.model is not None and (found := open_run(settings).manifest).identity == identity:
        return found
    versions = registry.versions(name) if name in registry.names() else []
    known = (*(version.manifest for version in reversed(versions)), read_manifest(DEMO))
    return next((manifest for manifest in known if manifest.identity == identity), None)


def conclude(job: Job, done: Done, length: timedelta, rules: Rules, out: str | None) -> Verified:
    """The verdict on a series and its picture, which lies beside its months, and at `out` where that is named."""
    rows = job.rows
    found = history(rows, length, rules.reference, SHOWN)
    if found is None:
        return Verified(rows.key, done)
    from corrdiff_core.verify.panel import Shown, draw

    windows = by_window(found, length, job.statistics)
    verdict = judge(windows, rules)
    truth = f"truth {job.truth}" if job.truth else "no truth named"
    data = draw(Shown(job.series, found, windows, length, rules, verdict, truth))
    picture = rows.put(FIGURE, data)
    if out is not None:
        folder, _, name = out.rpartition("/")
        open_objects(folder or ".").put(name, data)
    return Verified(rows.key, done, verdict, tuple(table(windows, verdict, rules.of)), out or picture)


def table(windows: Any, verdict: Verdict, newest: int) -> list[dict[str, str]]:
    """The newest windows in words, newest first."""
    rows = []
    for start in windows.window.values[::-1][:newest]:
        one, time = windows.sel(window=start), start.astype("datetime64[us]").item()
        drift = abs(one.z_mean)
        broken = [f"{finding.name} {finding.rule.replace('_', ' ')}" for finding in verdict.broken.get(time, [])]
        rows.append(
            {
                "window": f"{time:%Y-%m-%dT%H}Z",
                "slots": str(int(one.checked)),
                "scored": str(int(one.scored)),
                "CRPS / interpolated": _each(one.crps_ratio),
                "spread / skill": _each(one.spread_skill),
                "largest z": "" if drift.isnull().all() else _largest(one.z_mean),
                "broken": ", ".join(broken),
            }
        )
    return rows


def _each(values: Any) -> str:
    """Those that are known, by name."""
    pairs = zip(values[values.dims[0]].values, values.values, strict=True)
    return ", ".join(f"{name} {value:.2f}" for name, value in pairs if np.isfinite(value))


def _largest(z: Any) -> str:
    at = int(np.argmax(np.nan_to_num(np.abs(z.values), nan=-1)))
    return f"{z.channel.values[at]} {float(z[at]):+.1f}"
