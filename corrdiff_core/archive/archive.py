"""The archive: ensembles and their inputs as plain Zarr stores, written slot by slot, published slot by slot."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, TypeVar

import xarray as xr

from corrdiff_core.archive.checks import check_fields
from corrdiff_core.archive.latest import Latest
from corrdiff_core.archive.layout import Layout, Series, brief, differences
from corrdiff_core.archive.objects import Objects, open_objects
from corrdiff_core.archive.store import (
    LAYOUT,
    OUTPUTS_GROUP,
    PRELIMINARY,
    REPLACED,
    Store,
    find_series,
    marked,
    open_store,
    read_json,
    reason_digest,
    store_starts,
)
from corrdiff_core.archive.template import INPUT_MARKER, INPUTS_GROUP, OUTPUT_MARKER, ROOT, build, epoch_seconds
from corrdiff_core.cycle import HOUR, Slot, parse_time, utc_now
from corrdiff_core.errors import ArchiveError

_CONCURRENT_OBJECTS = 8
_EPOCH, _SECOND = datetime(1970, 1, 1), timedelta(seconds=1)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Archive:
    """Stores under one fsspec URL, a local directory or an object store.

    What is written is idempotent: the same slot written twice, by two writers, or again after a kill, ends in the same
    bytes (the time of publication and provenance apart). The order is `create`, `write_inputs`, `write`, `publish`;
    a slot is there for readers from the moment `publish` returns, and not before. Whatever does not fit, is missing or
    cannot be written is an ArchiveError that names the object and both sides.
    """

    def __init__(self, url: str) -> None:
        self._opened = (os.getpid(), open_objects(str(url)))
        self._stores: dict[str, Store] = {}

    @property
    def _objects(self) -> Objects:
        """Of this process: a filesystem with an event loop does not survive a fork."""
        process, objects = self._opened
        if process != os.getpid():
            objects = open_objects(objects.url)
            self._opened = (os.getpid(), objects)
        return objects

    @property
    def url(self) -> str:
        return self._objects.url

    def store_url(self, series: Series, slot: Slot) -> str:
        """Where plain `xr.open_zarr` finds the store that holds `slot`."""
        return self._url(series.store_key(series.start(slot)))

    def _url(self, key: str) -> str:
        return f"{self.url}/{key}"

    # Creation

    def create(self, series: Series, slot: Slot, layout: Layout) -> None:
        """Make the store that holds `slot`, unless it is there; ArchiveError where it is there with another layout.

        The layout is claimed first, so of two creators that disagree one is refused; the root metadata come last, so a
        store is there if and only if they are, and a creation that was cut off is finished by the next.
        """
        start = series.start(slot)
        if slot not in series.slots(start, layout.lead_times):
            raise ArchiveError(
                f"{self.store_url(series, slot)} would have no room for {slot}:"
                f" its lead times would be {brief(layout.to_dict()['lead_hours'])} h"
            )
        key = series.store_key(start)
        self._claim(key, layout)
        if not self._objects.exists(f"{key}/{ROOT}"):
            objects = build(series, start, layout)
            root = objects.pop(ROOT)
            put = self._objects.put
            _each(lambda name: put(f"{key}/{name}", objects[name]), objects)
            put(f"{key}/{ROOT}", root)
        self._stores.pop(key, None)
        self._find(series, start)

    def _claim(self, key: str, layout: Layout) -> None:
        claim = json.dumps(layout.to_dict(), indent=1).encode()
        if self._objects.create(f"{key}/{LAYOUT}", claim):
            return
        problems = differences(self._json(f"{key}/{LAYOUT}"), json.loads(claim))
        if problems:
            raise ArchiveError(
                f"{self._url(key)}: {'; '.join(problems)}; a store keeps its creator's layout:"
                f" ask for that, or delete the store, or use another archive"
            )

    def _find(self, series: Series, start: datetime) -> Store | None:
        key = series.store_key(start)
        if key not in self._stores:
            store = open_store(self._objects, series, start)
            if store is None:
                return None
            self._stores[key] = store
        return self._stores[key]

    def _store(self, series: Series, slot: Slot) -> Store:
        store = self._find(series, series.start(slot))
        if store is None:
            raise ArchiveError(f"there is no store at {self.store_url(series, slot)}: create it first")
        return store

    # Inputs

    def write_inputs(self, series: Series, slot: Slot, inputs: xr.Dataset, provenance: dict[str, Any]) -> None:
        """Store the inputs of a slot, (latitude, longitude) on the native grid of the source, exactly.

        They count as fetched once everything else is stored. `provenance` holds plain JSON values.
        """
        store = self._store(series, slot)
        check_fields(store, INPUTS_GROUP, slot, inputs)
        self._write_fields(store, INPUTS_GROUP, slot, inputs)
        self._objects.put(store.provenance_key(INPUTS_GROUP, slot), _to_json(provenance))
        self._mark(store, INPUT_MARKER, slot)

    def fetched(self, series: Series, slot: Slot) -> bool:
        """Whether the inputs of a slot are stored."""
        store = self._find(series, series.start(slot))
        return store is not None and self._objects.exists(store.chunk_key(INPUT_MARKER, slot))

    def inputs(self, series: Series, time: datetime) -> set[Slot]:
        """The slots with stored inputs, of a forecast's init_time or of the month that holds `time`; one listing."""
        return self._marked(series, time, INPUT_MARKER)

    def read_inputs(self, series: Series, slot: Slot) -> tuple[xr.Dataset, dict[str, Any]]:
        """The inputs of a slot, (latitude, longitude) with scalar times, and the provenance they were written with."""
        store = self._store(series, slot)
        if not self._objects.exists(store.chunk_key(INPUT_MARKER, slot)):
            raise ArchiveError(f"{store.url} has no inputs for {slot}: fetch them first")
        return self._read_fields(store, INPUTS_GROUP, slot), self._json(store.provenance_key(INPUTS_GROUP, slot))

    # Ensembles

    def write(self, series: Series, slot: Slot, ensemble: xr.Dataset) -> int:
        """Store the ensemble of a slot, (member, y, x), unseen until it is published; the bytes that it takes."""
        store = self._store(series, slot)
        check_fields(store, OUTPUTS_GROUP, slot, ensemble)
        return self._write_fields(store, OUTPUTS_GROUP, slot, ensemble)

    def publish(self, series: Series, slot: Slot, provenance: dict[str, Any], preliminary: bool = False) -> None:
        """Make a slot visible to readers; ArchiveError where a variable is missing. `provenance`: plain JSON values.

        `preliminary` says that its inputs will be replaced at their source; the slot is listed by `preliminary` then.
        """
        store = self._store(series, slot)
        keys = [store.chunk_key(path, slot) for path in store.outputs]
        missing = [
            path for path, there in zip(store.outputs, _each(self._objects.exists, keys), strict=True) if not there
        ]
        if missing:
            raise ArchiveError(
                f"{store.url}, {slot} cannot be published: {', '.join(missing)} not written; write it first"
            )
        self._objects.put(store.provenance_key(OUTPUTS_GROUP, slot), _to_json(provenance))
        if preliminary:
            self._objects.put(store.preliminary_key(slot), b"")
        elif series.kind == "hindcast":
            self._objects.remove(store.preliminary_key(slot))
        self._mark(store, OUTPUT_MARKER, slot)

    def published(self, series: Series, time: datetime) -> set[Slot]:
        """The slots that are there, of a forecast's init_time or of the month that holds `time`; one listing.

        None where the store's root is gone: it is being removed, and opens no more.
        """
        return self._marked(series, time, OUTPUT_MARKER)

    def stores(self, series: Series) -> list[datetime]:
        """Init times or months (their first hour) that have a store, ascending; one being created may be among them."""
        return store_starts(self._objects, series)

    def series(self) -> list[Series]:
        """Every series of the archive, forecasts first, by source and model."""
        return find_series(self._objects)

    def read(self, series: Series, slot: Slot) -> xr.Dataset:
        """The ensemble of a published slot, (member, y, x) with CF coordinates and scalar times."""
        store = self._store(series, slot)
        if not self._objects.exists(store.chunk_key(OUTPUT_MARKER, slot)):
            raise ArchiveError(f"{slot} is not published in {store.url}")
        return self._read_fields(store, OUTPUTS_GROUP, slot)

    def provenance(self, series: Series, slot: Slot) -> dict[str, Any]:
        """What a slot was published with."""
        return self._json(self._store(series, slot).provenance_key(OUTPUTS_GROUP, slot))

    # Making slots again

    def preliminary(self, series: Series, time: datetime) -> set[Slot]:
        """The slots of a store that were published as preliminary; one listing."""
        return self._named_after(series, time, PRELIMINARY)

    def retract(self, series: Series, slot: Slot, reason: str) -> None:
        """Take a published slot back, so that it can be written and published again.

        What it was published with is kept as `replaced/<valid time>.<digest of the reason>.json`, which has that name
        only once the slot is gone: cut off before, it is not among `remade`, and loses nothing.
        """
        store = self._store(series, slot)
        replaced = {"reason": reason, "retracted": f"{utc_now().isoformat(timespec='seconds')}Z"}
        record = _to_json({**replaced, "provenance": self._json(store.provenance_key(OUTPUTS_GROUP, slot))})
        key = store.replaced_key(slot, reason)
        self._objects.create(f"{key}.begun", record)
        self._objects.remove(store.chunk_key(OUTPUT_MARKER, slot))
        self._objects.create(key, record)
        self._objects.remove(f"{key}.begun")

    def withdraw_inputs(self, series: Series, slot: Slot) -> None:
        """The inputs of a slot no longer count as fetched, so that others can be written in their place."""
        self._objects.remove(self._store(series, slot).chunk_key(INPUT_MARKER, slot))

    def remade(self, series: Series, time: datetime, reason: str) -> set[Slot]:
        """The slots of a store that were retracted for `reason` and have been made again since; two listings."""
        retracted = self._named_after(series, time, REPLACED, f".{reason_digest(reason)}")
        return retracted and retracted & self.published(series, time)

    def replaced(self, series: Series, time: datetime) -> set[Slot]:
        """The slots of a store that were retracted for whatever reason; one listing."""
        start = series.store_start(time)
        names = self._objects.names(f"{series.store_key(start)}/{REPLACED}")
        times = {parse_time(name.partition(".")[0]) for name in names if name.endswith(".json")}
        return {Slot(time, start if series.kind == "forecast" else None) for time in times}

    def published_at(self, series: Series, slot: Slot) -> datetime | None:
        """When a slot was published last; None where it is not."""
        store = self._store(series, slot)
        data = self._objects.get(store.chunk_key(OUTPUT_MARKER, slot))
        return None if data is None else _EPOCH + int.from_bytes(data, "little", signed=True) * _SECOND

    def is_published(self, series: Series, slot: Slot) -> bool:
        """As `published`, of one slot; for a look at the last moment."""
        store = self._find(series, series.start(slot))
        return store is not None and self._objects.exists(store.chunk_key(OUTPUT_MARKER, slot))

    def is_preliminary(self, series: Series, slot: Slot) -> bool:
        return self._objects.exists(self._store(series, slot).preliminary_key(slot))

    def is_remade(self, series: Series, slot: Slot, reason: str) -> bool:
        replaced = self._store(series, slot).replaced_key(slot, reason)
        return self._objects.exists(replaced) and self.is_published(series, slot)

    def _named_after(self, series: Series, time: datetime, folder: str, suffix: str = "") -> set[Slot]:
        """The slots of a store that have an object `<valid time><suffix>.json` in one of its folders."""
        start, ending = series.store_start(time), f"{suffix}.json"
        names = self._objects.names(f"{series.store_key(start)}/{folder}")
        times = [parse_time(name.removesuffix(ending)) for name in names if name.endswith(ending)]
        return {Slot(time, start if series.kind == "forecast" else None) for time in times}

    # The newest run

    def update_latest(self, series: Series, slots: Sequence[Slot]) -> bool:
        """Name the window `slots` of one forecast as the newest; False where a newer one is named already.

        Every slot must be published. For one writer only, the hourly run.
        """
        if series.kind != "forecast" or not slots:
            raise ArchiveError(f"{series.key}: only a forecast with at least one slot can be the latest")
        init_time = series.start(slots[0])
        missing = sorted(set(slots) - self.published(series, init_time))
        if missing:
            raise ArchiveError(f"{self.store_url(series, slots[0])} cannot be the latest: publish {missing[0]} first")
        record = Latest(
            init_time=init_time,
            url=self.store_url(series, slots[0]),
            leads=tuple(sorted(slot.lead_hours for slot in slots)),
            model=series.model,
            written=utc_now(),
        )
        current = self.latest(series.source)
        if current is not None and current.order > record.order:
            return False
        self._objects.put(_latest_key(series.source), record.to_json())
        return True

    def latest(self, source: str) -> Latest | None:
        """The newest whole window of a source, None before the first."""
        key = _latest_key(source)
        data = self._objects.get(key)
        return None if data is None else Latest.from_json(data, self._url(key))

    # Objects

    def _write_fields(self, store: Store, group: str, slot: Slot, fields: xr.Dataset) -> int:
        objects = self._objects

        def write(path: str) -> int:
            key, data = store.encode(path, slot, fields[path.rpartition("/")[2]].values)
            objects.put(key, data)
            return len(data)

        return sum(_each(write, store.field_paths(group)))

    def _read_fields(self, store: Store, group: str, slot: Slot) -> xr.Dataset:
        keys = store.slot_keys(group, slot)
        objects = dict(zip(keys, _each(self._objects.get, keys), strict=True))
        missing = [key for key, data in objects.items() if data is None]
        if missing:
            raise ArchiveError(
                f"{self._url(missing[0])} is gone though {slot} is marked as there: delete and redo the slot"
            )
        return store.decode(group, slot, {key: data for key, data in objects.items() if data is not None})

    def _marked(self, series: Series, time: datetime, path: str) -> set[Slot]:
        start = series.store_start(time)
        if series.kind == "hindcast":  # a month has all its hours: nothing but the listing need be read
            key = series.store_key(start)
            names = self._objects.names(f"{key}/{path}/c")
            if not names or not self._objects.exists(f"{key}/{ROOT}"):  # one that is being removed opens no more
                return set()
            return {Slot(start + int(name) * HOUR) for name in names if name.isdecimal()}
        store = self._find(series, start)
        return set() if store is None else marked(self._objects, store, path)

    def _mark(self, store: Store, path: str, slot: Slot) -> None:
        self._objects.put(*store.encode(path, slot, epoch_seconds(utc_now())))

    def _json(self, key: str) -> dict[str, Any]:
        return read_json(self._objects, key)


def _latest_key(source: str) -> str:
    return f"forecast/{source}/latest.json"


def _to_json(provenance: dict[str, Any]) -> bytes:
    return json.dumps(provenance, indent=1, allow_nan=False).encode()


def _each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, several at a time, in order."""
    with ThreadPoolExecutor(_CONCURRENT_OBJECTS) as pool:
        return list(pool.map(function, items))
