"""Retention: what goes, what stays whatever is asked, and kills in the middle, on a local directory and on S3."""

import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import fsspec
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.archive import Archive, Series
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.retention import expired, parse_keep, remove
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ArchiveError, ConfigurationError
from tests.archive_cases import FORECAST, HINDCAST, INIT, LAYOUT, ensemble, slot

LATER = INIT + timedelta(hours=6)
END = datetime(2025, 9, 1)
KEY = f"{FORECAST.key}/20250801T00.zarr"
FOREIGN = {
    "notes.txt",
    "forecast/gfs/20250801T00.zarr/x",
    "forecast/gfs/my model/20200101T00.zarr/zarr.json",
    f"{FORECAST.key}/20250801T00.zarr.txt",
    f"{FORECAST.key}/20259901T00.zarr/zarr.json",
    f"{FORECAST.key}/20200101T00.zarr/zarr.json",
}


def publish(url, slots, series=FORECAST, layout=LAYOUT):
    archive = Archive(url)
    for one in slots:
        archive.create(series, one, layout)
        archive.write(series, one, ensemble(layout))
        archive.publish(series, one, {})
    return archive


@pytest.fixture(params=["local", "s3"])
def url(request, tmp_path):
    return f"{tmp_path if request.param == 'local' else request.getfixturevalue('s3_url')}/archive"


def prune(url, before, **options):
    gone = list(expired(url, before, **options))
    for store in gone:
        remove(url, store)
    return [store.key for store in gone]


def contents(url):
    filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {name: info["size"] for name, info in filesystem.find(root, detail=True).items()}


@given(st.integers(1, 99999), st.sampled_from([("h", 1), ("d", 24), ("w", 168)]))
def test_a_time_to_keep_is_a_number_of_hours_days_or_weeks(count, unit):
    letter, hours = unit
    assert parse_keep(f" {count:03d}{letter} ") == count * hours * timedelta(hours=1)


@given(st.text(max_size=6).filter(lambda text: not text.strip().lstrip("0")[:-1].isdecimal()))
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigurationError, match="is no time: write hours, days or weeks"):
        parse_keep(text)


@pytest.mark.parametrize("text", ["0d", "1y", "3m", "-1d", "1.5d", "30", "d", "30D", "1d12h", "\u0663d", "1000000d"])
def test_what_is_near_a_time_to_keep_is_refused(text):
    with pytest.raises(ConfigurationError, match="12h, 30d or 8w"):
        parse_keep(text)


def test_only_stores_without_a_newer_slot_go_and_nothing_else_is_touched(url):
    publish(url, [slot(1), slot(2), slot(1, LATER)])
    publish(url, [slot(4)], replace(FORECAST, source="gefs-p19"))
    publish(url, [Slot(datetime(2024, 2, 29, 23))], HINDCAST, replace(LAYOUT, lead_times=[]))
    others = open_objects(url)
    for key in FOREIGN:
        others.put(key, b"not ours")
    before = contents(url)
    assert prune(url, INIT + timedelta(hours=2)) == []  # a slot valid at that time is new enough
    [store] = expired(url, INIT + timedelta(hours=3))
    assert contents(url) == before
    ours = {name: size for name, size in before.items() if f"/{KEY}/" in name}
    assert (store.key, store.objects, store.bytes) == (KEY, len(ours), sum(ours.values()))
    assert store.newest == INIT + timedelta(hours=2)
    remove(url, store)
    assert contents(url) == {name: size for name, size in before.items() if name not in ours}
    assert prune(url, END, source="gefs-p19") == ["forecast/gefs-p19/demo-1a2b3c4d/20250801T00.zarr"]
    assert prune(url, END, model="demo-1a2b3c4d") == [f"{FORECAST.key}/20250801T06.zarr"]
    assert prune(url, END) == []
    assert prune(url, datetime(2024, 2, 29, 23), kind="hindcast") == []
    assert prune(url, datetime(2024, 3, 1), kind="hindcast") == [f"{HINDCAST.key}/202402.zarr"]
    assert {name.partition("/archive/")[2] for name in contents(url)} == FOREIGN


def test_the_latest_run_stays_however_old(tmp_path):
    archive = publish(str(tmp_path), [slot(1), slot(1, LATER)])
    archive.update_latest(FORECAST, [slot(1)])
    assert prune(archive.url, END) == [f"{FORECAST.key}/20250801T06.zarr"]
    assert Archive(archive.url).read(FORECAST, slot(1)).sizes["member"] == 3
    publish(archive.url, [slot(1)], Series("forecast", "gfs", "other-00000000"))
    assert prune(archive.url, END) == ["forecast/gfs/other-00000000/20250801T00.zarr"]
    open_objects(archive.url).put("forecast/gfs/latest.json", b"{")
    with pytest.raises(ArchiveError, match="is no record of a run"):
        prune(archive.url, END)
    assert Archive(archive.url).published(FORECAST, INIT) == {slot(1)}


def test_a_store_with_inputs_only_counts_by_them_and_one_in_creation_is_left_alone(tmp_path):
    archive = Archive(str(tmp_path))
    archive.create(FORECAST, slot(0), LAYOUT)
    assert [store.newest for store in expired(archive.url, END)] == [INIT]
    archive._mark(archive._store(FORECAST, slot(3)), "inputs/fetched_at", slot(3))
    assert [store.newest for store in expired(archive.url, END)] == [INIT + timedelta(hours=3)]
    (tmp_path / KEY / "zarr.json").unlink()
    assert prune(archive.url, END) == []
    archive.create(FORECAST, slot(0), LAYOUT)
    assert Archive(archive.url).inputs(FORECAST, INIT) == {slot(3)}


def test_a_name_that_is_not_there_is_refused(tmp_path):
    publish(str(tmp_path), [slot(1)])
    with pytest.raises(
        ConfigurationError, match="has no forecast stores of source gsf and model any: correct the name"
    ):
        prune(str(tmp_path), END, source="gsf")
    assert prune(f"{tmp_path}/nowhere", END) == []


# Forks a pruner per line of input and kills it, for real, before the given step among those that change the files.
KILLER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.corrdiff_core.test_archive_retention import END, prune

def pruner(url, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in ("os.rename", "os.remove", "os.rmdir"):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    prune(url, END)
    return count

for line in sys.stdin:
    url, last = line.split()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(pruner(url, int(last))).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), os.read(reading, 20).decode() or "-", flush=True)
"""


def test_a_prune_killed_at_any_step_leaves_nothing_that_opens_and_is_finished_by_the_next(tmp_path):
    publish(str(tmp_path / "made"), [slot(1), slot(2)])
    command = [sys.executable, "-c", KILLER, str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:

        def killed(url, last):
            shutil.copytree(tmp_path / "made", url)
            killer.stdin.write(f"{url} {last}\n")
            killer.stdin.flush()
            code, steps = killer.stdout.readline().split()
            return int(code), steps

        code, steps = killed(tmp_path / "whole", 0)
        assert (code, contents(str(tmp_path / "whole"))) == (0, {})
        assert int(steps) > 90
        for last in (1, 2, 3, 4, 5, 6, 40, int(steps) - 1):
            url = tmp_path / f"killed{last}"
            assert killed(url, last) == (-signal.SIGKILL, "-")
            archive = Archive(str(url))
            if last <= 3:  # the note beside it is written, nothing has gone
                assert archive.published(FORECAST, INIT) == {slot(1), slot(2)}
            else:
                with pytest.raises(FileNotFoundError):
                    xr.open_zarr(archive.store_url(FORECAST, slot(1)))
                assert archive.published(FORECAST, INIT) == set()
            assert prune(archive.url, END) == [KEY]
            assert contents(archive.url) == {}
            assert prune(archive.url, END) == []
        killer.stdin.close()


class Killed(BaseException):
    """As from outside: nothing catches it."""


@pytest.mark.parametrize("step", ["remove", "remove_below"])
def test_a_removal_cut_off_on_s3_is_finished_by_the_next(s3_url, monkeypatch, step):
    def cut(self, key):
        raise Killed

    archive = publish(s3_url, [slot(1)])
    with monkeypatch.context() as patch:
        patch.setattr(f"corrdiff_core.archive.remote.RemoteObjects.{step}", cut)
        with pytest.raises(Killed):
            prune(s3_url, END)
    assert Archive(s3_url).published(FORECAST, INIT) == ({slot(1)} if step == "remove" else set())
    if step == "remove_below":
        with pytest.raises(FileNotFoundError):
            xr.open_zarr(archive.store_url(FORECAST, slot(1)))
    assert prune(s3_url, END) == [KEY]
    assert contents(s3_url) == {}


def test_a_store_made_anew_after_half_a_removal_is_whole(tmp_path):
    archive = publish(str(tmp_path), [slot(1), slot(2)])
    archive._objects.put(f"{KEY}.removing", b"{}")
    archive._objects.remove(f"{KEY}/zarr.json")
    archive._objects.remove_below(f"{KEY}/generated_at")
    assert Archive(archive.url).published(FORECAST, INIT) == set()
    publish(archive.url, [slot(2)])
    assert Archive(archive.url).published(FORECAST, INIT) == {slot(2)}
    assert prune(archive.url, INIT + timedelta(hours=2)) == []
    assert prune(archive.url, END) == [KEY]
    assert contents(archive.url) == {}


@pytest.mark.service
def test_more_than_a_thousand_objects_go(s3_url):
    objects = open_objects(s3_url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: objects.put(f"x/{number}", b"1"), range(1005)))
    objects.put("xy/z", b"beside")
    assert len(objects.sizes("x")) == 1005
    objects.remove_below("x")
    assert objects.sizes("x") == {}
    assert objects.get("xy/z") == b"beside"
