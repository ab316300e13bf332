"""One opened store: where a slot's chunks lie, and their bytes, encoded and decoded by Zarr in memory."""

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from corrdiff_core.archive.layout import KINDS, NAME, Kind, Series
from corrdiff_core.archive.objects import Objects, open_objects
from corrdiff_core.archive.quantize import round_mantissa
from corrdiff_core.archive.template import INPUT_MARKER, INPUTS_GROUP, OUTPUT_MARKER, ROOT
from corrdiff_core.cycle import HOUR, Slot, compact
from corrdiff_core.errors import ArchiveError

OUTPUTS_GROUP = ""  # the root of a store
PRELIMINARY, REPLACED = "preliminary", "replaced"  # folders of a store, with an object for each slot concerned
LAYOUT = "layout.json"


@dataclass(frozen=True)
class Store:
    """What never changes about a store: its place, its layout as stored, its slots in order, its consolidated metadata.

    Keys are those of the archive's objects: they begin with the store's own. Paths are of arrays inside the store.
    """

    key: str
    url: str
    layout: dict[str, Any]
    slots: tuple[Slot, ...]
    root: bytes

    @cached_property
    def _documents(self) -> dict[str, dict[str, Any]]:
        """Array metadata by path."""
        below = json.loads(self.root)["consolidated_metadata"]["metadata"]
        return {path: document for path, document in below.items() if document["node_type"] == "array"}

    @property
    def outputs(self) -> list[str]:
        return list(self.layout["outputs"])

    @property
    def inputs(self) -> list[str]:
        return list(self.layout["inputs"])

    def field_paths(self, group: str) -> list[str]:
        """The arrays that hold the fields of a slot, in their order."""
        return [f"{group}/{name}" for name in self.inputs] if group else self.outputs

    def slot_shape(self, path: str) -> dict[str, int]:
        """Dimensions and sizes of one slot of an array."""
        document = self._documents[path]
        return dict(list(zip(document["dimension_names"], document["shape"], strict=True))[1:])

    def index(self, slot: Slot) -> int:
        """Position along the slot dimension; ArchiveError where the store has no room for `slot`."""
        if slot not in self._positions:
            raise ArchiveError(
                f"{self.url} has no room for {slot}: it holds {self.slots[0]} to {self.slots[-1]}"
                f" in {len(self.slots)} steps; its lead times were fixed by its creator"
            )
        return self._positions[slot]

    @cached_property
    def _positions(self) -> dict[Slot, int]:
        return {slot: position for position, slot in enumerate(self.slots)}

    def chunk_key(self, path: str, slot: Slot) -> str:
        """The object, one chunk or shard, that holds `slot` of an array."""
        return f"{self.key}/{_chunk_name(path, self.index(slot), len(self._documents[path]['shape']))}"

    def provenance_key(self, group: str, slot: Slot) -> str:
        return "/".join(part for part in (self.key, group, "provenance", f"{compact(slot.valid_time)}.json") if part)

    def preliminary_key(self, slot: Slot) -> str:
        return f"{self.key}/{PRELIMINARY}/{compact(slot.valid_time)}.json"

    def replaced_key(self, slot: Slot, reason: str) -> str:
        return f"{self.key}/{REPLACED}/{compact(slot.valid_time)}.{reason_digest(reason)}.json"

    def encode(self, path: str, slot: Slot, values: ArrayLike) -> tuple[str, bytes]:
        """Key and bytes of the object that holds `slot` of an array; `values` are rounded as the layout says."""
        bits = self.layout["outputs"][path]["significant_bits"] if path in self.layout["outputs"] else None
        if bits is not None:
            values = round_mantissa(np.asarray(values, np.float32), bits)
        memory = {ROOT: _buffer(json.dumps(self._documents[path]).encode())}
        array = zarr.open_array(MemoryStore(memory), mode="r+", config={"write_empty_chunks": True})
        array[self.index(slot)] = values
        key = self.chunk_key(path, slot)
        return key, memory[key.removeprefix(f"{self.key}/{path}/")].to_bytes()

    def shards(self, archive: str, path: str) -> "Shards":
        """An array of this store in the archive at that URL."""
        return Shards(archive, self.key, path, self._documents[path])

    def slot_keys(self, group: str, slot: Slot) -> list[str]:
        """The objects from which `decode` makes one slot: fields, coordinates, the group's own metadata."""
        own = [f"{self.key}/{group}/{ROOT}"] if group else []
        return [*own, *self.constant_keys(group), *(self.chunk_key(path, slot) for path in self.field_paths(group))]

    def constant_keys(self, group: str) -> list[str]:
        """The objects of a group that do not grow with its slots: coordinates, the grid."""
        return [
            f"{self.key}/{_chunk_name(path, 0, len(document['shape']))}"
            for path, document in self._documents.items()
            if path not in (*self.field_paths(group), OUTPUT_MARKER, INPUT_MARKER)
            and path.startswith(f"{INPUTS_GROUP}/") == (group == INPUTS_GROUP)
        ]

    def decode(self, group: str, slot: Slot, objects: dict[str, bytes]) -> xr.Dataset:
        """One slot from the objects that `slot_keys` names; its times are scalar coordinates."""
        dataset = self.open(group, objects)
        names = self.inputs if group else self.outputs
        hindcast = slot.init_time is None
        selected: xr.Dataset = dataset[names].isel({"time" if hindcast else "lead_time": self.index(slot)}).load()
        return selected.rename(time="valid_time") if hindcast else selected

    def open(self, group: str, objects: dict[str, bytes]) -> xr.Dataset:
        """A group as xarray shows it, of which no more is there than `objects`; read lazily."""
        memory = {key.removeprefix(f"{self.key}/"): _buffer(data) for key, data in objects.items()}
        memory[ROOT] = _buffer(self.root)
        opened: xr.Dataset = xr.open_zarr(MemoryStore(memory), group=group or None, decode_coords="all", chunks=None)
        return opened


@dataclass(frozen=True)
class Shards:
    """One array of a store, an object per slot; small enough to travel to where it is read."""

    archive: str
    store: str
    path: str
    document: dict[str, Any]

    def read(self, index: int) -> NDArray[Any]:
        """The values at `index` of the slot dimension, without it; what is not there is an ArchiveError, never NaN."""
        objects = _objects(self.archive, os.getpid())
        name = _chunk_name(self.path, index, len(self.document["shape"]))
        data = objects.get(f"{self.store}/{name}")
        if data is None:
            raise ArchiveError(
                f"{objects.url}/{self.store}/{name} is gone though its slot is published: was the store pruned while"
                " it was read? Open the archive anew, or delete and redo the slot"
            )
        memory = {ROOT: _buffer(json.dumps(self.document).encode()), name.removeprefix(f"{self.path}/"): _buffer(data)}
        return np.asarray(zarr.open_array(MemoryStore(memory), mode="r")[index])


@lru_cache(maxsize=8)
def _objects(url: str, process: int) -> Objects:
    """Of one process: a filesystem with an event loop does not survive a fork."""
    return open_objects(url)


def find_series(
    objects: Objects, kind: Kind | None = None, source: str | None = None, model: str | None = None
) -> list[Series]:
    """The series of an archive that are of this kind, source and model, whichever where None; forecasts first.

    By source and model. Names that no series can bear are not ours. A listing for each kind unless `source` is given,
    and one for each source.
    """

    def folders(key: str) -> list[str]:
        return [name for name in objects.names(key) if NAME.fullmatch(name) and not name.endswith(".json")]

    return [
        Series(each, one, other)
        for each in ([kind] if kind else KINDS)
        for one in ([source] if source else folders(each))
        for other in folders(f"{each}/{one}")
        if model in (None, other)
    ]


def store_starts(objects: Objects, series: Series) -> list[datetime]:
    """The starts of the stores of `series`, ascending, those that are being created among them; one listing."""
    starts = (series.parse_store(name) for name in objects.names(series.key))
    return sorted(start for start in starts if start is not None)


def open_store(objects: Objects, series: Series, start: datetime) -> Store | None:
    """The store of `series` that begins at `start`, None where there is none; two requests."""
    key = series.store_key(start)
    root = objects.get(f"{key}/{ROOT}")
    if root is None:
        return None
    layout = read_json(objects, f"{key}/{LAYOUT}")
    slots = series.slots(start, [hours * HOUR for hours in layout["lead_hours"]])
    return Store(key=key, url=f"{objects.url}/{key}", layout=layout, slots=slots, root=root)


def marked(objects: Objects, store: Store, path: str) -> set[Slot]:
    """The slots whose chunk of the marker at `path` is there; one listing."""
    names = objects.names(f"{store.key}/{path}/c")
    return {store.slots[int(name)] for name in names if name.isdecimal()}


def read_json(objects: Objects, key: str) -> dict[str, Any]:
    """A JSON object that must be there."""
    data = objects.get(key)
    if data is None:
        raise ArchiveError(f"{objects.url}/{key} is gone: the store is not whole, delete it")
    try:
        values: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise ArchiveError(f"{objects.url}/{key} is no JSON ({error}): the store is broken, delete it") from None
    return values


def reason_digest(reason: str) -> str:
    """What stands for a reason in the names of objects."""
    return hashlib.sha256(reason.encode()).hexdigest()[:8]


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)


def _chunk_name(path: str, index: int, dimensions: int) -> str:
    """The default chunk key of Zarr v3; only the first index is ever other than 0 here."""
    indices = [index, *[0] * (dimensions - 1)][:dimensions]
    return "/".join([path, "c", *map(str, indices)])
