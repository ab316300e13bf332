"""What Prometheus is told, computed from the archive, the registry and Prefect's server at each look."""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import fmean

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from corrdiff_core.archive.census import Census, Made
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import ConfigurationError, CorrdiffError
from corrdiff_core.registry import Registry, is_reference
from corrdiff_core.sources import as_forecasts, open_source
from flows.due import due, expected
from flows.gauges import Gauges
from flows.outcome import in_words
from flows.settings import Settings
from flows.slots import open_run

CACHE_SECONDS = 60.0  # that an answer is given again, so that scrapes cost the storage nothing
STAGES = ("fetch", "load", "sample", "write")


@dataclass(eq=False)  # a registry keeps it by its identity
class Watch(Collector):
    """Computes the metrics when it is asked, at most every `cache` seconds."""

    settings: Settings
    period: timedelta
    sizes: bool = False
    server: Callable[[timedelta, Gauges], None] | None = None  # fills in what Prefect's server knows
    cache: float = CACHE_SECONDS
    _census: Census = field(init=False)
    _computed: float = field(init=False, default=float("-inf"))
    _families: list[Metric] = field(init=False, default_factory=list)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._census = Census(self.settings.archive)

    def describe(self) -> Iterable[Metric]:
        """Nothing, or registering would compute."""
        return []

    def collect(self) -> list[Metric]:
        with self._lock:
            if time.monotonic() - self._computed >= self.cache:
                self._families = list(self.compute().families())
                self._computed = time.monotonic()
            return self._families

    def compute(self) -> Gauges:
        """All samples; what cannot be reached is a 0 of its own, and one line on stderr that says why."""
        gauges = Gauges()
        gauges.set("corrdiff_census_timestamp_seconds", time.time())
        parts: dict[str, Callable[[Gauges], None]] = {
            "corrdiff_model_up": self._model,
            "corrdiff_archive_up": self._archive,
        }
        if self.server is not None:
            parts["corrdiff_server_up"] = partial(self.server, self.period)
        for name, part in parts.items():
            found = Gauges()
            try:
                part(found)
            except ConfigurationError:
                raise
            except (CorrdiffError, OSError) as error:
                sys.stderr.write(f"{name} 0: {in_words(error)}\n")
                gauges.set(name, 0)
            else:
                gauges.add(found)
                gauges.set(name, 1)
        return gauges

    def _model(self, gauges: Gauges) -> None:
        run = open_run(self.settings)
        gauges.set("corrdiff_model_info", 1, run.manifest.name, run.manifest.identity, _ref(self.settings))

    def _archive(self, gauges: Gauges) -> None:
        operations(gauges, self._census, self.settings, self.period)
        free = self._census.free_bytes()
        if free is not None:
            gauges.set("corrdiff_archive_free_bytes", free)
        for series, (objects, size) in (self._census.sizes() if self.sizes else {}).items():
            gauges.set("corrdiff_series_objects", objects, series.kind, series.source, series.model)
            gauges.set("corrdiff_series_stored_bytes", size, series.kind, series.source, series.model)


def operations(gauges: Gauges, census: Census, settings: Settings, period: timedelta) -> None:
    """What the archive tells of operations: the forecasts of the settings' source, by the settings' clock."""
    source = as_forecasts(open_source(settings.source, settings.source_url, settings.cache))
    now, hours = settings.time.now(), settings.hours
    since = now - period
    lately = census.lately(source.name, since, now + (hours + 1) * HOUR)
    made, there = lately.made, {one.slot.valid_time for one in lately.made}
    wanted = [time for time in expected(source, since, now, hours) if lately.first and time >= lately.first]
    gauges.set("corrdiff_valid_times_due", len(wanted), source.name)
    gauges.set("corrdiff_valid_times_missing", len([time for time in wanted if time not in there]), source.name)
    latest = census.archive.latest(source.name)
    if latest is not None:
        gauges.set("corrdiff_latest_age_seconds", now - settings.time.at(latest.written), source.name)
        gauges.set("corrdiff_latest_init_age_seconds", now - latest.init_time, source.name)
    tell_series(gauges, made, settings, now, since, lambda slot: due(source, slot, hours))


def tell_series(
    gauges: Gauges,
    made: list[Made],
    settings: Settings,
    now: datetime,
    since: datetime,
    due_at: Callable[[Slot], datetime],
) -> None:
    """What the slots of each series tell of the time from `since` to `now`."""
    # A slot that a promoted model makes again is not late: the hour had its forecast.
    there_since = {one.slot: one.published for one in sorted(made, key=lambda one: one.published, reverse=True)}
    for series in sorted({one.series for one in made}, key=lambda series: series.key):
        told = Told([one for one in made if one.series == series], there_since, settings, now, since)
        told.punctuality(gauges, due_at)
        told.work(gauges)


@dataclass(frozen=True)
class Told:
    """What the slots of one series tell; `made` in order of publication.

    `there_since` says when each slot was first published by any model.
    """

    made: list[Made]
    there_since: dict[Slot, datetime]
    settings: Settings
    now: datetime
    since: datetime

    def __post_init__(self) -> None:
        self.made.sort(key=lambda one: one.published)

    @property
    def labels(self) -> tuple[str, str]:
        return self.made[0].series.source, self.made[0].series.model

    def punctuality(self, gauges: Gauges, due_at: Callable[[Slot], datetime]) -> None:
        """How many, how new, how late."""
        clock, newest = self.settings.time, self.made[-1]
        lately = [one for one in self.made if clock.at(one.published) > self.since]
        late = [clock.at(self.there_since[one.slot]) - due_at(one.slot) for one in self.made]
        ahead = max(one.slot.valid_time for one in self.made) - self.now
        gauges.set("corrdiff_slots_published", len(lately), *self.labels)
        gauges.set("corrdiff_slots_fallback", sum(bool(one.provenance.get("fallback")) for one in lately), *self.labels)
        gauges.set("corrdiff_newest_slot_age_seconds", self.now - clock.at(newest.published), *self.labels)
        gauges.set("corrdiff_newest_valid_ahead_seconds", ahead, *self.labels)
        gauges.set("corrdiff_newest_slot_lateness_seconds", late[-1], *self.labels)
        worst = [span for one, span in zip(self.made, late, strict=True) if due_at(one.slot) > self.since]
        if worst:
            gauges.set("corrdiff_worst_slot_lateness_seconds", max(worst), *self.labels)

    def work(self, gauges: Gauges) -> None:
        """How long the newest slots took, a window's number of them, and how large they are."""
        newest = [one.provenance for one in self.made[-self.settings.hours :]]
        spent = [one.get("seconds", {}) for one in newest]
        for stage in STAGES:
            if times := [seconds[stage] for seconds in spent if stage in seconds]:
                gauges.set("corrdiff_stage_seconds", fmean(times), *self.labels, stage)
        sampled = [one for one in newest if one.get("seconds", {}).get("sample")]
        if sampled:
            rate = sum(one["members"] for one in sampled) / sum(one["seconds"]["sample"] for one in sampled)
            gauges.set("corrdiff_sampled_members_per_second", rate, *self.labels)
        if sizes := [one["stored_bytes"] for one in newest if "stored_bytes" in one]:
            gauges.set("corrdiff_slot_stored_bytes", fmean(sizes), *self.labels)


def write_metrics(watch: Watch, path: str) -> None:
    """Into a file that the node exporter's textfile collector reads, whole or not at all. It must end in `.prom`."""
    if not path.endswith(".prom"):
        raise ConfigurationError(f"{path}: the textfile collector reads only names in .prom: name it so")
    if not Path(path).absolute().parent.is_dir():
        raise ConfigurationError(f"{path}: there is no such folder: make it, or name that of the textfile collector")
    write_to_textfile(path, _registry(watch))


def serve_metrics(watch: Watch, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer Prometheus on http://host:port/metrics until the process ends; `ready` is told the address."""
    try:
        server, thread = start_http_server(port, host, _registry(watch))
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served at {host}:{port}: {error}; choose another --port"
        ) from error
    ready(f"http://{host}:{server.server_port}/metrics")
    thread.join()


def _registry(watch: Watch) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(watch)
    return registry


def _ref(settings: Settings) -> str:
    """The model as it is asked for; of a registry, with the version that it is now."""
    if settings.model is None:
        return "demo"
    return Registry(settings.models).find(settings.model).ref if is_reference(settings.model) else settings.model
