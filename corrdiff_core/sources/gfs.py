"""NCEP's GFS at 0.25 degrees: where its files lie, and writing one lead."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import ClassVar

import numpy as np
import xarray as xr

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.sources import grib
from corrdiff_core.sources.buckets import root_of
from corrdiff_core.sources.channels import CHANNELS, Channel, above_ground, pressure_level
from corrdiff_core.sources.inputs import init_time_of
from corrdiff_core.sources.ncep import NCEP, object_name
from corrdiff_core.sources.ranges import Root
from corrdiff_core.sources.schedule import ALWAYS, Eras, every, in_force, six_hourly
from corrdiff_core.variables import INPUT_NAMES

NOAA = "s3://noaa-gfs-bdp-pds"

_FLAT = "gfs.{day}/{hour}/gfs.t{hour}z.pgrb2.0p25.f{lead:03d}"
_ATMOS = "gfs.{day}/{hour}/atmos/gfs.t{hour}z.pgrb2.0p25.f{lead:03d}"
_PRODUCTS = "gfs.{day}/{hour}/products/atmos/grib2/0p25/gfs.t{hour}z.pres_a.0p25.f{lead:03d}.grib2"
# GFS v17 moves to `products/`; its first cycle was not announced by September 2026, so from October on both are probed.
# Mirrors may keep old cycles below `atmos/`.
ERAS: Eras[tuple[str, ...]] = (
    (ALWAYS, (_FLAT, _ATMOS)),
    (datetime(2021, 3, 22, 12), (_ATMOS,)),
    (datetime(2026, 10, 1), (_ATMOS, _PRODUCTS)),
)
_LEADS = every((1, 120))  # 3-hourly beyond, which this source leaves out


def layouts(init_time: datetime) -> tuple[str, ...]:
    """The path templates of a cycle's era, in the order they are tried."""
    return in_force(ERAS, init_time)


class GFS(NCEP):
    """GFS forecasts below `url`, in NOAA's layout; by default from NOAA's own bucket, anonymously.

    >>> slots = GFS().plan(datetime(2025, 8, 1), [datetime(2025, 8, 1, 7), datetime(2025, 8, 9)])
    >>> [str(slot) for slot in slots]
    ['20250801T00Z+007h (valid 20250801T07Z)']
    """

    name = "gfs"
    publication_delay = timedelta(hours=3, minutes=45)
    longest: ClassVar[timedelta] = _LEADS[-1]

    def __init__(self, url: str = NOAA) -> None:
        super().__init__(root_of(url))

    @classmethod
    def open(cls, variant: str, url: str | None, cache: str | None) -> "GFS":
        """As `sources.Opener` says; nothing is cached."""
        if variant:
            raise ConfigurationError(f"no source is called 'gfs-{variant}': GFS has one forecast, `gfs`")
        return cls() if url is None else cls(url)

    def lead_times(self, init_time: datetime) -> tuple[timedelta, ...]:
        """Hourly to 120 h, from 00, 06, 12 and 18 UTC."""
        return _LEADS if six_hourly(init_time) else ()

    def layouts(self, init_time: datetime) -> tuple[str, ...]:
        return layouts(init_time)


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
        body += grib.encode(values, channel.parameter, init_time_of(slot), slot.lead_time, DECIMALS, packing)
    store, name = Root(root), object_name(layouts(init_time_of(slot))[0], slot)
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
