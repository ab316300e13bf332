"""ARCO-ERA5: the analysis-ready Zarr of ERA5, one hour and all levels a chunk, read by ranges of its objects.

Zarr v2 with consolidated metadata (zarr.readthedocs.io, specification v2). It is read here and not by the zarr package
because that one fills an absent chunk with NaN, and fetches a 154-MB chunk whole for the 0.4 MB of two levels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.cycle import Slot, compact
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import Box
from corrdiff_core.sources.era5_ends import Ends
from corrdiff_core.sources.era5_hour import (
    Hour,
    LayoutName,
    Part,
    check_finite,
    check_units,
    level_position,
    part_of,
)
from corrdiff_core.sources.ranges import Found, Root
from corrdiff_core.sources.source import NotYet
from corrdiff_core.sources.zarr_v2 import METADATA, ZarrV2
from corrdiff_core.variables import INPUT

NAMES = {
    "tcwv": "total_column_water_vapour",
    "z": "geopotential",
    "t": "temperature",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "t2m": "2m_temperature",
    "u10m": "10m_u_component_of_wind",
    "v10m": "10m_v_component_of_wind",
}
DIMENSIONS = ("time", "level", "latitude", "longitude")
RE_READ = timedelta(minutes=5)  # after which the ends are asked for again
_AT_ONCE = 8  # objects


@dataclass(frozen=True, eq=False)
class _Opened:
    """The store's metadata, and when they were read."""

    store: ZarrV2
    ends: Ends
    at: float


class Arco:
    """The store below `root`. Its ends are re-read when they are minutes old or do not reach a slot."""

    name: LayoutName = "arco"

    def __init__(self, root: Root) -> None:
        self._root = root
        self._opened: _Opened | None = None
        self._lock = Lock()

    def lacking(self, slot: Slot) -> NotYet | None:
        """NotYet beyond the end that the store names; ConfigurationError before its start."""
        opened = self._open(slot)
        if slot.valid_time < opened.ends.start:
            raise ConfigurationError(
                f"{self._root.url} begins at {compact(opened.ends.start)}Z, after {slot}: ask for a later hour"
            )
        if slot.valid_time <= opened.ends.last:
            return None
        return NotYet(slot, self._root.url, f"its data end at {compact(opened.ends.last)}Z ({opened.ends})")

    def is_final(self, slot: Slot) -> bool:
        return slot.valid_time <= self._open(slot).ends.final

    def read(self, slot: Slot, box: Box) -> Hour | NotYet:
        lacking = self.lacking(slot)
        if lacking is not None:
            return lacking
        opened = self._open(slot)
        store, ends = opened.store, opened.ends
        part = part_of(store.coordinate("latitude"), store.coordinate("longitude"), box)
        index = store.hour_index(slot.valid_time)
        stems = list(NAMES)
        try:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                answers = list(threads.map(lambda stem: _Variable(store, stem).read(index, part, ends), stems))
        except _ReplacedError as error:
            return NotYet(slot, str(error), "it was replaced while it was read")
        values: dict[str, NDArray[np.float32]] = {}
        objects = {}
        for stem, (fields, found, traveled) in zip(stems, answers, strict=True):
            values |= fields
            objects[NAMES[stem]] = found.to_dict() | {"bytes": traveled}
        preliminary = slot.valid_time > ends.final
        provenance: dict[str, Any] = {
            "stream": "ERA5T" if preliminary else "final",
            "ends": ends.said,
            "objects": objects,
            "bytes": sum(traveled for _, _, traveled in answers),
        }
        return Hour(part.latitude, part.longitude, values, provenance, preliminary)

    def _open(self, slot: Slot) -> _Opened:
        """The metadata, new enough for the slot."""
        with self._lock:
            opened = self._opened
            if opened is None or monotonic() - opened.at > RE_READ / timedelta(seconds=1):
                return self._reopen()
            return self._reopen() if slot.valid_time > opened.ends.last else opened

    def _reopen(self) -> _Opened:
        at = monotonic()
        before = None if self._opened is None else self._opened.store
        store = ZarrV2.open(self._root, before)
        where = self._root.url_of(METADATA)
        self._opened = _Opened(store, Ends.of(store.attrs(""), where), at)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]


class _ReplacedError(Exception):
    """An object is another one than when reading it began; the message is its URL."""


@dataclass(frozen=True)
class _Variable:
    """One of the store's variables, with those of ours that it holds."""

    store: ZarrV2
    stem: str

    @property
    def ours(self) -> Sequence[str]:
        return [name for name in INPUT if name == self.stem or name in (f"{self.stem}500", f"{self.stem}850")]

    def read(self, index: int, part: Part, ends: Ends) -> tuple[dict[str, NDArray[np.float32]], Found, int]:
        """Values by our names, the object, and the bytes that traveled."""
        name = NAMES[self.stem]
        where = self.store.root.url_of(name)
        positions = {}
        for ours in self.ours:
            check_units(ours, self.store.attrs(name), where)
            level = INPUT[ours].level
            positions[ours] = None if level is None else self._level(level, where)
        dims = DIMENSIONS if None not in positions.values() else tuple(dim for dim in DIMENSIONS if dim != "level")
        found = self.store.chunk(name, dims, index)
        if found is None:
            key = self.store.key(name, (index, *(0 for _ in dims[1:])))
            raise SourceError(
                f"{self.store.root.url_of(key)}: absent, though the store says it holds that hour ({ends}): set "
                "CORRDIFF_ERA5_URL to the other layout or a mirror for these hours, and report it to the publisher"
            )
        try:
            fields, traveled = self.store.rows(name, found, list(positions.values()), part.rows)
        except (SourceError, FileNotFoundError):
            self._refuse_replaced(found)
            raise
        self._refuse_replaced(found)
        values = {}
        for ours, field in zip(positions, fields, strict=True):
            values[ours] = np.ascontiguousarray(field[:, part.columns])
            check_finite(ours, values[ours], found.url)
        return values, found, traveled

    def _refuse_replaced(self, found: Found) -> None:
        if self.store.root.find(found.name) != found:
            raise _ReplacedError(found.url)

    def _level(self, level: int, where: str) -> int:
        return level_position(level, self.store.coordinate("level"), self.store.attrs("level"), where)
