"""Many stores as one lazy dataset: what a researcher opens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.archive.layout import Kind, Series, brief, differences
from corrdiff_core.archive.objects import Objects, open_objects
from corrdiff_core.archive.store import OUTPUTS_GROUP, Shards, Store, find_series, marked, open_store, store_starts
from corrdiff_core.archive.template import OUTPUT_MARKER
from corrdiff_core.cycle import HOUR, Slot, as_utc, parse_leads, parse_time
from corrdiff_core.errors import ArchiveError

Time = datetime | str
Cells = dict[tuple[int, ...], tuple[Store, int]]  # along the slot dimensions: where to read; what is absent is missing

_AT_ONCE = 16  # requests under way
_ALIKE = ("domain", "members", "outputs")  # of a layout: what stores must share to be one dataset
_SHARED = ("member", "y", "x", "latitude", "longitude", "spatial_ref")  # coordinates that all of them have


def open_forecasts(
    url: str,
    *,
    source: str | None = None,
    model: str | None = None,
    start: Time | None = None,
    end: Time | None = None,
    leads: str | Iterable[int] | None = None,
    ragged: bool = False,
) -> xr.Dataset:
    """Forecasts of an archive, (init_time, lead_time, member, y, x): one chunk per published slot, read when used.

    `url` is an archive's: a directory or any fsspec URL. `source` and `model` may be left out where it holds one. Taken
    are the forecasts with start <= init_time < end that have published any of `leads` (`72`, `0-12`, `0,3,6` or whole
    hours; all that any has by default). Every pair of them must then be published, so that nothing is missing:
    ArchiveError counts the holes and names the leads that all have. With `ragged`, the holes are NaN, and the boolean
    coordinate `published` (init_time, lead_time) tells them from data.

        forecasts = open_forecasts("s3://weather/archive", start="2025-07-01", end="2025-08-01", leads="0-12")
        windy = (np.hypot(forecasts.u10m, forecasts.v10m) > 15).mean("member")

    ArchiveError also where nothing is published, and where stores differ in members, domain or variables.
    """
    objects = open_objects(url)
    series = _series(objects, "forecast", source, model)
    first, last = _span(start, end)
    wanted = _lead_hours(leads)
    parts = _published(
        objects,
        series,
        lambda begin: first <= begin < last,
        lambda slot: wanted is None or slot.lead_hours in wanted,
    )
    init_times = [series.start(slots[0]) for _, slots in parts]
    lead_hours = wanted or sorted({slot.lead_hours for _, slots in parts for slot in slots})
    cells: Cells = {
        (row, lead_hours.index(slot.lead_hours)): (store, store.index(slot))
        for row, (store, slots) in enumerate(parts)
        for slot in slots
    }
    published = np.zeros((len(init_times), len(lead_hours)), dtype=bool)
    published[tuple(np.array(list(cells)).T)] = True
    if not ragged:
        _refuse_holes(f"{objects.url}/{series.key}", published, init_times, lead_hours)
    like = _grid(objects, parts[0][0])
    inits = np.array(init_times, dtype="datetime64[ns]")
    steps = np.array(lead_hours) * np.timedelta64(HOUR, "ns")
    coordinates: dict[str, Any] = {
        "init_time": _coordinate(like.init_time, "init_time", inits),
        "lead_time": _coordinate(like.lead_time, "lead_time", steps),
        "valid_time": _coordinate(like.valid_time, ("init_time", "lead_time"), inits[:, None] + steps),
    }
    if ragged:
        coordinates["published"] = ("init_time", "lead_time"), published, {"long_name": "whether there is a forecast"}
    return _dataset(objects.url, like, parts[0][0], cells, coordinates)


def open_hindcast(
    url: str, start: Time, end: Time, *, source: str | None = None, model: str | None = None
) -> xr.Dataset:
    """The hindcast of an archive, (time, member, y, x): one chunk per published slot, read when used.

    The times are those with start <= time < end that are published: an hour that is not is no coordinate, and nothing
    is missing. Otherwise as `open_forecasts`.

        hindcast = open_hindcast("s3://weather/archive", "2020-01-01", "2021-01-01")
        hottest = hindcast.t2m.mean("member").resample(time="1D").max()
    """
    objects = open_objects(url)
    series = _series(objects, "hindcast", source, model)
    first, last = _span(start, end)
    parts = _published(
        objects,
        series,
        lambda begin: series.store_start(first) <= begin < last,
        lambda slot: first <= slot.valid_time < last,
    )
    found = [(store, slot) for store, slots in parts for slot in slots]
    cells: Cells = {(row,): (store, store.index(slot)) for row, (store, slot) in enumerate(found)}
    like = _grid(objects, parts[0][0])
    times = np.array([slot.valid_time for _, slot in found], dtype="datetime64[ns]")
    return _dataset(objects.url, like, parts[0][0], cells, {"time": _coordinate(like.time, "time", times)})


# What is there


def _series(objects: Objects, kind: Kind, source: str | None, model: str | None) -> Series:
    """The only one of its kind that fits; one listing, and one for each source."""
    found = find_series(objects, kind, source, model)
    if len(found) != 1:
        listed = "; ".join(f"source={series.source!r}, model={series.model!r}" for series in found)
        asked = "".join(f", {name}={given!r}" for name, given in (("source", source), ("model", model)) if given)
        raise ArchiveError(
            f"{objects.url} holds {len(found)} {kind} series{asked}" + (f": choose one of {listed}" if found else "")
        )
    return found[0]


def _span(start: Time | None, end: Time | None) -> tuple[datetime, datetime]:
    return _time(start or datetime(1, 1, 1)), _time(end or datetime(9999, 1, 1))


def _time(time: Time) -> datetime:
    return as_utc(time) if isinstance(time, datetime) else parse_time(time)


def _lead_hours(leads: str | Iterable[int] | None) -> list[int] | None:
    if leads is None:
        return None
    return [lead // HOUR for lead in parse_leads(leads)] if isinstance(leads, str) else sorted(set(map(int, leads)))


def _published(
    objects: Objects, series: Series, begins: Callable[[datetime], bool], wanted: Callable[[Slot], bool]
) -> list[tuple[Store, list[Slot]]]:
    """Alike stores and those of their published slots that are wanted, at least one, ascending.

    One listing for all, then metadata, layout and one listing for each store that begins when it should.
    """

    def look(start: datetime) -> tuple[Store, list[Slot]] | None:
        store = open_store(objects, series, start)
        slots = [] if store is None else sorted(filter(wanted, marked(objects, store, OUTPUT_MARKER)))
        return (store, slots) if store is not None and slots else None

    starts = [start for start in store_starts(objects, series) if begins(start)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        parts = [part for part in pool.map(look, starts) if part is not None]
    if not parts:
        raise ArchiveError(
            f"{objects.url}/{series.key} has published nothing of what is asked for, in {len(starts)} stores:"
            " ask for other times or leads, or make them first"
        )
    for store, _ in parts[1:]:
        _refuse_unlike(parts[0][0], store)
    return parts


def _refuse_unlike(first: Store, other: Store) -> None:
    left, right = ({name: store.layout[name] for name in _ALIKE} for store in (first, other))
    problems = differences(left, right, "{} is {} and {}")
    if problems:
        raise ArchiveError(
            f"{first.url} and {other.url} cannot be one dataset: {'; '.join(problems)}; open their times one by one"
        )


def _refuse_holes(
    where: str, published: NDArray[np.bool_], init_times: Sequence[datetime], lead_hours: Sequence[int]
) -> None:
    holes = np.argwhere(~published)
    if not len(holes):
        return
    row, column = holes[0]
    first = Slot.forecast(init_times[row], lead_hours[column] * HOUR)
    common = [hours for column, hours in enumerate(lead_hours) if published[:, column].all()]
    raise ArchiveError(
        f"{where}: {len(holes)} of {len(init_times)} init_times x {len(lead_hours)} leads are not published, the first"
        f" {first}: choose leads that all have ({brief(common) if common else 'there are none'}), other times, or"
        " ragged=True for NaN in their places"
    )


# What it looks like


def _grid(objects: Objects, store: Store) -> xr.Dataset:
    """A store as xarray shows it, its coordinates in memory."""
    keys = store.constant_keys(OUTPUTS_GROUP)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = {key: data for key, data in zip(keys, pool.map(objects.get, keys), strict=True) if data is not None}
    missing = sorted(set(keys) - set(found))
    if missing:
        raise ArchiveError(f"{objects.url}/{missing[0]} is gone: the store is not whole, delete it")
    return store.open(OUTPUTS_GROUP, found)


def _coordinate(like: xr.DataArray, dimensions: str | tuple[str, ...], values: NDArray[Any]) -> xr.Variable:
    encoding = {name: like.encoding[name] for name in ("units", "calendar", "dtype") if name in like.encoding}
    return xr.Variable(dimensions, values, like.attrs, encoding)


def _dataset(url: str, like: xr.Dataset, store: Store, cells: Cells, times: dict[str, Any]) -> xr.Dataset:
    slots = tuple(name for name in times if name in ("init_time", "lead_time", "time"))
    outer = tuple(len(times[name]) for name in slots)
    fields = {}
    for name in store.outputs:
        inner = store.slot_shape(name)
        variable = xr.Variable(
            (*slots, *inner), _lazy(url, name, cells, outer, tuple(inner.values())), like[name].attrs
        )
        variable.encoding["grid_mapping"] = like[name].encoding["grid_mapping"]
        fields[name] = variable
    shared = {name: like[name].variable.load() for name in _SHARED}
    attributes = {**like.attrs, "comment": "Published slots only."}
    return xr.Dataset(fields, {**shared, **times}, attributes)


def _lazy(url: str, path: str, cells: Cells, outer: tuple[int, ...], inner: tuple[int, ...]) -> Any:
    """A Dask array of the shape outer + inner, with one chunk for each index of `outer`."""
    from dask.array import Array  # a second that those who only write need not spend

    name = f"{path}-{uuid4().hex}"
    shards = {store.key: store.shards(url, path) for store, _ in cells.values()}
    graph: dict[Any, Any] = {f"{name}-{key}": one for key, one in shards.items()}
    shape = (1,) * len(outer) + inner

    def tasks() -> Iterator[tuple[Any, Any]]:
        for position in np.ndindex(outer):
            if position in cells:
                store, index = cells[position]
                task: Any = (_read, f"{name}-{store.key}", index, shape)
            else:
                task = (np.full, shape, np.nan, np.float32)
            yield (name, *position, *(0 for _ in inner)), task

    graph.update(tasks())
    chunks = (*((1,) * length for length in outer), *((length,) for length in inner))
    return Array(graph, name, chunks, dtype=np.float32)  # type: ignore[no-untyped-call]


def _read(shards: Shards, index: int, shape: tuple[int, ...]) -> NDArray[Any]:
    return shards.read(index).reshape(shape)
