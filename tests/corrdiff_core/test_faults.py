"""Object storage that fails, slows down, loses answers and cuts bodies: what is written and read stays the same."""

import threading

import numpy as np
import pytest

from corrdiff_core.archive import Archive
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.quantize import round_mantissa
from corrdiff_core.errors import ArchiveError
from corrdiff_core.retries import TRIES
from tests.archive_cases import FORECAST, INIT, LAYOUT, ensemble, run, slot
from tests.conftest import reach_s3
from tests.corrdiff_core.test_archive_races import digests
from tests.faults import AFTER, BEFORE, CONFLICT, CUT, FORBIDDEN, STALE

SLOTS = [slot(1), slot(2)]


@pytest.fixture
def objects(faulty, s3_url):
    return open_objects(f"{s3_url}/some/prefix")


@pytest.mark.service
def test_an_archive_on_failing_storage_ends_in_the_bytes_of_one_that_never_failed(faulty, s3_url, tmp_path):
    run(str(tmp_path), SLOTS)
    faulty.faults.rate = 0.1
    run(f"{s3_url}/archive", SLOTS)
    archive = Archive(f"{s3_url}/archive")
    assert archive.published(FORECAST, INIT) == set(SLOTS)
    calm = Archive(str(tmp_path))
    for one in SLOTS:
        assert archive.read(FORECAST, one).identical(calm.read(FORECAST, one))
        assert archive.read_inputs(FORECAST, one)[0].identical(calm.read_inputs(FORECAST, one)[0])
        assert archive.provenance(FORECAST, one) == calm.provenance(FORECAST, one)
    for one in (archive, calm):
        assert one.update_latest(FORECAST, SLOTS)
        assert one.latest("gfs").leads == (1, 2)
        one._objects.remove("forecast/gfs/latest.json")  # it tells when
    faulty.faults.rate = 0.0
    assert digests(archive.url) == digests(str(tmp_path))
    assert faulty.faults.happened.total() >= 10, faulty.faults.happened


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER])
@pytest.mark.parametrize("verb", ["PUT", "GET", "HEAD"])
def test_one_failure_of_every_kind_is_survived(objects, faulty, verb, kind):
    acts = {
        "PUT": lambda: objects.put("x/z", b"two"),
        "GET": lambda: objects.get("x/y"),
        "HEAD": lambda: objects.exists("x/y"),
    }
    objects.put("x/y", b"one" * 100)
    before = len(faulty.faults.requests)
    faulty.faults.plan(kind, verb=verb)
    assert acts[verb]() == {"PUT": None, "GET": b"one" * 100, "HEAD": True}[verb]
    assert faulty.faults.happened[kind] == 1
    assert len(faulty.faults.requests) == before + 2
    if verb == "PUT":
        assert objects.get("x/z") == b"two"


def test_a_body_that_ends_early_is_read_again(objects, faulty):
    body = bytes(range(256)) * 1000
    objects.put("x/y", body)
    faulty.faults.plan(CUT, CUT, verb="GET")
    assert objects.get("x/y") == body
    assert faulty.faults.happened[CUT] == 2


def test_an_empty_object_is_there(objects):
    objects.put("x/y", b"")
    assert objects.get("x/y") == b""


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER, CONFLICT])
def test_a_creator_whose_answer_was_lost_knows_that_it_has_won(objects, faulty, kind):
    faulty.faults.plan(kind, kind if kind in BEFORE else "fine")
    assert objects.create("x/y", b"ours")
    assert faulty.faults.happened[kind] >= 1
    assert objects.get("x/y") == b"ours"
    assert not objects.create("x/y", b"theirs")
    assert objects.get("x/y") == b"ours"


@pytest.mark.parametrize("kind", AFTER)
def test_a_creator_whose_answer_was_lost_knows_that_another_has_won(objects, faulty, s3_url, kind, monkeypatch):
    """The other creates the object after we have looked; its bytes are the same."""
    monkeypatch.setattr(objects, "exists", lambda key: objects.get(key) is not None and len(faulty.faults.requests) > 3)
    assert open_objects(f"{s3_url}/some/prefix").create("x/y", b"the same")
    faulty.faults.plan(kind)
    assert not objects.create("x/y", b"the same")


def test_of_many_creators_of_the_same_bytes_on_failing_storage_one_wins(objects, faulty):
    faulty.faults.rate = 0.3
    faulty.faults.kinds = (*BEFORE, "lost", "dropped", CONFLICT)
    for turn in range(6):
        barrier, won = threading.Barrier(4), []

        def create(number, turn=turn, barrier=barrier, won=won):
            barrier.wait()
            if objects.create(f"turn/{turn}", b"the same"):
                won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
    assert faulty.faults.happened.total() >= 10


def test_patience_ends_in_an_error_that_names_object_tries_and_cause(objects, faulty):
    faulty.faults.kinds, faulty.faults.rate = ("slow down",), 1.0
    for act in (
        objects.get,
        objects.exists,
        objects.remove,
        objects.names,
        objects.sizes,
        lambda key: objects.put(key, b""),
    ):
        faulty.faults.requests.clear()
        with pytest.raises(ArchiveError, match=rf"some/prefix/x/y: .*; tried {TRIES} times; check") as caught:
            act("x/y")
        assert "a fault, for the test" in str(caught.value) or act == objects.exists  # HEAD has no body
        assert len(faulty.faults.requests) == TRIES


def test_what_lasts_is_not_tried_again(faulty, s3_url):
    objects = open_objects(f"{s3_url}-elsewhere/archive")
    with pytest.raises(ArchiveError, match="NoSuchBucket"):
        objects.put("x", b"one")
    with pytest.raises(ArchiveError, match="NoSuchBucket"):
        objects.get("x")
    assert open_objects(s3_url).get("y") is None
    assert [request.partition(" ")[0] for request in faulty.faults.requests] == ["PUT", "GET", "GET"]


def test_a_server_that_is_down_is_named(monkeypatch, s3_url):
    reach_s3("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ArchiveError, match=rf"/x: Could not connect to the endpoint.*tried {TRIES} times"):
        open_objects(s3_url).get("x")


def test_a_stale_listing_costs_work_and_nothing_else(faulty, s3_url):
    archive, one = Archive(f"{s3_url}/archive"), SLOTS[0]
    archive.create(FORECAST, one, LAYOUT)
    assert archive.published(FORECAST, INIT) == set()
    for _ in range(2):
        faulty.faults.plan(STALE, verb="GET")
        assert archive.published(FORECAST, INIT) == set()
        archive.write(FORECAST, one, ensemble())
        archive.publish(FORECAST, one, {})
        assert archive.published(FORECAST, INIT) == {one}
        fields = archive.read(FORECAST, one)
    assert faulty.faults.happened[STALE] == 2
    np.testing.assert_array_equal(fields.t2m, round_mantissa(ensemble().t2m.values, 11))


def test_where_many_may_not_be_removed_at_once_each_is(objects, faulty):
    for name in "abcdefghijkl":
        objects.put(f"x/{name}", b"one")
    objects.put("xy/z", b"beside")
    faulty.faults.requests.clear()
    faulty.faults.plan(FORBIDDEN, verb="POST")
    objects.remove_below("x")
    assert objects.sizes("x") == {}
    assert objects.get("xy/z") == b"beside"
    removals = [request for request in faulty.faults.requests if request.startswith("DELETE")]
    assert len(removals) == len(set(removals)) == 12


def test_where_nothing_may_be_removed_one_is_tried(objects, faulty):
    for name in "abc":
        objects.put(f"x/{name}", b"one")
    faulty.faults.requests.clear()
    faulty.faults.plan(FORBIDDEN, verb="POST")
    faulty.faults.then(FORBIDDEN, verb="DELETE")
    with pytest.raises(ArchiveError, match=r"AccessDenied, HTTP 403.*may use it"):
        objects.remove_below("x")
    assert len(objects.sizes("x")) == 3
    assert sum(request.startswith("DELETE") for request in faulty.faults.requests) == 1
