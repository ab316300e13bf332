"""`infra/s3-policies` on a real gateway: writers and readers can do what they must, and nothing else."""

import json
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

import boto3
import fsspec
import pytest
from botocore.exceptions import ClientError

from corrdiff_core.archive import Archive, open_forecasts
from corrdiff_core.archive.layout import Series
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.errors import ArchiveError
from corrdiff_core.manifest import read_manifest
from corrdiff_core.registry import Registry
from tests.flows.flow_cases import INIT, REPOSITORY, writer

pytestmark = pytest.mark.skipif("TEST_S3_ADMIN" not in os.environ, reason="moto checks no policies: make test-s3")
POLICIES = REPOSITORY / "infra" / "s3-policies"
PART = 5 * 2**20  # bytes; the least that S3 takes for a part of several


@dataclass(frozen=True)
class User:
    """One of the gateway's, with no rights but those that the bucket's policy gives."""

    name: str
    key: str
    secret: str

    @classmethod
    def new(cls, kind: str) -> "User":
        name = f"{kind}-{uuid.uuid4().hex[:8]}"
        made = subprocess.run(
            [os.environ["TEST_S3_ADMIN"], "user", "create", "--uid", name, "--display-name", name],
            capture_output=True,
            check=True,
        )
        (key,) = json.loads(made.stdout)["keys"]
        return cls(name, key["access_key"], key["secret_key"])

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def client(self):
        return boto3.client("s3", aws_access_key_id=self.key, aws_secret_access_key=self.secret)

    def become(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process reaches S3 as that user."""
        options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "key": self.key, "secret": self.secret}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)


def statements(kind: str, bucket: str, user: User) -> list[dict[str, object]]:
    """The policy `kind`, made for users, as a bucket's own: who it is for stands in every statement."""
    document = json.loads((POLICIES / f"{kind}.json").read_text().replace("BUCKET", bucket))
    principal = {"AWS": [f"arn:aws:iam:::user/{user.name}"]}
    return [
        {**statement, "Principal": principal, "Sid": f"{kind}{n}"} for n, statement in enumerate(document["Statement"])
    ]


@dataclass(frozen=True)
class Shared:
    bucket: str
    writer: User
    reader: User


@pytest.fixture
def shared(s3_url: str) -> Shared:
    """A bucket whose policy lets one user write and another read."""
    bucket, users = s3_url.removeprefix("s3://"), {kind: User.new(kind) for kind in ("writer", "reader")}
    document = [one for kind, user in users.items() for one in statements(kind, bucket, user)]
    owner = boto3.client("s3")
    owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": document}))
    owner.put_object(Bucket=bucket, Key="other/secret", Body=b"not for them")
    owner.put_object(Bucket=bucket, Key="archive/elsewhere", Body=b"not for writers")
    return Shared(bucket, users["writer"], users["reader"])


def refused(act, **arguments) -> None:
    with pytest.raises(ClientError) as error:
        act(**arguments)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_an_hour_is_written_by_the_writer_and_read_by_the_reader(shared, corrdiff, gfs, small_checkpoint, monkeypatch):
    archive, models = f"s3://{shared.bucket}/archive", f"s3://{shared.bucket}/models"
    gfs.put(INIT, 0, 1)
    own = shared.writer.environment | {"CORRDIFF_ARCHIVE": archive, "CORRDIFF_MODELS": models, "CORRDIFF_HOURS": "2"}
    shared.writer.become(monkeypatch)
    Registry(models).add("small", writer(load_checkpoint(str(small_checkpoint))))
    Registry(models).promote("small", 1, {"said": "by hand"})
    made = corrdiff("hourly", "--init", "2025-08-01T06", CORRDIFF_MODEL="small", **own)
    assert made.returncode == 0, made.stdout + made.stderr

    shared.reader.become(monkeypatch)
    assert dict(open_forecasts(archive).sizes)["member"] == 3
    assert float(open_forecasts(archive).t2m.isnull().sum()) == 0
    assert Archive(archive).latest("gfs").init_time == INIT
    series = Series("forecast", "gfs", read_manifest(str(small_checkpoint)).identity)
    (slot, _) = sorted(Archive(archive).published(series, INIT))
    for act in (
        lambda: open_objects(archive).put("forecast/gfs/latest.json", b"{}"),
        lambda: open_objects(archive).create("forecast/gfs/mine.json", b"{}"),
        lambda: open_objects(archive).remove("forecast/gfs/latest.json"),
        lambda: open_objects(archive).remove_below("forecast"),
        lambda: Archive(archive).retract(series, slot, "to do harm"),
        lambda: Registry(models).names(),
    ):
        with pytest.raises(ArchiveError, match=r"403|AccessDenied|still there"):
            act()
    assert Archive(archive).latest("gfs").init_time == INIT
    assert len(Archive(archive).published(series, INIT)) == 2

    pruned = corrdiff("archive", "prune", "--keep", "1h", "--kind", "forecast", **own)
    assert pruned.returncode == 0, pruned.stdout + pruned.stderr


def test_a_large_object_goes_in_parts_and_can_be_given_up(shared):
    client, where = shared.writer.client(), {"Bucket": shared.bucket, "Key": "archive/forecast/large"}
    for ends in ("complete", "abort"):
        upload = client.create_multipart_upload(**where)["UploadId"]
        part = client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x" * PART)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        if ends == "complete":
            client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
        else:
            client.abort_multipart_upload(**where, UploadId=upload)
    assert client.head_object(**where)["ContentLength"] == PART


def test_the_writer_removes_many_at_once_as_retention_does(shared, monkeypatch):
    shared.writer.become(monkeypatch)
    objects = open_objects(f"s3://{shared.bucket}/archive")
    for number in range(3):
        objects.put(f"forecast/gfs/old.zarr/{number}", b"x")
    objects.remove_below("forecast/gfs/old.zarr")
    assert objects.sizes("forecast/gfs/old.zarr") == {}


@pytest.mark.parametrize("kind", ["writer", "reader"])
def test_what_is_not_theirs_stays_closed(shared, kind):
    client, bucket = getattr(shared, kind).client(), shared.bucket
    refused(client.get_object, Bucket=bucket, Key="other/secret")
    refused(client.put_object, Bucket=bucket, Key="other/mine", Body=b"")
    refused(client.put_object, Bucket=bucket, Key="archive/elsewhere", Body=b"")
    refused(client.delete_object, Bucket=bucket, Key="other/secret")
    for prefix in ("other/", "a"):
        refused(client.list_objects_v2, Bucket=bucket, Prefix=prefix)
    refused(client.get_bucket_policy, Bucket=bucket)
    refused(client.put_bucket_policy, Bucket=bucket, Policy="{}")
    refused(client.delete_bucket_policy, Bucket=bucket)
    refused(client.delete_bucket, Bucket=bucket)
    refused(client.list_object_versions, Bucket=bucket, Prefix="archive/")
    refused(client.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    boto3.client("s3").create_bucket(Bucket=f"{bucket}-next")
    refused(client.list_objects_v2, Bucket=f"{bucket}-next", Prefix="archive/")
    refused(client.put_object, Bucket=f"{bucket}-next", Key="archive/forecast/x", Body=b"")


@pytest.mark.parametrize("kind", ["writer", "reader"])
def test_what_is_absent_is_absent_and_not_forbidden(shared, kind):
    """Which S3 tells those who may list without a prefix only; so the names of a shared bucket are no secret."""
    client = getattr(shared, kind).client()
    with pytest.raises(ClientError) as error:
        client.get_object(Bucket=shared.bucket, Key="archive/forecast/none")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_the_reader_sees_no_models(shared):
    client = shared.reader.client()
    boto3.client("s3").put_object(Bucket=shared.bucket, Key="models/small/0001/manifest.json", Body=b"{}")
    refused(client.get_object, Bucket=shared.bucket, Key="models/small/0001/manifest.json")
    refused(client.list_objects_v2, Bucket=shared.bucket, Prefix="models/")
    assert shared.writer.client().list_objects_v2(Bucket=shared.bucket, Prefix="models/")["KeyCount"] == 1


def test_the_bucket_alone_has_no_rights_for_strangers(shared):
    stranger = User.new("stranger").client()
    refused(stranger.get_object, Bucket=shared.bucket, Key="archive/elsewhere")
    refused(stranger.list_objects_v2, Bucket=shared.bucket, Prefix="archive/")


def test_the_files_allow_no_more_than_the_code_asks_for():
    documents = {path.stem: json.loads(path.read_text()) for path in Path(POLICIES).glob("*.json")}
    actions = {
        kind: {action for one in document["Statement"] for action in _listed(one["Action"])}
        for kind, document in documents.items()
    }
    assert actions == {
        "reader": {"s3:ListBucket", "s3:GetObject"},
        "writer": {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"},
    }


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
