"""What never changes about a domain and helps the networks: its terrain, from this package's relief or from a file."""

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from corrdiff_core import terrain
from corrdiff_core.dataset.gridded import on_domain
from corrdiff_core.errors import CorrdiffError, DatasetError
from corrdiff_core.grid import NO_INVARIANTS, TERRAIN, Box, Domain, Float64
from corrdiff_core.regrid import regrid
from corrdiff_core.sources.files import open_fields

INVARIANTS = ("elevation", "land_fraction")
_UNITS = {"elevation": ("m", "meter", "metre", "meters", "metres"), "land_fraction": ("1", "", "(0 - 1)")}
_POSSIBLE = {"elevation": (-500.0, 9000.0), "land_fraction": (-0.001, 1.001)}  # a regridded fraction may overshoot
_KNOWN = Box(terrain.SOUTH, terrain.NORTH, terrain.WEST, terrain.EAST)


class Invariants(NamedTuple):
    """Fields (invariant, y, x) float32, each of mean 0 and standard deviation 1, and their names."""

    names: tuple[str, ...]
    fields: Tensor


def domain_invariants(domain: Domain) -> Invariants:
    """What `domain.invariants` names: elevation and land fraction, either of them, or none, (0, y, x).

    Raises DatasetError for a file that cannot be read, has neither, is on another grid or in another unit, for values
    that are missing or impossible, for one that is the same everywhere, and for "terrain" where it is not known.
    """
    if domain.invariants == NO_INVARIANTS:
        return Invariants((), torch.empty(0, *domain.shape))
    if domain.invariants == TERRAIN:
        return Invariants(INVARIANTS, terrain_invariants(domain))
    found = _read(domain)
    return Invariants(tuple(found), _normalized(found, f"{domain.invariants} on {domain.name}"))


def terrain_invariants(domain: Domain) -> Tensor:
    """Elevation and land fraction of `terrain.py` on `domain`, each to mean 0 and standard deviation 1."""
    lines = domain.longitude, domain.latitude
    edges = (lines[1].min(), lines[1].max(), lines[0].min(), lines[0].max())
    if edges[0] < _KNOWN.south or edges[1] > _KNOWN.north or edges[2] < _KNOWN.west or edges[3] > _KNOWN.east:
        raise DatasetError(
            f"domain {domain.name}: its terrain is not known, the relief of this package is that of {_KNOWN}: name a "
            f'file with {" or ".join(INVARIANTS)} as `invariants` of the domain, or "none"'
        )
    fields = {"elevation": terrain.elevation(*lines), "land_fraction": terrain.land_fraction(*lines)}
    return _normalized(fields, f"the terrain of {domain.name}")


def _normalized(fields: dict[str, Float64], where: str) -> Tensor:
    constant = [name for name, field in fields.items() if not field.std() > 0]
    if constant:
        raise DatasetError(
            f"{where}: {', '.join(constant)} is the same at all points and tells nothing: leave it out of a file, or "
            'set `invariants = "none"` for the domain'
        )
    stack = np.stack(list(fields.values()))
    mean, std = stack.mean(axis=(1, 2), keepdims=True), stack.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy(((stack - mean) / std).astype(np.float32))


def _read(domain: Domain) -> dict[str, Float64]:
    url = domain.invariants
    fields = open_fields(url)
    names = [name for name in INVARIANTS if name in fields.data_vars]
    if not names:
        raise DatasetError(f"{url}: neither {' nor '.join(INVARIANTS)} among {list(fields.data_vars)}: name them so")
    return {name: _checked(fields[name], domain, name) for name in names}


def _checked(field: xr.DataArray, domain: Domain, name: str) -> Float64:
    """One field on the domain in metres, or as a fraction."""
    url, units = domain.invariants, str(field.attrs.get("units", ""))
    if units not in _UNITS[name] or (name == "elevation" and not units):
        raise DatasetError(f"{url}: {name} is in {units!r}, {_UNITS[name][0]!r} is due: convert it and say so in units")
    field = field.isel({dim: 0 for dim in field.dims if field.sizes[dim] == 1})
    try:
        values = _on_points(field, domain).astype(np.float64).values
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{url}: {name} cannot be read: {error}") from error
    except CorrdiffError as error:
        raise DatasetError(f"{url}: {name}: {error}") from error
    low, high = _POSSIBLE[name]
    if not ((values >= low) & (values <= high)).all():
        raise DatasetError(
            f"{url}: {name} is {np.nanmin(values):g}..{np.nanmax(values):g} and missing at "
            f"{int(np.isnan(values).sum())} points, {low:g}..{high:g} everywhere is due: fill it"
        )
    return np.asarray(values, np.float64)


def _on_points(field: xr.DataArray, domain: Domain) -> xr.DataArray:
    """(y, x) of the domain: as it is, or interpolated from latitude and longitude lines."""
    if {"latitude", "longitude"} == set(field.dims):
        ascending = field.sortby("latitude").sortby("longitude").transpose("latitude", "longitude")
        return regrid(ascending, domain)
    return on_domain(field.to_dataset(name="field"), domain, domain.invariants)["field"]
