"""Our training layout: what a dataset says of itself, and its months as empty Zarr stores.

<url>/dataset.json      domain, input grid, variables, where the data came from; made once, never changed
<url>/<YYYYMM>.zarr     Zarr v3: inputs (time, input, latitude, longitude) on their native grid and truth
                        (time, output, y, x); every hour of the month, NaN where no sample is; a chunk is one hour
<url>/<YYYYMM>.json     the samples of the month that are there: a sample exists if and only if this names it
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from corrdiff_core.archive.template import epoch_seconds
from corrdiff_core.cycle import HOUR, hours_from
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Domain, Float64
from corrdiff_core.variables import INPUT, OUTPUT, Variable

FORMAT = 1  # raise when what is stored changes in a way that old readers or writers cannot follow
ABOUT = "dataset.json"
ZARR = "zarr.json"
FIELDS = ("inputs", "truth")

_BLOSC = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
_SECONDS = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}


@dataclass(frozen=True)
class Origin:
    """Where one side of the samples comes from: what it is, which never changes, and where its first part lay."""

    kind: str
    url: str


@dataclass(frozen=True)
class About:
    """dataset.json. `latitude` and `longitude` are the inputs' native lines in degrees, ascending."""

    domain: Domain
    latitude: tuple[float, ...]
    longitude: tuple[float, ...]
    inputs: Origin
    truth: Origin

    @property
    def lines(self) -> tuple[Float64, Float64]:
        return np.array(self.latitude), np.array(self.longitude)

    @property
    def grids(self) -> dict[str, Any]:
        """What the values mean: plain JSON values, equal if and only if samples of both can be compared."""
        return {
            "format": FORMAT,
            "domain": self.domain.to_dict(),
            "latitude": [*self.latitude],
            "longitude": [*self.longitude],
            "inputs": {name: INPUT[name].units for name in self.domain.inputs},
            "outputs": {name: OUTPUT[name].units for name in self.domain.outputs},
        }

    def to_json(self) -> bytes:
        sources = {"inputs": vars(self.inputs), "truth": vars(self.truth)}
        return json.dumps({**self.grids, "sources": sources}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "About":
        """DatasetError, calling the dataset `where`, for what is none of ours or of another format or variables."""
        try:
            values: dict[str, Any] = json.loads(data)
            about = cls(
                Domain.from_dict(values["domain"]),
                tuple(values["latitude"]),
                tuple(values["longitude"]),
                Origin(**values["sources"]["inputs"]),
                Origin(**values["sources"]["truth"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{where} describes no dataset of ours ({error!r}): build it anew") from error
        for name, expected in about.grids.items():
            if json.dumps(values.get(name)) != json.dumps(expected):  # the order of variables counts
                raise DatasetError(f"{where}: {name} are {values.get(name)}, due are {expected}: build it anew")
        return about


def month_of(time: datetime) -> datetime:
    """The first hour of the month."""
    return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(month: datetime) -> datetime:
    return (month + timedelta(days=31)).replace(day=1)


def month_name(month: datetime) -> str:
    return f"{month:%Y%m}"


def chunk_key(field: str, time: datetime) -> str:
    """The object that holds one hour of a field, below the dataset."""
    return f"{month_name(time)}.zarr/{field}/c/{hour_of(time)}/0/0/0"


def hour_of(time: datetime) -> int:
    """The position of an hour in its month."""
    return (time - month_of(time)) // HOUR


def month_objects(about: About, month: datetime) -> dict[str, bytes]:
    """The objects of an empty month by key below its store, the same bytes each time, the root's metadata last."""
    memory: dict[str, Buffer] = {}
    store = MemoryStore(memory)
    domain = about.domain
    attributes = {"Conventions": "CF-1.12", "title": f"CorrDiff training samples, {domain.name}, {month:%Y-%m}"}
    zarr.create_group(store, attributes=attributes)
    hours = np.array([epoch_seconds(time) for time in hours_from(month, (next_month(month) - month) // HOUR)])
    _write_coordinate(store, "time", hours, {"standard_name": "time", "axis": "T", **_SECONDS})
    _write_coordinate(store, "latitude", about.lines[0], {"standard_name": "latitude", "units": "degrees_north"})
    _write_coordinate(store, "longitude", about.lines[1], {"standard_name": "longitude", "units": "degrees_east"})
    _write_coordinate(store, "y", domain.y, dict(domain.axes["y"]))
    _write_coordinate(store, "x", domain.x, dict(domain.axes["x"]))
    _write_coordinate(store, "spatial_ref", np.int8(0), domain.grid_mapping)
    grid = len(about.latitude), len(about.longitude)
    inputs, outputs = [INPUT[name] for name in domain.inputs], [OUTPUT[name] for name in domain.outputs]
    _create_field(store, "inputs", len(hours), inputs, ("input", "latitude", "longitude"), grid)
    _create_field(store, "truth", len(hours), outputs, ("output", "y", "x"), domain.shape)
    objects = {key: buffer.to_bytes() for key, buffer in memory.items()}
    root = json.loads(objects.pop(ZARR))
    arrays = {key.removesuffix(f"/{ZARR}"): json.loads(data) for key, data in objects.items() if key.endswith(ZARR)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    return {**objects, ZARR: json.dumps({**root, "consolidated_metadata": consolidated}, indent=1).encode()}


def _write_coordinate(
    store: MemoryStore, name: str, values: NDArray[Any] | np.generic, attributes: dict[str, Any]
) -> None:
    values = np.asarray(values)
    array = zarr.create_array(
        store,
        name=name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        fill_value=0,
        compressors=_BLOSC if values.ndim else None,
        dimension_names=(name,) if values.ndim else (),
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def _create_field(
    store: MemoryStore,
    name: str,
    hours: int,
    variables: Sequence[Variable],
    dimensions: tuple[str, ...],
    grid: tuple[int, int],
) -> None:
    shape = len(variables), *grid
    mapping = {"grid_mapping": "spatial_ref"} if name == "truth" else {}
    zarr.create_array(
        store,
        name=name,
        shape=(hours, *shape),
        chunks=(1, *shape),
        dtype="float32",
        fill_value=np.nan,
        compressors=_BLOSC,
        dimension_names=("time", *dimensions),
        attributes={"names": [v.name for v in variables], "units": [v.units for v in variables], **mapping},
    )


def encode(document: bytes, values: NDArray[np.float32]) -> bytes:
    """The chunk that holds `values`, by the array metadata `document`."""
    memory = {ZARR: _buffer(document)}
    array = zarr.open_array(MemoryStore(memory), mode="r+", config={"write_empty_chunks": True})
    array[0] = values
    return memory["c/0/0/0/0"].to_bytes()


def decode(document: bytes, chunk: bytes) -> NDArray[np.float32]:
    """What `encode` was given; ValueError or RuntimeError where the chunk is damaged."""
    written = int.from_bytes(chunk[12:16], "little")  # Blosc's header; its decoder reads on past a buffer that is cut
    if written != len(chunk) or not chunk:
        raise ValueError(f"{len(chunk)} bytes of {written}")
    memory = {ZARR: _buffer(document), "c/0/0/0/0": _buffer(chunk)}
    return np.asarray(zarr.open_array(MemoryStore(memory), mode="r")[0], np.float32)


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
