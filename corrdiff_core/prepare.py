"""From a source's fields to what the networks are given: normalized, regridded, stacked; lazy, with Dask."""

from collections.abc import Iterator
from contextlib import contextmanager

import dask
import xarray as xr

from corrdiff_core.grid import Domain
from corrdiff_core.normalization import Statistics
from corrdiff_core.regrid import LATITUDE, LONGITUDE, cover, regrid


def prepare(inputs: xr.Dataset, domain: Domain, statistics: Statistics) -> xr.DataArray:
    """Inputs (…, latitude, longitude) in physical units to (…, channel, y, x) of `domain`, float32, normalized.

    Channels are those of `statistics`, in its order; leading dims such as lead_time come out in their order. A lazy
    input gives a lazy result, one task per lead and never a split y or x, so memory does not grow with the leads.
    Normalization goes before the regridding, where there are 140 times fewer values: the two commute, since the
    weights of a target point sum to 1. Raises QualityError for a missing variable, GridError where the source does
    not cover the domain's box.
    """
    source = cover(inputs[[name for name in statistics.names if name in inputs]], domain.input_box)
    leading = [str(dim) for dim in source.dims if dim not in (LATITUDE, LONGITUDE)]
    channels = statistics.normalize(source).to_dataarray("channel", name="inputs")
    channels = channels.transpose(*leading, "channel", LATITUDE, LONGITUDE)
    if channels.chunks:
        channels = channels.chunk(dict.fromkeys(leading, 1) | {"channel": -1})
    return regrid(channels, domain)


@contextmanager
def workers(address: str | None = None) -> Iterator[None]:
    """Where lazy fields are computed inside the `with`: this process's threads, or the Dask scheduler at `address`."""
    if address is None:
        with dask.config.set(scheduler="threads"):
            yield
        return
    from distributed import Client  # costs half a second, and most runs need no scheduler

    with Client(address):  # type: ignore[no-untyped-call]
        yield
