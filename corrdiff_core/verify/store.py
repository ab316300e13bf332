"""The rows of one series: written atomically, marked last, read back as one dataset."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from corrdiff_core.archive.layout import Series, differences
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.template import ROOT, epoch_seconds
from corrdiff_core.cycle import Slot, compact, utc_now
from corrdiff_core.errors import ArchiveError
from corrdiff_core.normalization import Statistics
from corrdiff_core.verify.layout import (
    CENTER,
    FOLDER,
    MEASURES,
    SCALE,
    Layout,
    build,
    month_at,
    month_of,
    position,
    slot_at,
)

_LAYOUT = "layout.json"
_AT_ONCE = 16  # objects under way

Item = TypeVar("Item")
Result = TypeVar("Result")


class Rows:
    """The verification of one series of an archive, in a store for each month.

    The same slot measured twice, by two writers, or again after a kill, ends in the same bytes (markers and
    `provenance/` apart, which tell when and beside what). What is broken or has no room is an ArchiveError.
    """

    def __init__(self, archive: str, series: Series) -> None:
        self._objects = open_objects(archive)
        self.series = series
        self.key = f"{FOLDER}/{series.key}"
        self._layouts: dict[datetime, Layout] = {}

    @property
    def url(self) -> str:
        """The folder of the months, and of the figure."""
        return f"{self._objects.url}/{self.key}"

    def put(self, name: str, data: bytes) -> str:
        """An object beside the months; where it is."""
        self._objects.put(f"{self.key}/{name}", data)
        return f"{self.url}/{name}"

    def months(self) -> list[datetime]:
        """Those that have a store, ascending."""
        names = [name for name in self._objects.names(self.key) if name.endswith(".zarr")]
        months = [datetime.strptime(name, "%Y%m.zarr") for name in names]
        return [month for month in months if self.layout(month) is not None]

    def layout(self, month: datetime) -> Layout | None:
        """Of a month that is there."""
        if month not in self._layouts:
            if not self._objects.exists(f"{self._store(month)}/{ROOT}"):
                return None
            self._layouts[month] = self._claimed(month)
        return self._layouts[month]

    def create(self, month: datetime, layout: Layout) -> None:
        """Make the store of a month, unless it is there; ArchiveError where that has another layout."""
        store = self._store(month)
        data = json.dumps(layout.to_dict(), indent=1).encode()
        if not self._objects.create(f"{store}/{_LAYOUT}", data):
            problems = differences(self._claimed(month).to_dict(), layout.to_dict())
            if problems:
                raise ArchiveError(
                    f"{self._objects.url}/{store}: {'; '.join(problems)}: delete it, the month is verified anew"
                )
        if self.layout(month) is None:
            objects = build(self.series, month, layout)
            root = objects.pop(ROOT)
            _each(lambda name: self._objects.put(f"{store}/{name}", objects[name]), objects)
            self._objects.put(f"{store}/{ROOT}", root)

    def keep_statistics(self, month: datetime, statistics: Statistics) -> None:
        """Center and scale of the model's inputs, once they are known."""
        layout, store = self._require(month), self._store(month)
        rows = [statistics.names.index(name) for name in layout.channels]
        for name, values in ((CENTER, statistics.center), (SCALE, statistics.scale)):
            self._objects.create(f"{store}/{name}/c/0", _bytes([values[row] for row in rows]))

    # One row

    def write(self, stage: str, slot: Slot, values: Mapping[str, ArrayLike], told: Mapping[str, Any] | None) -> None:
        """Store a stage of a row, then mark it; `told`, plain JSON values, says what it was measured beside.

        ArchiveError unless `values` are the measures of the stage in their shapes. One that was marked is not, until
        it is whole again.
        """
        month = month_of(slot)
        layout = self._require(month)
        self._refuse_others(stage, slot, values, layout)
        self._objects.remove(self._chunk(stage, slot, 0))
        keys = {name: self._chunk(name, slot, np.ndim(given)) for name, given in values.items()}
        _each(lambda name: self._objects.put(keys[name], _bytes(values[name])), values)
        if told is not None:
            lead = "" if slot.init_time is None else f"+{slot.lead_hours:03d}"
            name = f"{compact(slot.init_time or slot.valid_time)}{lead}.json"
            key = f"{self._store(month)}/provenance/{stage.removesuffix('_at')}/{name}"
            self._objects.put(key, json.dumps(told, indent=1, allow_nan=False).encode())
        self._objects.put(self._chunk(stage, slot, 0), np.array(epoch_seconds(utc_now()), "<i8").tobytes())

    def _refuse_others(self, stage: str, slot: Slot, values: Mapping[str, ArrayLike], layout: Layout) -> None:
        due = {measure.name: layout.shape(measure) for measure in layout.measures(stage)}
        given = {name: np.shape(value) for name, value in values.items()}
        if given != due:
            raise ArchiveError(f"{self.url}, {slot}: {given} given but a row holds {due}: delete the month's store")

    def written(self, stage: str, slot: Slot) -> datetime:
        """When a stage that is marked was written."""
        return datetime.fromtimestamp(int(np.frombuffer(self._get(stage, slot, 0), "<i8")[0]), UTC).replace(tzinfo=None)

    # Many rows

    def marked(self, stage: str, start: datetime) -> set[Slot]:
        """The slots of a forecast's init_time, or of a month of hindcast, of which a stage is there; one listing."""
        month = month_at(start)
        layout = self.layout(month)
        if layout is None:
            return set()
        if self.series.kind == "hindcast":
            return {slot_at(layout, month, [row]) for row in self._listed(month, stage)}
        row, *_ = position(layout, Slot.forecast(start, start - start))
        return {slot_at(layout, month, [row, lead]) for lead in self._listed(month, f"{stage}/c/{row}", "")}

    def all_marked(self, stage: str, month: datetime) -> set[Slot]:
        """The slots of a whole month of which a stage is there; of forecasts a listing for each cycle."""
        layout = self.layout(month)
        if layout is None:
            return set()
        first = self._listed(month, stage)
        if self.series.kind == "hindcast":
            return {slot_at(layout, month, [row]) for row in first}
        second = _each(lambda row: self._listed(month, f"{stage}/c/{row}", ""), first)
        pairs = [(row, lead) for row, leads in zip(first, second, strict=True) for lead in leads]
        return {slot_at(layout, month, pair) for pair in pairs}

    def _listed(self, month: datetime, path: str, below: str = "/c") -> list[int]:
        names = self._objects.names(f"{self._store(month)}/{path}{below}")
        return sorted(int(name) for name in names if name.isdecimal())

    def read(self, stages: Mapping[str, Iterable[Slot]]) -> xr.Dataset:
        """The stages of those slots, (slot, ...), NaN where a slot is not asked for in a stage; all must be marked.

        Coordinates of a slot: valid_time, lead_hours. ArchiveError where a chunk of a marked stage is gone, or where
        the months differ in variables or members.
        """
        wanted = {stage: set(slots) for stage, slots in stages.items()}
        slots = sorted(set().union(*wanted.values()))
        layout = self._common({month_of(slot) for slot in slots})
        arrays: dict[str, Any] = {}
        for stage in MEASURES:
            for measure in layout.measures(stage):
                own = layout.shape(measure)
                dims = ("slot", *(("variable",) if len(own) == 2 else ()), measure.dimension)
                arrays[measure.name] = dims, self._column(measure.name, own, slots, wanted.get(stage, set()))
        times = np.array([slot.valid_time for slot in slots], "datetime64[ns]")
        coordinates: dict[str, Any] = {
            "valid_time": ("slot", times),
            "lead_hours": ("slot", np.array([slot.lead_hours for slot in slots], np.int64)),
            **{
                stage: ("slot", np.array([slot in wanted.get(stage, ()) for slot in slots], bool)) for stage in MEASURES
            },
        }
        sizes = {name: list(values) for name, values in layout.sizes.items() if len(values)}
        return xr.Dataset(arrays, {**coordinates, **sizes}, {"members": layout.members})

    def _column(self, name: str, own: tuple[int, ...], slots: list[Slot], there: set[Slot]) -> NDArray[np.float64]:
        values = np.full((len(slots), *own), np.nan)
        at = [index for index, slot in enumerate(slots) if slot in there]
        found = _each(lambda index: self._get(name, slots[index], len(own)), at)
        for index, data in zip(at, found, strict=True):
            values[index] = np.frombuffer(data, "<f8").reshape(own)
        return values

    def _common(self, months: set[datetime]) -> Layout:
        layouts = [self._require(month) for month in sorted(months)]
        for other in layouts[1:]:
            if (other.sizes | {"rank": ()}) != (layouts[0].sizes | {"rank": ()}) or other.members != layouts[0].members:
                raise ArchiveError(f"{self.url}: months differ in variables or members: delete those of old archives")
        return layouts[0]

    # Objects

    def _store(self, month: datetime) -> str:
        return f"{self.key}/{month:%Y%m}.zarr"

    def _claimed(self, month: datetime) -> Layout:
        key = f"{self._store(month)}/{_LAYOUT}"
        try:
            return Layout.from_dict(json.loads(self._objects.get(key) or b""))
        except (ValueError, TypeError) as error:
            raise ArchiveError(f"{self._objects.url}/{key} is broken ({error}): delete the month's store") from None

    def _require(self, month: datetime) -> Layout:
        layout = self.layout(month)
        if layout is None:
            raise ArchiveError(f"there is no {self._objects.url}/{self._store(month)}: create it first")
        return layout

    def _chunk(self, name: str, slot: Slot, own: int) -> str:
        month = month_of(slot)
        row = position(self._require(month), slot)
        return "/".join([self._store(month), name, "c", *map(str, row), *("0" for _ in range(own))])

    def _get(self, name: str, slot: Slot, own: int) -> bytes:
        key = self._chunk(name, slot, own)
        data = self._objects.get(key)
        if data is None:
            raise ArchiveError(f"{self._objects.url}/{key} is gone though its row is marked: delete the month's store")
        return data


def _bytes(values: ArrayLike) -> bytes:
    """An uncompressed chunk of Zarr's bytes codec."""
    return np.ascontiguousarray(values, "<f8").tobytes()


def _each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, several at a time, in order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))
