"""A month of verification as an empty Zarr store: what is kept of each slot, under which name and in which unit.

<archive>/verification/<kind>/<source>/<model>/<YYYYMM>.zarr   Zarr v3, every array NaN until its row is written
    (init_time, lead_time, ...)   of forecasts, in the month of their init_time: every cycle of the month, every lead
    (time, ...)                   of a hindcast, in the month of its valid times: every hour

A row is a slot, and one chunk of each array. What is measured at different times has markers of its own, one object for
each row, written last: a stage of a row is there if and only if the chunk of its marker is.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from corrdiff_core.archive.layout import Series
from corrdiff_core.archive.template import ROOT, epoch_seconds
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.errors import ArchiveError
from corrdiff_core.evaluate.one_time import REFLECTIVITY, THRESHOLDS
from corrdiff_core.variables import INPUT, OUTPUT

FORMAT = 1  # raise when what is stored changes in a way that old readers or writers cannot follow
FOLDER = "verification"
CHECKED, SCORED, ANALYZED = "checked_at", "scored_at", "analyzed_at"
CENTER, SCALE = "input_center", "input_scale"

_NOT_A_TIME = int(np.iinfo(np.int64).min)
_SECONDS = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_OWN, _SQUARE, _ONE = "variable_units", "(variable_units)2", "1"


@dataclass(frozen=True)
class Measure:
    """What is kept of a slot: an array (row, `dimension`), float64, a mean over the points unless it says otherwise."""

    name: str
    dimension: str
    units: str
    long_name: str


MEASURES: dict[str, tuple[Measure, ...]] = {
    CHECKED: (  # needs nothing but the archive
        Measure("input_mean", "channel", "channel_units", "mean of the input over its box"),
        Measure("variance", "variable", _SQUARE, "variance of the members"),
        Measure("reflectivity_share", "threshold", _ONE, "share of members and points at or above the threshold"),
        Measure("coarse_bias", "coarse_variable", _OWN, "ensemble mean over the cells of the input's grid, less input"),
        Measure("coarse_squared_error", "coarse_variable", _SQUARE, "squared difference of the same, mean over cells"),
    ),
    SCORED: (  # beside 2-km truth
        Measure("crps", "variable", _OWN, "fair CRPS of the ensemble"),
        Measure("absolute_error", "variable", _OWN, "absolute error of the ensemble mean"),
        Measure("squared_error", "variable", _SQUARE, "squared error of the ensemble mean"),
        Measure("bias", "variable", _OWN, "ensemble mean less truth"),
        Measure("interpolation_error", "variable", _OWN, "absolute error of the input, interpolated bilinearly"),
        Measure("brier", "threshold", _ONE, "fair Brier score of reflectivity at or above the threshold"),
        Measure("observed_share", "threshold", _ONE, "share of points whose truth is at or above the threshold"),
        Measure("ranks", "rank", _ONE, "points whose truth has that rank among the members, counted"),
    ),
    ANALYZED: (  # beside an analysis on a coarse grid
        Measure("analysis_bias", "coarse_variable", _OWN, "ensemble mean over the analysis's cells, less analysis"),
        Measure("analysis_squared_error", "coarse_variable", _SQUARE, "squared difference of the same"),
        Measure("input_bias", "channel", "channel_units", "input less analysis, on the input's grid"),
        Measure("input_squared_error", "channel", "(channel_units)2", "squared difference of the same"),
    ),
}
_MARKERS = {
    CHECKED: "time at which a slot was looked at by itself, missing where it was not",
    SCORED: "time at which a slot was scored beside 2-km truth, missing where it was not",
    ANALYZED: "time at which a slot was compared with an analysis, missing where it was not",
}


@dataclass(frozen=True)
class Layout:
    """What fixes the shape of a month. `cycle_hours` and `lead_hours` are those of forecasts, 0 and none otherwise."""

    variables: tuple[str, ...]
    channels: tuple[str, ...]
    members: int
    domain: str
    cycle_hours: int = 0
    lead_hours: tuple[int, ...] = ()

    @property
    def sizes(self) -> dict[str, Sequence[Any]]:
        """The coordinate of each dimension of a row; empty where the model has no such variable."""
        return {
            "variable": self.variables,
            "channel": self.channels,
            "coarse_variable": [name for name in self.variables if name in self.channels],
            "threshold": THRESHOLDS if REFLECTIVITY in self.variables else (),
            "rank": range(self.members + 1),
        }

    def measures(self, stage: str) -> list[Measure]:
        return [measure for measure in MEASURES[stage] if len(self.sizes[measure.dimension])]

    def shape(self, measure: Measure) -> tuple[int, ...]:
        """Of one row; ranks are by variable too."""
        sizes = self.sizes
        own = len(sizes[measure.dimension])
        return (len(sizes["variable"]), own) if measure.dimension == "rank" else (own,)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, equal if and only if rows of both fit into one store."""
        return {"format": FORMAT} | {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        kept: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if n != "format"}
        return cls(**kept)


def month_of(slot: Slot) -> datetime:
    """The first hour of the month in whose store a slot has its row."""
    return month_at(slot.init_time or slot.valid_time)


def month_at(time: datetime) -> datetime:
    """The first hour of the month of a whole hour."""
    return time.replace(day=1, hour=0)


def row_dimensions(series: Series) -> tuple[str, ...]:
    return ("init_time", "lead_time") if series.kind == "forecast" else ("time",)


def position(layout: Layout, slot: Slot) -> tuple[int, ...]:
    """The row of a slot; ArchiveError where the month has no room for it."""
    since = ((slot.init_time or slot.valid_time) - month_of(slot)) // HOUR
    if slot.init_time is None:
        return (since,)
    if since % layout.cycle_hours or slot.lead_hours not in layout.lead_hours:
        raise ArchiveError(
            f"the verification of {month_of(slot):%Y-%m} has no room for {slot}: its cycles are {layout.cycle_hours} h"
            f" apart and its {len(layout.lead_hours)} leads other ones; delete that month, it is made anew"
        )
    return since // layout.cycle_hours, layout.lead_hours.index(slot.lead_hours)


def slot_at(layout: Layout, month: datetime, row: Sequence[int]) -> Slot:
    """The slot of a row, the inverse of `position`."""
    if len(row) == 1:
        return Slot(month + row[0] * HOUR)
    return Slot.forecast(month + row[0] * layout.cycle_hours * HOUR, layout.lead_hours[row[1]] * HOUR)


def build(series: Series, month: datetime, layout: Layout) -> dict[str, bytes]:
    """The objects of an empty month by key, the same bytes each time, the root's metadata last."""
    memory: dict[str, Buffer] = {}
    store = MemoryStore(memory)
    units = [name for name, *_ in _auxiliary(layout)]
    attributes = {
        "Conventions": "CF-1.12",
        "title": f"verification of {series.key}, {month:%Y-%m}, {layout.domain}",
        "comment": "A row counts where the marker of its stage is set. z-score = (input_mean - input_center) /"
        " input_scale; variable_units and channel_units are coordinates.",
        "coordinates": " ".join([*(["valid_time"] if series.kind == "forecast" else []), *units]),
    }
    zarr.create_group(store, attributes=attributes)
    rows = _write_times(store, series, month, layout)
    for name, values in layout.sizes.items():
        if len(values):
            _write(store, name, (name,), values, {"units": "dBZ"} if name == "threshold" else {})
    for name, dimension, each in _auxiliary(layout):
        _write(store, name, (dimension,), each, {"long_name": f"units of each {dimension.replace('_', ' ')}"})
    for name in (CENTER, SCALE):
        attributes = {"units": "channel_units", "long_name": f"{name.removeprefix('input_')} of the model's inputs"}
        _create(store, name, ("channel",), (len(layout.channels),), (len(layout.channels),), attributes)
    for stage in MEASURES:
        for measure in layout.measures(stage):
            own = layout.shape(measure)
            dimensions = (*row_dimensions(series), *(("variable",) if len(own) == 2 else ()), measure.dimension)
            attributes = {"units": measure.units, "long_name": measure.long_name}
            _create(store, measure.name, dimensions, (*rows, *own), (*(1 for _ in rows), *own), attributes)
        _create_marker(store, stage, row_dimensions(series), rows)
    return _consolidated(memory)


def _auxiliary(layout: Layout) -> Iterator[tuple[str, str, list[str]]]:
    """Name, dimension and values of the coordinates that say units."""
    yield "variable_units", "variable", [OUTPUT[name].units for name in layout.variables]
    yield "channel_units", "channel", [INPUT[name].units for name in layout.channels]


def _write_times(store: MemoryStore, series: Series, month: datetime, layout: Layout) -> tuple[int, ...]:
    """The coordinates of the rows; how many there are along each dimension."""
    hours = hours_from(month, ((month + timedelta(days=31)).replace(day=1) - month) // HOUR)
    if series.kind == "hindcast":
        _write(store, "time", ("time",), _seconds(hours), {"standard_name": "time", **_SECONDS})
        return (len(hours),)
    inits = hours[:: layout.cycle_hours]
    valid = [[init + lead * HOUR for lead in layout.lead_hours] for init in inits]
    reference = {"standard_name": "forecast_reference_time", **_SECONDS}
    period = {"standard_name": "forecast_period", "units": "hours", "dtype": "timedelta64[ns]"}
    _write(store, "init_time", ("init_time",), _seconds(inits), reference)
    _write(store, "lead_time", ("lead_time",), np.array(layout.lead_hours), period)
    seconds = np.stack([_seconds(times) for times in valid])
    _write(store, "valid_time", ("init_time", "lead_time"), seconds, {"standard_name": "time", **_SECONDS})
    return len(inits), len(layout.lead_hours)


def _seconds(times: Sequence[datetime]) -> NDArray[np.int64]:
    return np.array([epoch_seconds(time) for time in times], np.int64)


def _write(store: MemoryStore, name: str, dimensions: tuple[str, ...], given: Any, attributes: dict[str, Any]) -> None:
    """A coordinate in one chunk."""
    values = np.asarray(given)
    words = values.dtype.kind == "U"
    array = zarr.create_array(
        store,
        name=name,
        shape=values.shape,
        chunks=values.shape,
        dtype="string" if words else values.dtype,
        compressors=None,
        dimension_names=dimensions,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    array[...] = values.astype(object) if words else values


def _create(
    store: MemoryStore,
    name: str,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    zarr.create_array(
        store,
        name=name,
        shape=shape,
        chunks=chunks,
        dtype="float64",
        fill_value=np.nan,
        compressors=None,
        dimension_names=dimensions,
        attributes=attributes,
    )


def _create_marker(store: MemoryStore, stage: str, dimensions: tuple[str, ...], rows: tuple[int, ...]) -> None:
    zarr.create_array(
        store,
        name=stage,
        shape=rows,
        chunks=tuple(1 for _ in rows),
        dtype="int64",
        fill_value=_NOT_A_TIME,
        compressors=None,
        dimension_names=dimensions,
        attributes={"long_name": _MARKERS[stage], **_SECONDS, "_FillValue": _NOT_A_TIME},
    )


def _consolidated(memory: dict[str, Buffer]) -> dict[str, bytes]:
    objects = {key: buffer.to_bytes() for key, buffer in memory.items()}
    root = json.loads(objects.pop(ROOT))
    arrays = {key.removesuffix(f"/{ROOT}"): json.loads(data) for key, data in objects.items() if key.endswith(ROOT)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    return {**objects, ROOT: json.dumps({**root, "consolidated_metadata": consolidated}, indent=1).encode()}
