"""Samples in our training layout, on any fsspec URL: read, and written month by month."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from corrdiff_core.archive.objects import Objects, open_objects
from corrdiff_core.cycle import compact
from corrdiff_core.dataset.index import Entry, Index, content_digest, index_from_json, index_to_json
from corrdiff_core.dataset.layout import (
    ABOUT,
    FIELDS,
    ZARR,
    About,
    chunk_key,
    decode,
    encode,
    month_name,
    month_objects,
)
from corrdiff_core.dataset.samples import Float32, Sample, digest_of, refuse_holes, span
from corrdiff_core.dataset.statistics import Pair
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Domain
from corrdiff_core.regrid import regridder

_CONCURRENT_OBJECTS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class Store:
    """The objects of one dataset. It can be pickled, and used in a process that was forked."""

    def __init__(self, url: str) -> None:
        self._opened = (os.getpid(), open_objects(url))
        self._documents: dict[str, bytes] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]

    @property
    def url(self) -> str:
        return self._opened[1].url

    @property
    def _objects(self) -> Objects:
        process, objects = self._opened
        if process != os.getpid():
            objects = open_objects(objects.url)
            self._opened = (os.getpid(), objects)
        return objects

    # What the dataset is

    def about(self) -> About | None:
        """dataset.json, None where there is no dataset."""
        data = self._objects.get(ABOUT)
        return None if data is None else About.from_json(data, f"{self.url}/{ABOUT}")

    def claim(self, about: About) -> About:
        """Make the dataset, unless it is there; DatasetError where it is there with other grids or other origins."""
        if self._objects.create(ABOUT, about.to_json()):
            return about
        stored = self.about()
        if stored is None:
            raise DatasetError(f"{self.url}/{ABOUT} was removed while this ran: build again")
        for name, ours, theirs in (
            ("domain", about.domain, stored.domain),
            ("latitude of the inputs", about.latitude, stored.latitude),
            ("longitude of the inputs", about.longitude, stored.longitude),
            ("inputs", about.inputs.kind, stored.inputs.kind),
            ("truth", about.truth.kind, stored.truth.kind),
        ):
            if ours != theirs:
                raise DatasetError(
                    f"{self.url}: {name}: the dataset has {theirs}, given is {ours}: build another dataset of them"
                )
        return stored

    # Its months

    def months(self) -> list[datetime]:
        """Months that have samples, ascending; one listing."""
        names = self._objects.names("")
        return [datetime.strptime(name, "%Y%m.json") for name in names if re.fullmatch(r"\d{6}\.json", name)]

    def index(self, month: datetime) -> Index:
        """The samples of a month; empty where there are none."""
        key = f"{month_name(month)}.json"
        data = self._objects.get(key)
        return {} if data is None else index_from_json(data, f"{self.url}/{key}")

    def index_all(self) -> Index:
        """The samples of all months, in the order of time."""
        merged: Index = {}
        for index in each(self.index, self.months()):
            merged.update(index)
        return dict(sorted(merged.items()))

    def create_month(self, about: About, month: datetime) -> None:
        """Make the arrays of a month, unless they are there."""
        name = f"{month_name(month)}.zarr"
        if self._objects.exists(f"{name}/{ZARR}"):
            return
        objects = month_objects(about, month)
        root = objects.pop(ZARR)
        each(lambda key: self._objects.put(f"{name}/{key}", objects[key]), objects)
        self._objects.put(f"{name}/{ZARR}", root)

    def add(self, month: datetime, index: Index) -> Index:
        """Name more samples of a month, whose arrays are stored; returns all that the index names.

        The index is one object, replaced whole. What another writer has named meanwhile stays named; DatasetError where
        that is an hour of ours with other data.
        """
        there = self.index(month)
        for time in sorted(there.keys() & index.keys()):
            if there[time].sha256 != index[time].sha256:
                raise DatasetError(
                    f"{self.url}: {compact(time)} was stored by another writer at the same time, with other data: let"
                    f" one source build a dataset, and delete {month_name(month)}.json to build the month anew"
                )
        if index.keys() - there.keys():
            there = {**index, **there}
            self._objects.put(f"{month_name(month)}.json", index_to_json(there))
        return there

    # Its fields

    def put(self, time: datetime, inputs: Float32, truth: Float32) -> None:
        """Store the arrays of a sample: inputs (input, latitude, longitude) and truth (output, y, x)."""
        for field, values in zip(FIELDS, (inputs, truth), strict=True):
            self._objects.put(chunk_key(field, time), encode(self._document(field, time), values))

    def get(self, time: datetime) -> tuple[Float32, Float32]:
        """What `put` stored; DatasetError where it is gone or damaged."""
        inputs, truth = (self._field(field, time) for field in FIELDS)
        return inputs, truth

    def _field(self, field: str, time: datetime) -> Float32:
        key = chunk_key(field, time)
        chunk = self._objects.get(key)
        if chunk is None:
            raise DatasetError(f"{self.url}/{key}, {field} of {compact(time)}, is gone: {self.cure(time)}")
        try:
            return decode(self._document(field, time), chunk)
        except (ValueError, RuntimeError) as error:
            raise DatasetError(f"{self.url}/{key} is damaged ({error}): {self.cure(time)}") from error

    def cure(self, time: datetime) -> str:
        return f"delete {self.url}/{month_name(time)}.json and build the month anew"

    def _document(self, field: str, time: datetime) -> bytes:
        key = f"{month_name(time)}.zarr/{field}/{ZARR}"
        if key not in self._documents:
            document = self._objects.get(key)
            if document is None:
                raise DatasetError(f"{self.url}/{key} is gone: {self.cure(time)}")
            self._documents[key] = document
        return self._documents[key]


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """The samples of one dataset in our layout, in the order of time; what was there when it was opened.

    Every sample is read with two requests and is refused unless it is, to the bit, the one that the index names.
    """

    store: Store
    about: About
    index: Mapping[datetime, Entry]

    @classmethod
    def open(cls, url: str) -> "StoredSamples":
        """DatasetError where there is no dataset at `url`, or one that is not whole."""
        store = Store(url)
        about = store.about()
        if about is None:
            raise DatasetError(f"{store.url} has no {ABOUT}: there is no dataset; build it with corrdiff dataset build")
        return cls(store, about, store.index_all())

    @property
    def domain(self) -> Domain:
        return self.about.domain

    @cached_property
    def times(self) -> Sequence[datetime]:
        return tuple(self.index)

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: int) -> Sample:
        time = self.times[index]
        inputs, truth = self.store.get(time)
        where = f"{self.store.url}, {compact(time)}"
        found, named = content_digest(inputs, truth), self.index[time].sha256
        if found != named:
            refuse_holes(where, inputs, self.domain.inputs)
            refuse_holes(where, truth, self.domain.outputs)
            raise DatasetError(
                f"{where}: its arrays have SHA-256 {found[:12]}, the index names {named[:12]}: {self.store.cure(time)}"
            )
        return Sample(time, regridder(*self.about.lines, self.domain)(inputs), truth)

    def moments(self, index: int) -> Pair:
        """Those of the inputs on the domain, and of the truth, from the index alone."""
        rows, columns = self.domain.shape
        return self.index[self.times[index]].moments(rows * columns, len(self.domain.inputs))

    def select(self, start: datetime, end: datetime) -> "StoredSamples":
        chosen = {time: entry for time, entry in self.index.items() if start <= time < end}
        return StoredSamples(self.store, self.about, chosen)

    @cached_property
    def digest(self) -> str:
        """Of grids, variables, and the time and the SHA-256 of every sample."""
        samples = [[compact(time), entry.sha256] for time, entry in self.index.items()]
        return digest_of({**self.about.grids, "samples": samples})

    @property
    def description(self) -> str:
        kinds = f"inputs {self.about.inputs.kind}, truth {self.about.truth.kind}"
        return f"{span(self.times)} on {self.domain.name}, {kinds}"


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, several at a time, in order."""
    with ThreadPoolExecutor(_CONCURRENT_OBJECTS) as pool:
        return list(pool.map(function, items))
