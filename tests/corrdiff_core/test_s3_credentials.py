"""Credentials that S3 refuses are a named failure, at once; moto checks none, so these run on a real server only."""

import os

import boto3
import fsspec
import pytest

from corrdiff_core.archive import Archive, open_forecasts
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.retention import expired
from corrdiff_core.cycle import utc_now
from corrdiff_core.errors import ArchiveError, SourceError
from corrdiff_core.sources.ranges import Root
from tests.archive_cases import FORECAST, INIT, LAYOUT, SLOT

pytestmark = pytest.mark.skipif("TEST_S3_ENDPOINT" not in os.environ, reason="moto checks no credentials: make test-s3")

REFUSED = r"s3://test-.*/archive.*: .*(InvalidAccessKeyId|SignatureDoesNotMatch|403), HTTP 403\); check .* may use it"


@pytest.fixture(params=["key", "secret"])
def forbidden(request, s3_url, faulty, monkeypatch):
    """A bucket with an object, and the wrong key or secret to it."""
    open_objects(s3_url).put("archive/x", b"one")
    variable = "AWS_ACCESS_KEY_ID" if request.param == "key" else "AWS_SECRET_ACCESS_KEY"
    monkeypatch.setenv(variable, f"wrong-{request.param}")
    faulty.faults.requests.clear()
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": faulty.url, "use_ssl": False})  # a filesystem anew
    return f"{s3_url}/archive"


@pytest.mark.parametrize("act", ["get", "exists", "names", "sizes", "remove"])
def test_objects_are_refused(forbidden, faulty, act):
    with pytest.raises(ArchiveError, match=REFUSED):
        getattr(open_objects(forbidden), act)("x")
    assert len(faulty.faults.requests) == 1


@pytest.mark.parametrize("act", ["put", "create"])
def test_writing_is_refused(forbidden, act):
    with pytest.raises(ArchiveError, match=REFUSED):
        getattr(open_objects(forbidden), act)("x", b"two")


def test_the_archive_is_refused(forbidden):
    for act in (
        lambda: Archive(forbidden).create(FORECAST, SLOT, LAYOUT),
        lambda: Archive(forbidden).published(FORECAST, INIT),
        lambda: open_forecasts(forbidden),
        lambda: list(expired(forbidden, utc_now())),
    ):
        with pytest.raises(ArchiveError, match=REFUSED):
            act()


def test_a_source_is_refused(forbidden):
    with pytest.raises(SourceError, match="access denied"):
        Root(forbidden).find("x")


def test_the_right_ones_are_not(s3_url):
    assert boto3.client("s3").list_objects_v2(Bucket=s3_url.removeprefix("s3://"))["KeyCount"] == 0
