"""Build a dataset in our layout from inputs and truth, and extend it: resumable, and never half a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import numpy as np
from dask.base import compute
from dask.delayed import delayed

from corrdiff_core.cycle import HOUR, compact
from corrdiff_core.dataset.archived import ArchivedInputs, is_archive
from corrdiff_core.dataset.cwa import CwaDataset, CwaTruth
from corrdiff_core.dataset.cwa_store import is_cwa
from corrdiff_core.dataset.gridded import GriddedInputs, GriddedTruth
from corrdiff_core.dataset.index import Entry, Index
from corrdiff_core.dataset.layout import About, Origin, month_of
from corrdiff_core.dataset.origins import FetchedInputs, Fetches, Field, Side, check
from corrdiff_core.dataset.statistics import Moments
from corrdiff_core.dataset.store import Store, StoredSamples
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import TAIWAN, Domain
from corrdiff_core.regrid import EDGE, regridder
from corrdiff_core.variables import INPUT, OUTPUT

TOGETHER = 12  # hours that one Dask task reads, makes and stores; 40 MB of truth
AT_ONCE = 8  # tasks after which the index is written: what a kill can cost

Report = Callable[[str], None]


def build(
    url: str,
    inputs: "Side | Fetches | str",
    truth: Side | str,
    start: datetime,
    end: datetime,
    domain: Domain = TAIWAN,
    skip_holes: bool = False,
    report: Report = lambda line: None,
) -> StoredSamples:
    """Make the samples at `url` with start <= time < end that both sides have and the dataset lacks; all there are.

    `inputs` is an archive's URL, that of files of one's own (`sources.own`), or an object with fetch(slot, box);
    `truth` a Zarr or NetCDF of the outputs on `domain`, or the CWA dataset. The first call makes the dataset, every
    other must bring the same grids and kinds. Killed anywhere and called again, it ends in the same samples, and the
    same digest. Dask reads, on the scheduler in use. Holes raise, or leave out the hour with a line to `report` where
    `skip_holes`.

    Of two writers at once neither harms the other where both have the same data: they store the same bytes, and hours
    that one's index forgot are named again by its check at the end of the month, or by the next call. Where the data
    differ one is refused, and a sample that is not what the index says is refused when it is read.

    Raises DatasetError where the two sides have no hour in common, for another grid or kind than the dataset's, for
    values that are missing or impossible; what the sources raise; ArchiveError for what the storage refuses.
    """
    given, target = open_inputs(inputs, domain), open_truth(truth, domain)
    hours = sorted(set(given.hours(start, end)) & set(target.hours(start, end)))
    store = Store(url)
    about = _claim(store, given, target, hours, domain)
    if about is None:
        raise DatasetError(
            f"{given.url} ({given.kind}) and {target.url} ({target.kind}) share no hour from {start} to {end}: "
            "check the period, and that the files are there"
        )
    for month, times in groupby(hours, month_of):
        _build_month(_Maker(store, about, given, target, skip_holes), month, list(times), report)
    return StoredSamples.open(url)


def extend(
    url: str,
    end: datetime,
    inputs: "Side | Fetches | str | None" = None,
    truth: Side | str | None = None,
    start: datetime | None = None,
    skip_holes: bool = False,
    report: Report = lambda line: None,
) -> StoredSamples:
    """`build` for a dataset that is there: on its domain, from where its data came from unless told otherwise.

    It begins at `start`, the month of the newest sample by default; an end that is reached already adds nothing.
    """
    samples = StoredSamples.open(url)
    about = samples.about
    begin = start or month_of(max(samples.times, default=end - HOUR))
    if end <= begin:
        return samples
    inputs, truth = inputs or about.inputs.url, truth or about.truth.url
    return build(url, inputs, truth, begin, end, samples.domain, skip_holes, report)


def open_inputs(inputs: "Side | Fetches | str", domain: Domain) -> Side:
    """The inputs of `domain` from an archive, files of one's own (`sources.own`), or what fetches them."""
    if isinstance(inputs, str):
        if is_archive(inputs):
            return ArchivedInputs(inputs, domain.inputs)
        return GriddedInputs(inputs, domain.input_box, domain.inputs)
    return inputs if isinstance(inputs, Side) else FetchedInputs(inputs, domain.input_box, domain.inputs)


def open_truth(truth: Side | str, domain: Domain) -> Side:
    """The truth on `domain` from a Zarr or NetCDF of its outputs, or from the CWA dataset."""
    if isinstance(truth, str):
        return CwaTruth(CwaDataset.open(truth, domain)) if is_cwa(truth) else GriddedTruth(truth, domain)
    return truth


def _claim(store: Store, given: Side, target: Side, hours: Sequence[datetime], domain: Domain) -> About | None:
    """What the dataset is, made by its first builder; None where it is not there and no hour has inputs."""
    origins = Origin(given.kind, given.url), Origin(target.kind, target.url)
    stored = store.about()
    if stored is not None:
        return store.claim(About(domain, stored.latitude, stored.longitude, *origins))
    for time in hours:
        field = given.read([time]).get(time)
        if field is not None and field.lines is not None:
            latitude, longitude = (tuple(lines.tolist()) for lines in field.lines)
            return store.claim(About(domain, latitude, longitude, *origins))
    return None


@dataclass(frozen=True)
class _Made:
    """What became of some hours: the samples, and in words why others are none."""

    index: Index
    left_out: list[str]


def _build_month(maker: "_Maker", month: datetime, hours: Sequence[datetime], report: Report) -> None:
    store = maker.store
    there = store.index(month)
    missing = [time for time in hours if time not in there]
    made: Index = {}
    left_out: list[str] = []
    if missing:
        store.create_month(maker.about, month)
    groups = [missing[first : first + TOGETHER] for first in range(0, len(missing), TOGETHER)]
    for first in range(0, len(groups), AT_ONCE):
        tasks = [delayed(maker.make)(group) for group in groups[first : first + AT_ONCE]]
        for part in compute(*tasks):  # type: ignore[no-untyped-call]
            made |= part.index
            left_out += part.left_out
        store.add(month, made)
    there = store.add(month, made) if made else there  # what a writer at the same time may have forgotten
    report(f"{month:%Y-%m}: {len(there)} samples, {len(made)} of them new")
    for line in left_out:
        report(f"left out: {line}")


@dataclass(frozen=True)
class _Maker:
    """Makes samples and stores their arrays; the index is not its business. It can be pickled."""

    store: Store
    about: About
    inputs: Side
    truth: Side
    skip_holes: bool

    def make(self, hours: Sequence[datetime]) -> _Made:
        given, truth = self.inputs.read(hours), self.truth.read(hours)
        made = _Made({}, [])
        for time in hours:
            if time not in given or time not in truth:
                side = self.inputs if time not in given else self.truth
                made.left_out.append(f"{compact(time)}: not there yet in {side.url}")
                continue
            try:
                self._check(time, given[time], truth[time])
            except DatasetError as error:
                if not self.skip_holes:
                    raise
                made.left_out.append(str(error))
                continue
            made.index[time] = self._store(time, given[time], truth[time])
        return made

    def _check(self, time: datetime, inputs: Field, truth: Field) -> None:
        lines, expected = inputs.lines, self.about.lines
        if lines is None or any(
            ours.shape != theirs.shape or np.abs(ours - theirs).max() > EDGE
            for ours, theirs in zip(lines, expected, strict=True)
        ):
            raise DatasetError(
                f"{inputs.origin}: {compact(time)} has inputs on other grid lines than the dataset "
                f"{self.store.url}: build another dataset of them"
            )
        check(f"{inputs.origin}, {compact(time)}", inputs.values, [INPUT[name] for name in self.about.domain.inputs])
        check(f"{truth.origin}, {compact(time)}", truth.values, [OUTPUT[name] for name in self.about.domain.outputs])

    def _store(self, time: datetime, inputs: Field, truth: Field) -> Entry:
        self.store.put(time, inputs.values, truth.values)
        on_domain = regridder(*self.about.lines, self.about.domain)(inputs.values)
        moments = Moments.of(on_domain), Moments.of(truth.values)
        return Entry.of(inputs.values, truth.values, inputs.origin, truth.origin, moments)
