"""Which slots are to be looked at, and the looking: each once, again if made again, beside truth once that is there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from corrdiff_core import __version__
from corrdiff_core.archive import Archive, Series
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.store import open_store
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ArchiveError, ConfigurationError, CorrdiffError
from corrdiff_core.grid import Box, Domain
from corrdiff_core.normalization import Statistics
from corrdiff_core.sources.source import HindcastSource, NotYet
from corrdiff_core.verify.layout import ANALYZED, CHECKED, SCORED, Layout, month_at
from corrdiff_core.verify.measures import Archived, Row, analyzed, checked, scored
from corrdiff_core.verify.store import Rows
from corrdiff_core.verify.truth import HoleError, Truth, fetch_analysis, is_analysis, open_analyses

Measures = Callable[[Archived], Row]

USUAL_CYCLE_HOURS = 6  # between cycles of every source of forecasts; an archive that has others gets hourly rows


@dataclass(frozen=True)
class Job:
    """What is verified: a series of an archive, its slots with start <= valid_time < end, None for no bound.

    `truth` as `truth.is_analysis` and `Truth.open` take it, None for none; `truth_url` and `cache` are of a source of
    analyses. Truth of valid times after `now` is not there yet. `statistics` are those of the model's inputs, None
    where its manifest is not at hand. Plain values; passed between tasks.
    """

    archive: str
    series: Series
    now: datetime
    start: datetime | None = None
    end: datetime | None = None
    truth: str | None = None
    truth_url: str | None = None
    cache: str | None = None
    statistics: Statistics | None = None

    @property
    def rows(self) -> Rows:
        return Rows(self.archive, self.series)

    @property
    def stage(self) -> str | None:
        """What a truth is for."""
        return None if self.truth is None else ANALYZED if is_analysis(self.truth) else SCORED

    def asks_for(self, slot: Slot) -> bool:
        return (self.start is None or slot.valid_time >= self.start) and (
            self.end is None or slot.valid_time < self.end
        )


@dataclass(frozen=True)
class Todo:
    """What is to be done in one store of the archive, which begins at `begin`; `waiting` slots have no truth yet."""

    begin: datetime
    check: tuple[Slot, ...]
    compare: tuple[Slot, ...]
    waiting: int = 0


@dataclass(frozen=True)
class Done:
    """What became of a Todo: how many slots were checked, how many compared with truth, how many still wait for it.

    `left_out` says of which slots the truth has holes, `failed` which could not be read or compared, in words.
    """

    checked: int = 0
    compared: int = 0
    waiting: int = 0
    left_out: tuple[str, ...] = ()
    failed: tuple[tuple[Slot, str], ...] = ()

    def __add__(self, other: "Done") -> "Done":
        return Done(
            self.checked + other.checked,
            self.compared + other.compared,
            self.waiting + other.waiting,
            self.left_out + other.left_out,
            self.failed + other.failed,
        )


def plan(job: Job) -> list[Todo]:
    """What is to be done, store by store, ascending; those with nothing to do or to wait for are left out.

    A few listings for each store. A slot that was made again since its row was written is measured again.
    """
    archive, rows = Archive(job.archive), job.rows
    return [todo for begin in archive.stores(job.series) if (todo := _todo(job, archive, rows, begin)) is not None]


def _todo(job: Job, archive: Archive, rows: Rows, begin: datetime) -> Todo | None:
    wanted = set(filter(job.asks_for, archive.published(job.series, begin)))
    if not wanted:
        return None
    remade = archive.replaced(job.series, begin) & wanted

    def missing(stage: str) -> set[Slot]:
        there = rows.marked(stage, begin) & wanted
        return wanted - {slot for slot in there if slot not in remade or not _stale(archive, rows, stage, slot)}

    late = set() if job.stage is None else missing(job.stage)
    due = {slot for slot in late if slot.valid_time <= job.now}
    todo = Todo(begin, tuple(sorted(missing(CHECKED))), tuple(sorted(due)), len(late - due))
    return todo if todo.check or todo.compare or todo.waiting else None


def _stale(archive: Archive, rows: Rows, stage: str, slot: Slot) -> bool:
    published = archive.published_at(rows.series, slot)
    return published is not None and published >= rows.written(stage, slot)


def work(job: Job, todo: Todo) -> Done:
    """Do it, slot by slot; one that fails does not stop the others. Killed anywhere, the next plan goes on.

    OSError where the storage or the source of analyses is away.
    """
    worker, done = _Worker(job, todo), Done(waiting=todo.waiting)
    for slot in sorted({*todo.check, *todo.compare}):
        try:
            for part in worker.measure(slot):
                done += part
        except CorrdiffError as error:
            done += Done(failed=((slot, " ".join(str(error).split())),))
    return done


class _Worker:
    """Opens what it needs once it needs it."""

    def __init__(self, job: Job, todo: Todo) -> None:
        self._job, self._todo, self._archive = job, todo, Archive(job.archive)
        self._late = False  # whether the source of analyses has said that it has no more yet

    def measure(self, slot: Slot) -> Iterator[Done]:
        """Truth is asked for before the slot is read a second time, which costs more."""
        given = None
        if slot in self._todo.check:
            given = self._read(slot)
            self._rows.write(CHECKED, slot, checked(given), None)
            yield Done(checked=1)
        if slot not in self._todo.compare:
            return
        try:
            beside = self._two_km(slot) if self._job.stage == SCORED else self._analysis(slot)
        except HoleError as error:
            yield Done(left_out=(str(error),))
            return
        if beside is None:
            yield Done(waiting=1)
            return
        measures, origin = beside
        self._rows.write(str(self._job.stage), slot, measures(given or self._read(slot)), _told(origin))
        yield Done(compared=1)

    def _read(self, slot: Slot) -> Archived:
        ensemble = self._archive.read(self._job.series, slot)
        inputs, _ = self._archive.read_inputs(self._job.series, slot)
        return Archived.of(slot, self._domain, self._layout.variables, ensemble, inputs)

    def _two_km(self, slot: Slot) -> tuple[Measures, str] | None:
        if self._layout.members < 2:
            raise ConfigurationError(f"{slot} has 1 member, a fair CRPS needs 2: leave out --truth")
        found = self._truth.read(slot.valid_time)
        if found is None:
            return None
        truth, origin = found
        order = [self._domain.outputs.index(name) for name in self._layout.variables]
        return lambda given: scored(given, truth[order]), origin

    def _analysis(self, slot: Slot) -> tuple[Measures, str] | None:
        if self._late:
            return None
        found = fetch_analysis(self._analyses, slot.valid_time, self._box)
        if isinstance(found, NotYet):
            self._late = True
            return None
        analysis, origin = found
        return lambda given: analyzed(given, analysis), origin

    @cached_property
    def _truth(self) -> Truth:
        return Truth.open(str(self._job.truth), self._domain)

    @cached_property
    def _analyses(self) -> HindcastSource:
        return open_analyses(str(self._job.truth), self._job.truth_url, self._job.cache, self._layout.channels)

    @cached_property
    def _stored(self) -> dict[str, Any]:
        """The layout of the archive's store."""
        series, begin = self._job.series, self._todo.begin
        store = open_store(open_objects(self._job.archive), series, begin)
        if store is None:
            raise ArchiveError(f"{self._job.archive}/{series.store_key(begin)} was removed meanwhile: run it again")
        return store.layout

    @cached_property
    def _box(self) -> Box:
        """That of the inputs' lines."""
        latitude, longitude = self._stored["input_latitude"], self._stored["input_longitude"]
        return Box(latitude[0], latitude[-1], longitude[0], longitude[-1])

    @cached_property
    def _domain(self) -> Domain:
        return Domain.from_dict(self._stored["domain"])

    @cached_property
    def _layout(self) -> Layout:
        stored, forecast = self._stored, self._job.series.kind == "forecast"
        begins = self._archive.stores(self._job.series) if forecast else []
        usual = all(begin.hour % USUAL_CYCLE_HOURS == 0 for begin in begins)
        return Layout(
            variables=tuple(stored["outputs"]),
            channels=tuple(stored["inputs"]),
            members=stored["members"],
            domain=self._domain.name,
            cycle_hours=(USUAL_CYCLE_HOURS if usual else 1) if forecast else 0,
            lead_hours=tuple(stored["lead_hours"]),
        )

    @cached_property
    def _rows(self) -> Rows:
        """With room for the slots of this store."""
        rows, month = self._job.rows, month_at(self._todo.begin)
        rows.create(month, self._layout)
        if self._job.statistics is not None:
            rows.keep_statistics(month, self._job.statistics)
        return rows


def _told(origin: str) -> dict[str, str]:
    return {"truth": origin, "version": __version__}
