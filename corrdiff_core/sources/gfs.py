"""NCEP's GFS at 0.25 degrees: where its files lie, fetching one slot, writing one lead."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot, floor_cycle
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import cover
from corrdiff_core.sources import grib
from corrdiff_core.sources.channels import CHANNELS, Channel, above_ground, pressure_level
from corrdiff_core.sources.inventory import Located, locate, parse
from corrdiff_core.sources.ranges import Found, Root, Span, merge
from corrdiff_core.sources.source import Fetched, Kind, NotYet
from corrdiff_core.variables import INPUT, INPUT_NAMES

NOAA = "s3://noaa-gfs-bdp-pds"
# Settings of the user's own object storage (endpoint, credentials) must not reach NOAA's public bucket.
NOAA_OPTIONS = (
    ("anon", True),
    ("endpoint_url", "https://s3.us-east-1.amazonaws.com"),
    ("client_kwargs", {"region_name": "us-east-1"}),
)
CYCLE_STEP = 6 * HOUR
LAST_LEAD = 120 * HOUR  # hourly up to here; 3-hourly beyond, which this source leaves out

_FLAT = "gfs.{day}/{hour}/gfs.t{hour}z.pgrb2.0p25.f{lead}"
_ATMOS = "gfs.{day}/{hour}/atmos/gfs.t{hour}z.pgrb2.0p25.f{lead}"
_PRODUCTS = "gfs.{day}/{hour}/products/atmos/grib2/0p25/gfs.t{hour}z.pres_a.0p25.f{lead}.grib2"
# First cycle of each era and the layouts tried, in this order. GFS v17 moves to `products/`; its first cycle was not
# announced by September 2026, so from October on both are probed. Mirrors may keep old cycles below `atmos/`.
ERAS: tuple[tuple[datetime, tuple[str, ...]], ...] = (
    (datetime(1, 1, 1), (_FLAT, _ATMOS)),
    (datetime(2021, 3, 22, 12), (_ATMOS,)),
    (datetime(2026, 10, 1), (_ATMOS, _PRODUCTS)),
)


def layouts(init_time: datetime) -> tuple[str, ...]:
    """The path templates of a cycle's era, in the order they are tried."""
    return [templates for first, templates in ERAS if first <= init_time][-1]


def object_name(template: str, slot: Slot) -> str:
    """A slot's GRIB2 file below the root; `.idx` after it is its inventory."""
    init_time = _init_time(slot)
    return template.format(day=f"{init_time:%Y%m%d}", hour=f"{init_time:%H}", lead=f"{slot.lead_hours:03d}")


def _init_time(slot: Slot) -> datetime:
    if slot.init_time is None:
        raise ConfigurationError(f"{slot} is of no forecast: GFS slots need an init_time")
    return slot.init_time


class GFS:
    """GFS forecasts below `url`, in NOAA's layout; by default from NOAA's own bucket, anonymously.

    >>> slots = GFS().plan(datetime(2025, 8, 1), [datetime(2025, 8, 1, 7), datetime(2025, 8, 9)])
    >>> [str(slot) for slot in slots]
    ['20250801T00Z+007h (valid 20250801T07Z)']
    """

    name = "gfs"
    kind: Kind = "forecast"
    cycle_step = CYCLE_STEP
    publication_delay = timedelta(hours=3, minutes=45)

    def __init__(self, url: str = NOAA) -> None:
        self.url = url
        self._root = Root(url, NOAA_OPTIONS if url.rstrip("/") == NOAA else ())

    @classmethod
    def open(cls, variant: str, url: str | None, cache: str | None) -> "GFS":
        """As `sources.Opener` says; nothing is cached."""
        if variant:
            raise ConfigurationError(f"no source is called 'gfs-{variant}': GFS has one forecast, `gfs`")
        return cls() if url is None else cls(url)

    def __repr__(self) -> str:
        return f"GFS({self.url!r})"

    def cycles(self, at: datetime) -> Iterator[datetime]:
        """Cycles whose leads reach `at`, newest first."""
        cycle = floor_cycle(at, CYCLE_STEP)
        while at - cycle <= LAST_LEAD:
            yield cycle
            cycle -= CYCLE_STEP

    def plan(self, init_time: datetime, valid_times: Sequence[datetime]) -> list[Slot]:
        """The slots at those of `valid_times` that are whole hours 0..120 after `init_time`."""
        if init_time != floor_cycle(init_time, CYCLE_STEP):
            raise ConfigurationError(f"GFS has no cycle at {init_time:%Y-%m-%dT%H:%M}: name one of 00, 06, 12, 18 UTC")
        leads = [valid_time - init_time for valid_time in valid_times]
        return [
            Slot.forecast(init_time, lead) for lead in leads if timedelta(0) <= lead <= LAST_LEAD and not lead % HOUR
        ]

    def available(self, slot: Slot) -> bool:
        """Whether GRIB2 file and inventory are both there with some bytes; reads neither. Errors as `fetch`."""
        return not isinstance(self._find(slot), NotYet)

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet:
        """The slot's twelve inputs around `box`, or NotYet while file or inventory is absent or empty.

        Reads the inventory and the messages' byte ranges, adjacent ones as one, and nothing else. Raises SourceError
        for whatever is wrong with what is there, GridError where it does not cover the box, ConfigurationError for a
        root that does not exist, ConnectionError where a retry may help.
        """
        found = self._find(slot)
        if isinstance(found, NotYet):
            return found
        file, inventory = found
        try:
            text = self._root.read(inventory, [inventory.whole])[0].decode("ascii", errors="replace")
            located = _locate(text, slot, file, inventory)
            spans = merge(place.span for place in located.values())
            bodies = dict(zip(spans, self._root.read(file, spans), strict=True))
        except FileNotFoundError:
            return NotYet(slot, file.url, "it went away while it was read")
        if self._root.find(file.name) != file:
            return NotYet(slot, file.url, "it was replaced while it was read")
        inputs, packings = _inputs(_messages(located, bodies, file), slot, box)
        return Fetched(slot, inputs, _provenance(file, inventory, located, spans, packings, inputs))

    def _find(self, slot: Slot) -> tuple[Found, Found] | NotYet:
        """GRIB2 file and inventory, in the first of the era's layouts that has both."""
        lacking = []
        for template in layouts(_init_time(slot)):
            name = object_name(template, slot)
            file, inventory = self._root.find(name), self._root.find(f"{name}.idx")
            if file is not None and inventory is not None:
                return file, inventory
            lacking.append(self._root.url_of(name if file is None else f"{name}.idx"))
        return NotYet(slot, lacking[0], f"absent or empty: {', '.join(lacking)}")


def _locate(text: str, slot: Slot, file: Found, inventory: Found) -> dict[str, Located]:
    wanted = {name: (channel.element, channel.level) for name, channel in CHANNELS.items()}
    return locate(parse(text, inventory.url), wanted, slot, file.size, inventory.url)


def _messages(located: dict[str, Located], bodies: dict[Span, bytes], file: Found) -> dict[str, tuple[bytes, str]]:
    """Each input's checked message of one field, and the words that name it; all are checked before any is decoded."""
    messages = {}
    for name, place in located.items():
        where = f"{file.url}: {name} at bytes {place.span.start}..{place.span.stop - 1} ({place.entry.line})"
        message = _cut(place.span, bodies)
        grib.check_frame(message, where)
        messages[name] = grib.single_field(message, place.entry.field, place.fields, where), where
    return messages


def _cut(span: Span, bodies: dict[Span, bytes]) -> bytes:
    """A message's bytes out of the merged span that holds it."""
    (whole,) = [body for body in bodies if body.start <= span.start and span.stop <= body.stop]
    return bodies[whole][span.start - whole.start : span.stop - whole.start]


def _inputs(messages: dict[str, tuple[bytes, str]], slot: Slot, box: Box) -> tuple[xr.Dataset, dict[str, str]]:
    """The twelve around `box` in our units, and how each was packed."""
    fields, packings = {}, {}
    init_time = _init_time(slot)
    for name in INPUT_NAMES:
        message, where = messages[name]
        field = grib.decode(message, CHANNELS[name].parameter, init_time, slot.lead_time, where)
        packings[name] = field.attrs["packing"]
        field = _around(field, box, where) * CHANNELS[name].factor
        fields[name] = field.astype(np.float32).assign_attrs(INPUT[name].attrs)
        _refuse_other_grid(fields[name], fields[INPUT_NAMES[0]], where)
    coordinates = {
        "init_time": np.datetime64(init_time, "ns"),
        "lead_time": np.timedelta64(slot.lead_time, "ns"),
        "valid_time": np.datetime64(slot.valid_time, "ns"),
    }
    return xr.Dataset(fields).assign_coords(coordinates), packings


def _around(field: xr.DataArray, box: Box, where: str) -> xr.DataArray:
    """The part that covers `box`, whole, as float64 without attributes."""
    part = cover(field, box)
    missing = int((~np.isfinite(part)).sum())
    if missing:
        raise SourceError(f"{where}: {missing} of {part.size} values around {box} are missing: use another mirror")
    return part.drop_attrs(deep=False).astype(np.float64)


def _refuse_other_grid(field: xr.DataArray, first: xr.DataArray, where: str) -> None:
    if not (field.latitude.equals(first.latitude) and field.longitude.equals(first.longitude)):
        raise SourceError(
            f"{where}: is on other grid lines {field.shape} than {INPUT_NAMES[0]} {first.shape}: use another mirror"
        )


def _provenance(
    file: Found,
    inventory: Found,
    located: dict[str, Located],
    spans: list[Span],
    packings: dict[str, str],
    inputs: xr.Dataset,
) -> dict[str, Any]:
    """Plain values; byte ranges are [start, stop)."""
    return {
        "source": GFS.name,
        "file": file.to_dict(),
        "inventory": inventory.to_dict(),
        "init_time": str(inputs.init_time.values.astype("datetime64[s]")),
        "lead_hours": int(inputs.lead_time.values / np.timedelta64(1, "h")),
        "grid": {
            "latitude_step": float(np.diff(inputs.latitude).mean()),
            "longitude_step": float(np.diff(inputs.longitude).mean()),
        },
        "ranges": [list(span) for span in spans],
        "bytes": sum(span.size for span in spans),
        "channels": {
            name: {"line": place.entry.line, "range": list(place.span), "packing": packings[name]}
            for name, place in located.items()
        },
    }


DECIMALS = 3  # decimal places kept of a written value, in NCEP's units
# What NCEP's files hold beside the twelve, so that a written file can be misread: the channel, and the variable whose
# values, shifted, stand in for it. Keyed by the input that it follows.
_NEIGHBORS: dict[str, tuple[Channel, str, float]] = {
    "": (pressure_level("TMP", 2), "t500", -20.0),
    "t500": (pressure_level("TMP", 550), "t500", 5.0),
    "v500": (pressure_level("TMP", 700), "t850", -8.0),
    "t850": (pressure_level("TMP", 900), "t850", 3.0),
    "v850": (above_ground("TMP", 80, "t"), "t2m", -1.0),
    "t2m": (above_ground("DPT", 2, "2d"), "t2m", -4.0),
    "v10m": (above_ground("UGRD", 20, "u"), "u10m", 1.0),
}
_WRITTEN = (*INPUT_NAMES[1:], INPUT_NAMES[0])  # NCEP's order


def write_lead(root: str, slot: Slot, fields: xr.Dataset, packing: str = grib.COMPLEX) -> str:
    """Write one lead below the fsspec URL `root` as NOAA publishes it; returns the URL of the GRIB2 file.

    `fields` holds the twelve inputs in our units, (latitude, longitude) on any regular grid, up or down; geopotential
    becomes HGT in gpm. Values keep 10**-3 of NCEP's units (the complex packings 2 x 10**-3). Some neighbors are written
    beside them, as stand-ins. The file appears whole and before its inventory; an old inventory goes first.
    Raises SourceError for missing variables or values, GridError for a grid that is not regular.
    """
    lacking = [name for name in INPUT_NAMES if name not in fields]
    if lacking:
        raise SourceError(f"the fields for {slot} lack {', '.join(lacking)}: give all of {', '.join(INPUT_NAMES)}")
    lines, body = [], b""
    for number, (channel, values) in enumerate(_written(fields), start=1):
        lines.append(_inventory_line(number, len(body), channel, slot))
        body += grib.encode(values, channel.parameter, _init_time(slot), slot.lead_time, DECIMALS, packing)
    store, name = Root(root), object_name(layouts(_init_time(slot))[0], slot)
    store.remove(f"{name}.idx")
    store.write(name, body)
    store.write(f"{name}.idx", "".join(lines).encode())
    return store.url_of(name)


def _written(fields: xr.Dataset) -> Iterator[tuple[Channel, xr.DataArray]]:
    """Channel and values, in NCEP's units, of every message of a written file."""
    for name in ("", *_WRITTEN):
        if name:
            yield CHANNELS[name], fields[name].astype(np.float64) / CHANNELS[name].factor
        if name in _NEIGHBORS:
            channel, like, shift = _NEIGHBORS[name]
            yield channel, fields[like].astype(np.float64) + shift


def _inventory_line(number: int, offset: int, channel: Channel, slot: Slot) -> str:
    window = f"{slot.lead_hours} hour fcst" if slot.lead_hours else "anl"
    return f"{number}:{offset}:d={slot.init_time:%Y%m%d%H}:{channel.element}:{channel.level}:{window}:\n"
