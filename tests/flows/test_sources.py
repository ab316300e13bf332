"""Other sources than GFS through the flow's own functions: from a real member's file into the archive."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import SourceError
from corrdiff_core.manifest import read_manifest
from flows.settings import Settings
from flows.slots import Run, fetch_slot

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/gefs"
SLOT = Slot.forecast(datetime(2009, 6, 5), 180 * HOUR)


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """A root that holds the real file of GEFS member 19 where NOAA had it."""
    if not SHARED.exists():
        pytest.skip("no ../shared/data/gefs beside this checkout")
    folder = tmp_path / "noaa/gefs.20090605/00/pgrb2a"
    folder.mkdir(parents=True)
    for part in ("", ".idx"):
        (folder / f"gep19.t00z.pgrb2af180{part}").symlink_to(SHARED.resolve() / f"gep19.t00z.pgrb2af180{part}")
    return tmp_path / "noaa"


def run_of(source: str, small_checkpoint: Path, archive: Archive) -> Run:
    manifest = read_manifest(str(small_checkpoint))
    return Run(Settings(source=source, archive=archive.url), str(small_checkpoint), manifest)


def test_a_real_member_reaches_the_archive_with_room_for_every_lead(
    member: Path, small_checkpoint: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRDIFF_GEFS_URL", str(member))
    run = run_of("gefs-p19", small_checkpoint, archive)
    assert fetch_slot(run, SLOT) is None
    series = Series("forecast", "gefs-p19", run.manifest.identity)
    inputs, told = archive.read_inputs(series, SLOT)
    assert told["source"] == "gefs-p19"
    assert told["bytes"] == 494_358
    assert float(np.diff(inputs.latitude).mean()) == 1.0
    with xr.open_zarr(archive.store_url(series, SLOT), decode_timedelta=True) as store:
        np.testing.assert_array_equal(store.lead_time, np.arange(0, 385, 6) * np.timedelta64(1, "h"))


def test_a_source_that_lacks_a_channel_leaves_nothing_behind(
    small_checkpoint: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corrdiff_core.nature import weather
    from tests.corrdiff_core.sources.ecmwf_cases import AIFS, write

    slot = Slot.forecast(datetime(2026, 6, 1), 6 * HOUR)
    lines = np.arange(17.0, 32.0), np.arange(113.0, 130.0)
    write(tmp_path / "ecmwf", "aifs", slot, weather(5, slot.valid_time, *lines), AIFS)
    monkeypatch.setenv("CORRDIFF_ECMWF_URL", str(tmp_path / "ecmwf"))
    with pytest.raises(SourceError, match="does not list tcwv"):
        fetch_slot(run_of("ecmwf-aifs", small_checkpoint, archive), slot)
    assert not Path(archive.url).exists()
