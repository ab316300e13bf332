"""Inputs and truth from Zarr or NetCDF files whose variables are named as ours."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import xarray as xr

from corrdiff_core.dataset.origins import Field, input_field, stacked
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Box, Domain
from corrdiff_core.regrid import cover
from corrdiff_core.variables import INPUTS, OUTPUTS, Variable

FARTHEST = 50.0  # m that a grid point of a truth may lie from the domain's; degrees in float32 are 1 m wrong
_NETCDF = (".nc", ".nc4", ".h5")


def open_fields(url: str) -> xr.Dataset:
    """A Zarr store or a NetCDF 4 file at any fsspec URL, lazily; DatasetError where it cannot be opened."""
    try:
        if url.endswith(_NETCDF):
            file = fsspec.open(url).open()  # type: ignore[no-untyped-call]
            return xr.open_dataset(file, engine="h5netcdf", chunks=None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated", RuntimeWarning)
            return xr.open_dataset(url, engine="zarr", chunks=None)
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{url} opens neither as Zarr nor, by its name, as NetCDF ({error}): check it") from error


@dataclass(frozen=True)
class _Gridded(ABC):
    """What both sides share: times, names, units."""

    url: str

    kind = "fields"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}

    @property
    @abstractmethod
    def _variables(self) -> tuple[Variable, ...]: ...

    @cached_property
    def _fields(self) -> xr.Dataset:
        fields = open_fields(self.url)
        names = [variable.name for variable in self._variables]
        missing = [name for name in [*names, "time"] if name not in fields.variables]
        if missing:
            have = ", ".join(map(str, fields.variables))
            raise DatasetError(f"{self.url}: {', '.join(missing)} missing among {have}: rename its variables")
        for variable in self._variables:
            units = str(fields[variable.name].attrs.get("units", variable.units)).replace("**", "")
            if units != variable.units:
                raise DatasetError(
                    f"{self.url}: {variable.name} is in {units!r}, {variable.units!r} is due: convert it"
                )
        return fields[names]

    @cached_property
    def _positions(self) -> dict[datetime, int]:
        times = self._fields["time"].values
        if times.ndim != 1 or times.dtype.kind != "M" or len(np.unique(times)) != len(times):
            raise DatasetError(f"{self.url}: its time is no axis of different dates: repair it")
        return {time: at for at, time in enumerate(times.astype("datetime64[us]").tolist())}

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        times = (time for time in self._positions if start <= time < end)
        return sorted(time for time in times if not (time.minute or time.second or time.microsecond))

    def _read(self, times: Sequence[datetime], dimensions: tuple[str, str]) -> xr.Dataset:
        chosen = self._fields.isel(time=[self._positions[time] for time in times])
        try:
            return chosen.transpose("time", *dimensions).load()
        except (OSError, ValueError, RuntimeError) as error:
            raise DatasetError(f"{self.url}: cannot be read at {times[0]} to {times[-1]}: {error}") from error


@dataclass(frozen=True)
class GriddedInputs(_Gridded):
    """The twelve inputs on (time, latitude, longitude), cut to the box."""

    box: Box

    @property
    def _variables(self) -> tuple[Variable, ...]:
        return INPUTS

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        fields = cover(self._read(times, ("latitude", "longitude")), self.box)
        return {time: input_field(fields.isel(time=at), self.url) for at, time in enumerate(times)}


@dataclass(frozen=True)
class GriddedTruth(_Gridded):
    """The four outputs on (time, y, x) of the domain, with its crop or without.

    The grid is checked by 1-D `y` and `x` in metres, or by 2-D `latitude` and `longitude`.
    """

    domain: Domain

    @property
    def _variables(self) -> tuple[Variable, ...]:
        return OUTPUTS

    @cached_property
    def _crop(self) -> slice:
        """What of either axis the domain has; DatasetError where the grid is another."""
        fields, whole = self._fields, replace(self.domain, crop=0)
        shape = fields.sizes.get("y"), fields.sizes.get("x")
        if shape not in (self.domain.shape, whole.shape):
            raise DatasetError(
                f"{self.url}: (y, x) are {shape} points, the domain {self.domain.name} has {self.domain.shape}, or "
                f"{whole.shape} before its crop: cut it to the domain"
            )
        grid = self.domain if shape == self.domain.shape else whole
        off = _distance(fields, grid)
        if not off <= FARTHEST:
            raise DatasetError(
                f"{self.url}: its points lie up to {off:.0f} m from those of the domain {self.domain.name}, "
                f"{FARTHEST:g} m are allowed; is row 0 the southernmost? Regrid it to the domain"
            )
        return slice(None) if grid is self.domain else slice(self.domain.crop, -self.domain.crop)

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        fields = self._read(times, ("y", "x")).isel(y=self._crop, x=self._crop)
        names = [variable.name for variable in OUTPUTS]
        return {time: Field(stacked(fields.isel(time=at), names, self.url), self.url) for at, time in enumerate(times)}


def _distance(fields: xr.Dataset, grid: Domain) -> float:
    """How far a point lies from its place on `grid`, in metres, at most; DatasetError without coordinates."""
    if {"y", "x"} <= set(fields.coords):
        return float(max(np.abs(fields["y"].values - grid.y).max(), np.abs(fields["x"].values - grid.x).max()))
    if {"latitude", "longitude"} <= set(fields.coords) and fields["latitude"].dims == ("y", "x"):
        x, y = grid.project(fields["longitude"].values.astype(float), fields["latitude"].values.astype(float))
        return float(np.hypot(x - grid.x[None, :], y - grid.y[:, None]).max())
    raise DatasetError("a truth needs coordinates y, x in metres or 2-D latitude, longitude on (y, x): add them")
