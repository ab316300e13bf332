"""Small stores and fields for the tests of the archive."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import xarray as xr

from corrdiff_core.archive import Archive, Layout, Series
from corrdiff_core.cycle import Slot
from corrdiff_core.grid import TAIWAN

INIT = datetime(2025, 8, 1)
FORECAST = Series("forecast", "gfs", "demo-1a2b3c4d")
HINDCAST = Series("hindcast", "era5", "demo-1a2b3c4d")
SLOT = Slot.forecast(INIT, timedelta(hours=2))
DOMAIN = replace(TAIWAN, name="small", rows=34, columns=50)
LAYOUT = Layout(
    domain=DOMAIN,
    members=3,
    lead_times=[timedelta(hours=hour) for hour in range(5)],
    input_latitude=np.arange(19.25, 20.6, 0.25),
    input_longitude=np.arange(116, 117.1, 0.25),
)


def slot(lead_hours: int, init: datetime = INIT) -> Slot:
    return Slot.forecast(init, timedelta(hours=lead_hours))


def inputs(layout: Layout = LAYOUT, seed: int = 0) -> xr.Dataset:
    generator = np.random.default_rng(seed)
    shape = len(layout.input_latitude), len(layout.input_longitude)
    fields = {v.name: (("latitude", "longitude"), generator.normal(280, 5, shape).astype("f4")) for v in layout.inputs}
    return xr.Dataset(fields, {"latitude": list(layout.input_latitude), "longitude": list(layout.input_longitude)})


def ensemble(layout: Layout = LAYOUT, seed: int = 0) -> xr.Dataset:
    """Plausible in magnitude, with mrr of exactly 0 in half of the points."""
    generator = np.random.default_rng(seed)
    shape = (layout.members, *layout.domain.shape)
    center = {"mrr": 0.0, "t2m": 295.0, "u10m": -3.0, "v10m": 2.0}
    fields = {v.name: generator.normal(center[v.name], 6, shape).astype("f4") for v in layout.outputs}
    fields["mrr"] = np.maximum(fields["mrr"], 0)
    return xr.Dataset({name: (("member", "y", "x"), values) for name, values in fields.items()})


def run(url: str, slots: list[Slot], layout: Layout = LAYOUT, series: Series = FORECAST) -> None:
    """What an hourly run does with the archive, slot by slot."""
    archive = Archive(url)
    for number, one in enumerate(slots):
        archive.create(series, one, layout)
        archive.write_inputs(series, one, inputs(layout, seed=number), {"url": "s3://somewhere"})
        archive.write(series, one, ensemble(layout, seed=number))
        archive.publish(series, one, {"seed": number})
