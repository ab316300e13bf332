"""Throughput of the archive in raw bytes of fields; prints, never fails on speed."""

from datetime import datetime, timedelta
from time import perf_counter, process_time

import numpy as np
import pytest
import xarray as xr

from corrdiff_core.archive import Archive, Layout, Series
from corrdiff_core.cycle import Slot
from corrdiff_core.grid import TAIWAN
from corrdiff_core.variables import OUTPUTS

pytestmark = pytest.mark.benchmark

SERIES = Series("forecast", "gfs", "bench-00000000")
SLOTS = [Slot.forecast(datetime(2025, 8, 1), timedelta(hours=hour)) for hour in range(6)]
GOALS = {"local": 150, "s3": 70}  # MB/s


def weather(members):
    """Fields with the spectrum of weather (k**-5/3 in energy, per dimension) and a little noise."""
    generator = np.random.default_rng(0)
    wavenumber = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side) * side for side in TAIWAN.shape], indexing="ij"))
    amplitude = np.where(wavenumber > 0, np.maximum(wavenumber, 1) ** (-4 / 3), 0)

    def smooth(noise):
        field = np.fft.ifft2(amplitude * np.fft.fft2(generator.standard_normal((members, *TAIWAN.shape)))).real
        return field / field.std() + noise * generator.standard_normal(field.shape)

    fields = {
        "mrr": np.maximum(12 * smooth(0.1) - 3, 0),
        "t2m": 290 + 5 * smooth(0.02),
        "u10m": 5 * smooth(0.03),
        "v10m": 5 * smooth(0.03),
    }
    return xr.Dataset({v.name: (("member", "y", "x"), fields[v.name].astype("f4")) for v in OUTPUTS})


@pytest.mark.parametrize("members", [8, 16])
@pytest.mark.parametrize("place", ["local", "s3"])
def test_write_and_read(place, members, request, tmp_path, capsys):
    archive = Archive(str(tmp_path) if place == "local" else f"{request.getfixturevalue('s3_url')}/archive")
    leads = [slot.lead_time for slot in SLOTS]
    layout = Layout(TAIWAN, members, leads, np.arange(19.25, 28.1, 0.25), np.arange(116, 126, 0.25))
    archive.create(SERIES, SLOTS[0], layout)
    ensemble = weather(members)
    raw = sum(field.nbytes for field in ensemble.values()) / 1e6
    archive.write(SERIES, SLOTS[0], ensemble)
    began, busy = perf_counter(), process_time()
    for slot in SLOTS[1:]:
        archive.write(SERIES, slot, ensemble)
        archive.publish(SERIES, slot, {})
    wrote, busy = perf_counter(), process_time() - busy
    for slot in SLOTS[1:]:
        archive.read(SERIES, slot)
    read = perf_counter()
    slots = len(SLOTS) - 1
    with capsys.disabled():
        print(
            f"\narchive, {place}, {members} members, {raw:.0f} MB a slot:"
            f" write {slots * raw / (wrote - began):.0f} MB/s (goal {GOALS[place]}, {busy / slots:.2f} s CPU a slot),"
            f" read {slots * raw / (read - wrote):.0f} MB/s"
        )
