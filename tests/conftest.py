"""Shared parts of the tests: an S3 server that speaks HTTP, and how much of the machine a test takes."""

import logging
import os
import uuid
from collections.abc import Iterator

import boto3
import fsspec
import pytest
from hypothesis import settings
from moto.server import ThreadedMotoServer

from tests.faults import SLOW, FaultyServer

# One thread in every test process and its children: OpenMP threads that share a core with others wait on each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline, since a loaded machine is no failure; the same examples in every run.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures that pass are tried again at once."""
    monkeypatch.setattr("corrdiff_core.retries.FIRST_PAUSE", 0.001)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server: TEST_S3_ENDPOINT (see infra/ceph-rgw.sh), else moto's on a free port, for the whole session."""
    if "TEST_S3_ENDPOINT" in os.environ:
        yield os.environ["TEST_S3_ENDPOINT"]
        return
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it logs every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket; this process and those it starts reach it through the standard AWS and fsspec configuration."""
    reach_s3(s3_endpoint, monkeypatch)
    return new_bucket()


def reach_s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process and those it starts at an S3 server."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": os.environ.get("TEST_S3_KEY", "test"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("TEST_S3_SECRET", "test"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "FSSPEC_S3_ENDPOINT_URL": endpoint,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})


def new_bucket() -> str:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture
def faulty(s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The S3 server behind one that can be made to fail, by which `s3_url` is reached; clients wait half as long."""
    server = FaultyServer(s3_endpoint)
    reach_s3(server.url, monkeypatch)
    monkeypatch.setattr("corrdiff_core.retries.READ_TIMEOUT", SLOW / 2)
    yield server
    server.close()
