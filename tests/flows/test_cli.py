"""`corrdiff` as a user runs it: a process of its own, real Prefect, real GRIB2 files, a real archive."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import xarray as xr

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import HOUR, Slot
from tests.flows.flow_cases import INIT, Corrdiff, Gfs

CYCLE = ("hourly", "--init", "2025-08-01T06:00")
FIRST = Slot.forecast(INIT, 0 * HOUR)


@pytest.mark.service
def test_a_window_is_made_and_then_there(corrdiff: Corrdiff, gfs: Gfs, archive: Archive, series: Series) -> None:
    gfs.put(INIT, 0, 1)
    done = corrdiff(*CYCLE, "--hours", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 slots of 20250801T06Z are in the archive" in done.stdout
    picture = Path(archive.url) / "quicklook" / "gfs" / series.model / "20250801T06.png"
    assert f"picture: {picture}" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    with xr.open_zarr(archive.store_url(series, FIRST), decode_coords="all") as store:
        assert set(store.data_vars) >= {"mrr", "t2m", "u10m", "v10m"}
        assert bool(store.t2m.sel(lead_time=[0 * HOUR, HOUR]).notnull().all())

    again = corrdiff(*CYCLE, "--hours", "2", PYTHONPROFILEIMPORTTIME="1")
    assert again.returncode == 0
    assert "2 of 2 slots" in again.stdout
    assert " torch\n" not in again.stderr, "a run with nothing to do loads no networks"

    shown = corrdiff("show", archive.store_url(series, FIRST), "--lead", "1", "--out", "picture.png")
    assert (shown.returncode, shown.stdout) == (0, "picture.png\n")


@pytest.mark.service
def test_a_wrong_input_is_one_line_and_no_slot(corrdiff: Corrdiff, gfs: Gfs, archive: Archive) -> None:
    gfs.put(INIT, 0)
    file = gfs.file(INIT, 0)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) * 2 // 3])
    done = corrdiff(*CYCLE, "--hours", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("corrdiff: 20250801T06Z+000h")
    assert str(file) in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not Path(archive.url).exists(), "nothing is written"


@pytest.mark.service
def test_slots_not_there_yet_leave_75(corrdiff: Corrdiff, archive: Archive, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = corrdiff(*CYCLE, "--hours", "2", XDG_CACHE_HOME=str(cache))
    assert (done.returncode, done.stderr) == (75, "")
    assert "0 of 2 slots" in done.stdout
    assert "try again later" in done.stdout
    assert not Path(archive.url).exists()

    (kept,) = (cache / "corrdiff").iterdir()
    with closing(sqlite3.connect(kept)) as database:
        counts = "SELECT (SELECT count(*) FROM alembic_version), (SELECT count(*) FROM flow_run)"
        assert database.execute(counts).fetchone() == (1, 0), "it is migrated, and has seen no run"
    before = kept.read_bytes()
    assert corrdiff(*CYCLE, "--hours", "2", XDG_CACHE_HOME=str(cache)).returncode == 75
    assert [path.read_bytes() for path in (cache / "corrdiff").iterdir()] == [before]


def test_a_setting_that_makes_no_sense_is_one_line(corrdiff: Corrdiff) -> None:
    done = corrdiff("hourly", "--hours", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "corrdiff: hours = 0 (option or CORRDIFF_HOURS): Input should be greater than or equal to 1\n"
    )


def test_help_is_quick(corrdiff: Corrdiff) -> None:
    done = corrdiff("--help", PYTHONPROFILEIMPORTTIME="1")
    assert "hourly" in done.stdout
    heavy = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not heavy & {"torch", "prefect", "xarray", "zarr", "eccodes", "matplotlib"}


@pytest.mark.service
def test_nature_writes_what_hourly_reads(corrdiff: Corrdiff, tmp_path: Path) -> None:
    done = corrdiff("nature", "write", str(tmp_path / "made"), "--init", "2025-08-01T00", "--leads", "3")
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split()] == ["gfs.t00z.pgrb2.0p25.f003"]
    assert Path(f"{done.stdout.strip()}.idx").exists()


@pytest.mark.service
def test_a_killed_run_ends_in_the_same_bytes(
    corrdiff: Corrdiff, environment: dict[str, str], gfs: Gfs, archive: Archive, series: Series, tmp_path: Path
) -> None:
    gfs.put(INIT, *range(8))
    undisturbed = tmp_path / "undisturbed"
    assert corrdiff(*CYCLE, "--hours", "8", "--steps", "40", "--archive", str(undisturbed)).returncode == 0
    _kill_once_published(2, environment, archive, series, tmp_path)
    between = len(archive.published(series, INIT))
    assert corrdiff(*CYCLE, "--hours", "8", "--steps", "40").returncode == 0
    assert 2 <= between < 8, "the kill hit the middle"
    store = Path(archive.store_url(series, FIRST))
    assert _contents(store) == _contents(undisturbed / store.relative_to(archive.url))


def _kill_once_published(
    count: int, environment: dict[str, str], archive: Archive, series: Series, folder: Path
) -> None:
    """Start the run and kill it, -9, as soon as `count` slots are there; what it started goes too."""
    command = [sys.executable, "-m", "flows.cli", *CYCLE, "--hours", "8", "--steps", "40"]
    process = psutil.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(archive.published(series, INIT)) < count:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    children = process.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "the temporary Prefect server ends with the run"


def _contents(store: Path) -> dict[str, str]:
    """Digest of every object but those that tell when."""
    files = [path for path in store.rglob("*") if path.is_file()]
    names = {str(path.relative_to(store)): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if "provenance/" not in name and "generated_at/c" not in name and "fetched_at/c" not in name
    }
