"""Credentials planted in a run's environment are nowhere in what the run leaves: a grep through all of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.faults import AFTER, BEFORE, FORBIDDEN
from tests.flows.flow_cases import INIT
from tests.flows.prefect_server import Server, prefect_server

PREFECT = [sys.executable, "-m", "prefect"]
PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEY000001",
    "AWS_SECRET_ACCESS_KEY": "pl4nted/secret+key0123456789",
    "AWS_SESSION_TOKEN": "pl4nted-session-token-0123456789",
    "CORRDIFF_ALERT_URL": "https://alerts.example.org/services/pl4nted-hook",
}
SECRETS = [value.encode() for value in PLANTED.values()] + [b"pl4nted"]


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """With its database in PREFECT_HOME and all that it can say in its log."""
    levels = {"PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG"}
    with prefect_server(environment | levels, tmp_path) as made:
        yield made


@pytest.mark.service
@pytest.mark.skipif("TEST_S3_ENDPOINT" in os.environ, reason="the planted key is no key of a real server's")
@pytest.mark.timeout(400)
def test_planted_credentials_are_nowhere(server, gfs, faulty, s3_url, tmp_path):
    gfs.put(INIT, 0, 1, 2)
    client = boto3.client("s3")
    for file in gfs.root.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), s3_url[5:], f"gfs/{file.relative_to(gfs.root)}")
    for limit, size in (("corrdiff-gpu", 1), ("corrdiff-operations", 100)):
        server.call("v2/concurrency_limits/", {"name": limit, "limit": size})
    own = {"CORRDIFF_GFS_URL": f"{s3_url}/gfs", "CORRDIFF_ARCHIVE": f"{s3_url}/archive", **PLANTED}
    own |= {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL", "AWS_DEFAULT_REGION")}

    def hourly(leads: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "flows.cli", "hourly", "--init", "2025-08-01T06", "--leads", leads]
        environment = server.environment | own | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG"} | extra
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=200, check=False)

    faulty.faults.rate, faulty.faults.kinds = 0.1, (*BEFORE, *AFTER)
    good = hourly("0-1")
    assert good.returncode == 0, good.stdout + good.stderr
    assert faulty.faults.happened["error"]
    faulty.faults.rate = 0.0
    faulty.faults.plan(*[FORBIDDEN] * 50, verb="GET")
    refused = hourly("2")
    assert refused.returncode == 1
    assert b"403" in refused.stdout + refused.stderr
    faulty.faults.plan()
    carried = hourly("2", CORRDIFF_GFS_URL="https://me:pl4nted@127.0.0.1:9/gfs")
    assert carried.returncode == 1
    assert b"https://***@127.0.0.1:9/gfs has a credential in it" in carried.stdout + carried.stderr

    left = {f"the output of run {n}": run.stdout + run.stderr for n, run in enumerate((good, refused, carried))}
    left["the server's log"] = (tmp_path / "server.log").read_bytes()
    for path in ("logs/filter", "artifacts/filter", "flow_runs/filter", "task_runs/filter", "events/filter"):
        left[path] = json.dumps(server.call(path, {})).encode()
    left |= {str(file): file.read_bytes() for file in (tmp_path / "prefect").rglob("*") if file.is_file()}
    listed = client.list_objects_v2(Bucket=s3_url[5:], Prefix="archive/")["Contents"]
    left |= {one["Key"]: client.get_object(Bucket=s3_url[5:], Key=one["Key"])["Body"].read() for one in listed}

    # What is no secret is found in all of these places, so a secret would be.
    for place in ("the output of run 0", "the output of run 1", "logs/filter", "artifacts/filter", "flow_runs/filter"):
        assert s3_url[5:].encode() in left[place] or b"2025-08-01T06" in left[place], place
    assert s3_url[5:].encode() in b"".join(data for name, data in left.items() if "prefect.db" in name)
    assert s3_url.encode() in b"".join(data for name, data in left.items() if "/provenance/" in name)
    assert len(left["the server's log"]) > 1000
    found = {name: secret for name, data in left.items() for secret in SECRETS if secret in data}
    assert found == {}
