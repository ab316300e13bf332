"""Global models of machine learning from NOAA's and CIRA's AIWP archive: one netCDF-4 file a cycle, 6-hourly to 240 h.

Names, units, dimensions and attributes are those that the archive's public writer scripts give; public notes on headers
of 2024 to 2026 agree, chunks of one level of one step among them. No file of the archive was read here. FourCastNet is
the only model with total column water vapour: the others are refused, with the list of what their file lacks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import Box
from corrdiff_core.sources.buckets import root_of
from corrdiff_core.sources.inputs import Delivered, assemble, init_time_of, told_of
from corrdiff_core.sources.ranged_file import RangedFile, one_reader
from corrdiff_core.sources.ranges import Found
from corrdiff_core.sources.schedule import ALWAYS, Eras, Scheduled, every, in_force, six_hourly
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import STANDARD_GRAVITY

NOAA = "s3://noaa-oar-mlwp-data"
FOLDERS = {  # by variant: the model, and the analysis that it starts from
    f"{model.lower()[:4]}-{analysis.lower()}": f"{model}_{analysis}"
    for model in ("FOUR_v200", "PANG_v100", "GRAP_v100", "AURO_v100")
    for analysis in ("GFS", "IFS")
}
_LEADS = every((6, 240))
_HOURS: Eras[tuple[int, ...]] = ((ALWAYS, (0, 6, 12, 18)), (datetime(2024, 1, 1), (0, 12)))  # of the cycles


@dataclass(frozen=True)
class Variable:
    """One input as the archive writes it; its value times the factor of its units is in ours."""

    name: str
    units: dict[str, float]
    level: int | None = None  # hPa

    def __str__(self) -> str:
        return self.name if self.level is None else f"{self.name} at {self.level} hPa"


_SPEED = {"m s-1": 1.0, "m s**-1": 1.0, "m/s": 1.0}
_KELVIN = {"K": 1.0, "kelvin": 1.0}
_MASS = {"kg m-2": 1.0, "kg m**-2": 1.0, "kg/m^2": 1.0}
# Geopotential or height by the units alone; `m` could be a geometric height and is refused.
_GEOPOTENTIAL = {"m2 s-2": 1.0, "m**2 s**-2": 1.0, "m^2 s^-2": 1.0, "m2/s2": 1.0, "gpm": STANDARD_GRAVITY}
_PRESSURE = ("hPa", "millibar", "millibars", "mb")
VARIABLES: dict[str, Variable] = {
    "tcwv": Variable("tcwv", _MASS),
    **{
        f"{letter}{level}": Variable(letter, units, level)
        for level in (500, 850)
        for letter, units in (("z", _GEOPOTENTIAL), ("t", _KELVIN), ("u", _SPEED), ("v", _SPEED))
    },
    "t2m": Variable("t2", _KELVIN),
    "u10m": Variable("u10", _SPEED),
    "v10m": Variable("v10", _SPEED),
}
_TOLD = ("model_name", "model_version", "version", "initialization_model", "creation_time")  # attributes, where there

_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of HDF5; h5netcdf says more than it should of a file that is none


class AIWP(Scheduled):
    """One model's forecasts below `url`, in the layout of NOAA's bucket; by default from there, anonymously.

    >>> AIWP("four-gfs")
    AIWP('four-gfs', 's3://noaa-oar-mlwp-data')
    """

    publication_delay = timedelta(hours=12)  # not published; probing decides
    longest: ClassVar[timedelta] = _LEADS[-1]

    def __init__(self, variant: str, url: str = NOAA) -> None:
        self.url, self.name = url, f"aiwp-{variant}"
        self._variant, self._folder = variant, FOLDERS[variant]
        self._root = root_of(url)

    @classmethod
    def open(cls, variant: str, url: str | None, cache: str | None) -> "AIWP":
        """As `sources.Opener` says; nothing is cached."""
        if variant not in FOLDERS:
            names = ", ".join(f"aiwp-{name}" for name in FOLDERS)
            raise ConfigurationError(f"no source is called 'aiwp-{variant}': use one of {names}")
        return cls(variant) if url is None else cls(variant, url)

    def __repr__(self) -> str:
        return f"AIWP({self._variant!r}, {self.url!r})"

    def lead_times(self, init_time: datetime) -> tuple[timedelta, ...]:
        """6-hourly to 240 h, from 00 and 12 UTC; until the end of 2023 also from 06 and 18."""
        return _LEADS if six_hourly(init_time) and init_time.hour in in_force(_HOURS, init_time) else ()

    def object_name(self, init_time: datetime) -> str:
        """A cycle's file below the root."""
        day = f"{init_time:%Y}/{init_time:%m%d}"
        return f"{self._folder}/{day}/{self._folder}_{init_time:%Y%m%d%H}_f000_f240_06.nc"

    def available(self, slot: Slot) -> bool:
        """Whether the cycle's file is there with some bytes; reads none. Errors as `fetch`."""
        return self._root.find(self.object_name(init_time_of(slot))) is not None

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet:
        """The slot's twelve inputs around `box`, or NotYet while the cycle's file is absent or empty.

        Reads the file's metadata and those chunks that hold the twelve at that step, and nothing else. Raises
        SourceError for whatever is wrong with what is there, GridError where it does not cover the box,
        ConfigurationError for a root that does not exist, ConnectionError where a retry may help.
        """
        name = self.object_name(init_time_of(slot))
        found = self._root.find(name)
        if found is None:
            return NotYet(slot, self._root.url_of(name), "absent or empty")
        file = RangedFile(self._root, found)
        try:
            inputs, told = _read(file, found, slot, box)
        except FileNotFoundError:
            return NotYet(slot, found.url, "it went away while it was read")
        except SourceError:
            if self._root.find(name) == found:
                raise
            return NotYet(slot, found.url, "it was replaced while it was read")
        if self._root.find(name) != found:
            return NotYet(slot, found.url, "it was replaced while it was read")
        traveled = {"ranges": [list(span) for span in file.spans], "bytes": file.traveled}
        provenance = {"source": self.name, "file": found.to_dict()} | told_of(inputs) | traveled | told
        return Fetched(slot, inputs, provenance)


def _read(file: RangedFile, found: Found, slot: Slot, box: Box) -> tuple[xr.Dataset, dict[str, Any]]:
    """The inputs, and what the file says of itself and of them."""
    try:
        with one_reader(), _opened(file) as dataset:
            _refuse_missing(dataset, found.url)
            step = _position(dataset, slot, found.url)
            delivered = {name: _field(dataset, wanted, step, found.url) for name, wanted in VARIABLES.items()}
            inputs = assemble(delivered, slot, box)
            channels = {
                name: {"variable": wanted.name, "level": wanted.level, "units": dataset[wanted.name].attrs["units"]}
                for name, wanted in VARIABLES.items()
            }
            model = {name: str(dataset.attrs[name]) for name in _TOLD if name in dataset.attrs}
            return inputs, {"model": model, "channels": channels}
    except (ConnectionError, FileNotFoundError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SourceError(
            f"{found.url}: cannot be read as netCDF-4 ({error}): it is damaged or still being copied; fetch it again"
        ) from error


def _opened(file: RangedFile) -> xr.Dataset:
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise OSError("it does not begin as HDF5 does")
    file.seek(0)
    return xr.open_dataset(file, engine="h5netcdf", cache=False, decode_timedelta=False)


def _refuse_missing(dataset: xr.Dataset, url: str) -> None:
    missing = [f"{name} ({wanted})" for name, wanted in VARIABLES.items() if wanted.name not in dataset.data_vars]
    missing += [name for name in ("time", "level", "latitude", "longitude") if name not in dataset.coords]
    if missing:
        have = ", ".join(map(str, dataset.variables))
        raise SourceError(
            f"{url}: lacks {', '.join(missing)} among {have}: the model has them not; use one that has all twelve, "
            "such as aiwp-four-gfs"
        )


def _position(dataset: xr.Dataset, slot: Slot, url: str) -> int:
    """Where the slot is along `time`, after it is sure that the file is of its cycle."""
    times = dataset["time"].values
    if not np.issubdtype(times.dtype, np.datetime64):
        raise SourceError(f"{url}: time is {times.dtype} in {dataset['time'].attrs}, no CF time: fetch it again")
    if times.size == 0 or times[0] != np.datetime64(init_time_of(slot)):
        raise SourceError(f"{url}: begins at {_first(times)}, asked for {slot}: the file is of another cycle")
    return _only(times == np.datetime64(slot.valid_time), f"time {slot.valid_time:%Y-%m-%dT%H}", times, url)


def _field(dataset: xr.Dataset, wanted: Variable, step: int, url: str) -> Delivered:
    """One variable at one step, not read yet."""
    field = dataset[wanted.name]
    where = f"{url}: {wanted}"
    dims = ("time", "latitude", "longitude") if wanted.level is None else ("time", "level", "latitude", "longitude")
    if field.dims != dims:
        raise SourceError(f"{where}: has the dimensions {field.dims}, not {dims}: the layout is another one")
    units = str(field.attrs.get("units"))
    if units not in wanted.units:
        raise SourceError(f"{where}: is in {units!r}, known are {', '.join(wanted.units)}: its meaning is not certain")
    field = field.isel(time=step)
    if wanted.level is not None:
        field = field.isel(level=_level(dataset["level"], wanted.level, url))
    return Delivered(field.reset_coords(drop=True), wanted.units[units], where)


def _level(levels: xr.DataArray, level: int, url: str) -> int:
    """Where the level in hPa is along `level`."""
    units = levels.attrs.get("units")
    if units not in _PRESSURE:
        raise SourceError(f"{url}: level is in {units!r}, known are {', '.join(_PRESSURE)}: its meaning is not certain")
    return _only(levels.values == level, f"level {level} hPa", levels.values, url)


def _only(where: Any, what: str, held: Iterable[Any], url: str) -> int:
    """The one position that is true."""
    (positions,) = np.nonzero(where)
    if positions.size != 1:
        values = ", ".join(str(value)[:13] for value in held)
        raise SourceError(f"{url}: has {what} {positions.size} times among {values}: fetch it again")
    return int(positions[0])


def _first(times: Any) -> str:
    return str(times[0])[:13] if times.size else "no time"
