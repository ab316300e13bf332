"""Objects are written whole or not at all, on a local directory and on S3."""

import os
import subprocess
import sys
import threading
from functools import partial

import pytest

from corrdiff_core.archive.objects import _partial, open_objects
from corrdiff_core.errors import ArchiveError


@pytest.fixture(params=["local", "file", "memory", "s3"])
def objects(request, tmp_path):
    if request.param == "s3":
        return open_objects(f"{request.getfixturevalue('s3_url')}/some/prefix")
    urls = {"local": str(tmp_path / "a"), "file": f"file://{tmp_path}/a", "memory": f"memory://{tmp_path.name}/a"}
    return open_objects(urls[request.param])


def test_round_trip(objects):
    assert objects.get("x/y") is None
    assert not objects.exists("x/y")
    assert objects.names("x") == []
    objects.put("x/y", b"one")
    objects.put("x/z/w", b"two")
    objects.put("x/y", b"three")
    assert objects.get("x/y") == b"three"
    assert objects.exists("x/y")
    assert not objects.exists("x/z/v")
    assert objects.names("x") == ["y", "z"]
    objects.remove("x/y")
    objects.remove("x/y")
    assert objects.get("x/y") is None
    assert objects.get("x/z/w") == b"two"


def test_create_never_replaces(objects):
    assert objects.create("x/y", b"first")
    assert not objects.create("x/y", b"second")
    assert objects.get("x/y") == b"first"


@pytest.mark.parametrize("place", ["local", "s3"])
def test_one_of_many_creators_wins(place, request, tmp_path):
    url = str(tmp_path) if place == "local" else request.getfixturevalue("s3_url") + "/race"
    objects = open_objects(url)
    for turn in range(5):
        barrier, won = threading.Barrier(6), []

        def create(number, turn=turn, barrier=barrier, won=won):
            barrier.wait()
            if objects.create(f"turn/{turn}", str(number).encode()):
                won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert objects.get(f"turn/{turn}") == str(won[0]).encode()


def test_a_failed_write_leaves_nothing(tmp_path):
    objects = open_objects(str(tmp_path))
    objects.put("x/y", b"old")
    with pytest.raises(TypeError):
        objects.put("x/y", "not bytes")
    assert objects.get("x/y") == b"old"
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["y"]


def test_a_bucket_that_is_not_there_is_named(s3_url):
    objects = open_objects(f"{s3_url}-mistyped/archive")
    put, create = (partial(write, data=b"one") for write in (objects.put, objects.create))
    for act in (objects.get, objects.names, objects.sizes, put, create):
        with pytest.raises(ArchiveError, match=r"mistyped/archive/x: .*NoSuchBucket, HTTP 404\); check that its place"):
            act("x")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(ArchiveError, match=r"file/x/y: .*Not a directory"):
        open_objects(str(tmp_path / "file")).put("x/y", b"one")


KILLED_WHILE_WRITING = """
import os, signal, sys
from corrdiff_core.archive.objects import _partial, open_objects
from corrdiff_core.errors import ArchiveError

def kill(event, arguments):
    if event == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
getattr(open_objects(sys.argv[1]), sys.argv[3])("x/y", b"new")
"""


@pytest.mark.parametrize(("step", "verb"), [("os.rename", "put"), ("os.link", "create"), ("os.remove", "create")])
def test_the_leftover_of_a_killed_writer_goes_with_the_next_write(tmp_path, step, verb):
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path), step, verb], check=False)
    assert killed.returncode == -9
    [leftover] = [path for path in (tmp_path / "x").iterdir() if path.name != "y"]
    assert leftover.read_bytes() == b"new"
    getattr(open_objects(str(tmp_path)), verb)("x/y", b"new")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["y"]


def test_what_a_living_or_unknown_writer_has_begun_is_left_alone(tmp_path):

    ours = _partial(tmp_path / "y")
    theirs = ours.with_name(ours.name.replace(f".{os.getpid()}.", f".{os.getppid()}."))
    elsewhere = ours.with_name(f".y.{os.getpid()}.0123abcd.1.another-host.partial")
    foreign = ours.with_name(".y.something.partial")
    for path in (ours, theirs, elsewhere, foreign):
        path.write_bytes(b"begun")
    _partial(tmp_path / "y")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (ours, theirs, elsewhere, foreign)}
    os.utime(elsewhere, (0, 0))
    _partial(tmp_path / "y")
    assert not elsewhere.exists()
