"""As much of Zarr v2 as ERA5 needs: consolidated metadata, small coordinates whole, rows of large chunks by ranges."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numcodecs import get_codec
from numpy.typing import NDArray

from corrdiff_core.cycle import HOUR, compact
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import Float64
from corrdiff_core.sources.blosc_blocks import read_parts
from corrdiff_core.sources.ranges import Found, Root, Span

METADATA = ".zmetadata"
_CODECS = frozenset({"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"})  # numcodecs' pickle would run code


@dataclass(frozen=True, eq=False)
class ZarrV2:
    """A store whose metadata were read once. Raises SourceError for whatever in them is not as ERA5's are."""

    root: Root
    found: Found
    metadata: dict[str, Any]
    _coordinates: dict[str, NDArray[Any]] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)

    @classmethod
    def open(cls, root: Root, before: "ZarrV2 | None" = None) -> "ZarrV2":
        """The store as it is now; `before` again where its metadata object is still the same."""
        found = root.find(METADATA)
        if found is None:
            raise ConfigurationError(
                f"{root.url} has no {METADATA}: give the root of a Zarr v2 store with consolidated metadata"
            )
        if before is not None and found.etag and found == before.found:
            return before
        try:
            metadata = json.loads(root.read(found, [found.whole])[0])["metadata"]
            if metadata[".zgroup"]["zarr_format"] != 2:
                raise KeyError("zarr_format 2")
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{found.url}: no consolidated Zarr v2 metadata ({error}): use another mirror") from error
        return cls(root, found, metadata)

    def attrs(self, name: str) -> dict[str, Any]:
        """Attributes of an array, of the store for no name."""
        return dict(self.metadata.get(f"{name}/.zattrs" if name else ".zattrs", {}))

    def coordinate(self, name: str) -> Float64:
        """A 1-D array, whole, in the numbers that are stored."""
        with self._lock:
            if name not in self._coordinates:
                count = -(-self._array(name)["shape"][0] // self._array(name)["chunks"][0])
                parts = [self._coordinate_chunk(name, number) for number in range(count)]
                self._coordinates[name] = np.concatenate(parts)[: self._array(name)["shape"][0]].astype(np.float64)
            return self._coordinates[name]

    def hour_index(self, time: datetime) -> int:
        """Position of a whole hour on the axis `time`, read back from it."""
        where = self.root.url_of("time")
        epoch = _epoch(self.attrs("time"), where)
        with self._lock:
            first = self._time_at(0)
            index = (time - epoch) // HOUR - first
            if 0 <= index < self._array("time")["shape"][0] and epoch + (first + index) * HOUR == time:
                there = self._time_at(index)
                if there == first + index:
                    return index
        raise SourceError(f"{where}: {compact(time)}Z is not where an hourly axis has it: use another mirror")

    def key(self, name: str, numbers: Sequence[int]) -> str:
        """The object of a chunk."""
        return f"{name}/{self._array(name).get('dimension_separator', '.').join(map(str, numbers))}"

    def chunk(self, name: str, dims: Sequence[str], index: int) -> Found | None:
        """The object that holds one hour of a variable with `dims`, time first, at all other positions."""
        array = self._array(name)
        where = self.root.url_of(name)
        named = tuple(self.attrs(name).get("_ARRAY_DIMENSIONS", ()))
        if named != tuple(dims) or array["chunks"] != [1, *array["shape"][1:]]:
            raise SourceError(
                f"{where}: dims {named} of {array['shape']} in chunks of {array['chunks']}, {tuple(dims)} and one "
                "hour a chunk are due: give the root of a store in ARCO-ERA5's layout"
            )
        packed = {"scale_factor", "add_offset"} & set(self.attrs(name))
        if packed or array["filters"] or array["order"] != "C" or np.dtype(array["dtype"]) != np.dtype("<f4"):
            raise SourceError(
                f"{where}: {array['dtype']} {array['order']} with filters {array['filters']} and {sorted(packed)}, "
                "plain <f4 in order C is due: give the root of a store in ARCO-ERA5's layout"
            )
        sizes = {dim: self._array(dim)["shape"][0] for dim in dims}
        if array["shape"] != list(sizes.values()):
            raise SourceError(f"{where}: shape {array['shape']}, its axes have {sizes}: use another mirror")
        return self.root.find(self.key(name, (index, *(0 for _ in dims[1:]))))

    def rows(
        self, name: str, found: Found, levels: Sequence[int | None], rows: NDArray[np.intp]
    ) -> tuple[list[NDArray[np.float32]], int]:
        """(row, column) of each level (None: the variable has none), `rows` in their order; and the bytes traveled."""
        array = self._array(name)
        height, width = array["shape"][-2:]
        low, high = int(rows.min()), int(rows.max()) + 1
        starts = [((level or 0) * height + low) * width * 4 for level in levels]
        spans = [Span(start, start + (high - low) * width * 4) for start in starts]
        size = 4 * prod(array["chunks"])
        codec = array["compressor"]
        if codec is not None and codec["id"] == "blosc":
            bodies, traveled = read_parts(self.root, found, size, spans)
        else:
            whole, traveled = self._decoded(found, codec, size), found.size
            bodies = [whole[span.start : span.stop] for span in spans]
        fields = [np.frombuffer(body, "<f4").reshape(high - low, width)[rows - low] for body in bodies]
        return fields, traveled

    def _array(self, name: str) -> dict[str, Any]:
        try:
            array = self.metadata[f"{name}/.zarray"]
            if not {"shape", "chunks", "dtype", "compressor", "filters", "order"} <= set(array):
                raise KeyError(name)
        except (KeyError, TypeError):
            raise SourceError(f"{self.found.url}: it tells of no whole array {name!r}: use another mirror") from None
        return dict(array)

    def _time_at(self, index: int) -> int:
        """The number stored on the time axis at `index`; the lock is held."""
        number, offset = divmod(index, self._array("time")["chunks"][0])
        key = f"time/{number}"
        if key not in self._coordinates:
            self._coordinates[key] = self._coordinate_chunk("time", number)
        return int(self._coordinates[key][offset])

    def _coordinate_chunk(self, name: str, number: int) -> NDArray[Any]:
        array = self._array(name)
        key = self.key(name, (number,))
        found = self.root.find(key)
        if found is None or array["filters"] or len(array["shape"]) != 1:
            raise SourceError(f"{self.root.url_of(key)}: absent or of an unknown form: use another mirror")
        dtype = np.dtype(array["dtype"])
        body = self._decoded(found, array["compressor"], array["chunks"][0] * dtype.itemsize)
        return np.frombuffer(body, dtype)

    def _decoded(self, found: Found, codec: dict[str, Any] | None, size: int) -> bytes:
        if codec is not None and codec.get("id") not in _CODECS:
            raise SourceError(
                f"{found.url}: compressed by {codec.get('id')!r}, not by one of {', '.join(sorted(_CODECS))}: use"
                " another mirror"
            )
        body = self.root.read(found, [found.whole])[0]
        try:
            body = body if codec is None else bytes(get_codec(codec).decode(body))  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            raise SourceError(f"{found.url}: does not decode with {codec} ({error}): use another mirror") from error
        if len(body) != size:
            raise SourceError(f"{found.url}: decodes to {len(body)} bytes, {size} are due: use another mirror")
        return body


def _epoch(attrs: dict[str, Any], where: str) -> datetime:
    """From which the hours on the axis are counted."""
    unit, _, since = str(attrs.get("units", "")).partition(" since ")
    calendar = attrs.get("calendar", "standard")
    try:
        if unit != "hours" or calendar not in ("standard", "gregorian", "proleptic_gregorian"):
            raise ValueError(unit)
        return datetime.fromisoformat(since)
    except ValueError:
        raise SourceError(
            f"{where}: counts {attrs.get('units')!r} in calendar {calendar!r}, 'hours since 1900-01-01' is due: "
            "use another mirror"
        ) from None
