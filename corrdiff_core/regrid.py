"""Routines for horizontal regridding: cut a source's grid to a box, then bilinear from its lines to a target grid."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from corrdiff_core.errors import GridError
from corrdiff_core.grid import Box, Domain, Float64

LATITUDE, LONGITUDE = "latitude", "longitude"
EDGE = 2e-5  # degrees, 2 m: what float32 does to a longitude below 360; this near to a line is on it
HOLE = 3.0  # neighboring lines this many times the usual spacing apart have lines missing between them

LatLon = TypeVar("LatLon", xr.Dataset, xr.DataArray)


def cover(fields: LatLon, box: Box) -> LatLon:
    """The smallest set of grid lines of a (…, latitude, longitude) source that covers `box`.

    Both coordinates come back ascending, in degrees, longitudes in the turn of `box` (116..126 or -244..-234, whatever
    the source counts in; a box across Greenwich or the date line is whole). Lazy arrays stay lazy.
    Raises GridError where the source has no line at or beyond an edge of the box, or lines missing inside.
    """
    latitude, longitude = source_lines(fields)
    rows, latitude = _spanning(LATITUDE, latitude, box.south, box.north)
    columns, longitude = _spanning(LONGITUDE, _in_turn_of(longitude, box), box.west, box.east)
    return fields.isel({LATITUDE: rows, LONGITUDE: columns}).assign_coords(
        {
            LATITUDE: (LATITUDE, latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            LONGITUDE: (LONGITUDE, longitude, {"standard_name": "longitude", "units": "degrees_east"}),
        }
    )


def source_lines(fields: xr.Dataset | xr.DataArray) -> tuple[Float64, Float64]:
    """The 1-D (latitude, longitude) lines of a source in degrees, as stored."""
    for name in (LATITUDE, LONGITUDE):
        if name not in fields.coords or fields[name].dims != (name,):
            raise GridError(f"the source has no 1-D coordinate {name!r}, only {list(fields.coords)}: rename its axes")
    return np.asarray(fields[LATITUDE], np.float64), np.asarray(fields[LONGITUDE], np.float64)


def _in_turn_of(longitude: Float64, box: Box) -> Float64:
    """Longitudes shifted by whole turns to within 180 degrees of the middle of the box."""
    first = (box.west + box.east) / 2 - 180
    turns: Float64 = np.floor((longitude - first) / 360)
    return longitude - 360 * turns


def _spanning(name: str, stored: Float64, low: float, high: float) -> tuple[NDArray[np.intp], Float64]:
    """Positions and values, ascending, of the fewest lines that span low..high."""
    lines, order = np.unique(stored, return_index=True)
    if lines.size < 2 or not np.isfinite(lines).all():
        raise GridError(f"the source's {name} {stored} is no grid: two lines or more, all finite, are needed")
    if lines[0] > low + EDGE or lines[-1] < high - EDGE:
        raise GridError(
            f"the source's {name} {lines[0]:g}..{lines[-1]:g} does not cover {low:g}..{high:g}: get a larger area of it"
        )
    first = int(np.searchsorted(lines, low + EDGE, side="right")) - 1
    last = int(np.searchsorted(lines, high - EDGE, side="left"))
    chosen = slice(first, last + 1)
    _refuse_holes(name, lines[chosen], float(np.median(np.diff(lines))))
    return order[chosen], lines[chosen]


def _refuse_holes(name: str, lines: Float64, spacing: float) -> None:
    gaps = np.diff(lines)
    if gaps.max(initial=0.0) > HOLE * spacing:
        at = int(gaps.argmax())
        raise GridError(
            f"the source's {name} jumps from {lines[at]:g} to {lines[at + 1]:g} where its lines are {spacing:g} "
            "degrees apart: get an area of it without the gap"
        )


@dataclass(frozen=True, eq=False)
class Regridder:
    """Bilinear interpolation from latitude-longitude lines to any target points, as one sparse matrix.

    `latitude` and `longitude` are the source's lines in degrees, strictly ascending, not necessarily regular;
    `target_latitude` and `target_longitude` have the target's shape (y, x). Raises GridError where lines do not ascend
    or a target point lies outside them (a point on the outermost line is inside).
    """

    latitude: Float64
    longitude: Float64
    target_latitude: Float64
    target_longitude: Float64

    def __post_init__(self) -> None:
        for name, lines in ((LATITUDE, self.latitude), (LONGITUDE, self.longitude)):
            if lines.ndim != 1 or lines.size < 2 or not (np.diff(lines) > 0).all():
                raise GridError(f"the source's {name} {lines} does not ascend strictly: cut it out with regrid.cover")
        _refuse_outside(LATITUDE, self.latitude, self.target_latitude)
        _refuse_outside(LONGITUDE, self.longitude, self.target_longitude)

    @cached_property
    def weights(self) -> sparse.csr_array:
        """Shape (target points, source points), float64, four entries a row. Rows sum to 1."""
        row, north = _cells(self.latitude, self.target_latitude.ravel())
        column, east = _cells(self.longitude, self.target_longitude.ravel())
        corner = row * self.longitude.size + column
        corners = corner[:, None] + np.array([0, 1, self.longitude.size, self.longitude.size + 1])
        values = np.stack([(1 - north) * (1 - east), (1 - north) * east, north * (1 - east), north * east], axis=1)
        assert np.allclose(values.sum(axis=1), 1, rtol=0, atol=1e-12)  # noqa: S101
        starts = np.arange(0, values.size + 1, 4, dtype=np.int32)
        shape = corner.size, self.latitude.size * self.longitude.size
        return sparse.csr_array((values.ravel(), corners.ravel().astype(np.int32), starts), shape=shape)

    def __call__(self, fields: ArrayLike) -> NDArray[np.float32]:
        """(…, latitude, longitude) to (…, y, x): summed in float64, rounded once to float32. NaN propagates.

        One product per 2-D field: its source stays in the processor's first cache and its result needs no transpose.
        """
        values = np.asarray(fields)
        source = self.latitude.size, self.longitude.size
        if values.shape[-2:] != source:
            raise GridError(f"fields of shape {values.shape} do not end in the source grid's {source}")
        leading = values.shape[:-2]
        out = np.empty((*leading, self.target_latitude.size), np.float32)
        for index in np.ndindex(leading):
            out[index] = self.weights @ values[index].ravel().astype(np.float64)
        return out.reshape(*leading, *self.target_latitude.shape)


def regridder(latitude: ArrayLike, longitude: ArrayLike, domain: Domain) -> Regridder:
    """The Regridder from these lines to `domain`, built once per process for grids of the same content."""
    return _regridder(np.asarray(latitude, np.float64).tobytes(), np.asarray(longitude, np.float64).tobytes(), domain)


@lru_cache(maxsize=4)
def _regridder(latitude: bytes, longitude: bytes, domain: Domain) -> Regridder:
    lines = np.frombuffer(latitude, np.float64), np.frombuffer(longitude, np.float64)
    return Regridder(*lines, domain.latitude, domain.longitude)


def regrid(fields: xr.DataArray, domain: Domain) -> xr.DataArray:
    """(…, latitude, longitude) to (…, y, x) of `domain`, float32, lazy where `fields` is.

    Coordinates: projection `y`, `x` in metres, 2-D `latitude`, `longitude`, and all others of `fields`.
    Raises GridError where `domain` is not inside the source's lines, before anything is computed.
    """
    latitude, longitude = source_lines(fields)
    regridder(latitude, longitude, domain)
    whole = fields.chunk({LATITUDE: -1, LONGITUDE: -1}) if fields.chunks else fields
    rows, columns = domain.shape
    regridded: xr.DataArray = xr.apply_ufunc(
        _regrid_block,
        whole,
        # A worker looks its own weights up; `replace` leaves behind what the domain has cached.
        kwargs={"latitude": latitude, "longitude": longitude, "domain": replace(domain)},
        input_core_dims=[[LATITUDE, LONGITUDE]],
        output_core_dims=[["y", "x"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"y": rows, "x": columns}},
        keep_attrs=True,
    )
    return regridded.assign_coords(
        y=domain.y,
        x=domain.x,
        latitude=(("y", "x"), domain.latitude),
        longitude=(("y", "x"), domain.longitude),
    )


def _regrid_block(fields: ArrayLike, latitude: Float64, longitude: Float64, domain: Domain) -> NDArray[np.float32]:
    return regridder(latitude, longitude, domain)(fields)


def _cells(lines: Float64, points: Float64) -> tuple[NDArray[np.intp], Float64]:
    """For each point the line before it, never the last one, and its share of the way to the next, 0..1."""
    before = np.clip(np.searchsorted(lines, points, side="right") - 1, 0, lines.size - 2)
    share = (points - lines[before]) / (lines[before + 1] - lines[before])
    return before, np.clip(share, 0.0, 1.0)


def _refuse_outside(name: str, lines: Float64, points: Float64) -> None:
    inside = (points >= lines[0] - EDGE) & (points <= lines[-1] + EDGE)  # false for NaN
    if not inside.all():
        raise GridError(
            f"{np.count_nonzero(~inside)} of {points.size} target points, such as {name} {points[~inside].flat[0]:g}, "
            f"lie outside the source's {name} {lines[0]:g}..{lines[-1]:g}: get a larger area of the source"
        )
