"""What preparing one lead costs: weights once, then twelve channels a lead, alone and with Dask's threads."""

import time

import numpy as np
import pytest
import xarray as xr

from corrdiff_core.grid import TAIWAN
from corrdiff_core.normalization import CWA_INPUT_STATISTICS
from corrdiff_core.prepare import prepare, workers
from corrdiff_core.regrid import Regridder

LATITUDE, LONGITUDE = np.arange(19.25, 28.01, 0.25), np.arange(116.0, 125.76, 0.25)
LEADS = 24


def inputs():
    noise = np.random.default_rng(6).normal(size=(12, LEADS, 36, 40))
    table = zip(CWA_INPUT_STATISTICS.names, CWA_INPUT_STATISTICS.center, CWA_INPUT_STATISTICS.scale, strict=True)
    fields = {
        name: (("lead_time", "latitude", "longitude"), (center + scale * noise[channel]).astype(np.float32))
        for channel, (name, center, scale) in enumerate(table)
    }
    return xr.Dataset(fields, {"latitude": LATITUDE, "longitude": LONGITUDE})


def milliseconds(action, repeats=10):
    """The median of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


@pytest.mark.benchmark
def test_prepare(capsys):
    dataset = inputs()
    one_lead = dataset.isel(lead_time=0)
    stacked = one_lead.to_dataarray().values
    build = milliseconds(lambda: Regridder(LATITUDE, LONGITUDE, TAIWAN.latitude, TAIWAN.longitude).weights)
    regridder = Regridder(LATITUDE, LONGITUDE, TAIWAN.latitude, TAIWAN.longitude)
    exact = (regridder.weights @ stacked[1].ravel().astype(np.float64)).reshape(TAIWAN.shape)
    error = np.abs(regridder(stacked[1]) - exact).max()
    regrid = milliseconds(lambda: regridder(stacked))
    whole = milliseconds(lambda: prepare(one_lead, TAIWAN, CWA_INPUT_STATISTICS))
    with workers():
        lazy = prepare(dataset.chunk(lead_time=1), TAIWAN, CWA_INPUT_STATISTICS).mean(("channel", "y", "x"))
        leads = milliseconds(lazy.compute, repeats=1) / LEADS
    with capsys.disabled():
        print(
            f"\nregrid: weights built once in {build:.0f} ms; 12 channels {regrid:.1f} ms (to stay under 60 ms), "
            f"z500 within {error:.4f} m2 s-2 of float64\nprepare: {whole:.0f} ms a lead; {leads:.0f} ms a lead, "
            f"{LEADS} leads lazily with Dask's threads"
        )
    assert regridder(stacked).shape == (12, *TAIWAN.shape)
