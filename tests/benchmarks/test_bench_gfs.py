"""One GFS lead on the 0.25-degree globe: bytes, requests and time, printed; only bytes and requests are asserted."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.grid import TAIWAN
from corrdiff_core.sources.channels import CHANNELS
from corrdiff_core.sources.gfs import GFS, write_lead
from corrdiff_core.sources.inventory import locate, parse
from corrdiff_core.sources.ranges import Found, Root, merge
from corrdiff_core.sources.source import Fetched
from corrdiff_core.variables import INPUTS

pytestmark = pytest.mark.benchmark
SLOT = Slot.forecast(datetime(2025, 8, 1), 7 * HOUR)
SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def globe() -> xr.Dataset:
    """Smooth waves with a little noise, about as compressible as weather."""
    generator = np.random.default_rng(0)
    latitude, longitude = np.linspace(90, -90, 721), np.arange(0, 360, 0.25)
    waves = np.cos(np.radians(3 * latitude))[:, None] * np.sin(np.radians(5 * longitude))[None, :]
    fields = {
        variable.name: (
            ("latitude", "longitude"),
            (variable.valid_min + variable.valid_max) / 2 + 5 * waves + generator.normal(0, 0.05, waves.shape),
        )
        for variable in INPUTS
    }
    return xr.Dataset(fields, {"latitude": latitude, "longitude": longitude})


def timed(what: str, call: Callable[[], object]) -> object:
    start = time.perf_counter()
    result = call()
    print(f"{what}: {time.perf_counter() - start:.2f} s")
    return result


def test_one_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = Root.read

    def counted(self: Root, found: Found, spans: list) -> list[bytes]:
        reads.append(len(spans))
        return read(self, found, spans)

    monkeypatch.setattr(Root, "read", counted)
    weather = globe()
    print()
    timed("write 19 messages on the globe", lambda: write_lead(str(tmp_path), SLOT, weather))
    source = GFS(str(tmp_path))
    answer = timed("fetch, first", lambda: source.fetch(SLOT, TAIWAN.input_box))
    for _ in range(3):
        timed("fetch: read, check, decode 12 messages", lambda: source.fetch(SLOT, TAIWAN.input_box))
    assert isinstance(answer, Fetched)
    told = answer.provenance
    messages = sum(stop - start for start, stop in (channel["range"] for channel in told["channels"].values()))
    print(
        f"bytes {told['bytes']:,} = {told['bytes'] / messages:.3f} x the twelve, requests {reads[:2]} (inventory, file)"
    )
    assert told["bytes"] <= 1.02 * messages
    assert reads[:2] == [1, 7]


@pytest.mark.parametrize("lead", [0, 7])
def test_a_real_inventory(lead: int) -> None:
    path = SHARED / f"idx/gfs.20250801.t00z.pgrb2.0p25.f{lead:03d}.idx"
    if not path.exists():
        pytest.skip("no ../shared/data beside this checkout")
    entries = parse(path.read_text(), path.name)
    wanted = {name: (channel.element, channel.level) for name, channel in CHANNELS.items()}
    slot = Slot.forecast(datetime(2025, 8, 1), lead * HOUR)
    spans = merge(place.span for place in locate(entries, wanted, slot, 545_000_000, path.name).values())
    print(f"\nf{lead:03d}: {len(spans)} ranges, {sum(span.size for span in spans):,} bytes")
    assert len(spans) <= 8
