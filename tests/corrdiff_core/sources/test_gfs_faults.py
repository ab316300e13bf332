"""The GFS source on object storage that fails: the same fields, or a named failure, never a wrong one."""

import pytest
import xarray as xr

from corrdiff_core.errors import SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.retries import TRIES
from corrdiff_core.sources.gfs import GFS, write_lead
from corrdiff_core.sources.source import Fetched
from tests.faults import AFTER, BEFORE, CUT

BOX = TAIWAN.input_box


@pytest.fixture
def source(faulty, s3_url, weather, lead):
    write_lead(f"{s3_url}/gfs", lead.slot, weather)
    return GFS(f"{s3_url}/gfs")


def test_a_source_that_fails_now_and_then_gives_the_same_fields(source, faulty, lead):
    local = lead.source.fetch(lead.slot, BOX)
    faulty.faults.rate, faulty.faults.kinds = 0.2, (*BEFORE, *AFTER, CUT)
    for _ in range(3):
        answer = source.fetch(lead.slot, BOX)
        assert isinstance(answer, Fetched)
        xr.testing.assert_identical(answer.inputs, local.inputs)
        assert answer.provenance["bytes"] == local.provenance["bytes"]
    assert faulty.faults.happened.total() >= 3, faulty.faults.happened


def test_a_source_written_through_failures_is_whole(faulty, s3_url, weather, lead):
    faulty.faults.rate = 0.3
    url = write_lead(s3_url, lead.slot, weather)
    answer = GFS(s3_url).fetch(lead.slot, BOX)
    assert isinstance(answer, Fetched)
    assert answer.provenance["file"]["url"] == url
    xr.testing.assert_identical(answer.inputs, lead.source.fetch(lead.slot, BOX).inputs)


def test_only_the_range_that_failed_is_read_again(source, faulty, lead):
    source.fetch(lead.slot, BOX)
    whole = len(faulty.faults.requests)
    faulty.faults.requests.clear()
    faulty.faults.plan("fine", "fine", CUT, "error", verb="GET")
    assert isinstance(source.fetch(lead.slot, BOX), Fetched)
    assert faulty.faults.happened == {CUT: 1, "error": 1}
    assert len(faulty.faults.requests) <= whole + 2


def test_patience_ends_in_an_error_worth_another_run(source, faulty, lead):
    faulty.faults.kinds, faulty.faults.rate = ("slow down",), 1.0
    with pytest.raises(ConnectionError, match=rf"f007 could not be read: .*; tried {TRIES} times"):
        source.available(lead.slot)
    faulty.faults.rate = 0.0
    found = source._root.find(lead.file.relative_to(lead.root).as_posix())
    faulty.faults.kinds, faulty.faults.rate = (CUT,), 1.0
    with pytest.raises((SourceError, ConnectionError), match=rf"f007.*tried {TRIES} times"):
        source._root.read(found, [found.whole])
