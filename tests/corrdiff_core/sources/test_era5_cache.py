"""Hours that were read once: no request again, no damaged entry used, ERA5T dropped in time, kills and races."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.grid import Box
from corrdiff_core.nature_era5 import write_arco
from corrdiff_core.sources import era5_arco
from corrdiff_core.sources.era5 import ERA5
from corrdiff_core.sources.source import NotYet
from tests.corrdiff_core.sources.era5_cases import AREA, BOX, END, HOURS, SLOT, START, assert_weather

REPOSITORY = Path(__file__).resolve().parents[3]

# For each line of input forks writers that fetch into one cache. One that is given a step kills itself there, for real,
# among the steps that change the cache; the others drop what they wrote and write it again and again.
FETCHER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.corrdiff_core.sources.era5_cases import BOX, HOURS, Slot
from corrdiff_core.sources.era5 import ERA5

STEPS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove")

def killed(store, cache, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in STEPS and cache in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    ERA5(store, cache).fetch(Slot(HOURS[0]), BOX)

def again(store, cache):
    source = ERA5(store, cache)
    for _ in range(5):
        for time in HOURS[:2]:
            source._cache.remove("arco", Slot(time), BOX)
            assert "warnings" not in source.fetch(Slot(time), BOX).provenance

def writer(store, cache, last):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        killed(store, cache, last) if last else again(store, cache)
        code = 0
    finally:
        os._exit(code)

for line in sys.stdin:
    store, cache, last = line.split()
    ERA5(store).fetch(Slot(HOURS[0]), BOX)  # imports what the children need
    children = [writer(store, cache, int(last)) for _ in range(1 if int(last) else 2)]
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Three hours, the last of them preliminary; read-only."""
    path = tmp_path_factory.mktemp("arco") / "store"
    write_arco(str(path), START, END, era5t_from=HOURS[2], area=AREA)
    return path


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


class TestRequests:
    def test_none_for_an_hour_that_was_read_once(self, written, cache, serve):
        url, requests = serve(written)
        first = ERA5(url, str(cache)).fetch(SLOT, BOX)
        assert_weather(first, SLOT.valid_time)
        assert first.provenance["cached"] is False
        assert first.provenance["bytes"] > 0
        requests.lines.clear()
        again = ERA5(url, str(cache)).fetch(SLOT, BOX)
        assert requests.lines == []
        xr.testing.assert_identical(again.inputs, first.inputs)
        assert again.provenance == first.provenance | {"bytes": 0, "cached": True}

    def test_none_even_where_the_root_is_gone(self, written, cache, tmp_path):
        moved = shutil.copytree(written, tmp_path / "moved")
        ERA5(str(moved), str(cache)).fetch(SLOT, BOX)
        shutil.rmtree(moved)
        assert_weather(ERA5(str(moved), str(cache)).fetch(SLOT, BOX), SLOT.valid_time)

    def test_without_a_cache_each_reading_travels(self, written, serve):
        url, requests = serve(written)
        source = ERA5(url)
        source.fetch(SLOT, BOX)
        requests.lines.clear()
        assert source.fetch(SLOT, BOX).provenance["bytes"] > 0
        assert requests.lines

    def test_a_cache_on_object_storage(self, written, s3_url):
        source = ERA5(str(written), f"{s3_url}/cache")
        source.fetch(SLOT, BOX)
        bucket = s3_url.removeprefix("s3://")
        (kept,) = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
        assert kept["Key"].endswith("/20210607/22")
        assert source.fetch(SLOT, BOX).provenance["cached"] is True

    def test_another_root_or_box_is_another_entry(self, written, cache, tmp_path):
        other = shutil.copytree(written, tmp_path / "other")
        smaller = Box(south=20, north=25, west=118, east=123)
        for source, box in ((written, BOX), (other, BOX), (written, smaller)):
            assert ERA5(str(source), str(cache)).fetch(SLOT, box).provenance["cached"] is False
        assert len(entries(cache)) == 3
        assert ERA5(str(written), str(cache)).fetch(SLOT, smaller).inputs.sizes == {"latitude": 21, "longitude": 21}

    def test_the_same_root_in_another_spelling_is_the_same(self, written, cache, monkeypatch):
        ERA5(f"{written}/", str(cache)).fetch(SLOT, BOX)
        monkeypatch.chdir(written.parent)
        assert ERA5(written.name, str(cache)).fetch(SLOT, BOX).provenance["cached"] is True

    def test_nothing_beyond_the_end_is_kept(self, written, cache):
        assert isinstance(ERA5(str(written), str(cache)).fetch(Slot(END), BOX), NotYet)
        assert entries(cache) == []


class TestPreliminary:
    def test_it_is_kept_until_final_data_cover_it(self, written, cache, tmp_path, monkeypatch):
        store, slot = str(shutil.copytree(written, tmp_path / "store")), Slot(HOURS[2])
        source = ERA5(store, str(cache))
        assert source.fetch(slot, BOX).preliminary
        kept = source.fetch(slot, BOX)
        assert kept.preliminary
        assert kept.provenance["cached"] is True
        assert kept.provenance["stream"] == "ERA5T"

        write_arco(store, HOURS[2], END, area=AREA)
        monkeypatch.setattr(era5_arco, "RE_READ", 0 * HOUR)
        final = source.fetch(slot, BOX)
        assert_weather(final, HOURS[2])
        assert not final.preliminary
        assert (final.provenance["cached"], final.provenance["stream"]) == (False, "final")
        assert "warnings" not in final.provenance
        again = ERA5(store, str(cache)).fetch(slot, BOX)
        assert (again.preliminary, again.provenance["cached"]) == (False, True)

    def test_only_the_ends_are_asked_for(self, written, cache, serve):
        url, requests = serve(written)
        ERA5(url, str(cache)).fetch(Slot(HOURS[2]), BOX)
        requests.lines.clear()
        assert ERA5(url, str(cache)).fetch(Slot(HOURS[2]), BOX).provenance["cached"] is True
        assert len([line for line in requests.lines if line.startswith("GET")]) == 1


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda body: body[:-1],
            lambda body: b"",
            lambda body: body[:2000] + bytes([body[2000] ^ 1]) + body[2001:],
            lambda body: body[:70] + body[70:].replace(b"20210607T22", b"20210607T21"),
        ],
    )
    def test_it_is_found_and_read_anew(self, written, cache, damage):
        source = ERA5(str(written), str(cache))
        source.fetch(SLOT, BOX)
        (entry,) = entries(cache)
        good = entry.read_bytes()
        entry.write_bytes(damage(good))
        assert entry.read_bytes() != good
        answer = source.fetch(SLOT, BOX)
        assert_weather(answer, SLOT.valid_time)
        (warning,) = answer.provenance["warnings"]
        assert warning.startswith(f"the cached {entry} is damaged, its ")
        assert warning.endswith("it was read anew from its source")
        assert answer.provenance["cached"] is False
        mended = source.fetch(SLOT, BOX)
        assert mended.provenance["cached"] is True
        assert "warnings" not in mended.provenance

    def test_an_entry_of_another_hour_in_its_place(self, written, cache):
        source = ERA5(str(written), str(cache))
        source.fetch(SLOT, BOX)
        (entry,) = entries(cache)
        entry.rename(entry.with_name("21"))
        answer = source.fetch(Slot(HOURS[0]), BOX)
        assert_weather(answer, HOURS[0])
        assert "'valid_time': '20210607T22'" in answer.provenance["warnings"][0]


@pytest.fixture(scope="module")
def fetcher() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FETCHER, str(REPOSITORY)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


def fetched(fetcher, store: Path, cache: Path, last: int = 0) -> list[int]:
    """Exit codes of one writer that is killed at its step `last`, or of two at once that are not."""
    fetcher.stdin.write(f"{store} {cache} {last}\n")
    fetcher.stdin.flush()
    return [int(code) for code in fetcher.stdout.readline().split()]


def test_killed_anywhere_in_a_write(written, tmp_path, fetcher):
    codes = []
    for last in range(1, 30):
        cache = tmp_path / f"cache-{last}"
        codes += fetched(fetcher, written, cache, last)
        answer = ERA5(str(written), str(cache)).fetch(Slot(HOURS[0]), BOX)
        assert_weather(answer, HOURS[0])
        assert "warnings" not in answer.provenance  # an entry is whole or not there
        assert [path.name for path in entries(cache)] == ["21"]  # and no leftovers
        if codes[-1] == 0:
            break
    assert codes[-1] == 0
    assert set(codes[:-1]) == {-9}
    assert len(codes) > 4


def test_two_processes_write_one_day(written, cache, fetcher):
    assert fetched(fetcher, written, cache) == [0, 0]
    for time in HOURS[:2]:
        answer = ERA5(str(written), str(cache)).fetch(Slot(time), BOX)
        assert_weather(answer, time)
        assert answer.provenance["cached"] is True


def test_the_same_from_s3(written, cache, s3_url):
    fsspec.filesystem("s3").put(str(written), f"{s3_url}/store", recursive=True)
    source = ERA5(f"{s3_url}/store", str(cache))
    first, again = source.fetch(SLOT, BOX), source.fetch(SLOT, BOX)
    xr.testing.assert_identical(first.inputs, again.inputs)
    assert again.provenance["objects"]["geopotential"]["etag"]
