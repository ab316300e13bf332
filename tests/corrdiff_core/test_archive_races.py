"""Kills, re-runs and races all end in the bytes of an undisturbed run."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import fsspec
import numpy as np
import pytest

from corrdiff_core.archive import Archive
from corrdiff_core.errors import ArchiveError
from tests.archive_cases import FORECAST, INIT, LAYOUT, SLOT, inputs, run, slot

SLOTS = [slot(1), slot(2)]

# Forks a writer per line of input and kills it, for real, at the given step among those that change the file system.
KILLER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.archive_cases import run, slot

STEPS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove")

def writer(url, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in STEPS and url in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    run(url, [slot(1), slot(2)])
    return count

for line in sys.stdin:
    url, last = line.split()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(writer(url, int(last))).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), os.read(reading, 20).decode() or "-", flush=True)
    os.close(reading)
"""


class Killer:
    """A process that imports once and then forks writers."""

    def __init__(self):
        command = [sys.executable, "-c", KILLER, str(Path(__file__).parents[2])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, url, last=0):
        """Exit code and number of steps of a run that is killed at step `last`, 0 for not at all."""
        self.process.stdin.write(f"{url} {last}\n")
        self.process.stdin.flush()
        code, steps = self.process.stdout.readline().split()
        return int(code), steps

    def close(self):
        self.process.communicate()


@pytest.fixture(scope="module")
def killer():
    process = Killer()
    yield process
    process.close()


def digests(url):
    """What a store must be equal in: every object but those that tell when."""
    filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    names = (path.removeprefix(f"{root}/") for path in filesystem.find(root))
    tell_when = ("generated_at/c/", "fetched_at/c/", "provenance/")
    return {
        name: sha256(filesystem.cat_file(f"{root}/{name}")).hexdigest()
        for name in names
        if not any(part in name for part in tell_when)
    }


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(8, marks=pytest.mark.service),
        pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_a_writer_killed_at_any_step_and_run_again_leaves_the_bytes_of_an_undisturbed_run(killer, tmp_path, kills):
    code, steps = killer.write(tmp_path / "whole")
    assert code == 0
    undisturbed = digests(str(tmp_path / "whole"))
    steps = int(steps)
    assert steps > 150
    for kill in np.random.default_rng(0).permutation(np.arange(1, steps + 1))[:kills]:
        url = tmp_path / f"killed{kill}"
        code, _ = killer.write(url, kill)
        assert code == -signal.SIGKILL or kill > 0.9 * steps  # threads that race make the last steps come or not
        archive = Archive(url)
        for one in archive.published(FORECAST, INIT):
            archive.read(FORECAST, one)
        for one in SLOTS:
            if archive.fetched(FORECAST, one):
                archive.read_inputs(FORECAST, one)
        code, _ = killer.write(url)
        assert code == 0
        assert digests(str(url)) == undisturbed, f"killed at step {kill} of {steps}"
        files = {path.relative_to(url) for path in url.rglob("*")}
        assert files == {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}


@pytest.mark.service
@pytest.mark.parametrize("place", ["local", "s3"])
def test_writers_of_the_same_slots_end_in_the_same_bytes(place, request, tmp_path):
    root = str(tmp_path) if place == "local" else request.getfixturevalue("s3_url")
    run(f"{root}/one", SLOTS)
    failures = []

    def write():
        try:
            run(f"{root}/many", SLOTS)
        except ArchiveError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert digests(f"{root}/many") == digests(f"{root}/one")
    assert Archive(f"{root}/many").published(FORECAST, INIT) == set(SLOTS)


@pytest.mark.service
def test_two_processes_that_write_the_same_slots_end_in_the_same_bytes(tmp_path):
    run(str(tmp_path / "one"), SLOTS)
    pair = [Killer(), Killer()]
    for process in pair:
        process.process.stdin.write(f"{tmp_path}/two 0\n")
        process.process.stdin.flush()
    assert [process.process.stdout.readline().split()[0] for process in pair] == ["0", "0"]
    for process in pair:
        process.close()
    assert digests(str(tmp_path / "two")) == digests(str(tmp_path / "one"))


def test_a_second_run_changes_nothing(tmp_path):
    run(str(tmp_path), SLOTS)
    before = digests(str(tmp_path))
    root = tmp_path / FORECAST.key / "20250801T00.zarr"
    metadata = {path: path.stat().st_mtime_ns for path in root.rglob("zarr.json")}
    run(str(tmp_path), SLOTS)
    assert digests(str(tmp_path)) == before
    assert {path: path.stat().st_mtime_ns for path in metadata} == metadata


@pytest.mark.service
@pytest.mark.parametrize("place", ["local", "s3"])
def test_of_creators_that_disagree_one_wins_and_the_store_is_all_its_own(place, request, tmp_path):
    root = str(tmp_path) if place == "local" else request.getfixturevalue("s3_url")
    for turn in range(2):
        url = f"{root}/{turn}"
        barrier, refused = threading.Barrier(2), []

        def create(members, url=url, barrier=barrier, refused=refused):
            archive = Archive(url)
            barrier.wait()
            try:
                archive.create(FORECAST, SLOT, replace(LAYOUT, members=members))
            except ArchiveError:
                refused.append(members)

        threads = [threading.Thread(target=create, args=(members,)) for members in (2, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        winner = replace(LAYOUT, members=7 - refused[0])
        Archive(f"{root}/alone{turn}").create(FORECAST, SLOT, winner)
        assert digests(url) == digests(f"{root}/alone{turn}")


def test_a_reader_never_sees_a_torn_slot(tmp_path):
    """While a writer goes round, every slot that is published reads whole and equal to what was written."""
    slots = [slot(hour) for hour in range(5)]
    expected = {}
    run(str(tmp_path / "reference"), slots)
    for one in slots:
        expected[one] = Archive(tmp_path / "reference").read(FORECAST, one)
    writer = threading.Thread(target=lambda: [run(str(tmp_path / "busy"), slots) for _ in range(3)])
    writer.start()
    seen = 0
    while writer.is_alive():
        archive = Archive(tmp_path / "busy")
        for one in archive.published(FORECAST, INIT):
            assert archive.read(FORECAST, one).equals(expected[one])
            seen += 1
    writer.join()
    assert seen


def test_an_interrupted_fetch_is_done_again(tmp_path):
    archive = Archive(tmp_path)
    archive.create(FORECAST, SLOT, LAYOUT)
    partial = tmp_path / FORECAST.key / "20250801T00.zarr/inputs/t2m/c/2/0"
    partial.mkdir(parents=True)
    (partial / f".0.{os.getpid()}.00000000.1.{os.uname().nodename}.partial").write_bytes(b"half")
    assert not archive.fetched(FORECAST, SLOT)
    archive.write_inputs(FORECAST, SLOT, inputs(), {})
    assert [path.name for path in partial.iterdir()] == ["0"]
