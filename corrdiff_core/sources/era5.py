"""ERA5, ECMWF's reanalysis, hourly at 0.25 degrees from 1940: from ARCO-ERA5 (Zarr) or NSF NCAR (netCDF), cached."""

from datetime import datetime
from functools import cached_property
from typing import Any, get_args

import numpy as np
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot, floor_hour, hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import Box
from corrdiff_core.regrid import LATITUDE, LONGITUDE
from corrdiff_core.sources.era5_arco import Arco
from corrdiff_core.sources.era5_cache import DamagedError, HourCache
from corrdiff_core.sources.era5_hour import FIRST_HOUR, Hour, Layout, LayoutName
from corrdiff_core.sources.era5_ncar import LEVELS, Ncar
from corrdiff_core.sources.ranges import Root
from corrdiff_core.sources.source import Fetched, Kind, NotYet
from corrdiff_core.sources.zarr_v2 import METADATA
from corrdiff_core.variables import INPUTS

ARCO_BUCKET = "gcp-public-data-arco-era5"
ARCO = f"https://storage.googleapis.com/{ARCO_BUCKET}/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
NCAR = "s3://nsf-ncar-era5"
# Settings of the user's own object storage (endpoint, credentials) must not reach the public buckets.
_PUBLIC: dict[str, tuple[tuple[str, Any], ...]] = {
    NCAR: (
        ("anon", True),
        ("endpoint_url", "https://s3.us-west-2.amazonaws.com"),
        ("client_kwargs", {"region_name": "us-west-2"}),
    ),
    f"gs://{ARCO_BUCKET}": (("token", "anon"),),
}


class ERA5:
    """ERA5 below `url`, in the layout that is found there; by default ARCO-ERA5, anonymously over HTTPS.

    `cache` is a directory or fsspec URL where hours around a box are kept once they have been read, None for nowhere.
    It may be pickled, and used by several threads.

    >>> [f"{time:%dT%H}" for time in ERA5().hours(datetime(2020, 2, 28, 22, 30), datetime(2020, 2, 29, 1))]
    ['28T23', '29T00']
    """

    name = "era5"
    kind: Kind = "hindcast"

    def __init__(self, url: str = ARCO, cache: str | None = None) -> None:
        self.url = url
        self._root = Root(url, _options(url))
        self._cache = None if cache is None else HourCache(cache, url)

    @classmethod
    def open(cls, variant: str, url: str | None, cache: str | None) -> "ERA5":
        """As `sources.Opener` says."""
        if variant:
            raise ConfigurationError(f"no source is called 'era5-{variant}': ERA5 has one analysis, `era5`")
        return cls(cache=cache) if url is None else cls(url, cache)

    def __repr__(self) -> str:
        return f"ERA5({self.url!r})"

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        """Every whole hour with start <= hour < end from 1940-01-01 on."""
        first = max(start, FIRST_HOUR)
        first = first if first == floor_hour(first) else floor_hour(first) + HOUR
        return hours_from(first, -((first - end) // HOUR)) if first < end else []

    def available(self, slot: Slot) -> bool:
        """Whether the slot is there: before the end that the store names, or with all its files. Errors as `fetch`."""
        return slot.valid_time >= FIRST_HOUR and self._layout.lacking(_hindcast(slot)) is None

    def final(self, slot: Slot) -> bool:
        """Whether final data, not ERA5T, cover the slot now. Errors as `fetch`."""
        return self._layout.is_final(_hindcast(slot))

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet:
        """The slot's twelve inputs around `box`, from the cache or from the cloud, or NotYet beyond the data's end.

        Raises SourceError for whatever is wrong with what is there, GridError where it does not cover the box,
        ConfigurationError for a root with neither layout and for hours before the data's start, ArchiveError for what
        the cache's storage refuses, ConnectionError where a retry may help.
        """
        if _hindcast(slot).valid_time < FIRST_HOUR:
            raise ConfigurationError(f"ERA5 begins at 1940-01-01T00, after {slot}: ask for a later hour")
        hour, warnings = self._kept(slot, box)
        if hour is not None:
            return Fetched(slot, _inputs(hour, slot), hour.provenance | {"bytes": 0, "cached": True}, hour.preliminary)
        answer = self._layout.read(slot, box)
        if isinstance(answer, NotYet):
            return answer
        provenance = self._provenance(answer, slot)
        inputs = _inputs(answer, slot)
        if self._cache is not None:
            kept = Hour(answer.latitude, answer.longitude, answer.values, provenance, answer.preliminary)
            self._cache.write(self._layout.name, slot, box, kept)
        warned = {"warnings": warnings} if warnings else {}
        return Fetched(slot, inputs, provenance | {"cached": False} | warned, answer.preliminary)

    @cached_property
    def _layout(self) -> Layout:
        """Which of the layouts the root has."""
        if self._root.find(METADATA) is not None:
            return Arco(self._root)
        if self._root.has_folder(LEVELS):
            return Ncar(self._root)
        raise ConfigurationError(
            f"{self.url} has neither {METADATA} (ARCO-ERA5's consolidated Zarr v2) nor a folder {LEVELS}/ (NCAR's "
            f"netCDF): set CORRDIFF_ERA5_URL to such a root, {ARCO} or {NCAR}"
        )

    def _kept(self, slot: Slot, box: Box) -> tuple[Hour | None, list[str]]:
        """The hour from the cache, if it may be used, and what was wrong with the entry.

        Final hours need no request. ERA5T is dropped as soon as the store's ends say that final data are there.
        """
        if self._cache is None:
            return None, []
        warnings = []
        probed = vars(self).get("_layout")
        names: tuple[LayoutName, ...] = get_args(LayoutName) if probed is None else (probed.name,)
        for name in names:
            try:
                hour = self._cache.read(name, slot, box)
            except DamagedError as error:
                where = self._cache.url_of(name, slot, box)
                warnings.append(f"the cached {where} is damaged, {error}: it was read anew from its source")
                continue
            if hour is not None and hour.preliminary and self._layout.is_final(slot):
                self._cache.remove(name, slot, box)
                continue
            if hour is not None:
                return hour, warnings
        return None, warnings

    def _provenance(self, hour: Hour, slot: Slot) -> dict[str, Any]:
        """Plain values. `bytes` traveled for the fields: of the ranges of chunks, or of all that HDF5 read of files."""
        return {
            "source": self.name,
            "url": self.url,
            "layout": self._layout.name,
            "valid_time": slot.valid_time.isoformat(),
            "grid": {
                "latitude_step": float(np.diff(hour.latitude).mean()),
                "longitude_step": float(np.diff(hour.longitude).mean()),
            },
        } | hour.provenance


def _options(url: str) -> tuple[tuple[str, Any], ...]:
    """Of the filesystem, for a public bucket and all below it."""
    for bucket, options in _PUBLIC.items():
        if url == bucket or url.startswith(f"{bucket}/"):
            return options
    return ()


def _hindcast(slot: Slot) -> Slot:
    if slot.init_time is not None:
        raise ConfigurationError(f"{slot} is of a forecast: ERA5 slots are valid times, without an init_time")
    return slot


def _inputs(hour: Hour, slot: Slot) -> xr.Dataset:
    """The twelve as `Fetched.inputs` has them."""
    dims = (LATITUDE, LONGITUDE)
    return xr.Dataset(
        {variable.name: (dims, hour.values[variable.name], variable.attrs) for variable in INPUTS},
        coords={
            LATITUDE: (LATITUDE, hour.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            LONGITUDE: (LONGITUDE, hour.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
            "valid_time": np.datetime64(slot.valid_time, "ns"),
        },
    )
