"""The GFS source over HTTP and over S3 (moto's server): the same fields, few requests, nothing hidden."""

from collections import Counter

import boto3
import pytest
import xarray as xr
from s3fs import S3FileSystem

from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.sources.gfs import GFS, write_lead
from corrdiff_core.sources.source import Fetched, NotYet

BOX = TAIWAN.input_box


def test_http_gives_the_same_fields_in_few_requests(lead, serve):
    url, requests = serve(lead.root)
    answer, local = GFS(url).fetch(lead.slot, BOX), lead.source.fetch(lead.slot, BOX)
    assert isinstance(answer, Fetched)
    assert isinstance(local, Fetched)
    xr.testing.assert_identical(answer.inputs, local.inputs)
    assert answer.provenance["file"]["modified"] == "Fri, 01 Aug 2025 03:40:00 GMT"
    assert [line.split()[0] for line in requests.lines].count("HEAD") == 3
    assert len([line for line in requests.lines if line.startswith("GET bytes=")]) == 8


def test_a_server_that_ignores_range_is_named(lead, serve):
    with pytest.raises(SourceError, match=r"f007: asked for the .* the server ignores Range"):
        GFS(serve(lead.root, "ignores-range")[0]).fetch(lead.slot, BOX)


def test_http_absent_is_not_yet_and_failure_is_not(lead, serve):
    lead.idx.unlink()
    assert isinstance(GFS(serve(lead.root)[0]).fetch(lead.slot, BOX), NotYet)
    with pytest.raises(ConnectionError):
        GFS(serve(lead.root, "500")[0]).fetch(lead.slot, BOX)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, str]]:
    """Operation and end of the object's name of every S3 request that s3fs makes."""
    made: list[tuple[str, str]] = []
    call = S3FileSystem._call_s3

    async def counted(self, method, *arguments, **options):
        made.append((method, options.get("Key", options.get("Prefix", "")).rsplit(".", 1)[-1]))
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    return made


def test_s3_in_at_most_eight_ranges_and_one_inventory(s3_url, weather, lead, calls):
    source = GFS(f"{s3_url}/gfs")
    write_lead(source.url, lead.slot, weather)
    assert source.available(lead.slot)
    calls.clear()
    answer, local = source.fetch(lead.slot, BOX), lead.source.fetch(lead.slot, BOX)
    assert isinstance(answer, Fetched)
    assert isinstance(local, Fetched)
    xr.testing.assert_identical(answer.inputs, local.inputs)
    assert answer.provenance["file"]["etag"]
    assert answer.provenance["file"]["modified"]
    assert Counter(calls) == {
        ("head_object", "f007"): 2,
        ("head_object", "idx"): 1,
        ("get_object", "idx"): 1,
        ("get_object", "f007"): 7,
    }


def put(url: str, body: bytes) -> None:
    bucket, key = url.removeprefix("s3://").split("/", 1)
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def test_s3_absent_empty_and_appearing(s3_url, weather, lead):
    source = GFS(s3_url)
    answer = source.fetch(lead.slot, BOX)
    assert isinstance(answer, NotYet)
    assert answer.url == f"{s3_url}/gfs.20250801/00/atmos/gfs.t00z.pgrb2.0p25.f007"
    url = write_lead(s3_url, lead.slot, weather)
    assert url == answer.url
    assert source.available(lead.slot)
    put(f"{url}.idx", b"")
    assert isinstance(source.fetch(lead.slot, BOX), NotYet)


def test_s3_stale_inventory(s3_url, weather, lead):
    put(write_lead(s3_url, lead.slot, weather, "grid_simple"), lead.file.read_bytes())
    with pytest.raises(SourceError, match=r"s3://.*/gfs\.20250801/.*(says it has|starts with)"):
        GFS(s3_url).fetch(lead.slot, BOX)


def test_a_bucket_that_does_not_exist_is_a_wrong_setting(s3_url, lead):
    with pytest.raises(ConfigurationError, match=f"{s3_url}-elsewhere: no such bucket"):
        GFS(f"{s3_url}-elsewhere").available(lead.slot)


def test_settings_of_our_own_storage_do_not_reach_noaas_bucket(s3_url):
    filesystem, path = GFS()._root.filesystem_and_path
    assert path == "noaa-gfs-bdp-pds"
    assert filesystem.anon
    assert filesystem.endpoint_url.endswith(".amazonaws.com")


def test_storage_without_credentials_is_named_and_not_tried_again(s3_url, lead, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(lead.root / "none"))
    with pytest.raises(SourceError, match=r"f007: access denied \(Unable to locate credentials\): check"):
        GFS(s3_url).available(lead.slot)
