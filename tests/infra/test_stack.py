"""`infra/stack` as an operator uses it: real PostgreSQL, server and workers, two of them killed in between."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from infra.bare_metal.parts import Stack
from infra.bare_metal.places import Places, StackError
from infra.bare_metal.postgres import binary
from infra.bare_metal.processes import MARK, Process, launch, marked
from tests.flows.flow_cases import REPOSITORY

STACK = [str(REPOSITORY / "infra" / "stack")]
PARTS = ("postgres", "server", "operations", "background")


def _postgres_is_here() -> bool:
    try:
        return bool(binary("initdb"))
    except StackError:
        return False


needs_postgres = pytest.mark.skipif(not _postgres_is_here(), reason="no PostgreSQL: apt install postgresql")


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Of a stack in a folder that PostgreSQL's user can enter, as pytest's cannot; nothing of it runs afterwards."""
    home = Path(tempfile.mkdtemp(prefix="stack-"))
    home.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CORRDIFF_", "PREFECT_"))}
    yield inherited | {"STACK_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    stack = {"STACK_HOME": str(home), "PATH": os.environ["PATH"]}
    subprocess.run([*STACK, "stop"], env=stack, capture_output=True, timeout=200, check=True)
    shutil.rmtree(home)


def stack(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*STACK, *arguments], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def processes(home: Path) -> dict[str, Process]:
    found = {part: Process.read(home / "run" / f"{part}.json") for part in PARTS}
    return {part: process for part, process in found.items() if process is not None and process.running}


def left(home: Path) -> list[int]:
    return [process.pid for part in PARTS for process in marked(f"{home}:{part}")]


@needs_postgres
@pytest.mark.service
@pytest.mark.timeout(600)
def test_it_starts_heals_is_backed_up_stops_and_comes_back_elsewhere(environment, tmp_path):
    home = Path(environment["STACK_HOME"])
    # As from a script in the background, which ignores SIGINT and hands that on.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stack(environment, "start")
    finally:
        signal.signal(signal.SIGINT, before)
    first = processes(home)
    assert set(first) == set(PARTS)
    assert "does not" not in stack(environment, "status")
    stack(environment, "run", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml")
    wanted = "SELECT string_agg(name, ',' ORDER BY name) FROM deployment"
    postgres = Stack(Places(home), environment).postgres
    deployed = postgres.query(wanted)
    assert {"hourly", "backfill", "retrain"} <= set(deployed.split(","))

    for part in ("server", "operations"):
        os.kill(first[part].pid, signal.SIGKILL)
    assert "server     does not run" in stack(environment, "status", code=1)
    stack(environment, "start")
    second = processes(home)
    assert {part for part in PARTS if first[part] != second[part]} == {"server", "operations"}
    api = f"http://127.0.0.1:{json.loads((home / 'ports.json').read_text())['server']}/api"
    with urlopen(f"{api}/health", timeout=10) as answer:  # noqa: S310
        assert json.load(answer) is True

    dump = tmp_path / "prefect.dump"
    stack(environment, "backup", str(dump))
    assert dump.stat().st_mode & 0o777 == 0o600
    assert "restore wants none" in _refused_restore(environment, dump)
    secrets = [line.split(":")[4] for line in (home / "pgpass").read_text().splitlines()]
    told = b"".join(file.read_bytes() for file in (home / "logs").iterdir())
    for pid in [process.pid for process in second.values()]:
        told += Path(f"/proc/{pid}/cmdline").read_bytes()
        told += Path(f"/proc/{pid}/environ").read_bytes()
    assert len(set(secrets)) == 2
    assert not any(secret.encode() in told for secret in secrets)

    asked = time.monotonic()
    assert "was killed" not in stack(environment, "stop")
    assert time.monotonic() - asked < 60
    assert processes(home) == {}
    assert left(home) == []

    other = Path(tempfile.mkdtemp(prefix="stack-"))
    other.chmod(0o755)
    try:
        elsewhere = environment | {"STACK_HOME": str(other)}
        stack(elsewhere, "restore", str(dump))
        assert Stack(Places(other), elsewhere).postgres.query(wanted) == deployed
        stack(elsewhere, "stop")
        assert left(other) == []
    finally:
        shutil.rmtree(other)


def _refused_restore(environment: dict[str, str], dump: Path) -> str:
    """A restore over what is there: refused while the server runs, and over a database that is not empty."""
    assert "server runs" in (said := stack(environment, "restore", str(dump), code=1)) or "background runs" in said
    stack_of = Stack(Places(Path(environment["STACK_HOME"])), environment)
    with pytest.raises(StackError) as refused:
        stack_of.postgres.restore(dump)
    return str(refused.value)


@needs_postgres
def test_a_cluster_survives_kill_9_and_keeps_to_loopback(environment):
    from infra.bare_metal.commands import start_part, stop_part

    stack_of = Stack(Places.of(environment), environment)
    (part,) = [part for part in stack_of.parts if part.name == "postgres"]
    start_part(stack_of, "postgres")
    first = Process.read(stack_of.places.run / "postgres.json")
    start_part(stack_of, "postgres")
    record = stack_of.places.run / "postgres.json"
    assert Process.read(record) == first
    with tempfile.TemporaryDirectory() as other:
        taken = {"STACK_HOME": other, "STACK_POSTGRES_PORT": str(stack_of.postgres.port)}
        with pytest.raises(StackError, match="postgres does not run, but something answers at 127"):
            start_part(Stack(Places.of(taken), taken), "postgres")
    stack_of.postgres.query("CREATE TABLE kept AS SELECT 1 AS one")
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)  # as init does, once `infra/stack` has ended
    start_part(stack_of, "postgres")
    assert Process.read(record) != first
    assert stack_of.postgres.query("SELECT one FROM kept") == "1"
    assert stack_of.postgres.query("SHOW listen_addresses") == "127.0.0.1"
    assert stack_of.postgres.query("SELECT rolsuper FROM pg_roles WHERE rolname = 'prefect'") == "f"
    (stack_of.places.home / "pgpass").write_text("127.0.0.1:*:*:operator:wrong\n")
    with pytest.raises(StackError, match="password authentication failed"):
        stack_of.postgres.query("SELECT 1")
    stop_part(stack_of.places, part)
    assert not stack_of.postgres.ready()


def test_a_number_that_somebody_else_has_now_is_not_ours(tmp_path):
    process = launch(["/bin/sleep", "60"], dict(os.environ), tmp_path / "log", "mark-of-a-test")
    assert process.running
    other = Process(process.pid, process.ticks - 1, process.boot, 0.0)
    assert not other.running
    assert other.end(signal.SIGKILL, 1)
    assert process.running
    assert not Process(process.pid, process.ticks, "another boot", 0.0).running
    assert [found.pid for found in marked("mark-of-a-test")] == [process.pid]
    assert process.end(signal.SIGTERM, 10)
    os.waitpid(process.pid, 0)


def test_one_that_does_not_end_is_killed_with_what_it_started(tmp_path):
    script = "trap '' TERM; sleep 61 & while :; do wait; done"
    process = launch(["/bin/sh", "-c", script], dict(os.environ), tmp_path / "log", "mark-of-another")
    deadline = time.monotonic() + 10
    while len(list(marked("mark-of-another"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process.end(signal.SIGTERM, 0.2)
    os.waitpid(process.pid, 0)
    (child,) = marked("mark-of-another")
    assert Path(f"/proc/{child.pid}/cmdline").read_bytes().startswith(b"sleep\x0061")
    assert child.end(signal.SIGHUP, 10)
    assert f"{MARK}=mark-of-another" not in os.environ


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]"])
def test_a_file_that_a_crash_left_names_no_process(tmp_path, text):
    (tmp_path / "part.json").write_text(text)
    assert Process.read(tmp_path / "part.json") is None


def test_a_setting_that_is_none_is_named_by_its_line_alone(environment):
    places = Places.of(environment)
    places.settings.write_text("# a remark\n\nCORRDIFF_ARCHIVE=s3://bucket/a=b\nAWS_SECRET_ACCESS_KEY secret\n")
    with pytest.raises(StackError, match="line 4: NAME=VALUE is due") as refused:
        places.read_settings()
    assert "secret" not in str(refused.value)


def test_two_at_once_are_refused_and_ports_stay(environment):
    places = Places.of(environment)
    assert places.port("server") == places.port("server") != places.port("operations")
    with pytest.raises(StackError, match="port '70000' of server is none"):
        places.port("server", "70000")
    with places.alone(), pytest.raises(StackError, match="another infra/stack is at work"), places.alone():
        pass


def test_what_it_cannot_do_it_says(environment):
    assert "usage: infra/stack" in stack(environment, "begin", code=2)
    assert "STACK_S3=minio: choose ceph, or none" in stack(environment | {"STACK_S3": "minio"}, "start", code=1)
    assert "PostgreSQL does not run: infra/stack start" in stack(environment, "backup", "x", code=1)
    assert "is not there: name what" in stack(environment, "restore", "/nowhere", code=1)
    nowhere = environment | {"STACK_PYTHON": "/nowhere/python"}
    assert "/nowhere/python is not there: run `make .venv/.installed`" in stack(nowhere, "run", "true", code=1)
