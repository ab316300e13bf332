"""The stack's own S3 server: its key opens it, and what it has stored is there after it was killed."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.bare_metal.commands import found, start_part, stop_part
from infra.bare_metal.parts import Stack
from infra.bare_metal.places import Places
from infra.bare_metal.processes import marked

PACKAGES = Path(os.environ.get("CEPH_HOME", "~/.cache/corrdiff-ceph")).expanduser() / "unpacked"


@pytest.mark.service
@pytest.mark.skipif(not PACKAGES.exists(), reason="Ceph's packages were not fetched yet: make test-s3")
def test_objects_outlive_a_server_that_was_killed():
    home = tempfile.mkdtemp(prefix="stack-")
    environment = {**os.environ, "STACK_HOME": home, "STACK_S3": "ceph"}
    places = Places.of(environment)
    stack = Stack(places, environment)
    (part,) = [part for part in stack.parts if part.name == "s3"]
    try:
        start_part(stack, "s3")
        client = _client(stack)
        client.create_bucket(Bucket="kept")
        client.put_object(Bucket="kept", Key="one", Body=b"1" * 100_000)
        with pytest.raises(ClientError, match=r"403|Forbidden|AccessDenied|SignatureDoesNotMatch"):
            _client(stack, aws_secret_access_key="wrong").list_objects_v2(Bucket="kept")
        ours = list(marked(places.mark("s3")))
        assert len(ours) >= 4
        for process in ours:
            os.kill(process.pid, signal.SIGKILL)
        script = found(places, part)
        assert script is None
        start_part(stack, "s3")
        assert _client(stack).get_object(Bucket="kept", Key="one")["Body"].read() == b"1" * 100_000
    finally:
        stop_part(places, part)
        assert list(marked(places.mark("s3"))) == []
        shutil.rmtree(home)


def _client(stack: Stack, **changes: str):
    reach = stack.reach
    options = {
        "endpoint_url": reach["AWS_ENDPOINT_URL"],
        "aws_access_key_id": reach["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": reach["AWS_SECRET_ACCESS_KEY"],
        "region_name": reach["AWS_DEFAULT_REGION"],
    }
    return boto3.client("s3", **(options | changes))
