"""Inputs and truth from Zarr, NetCDF or GRIB files: inputs by whatever names `sources.own` knows, truth by ours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from corrdiff_core.dataset.origins import Field, input_field, stacked
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Box, Domain
from corrdiff_core.sources.files import open_fields
from corrdiff_core.sources.own import OwnData
from corrdiff_core.variables import INPUT_NAMES, OUTPUT, Variable

FARTHEST = 50.0  # m that a grid point of a truth may lie from the domain's; degrees in float32 are 1 m wrong


def _whole(times: Sequence[datetime]) -> list[datetime]:
    return sorted(time for time in times if not (time.minute or time.second or time.microsecond))


@dataclass(frozen=True)
class GriddedInputs:
    """The inputs `names` of files of one's own, cut to the box."""

    url: str
    box: Box
    names: tuple[str, ...] = INPUT_NAMES

    kind = "fields"

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        """Those that the files have now."""
        source = OwnData(self.url, self.names)
        return [time for time in source.hours(start, end) if time <= source.last]

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        fields = OwnData(self.url, self.names).read(times, self.box)
        return {time: input_field(fields.isel(time=at), self.url, self.names) for at, time in enumerate(times)}


@dataclass(frozen=True)
class GriddedTruth:
    """The domain's outputs on its (time, y, x), with its crop or without, under our names.

    The grid is checked by 1-D `y` and `x` in metres, or by 2-D `latitude` and `longitude`.
    """

    url: str
    domain: Domain

    kind = "fields"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}

    @property
    def _variables(self) -> tuple[Variable, ...]:
        return tuple(OUTPUT[name] for name in self.domain.outputs)

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
        return _whole([time for time in self._positions if start <= time < end])

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        fields = on_domain(self._chosen(times), self.domain, self.url)
        try:
            fields = fields.transpose("time", "y", "x").load()
        except (OSError, ValueError, RuntimeError) as error:
            raise DatasetError(f"{self.url}: cannot be read at {times[0]} to {times[-1]}: {error}") from error
        names = self.domain.outputs
        return {time: Field(stacked(fields.isel(time=at), names, self.url), self.url) for at, time in enumerate(times)}

    def _chosen(self, times: Sequence[datetime]) -> xr.Dataset:
        return self._fields.isel(time=[self._positions[time] for time in times])


def on_domain(fields: xr.Dataset, domain: Domain, url: str) -> xr.Dataset:
    """Lazy fields (..., y, x) cut to the points that the model sees, their dims called so.

    DatasetError where their grid is another than the domain's, with its crop or without.
    """
    if "latitude" in fields.dims and domain.axes["y"]["standard_name"] == "latitude":
        fields = fields.rename(latitude="y", longitude="x")
    whole, shape = replace(domain, crop=0), (fields.sizes.get("y"), fields.sizes.get("x"))
    if shape not in (domain.shape, whole.shape):
        raise DatasetError(
            f"{url}: (y, x) are {shape} points, the domain {domain.name} has {domain.shape}, or "
            f"{whole.shape} before its crop: cut it to the domain"
        )
    grid = domain if shape == domain.shape else whole
    off = _distance(fields, grid)
    if not off <= FARTHEST:
        raise DatasetError(
            f"{url}: its points lie up to {off:.0f} m from those of the domain {domain.name}, "
            f"{FARTHEST:g} m are allowed; is row 0 the southernmost? Regrid it to the domain"
        )
    crop = 0 if grid is domain else domain.crop
    return fields.isel({dim: slice(crop, fields.sizes[dim] - crop) for dim in ("y", "x")})


def _distance(fields: xr.Dataset, grid: Domain) -> float:
    """How far a point lies from its place on `grid`, in metres, at most; DatasetError without coordinates."""
    unit = grid.spacing / grid.step
    if {"y", "x"} <= set(fields.coords):
        away = np.abs(fields["y"].values - grid.y).max(), np.abs(fields["x"].values - grid.x).max()
        return float(unit * max(away))
    if {"latitude", "longitude"} <= set(fields.coords) and fields["latitude"].dims == ("y", "x"):
        x, y = grid.project(fields["longitude"].values.astype(float), fields["latitude"].values.astype(float))
        return float(unit * np.hypot(x - grid.x[None, :], y - grid.y[:, None]).max())
    raise DatasetError("a truth needs coordinates y, x of the domain or 2-D latitude, longitude on (y, x): add them")
