"""Objects and exact byte ranges on local disk, memory, HTTP and S3: what is there, what is not, and what is wrong."""

import os
from itertools import pairwise

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.sources.ranges import Root, Span, merge, reaching

BODY = bytes(range(256)) * 40
SPANS = [Span(0, 100), Span(5000, 7000), Span(10_200, 10_240)]
spans_strategy = st.builds(lambda start, size: Span(start, start + size), st.integers(0, 200), st.integers(1, 40))


@settings(deadline=None)
@given(st.lists(spans_strategy, max_size=20))
def test_merged_spans_hold_the_same_bytes_and_never_touch(spans):
    merged = merge(spans)
    assert {byte for span in merged for byte in range(*span)} == {byte for span in spans for byte in range(*span)}
    assert all(before.stop < after.start for before, after in pairwise(merged))


def test_local_and_memory_round_trip(tmp_path):
    for url in (str(tmp_path / "new"), f"file://{tmp_path}/other/", "memory://corrdiff-ranges"):
        root = Root(url)
        root.write("a/b", BODY)
        found = root.find("a/b")
        assert found is not None
        assert (found.size, found.url) == (len(BODY), f"{url.rstrip('/')}/a/b")
        assert root.read(found, SPANS) == [BODY[slice(*span)] for span in SPANS]
        assert root.find("a/b") == found
        root.write("a/b", BODY + b"more")
        assert root.find("a/b") != found
        root.remove("a/b")
        root.remove("a/b")
        assert root.find("a/b") is None


def test_only_whole_objects_are_left_in_a_directory(tmp_path):
    root = Root(str(tmp_path))
    root.write("lead", BODY)
    (tmp_path / "there").mkdir()
    with pytest.raises(ConnectionError, match="there could not be read"):
        root.write("there", BODY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lead", "there"]


def test_an_empty_object_or_a_directory_is_not_there(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    assert Root(str(tmp_path)).find("empty") is None
    assert Root(str(tmp_path)).find("directory") is None


def test_a_directory_that_does_not_exist_is_a_wrong_setting(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere: no such directory: create it or correct the URL"):
        Root(str(tmp_path / "nowhere")).find("lead")


@pytest.mark.parametrize("url", ["nosuch://bucket", "gs://bucket"])
def test_an_url_without_a_filesystem_is_a_wrong_setting(url):
    with pytest.raises(ConfigurationError, match=f"{url} cannot be opened"):
        Root(url).find("lead")


def test_a_refusal_says_how_to_tell_it_from_an_absence():
    with pytest.raises(SourceError, match=r"lead: access denied \(Forbidden\): .*allow ListBucket"), reaching("lead"):
        raise PermissionError("Forbidden")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_directory_is_refused(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(SourceError, match="access denied"):
        Root(str(tmp_path)).find("closed/lead")


def test_http_ranges_go_out_together_after_the_smallest(tmp_path, serve):
    (tmp_path / "lead").write_bytes(BODY)
    url, requests = serve(tmp_path, "slow")
    root = Root(url)
    found = root.find("lead")
    assert found is not None
    assert (found.size, found.modified) == (len(BODY), "Fri, 01 Aug 2025 03:40:00 GMT")
    assert root.read(found, SPANS) == [BODY[slice(*span)] for span in SPANS]
    assert requests.lines[:2] == ["HEAD None", "GET bytes=10200-10239"]
    assert sorted(requests.lines[2:]) == ["GET bytes=0-99", "GET bytes=5000-6999"]
    assert requests.most_at_once == 2


def test_a_server_that_ignores_range_is_refused_after_one_body(tmp_path, serve):
    (tmp_path / "lead").write_bytes(BODY)
    url, requests = serve(tmp_path, "ignores-range")
    root = Root(url)
    found = root.find("lead")
    assert found is not None
    with pytest.raises(SourceError, match=r"lead: asked for the 40 bytes 10200\.\.10239, got 10240: .* another mirror"):
        root.read(found, SPANS)
    assert requests.lines == ["HEAD None", "GET bytes=10200-10239"]


def test_a_body_shorter_than_its_range_is_refused(tmp_path, serve):
    (tmp_path / "lead").write_bytes(BODY)
    root = Root(serve(tmp_path, "cuts")[0])
    found = root.find("lead")
    assert found is not None
    with pytest.raises(SourceError, match=r"asked for the 40 bytes .* got 20"):
        root.read(found, SPANS)


def test_a_local_file_that_shrank_is_refused(tmp_path):
    root = Root(str(tmp_path))
    root.write("lead", BODY)
    found = root.find("lead")
    assert found is not None
    (tmp_path / "lead").write_bytes(BODY[:6000])
    with pytest.raises(SourceError, match=r"asked for the .* got"):
        root.read(found, SPANS)


def test_http_says_what_is_absent_and_what_is_not(tmp_path, serve):
    assert Root(serve(tmp_path)[0]).find("lead") is None
    with pytest.raises(SourceError, match="HTTP 403: the server refuses it, it is not merely absent"):
        Root(serve(tmp_path, "403")[0]).find("lead")
    with pytest.raises(ConnectionError, match="lead: HTTP 503"):
        Root(serve(tmp_path, "503")[0]).find("lead")


def test_a_server_that_is_down_is_not_an_absent_object(tmp_path, serve):
    (tmp_path / "lead").write_bytes(BODY)
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9/lead could not be reached"):
        Root("http://127.0.0.1:9").find("lead")
    found = Root(serve(tmp_path)[0]).find("lead")
    assert found is not None
    with pytest.raises(ConnectionError, match="lead: HTTP 503"):
        Root(serve(tmp_path, "503")[0]).read(found, SPANS)


def test_memory_filesystems_are_shared():
    fsspec.filesystem("memory").pipe_file("/corrdiff-ranges/shared", BODY)
    assert Root("memory://corrdiff-ranges").find("shared") is not None
