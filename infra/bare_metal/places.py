"""Where a stack keeps what it has: its folder, ports, passwords and settings."""

import fcntl
import json
import os
import pwd
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = """\
# What the workers of this stack are told, one NAME=VALUE a line, such as
# CORRDIFF_ARCHIVE=s3://bucket/archive
# CORRDIFF_MODELS=s3://bucket/models
# CORRDIFF_GFS_URL=s3://noaa-gfs-bdp-pds
# AWS_ENDPOINT_URL=https://s3.example.org
# AWS_ACCESS_KEY_ID=...
# AWS_SECRET_ACCESS_KEY=...
# It may hold keys, so only its owner may read it. `infra/stack stop && infra/stack start` after a change.
"""


class StackError(Exception):
    """What is in the way, and the cure, in one line."""


@dataclass(frozen=True)
class Places:
    """The folder of a stack."""

    home: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Places":
        """STACK_HOME, else a folder that suits who asks; made where it is not there."""
        default = Path("/var/lib/corrdiff-stack") if os.geteuid() == 0 else Path("~/.local/share/corrdiff-stack")
        places = cls(Path(environment.get("STACK_HOME") or default).expanduser().absolute())
        for folder in (places.home, places.logs, places.run):
            folder.mkdir(parents=True, exist_ok=True)
        if not places.settings.exists():
            write_private(places.settings, SETTINGS)
        return places

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """One file for each part that was started, naming its process."""
        return self.home / "run"

    @property
    def settings(self) -> Path:
        return self.home / "settings.env"

    @property
    def environment(self) -> Path:
        """What a shell may source to reach the stack."""
        return self.home / "environment"

    def mark(self, part: str) -> str:
        return f"{self.home}:{part}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time starts and stops parts."""
        with (self.home / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"another infra/stack is at work in {self.home}: wait until it has ended") from None
            yield

    def port(self, part: str, given: str | None = None) -> int:
        """The port of a part: `given`, else the one that it had, else a free one; kept for the next time."""
        file = self.home / "ports.json"
        ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        if given is not None:
            if not given.isdigit() or not 0 < int(given) < 65536:
                raise StackError(f"port {given!r} of {part} is none: give a number from 1 to 65535")
            ports[part] = int(given)
        while part not in ports:
            free = _free_port()
            if free not in ports.values():
                ports[part] = free
        write_private(file, json.dumps(ports, indent=1))
        return ports[part]

    def read_settings(self) -> dict[str, str]:
        """The workers' settings; StackError for a line that is none, which is named by its number only."""
        found = {}
        for number, line in enumerate(self.settings.read_text().splitlines(), 1):
            name, equals, value = line.strip().partition("=")
            if not name or name.startswith("#"):
                continue
            if not equals or not name.replace("_", "").isalnum():
                raise StackError(f"{self.settings}, line {number}: NAME=VALUE is due; correct it")
            found[name] = value
        return found

    def write_environment(self, values: Mapping[str, str]) -> None:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
        lines.append(f'export PATH={shlex.quote(str(Path(python()).parent))}:"$PATH"')
        write_private(self.environment, "\n".join(lines) + "\n")


def python() -> str:
    """The interpreter that has Prefect and this project: STACK_PYTHON, else the checkout's own."""
    found = os.environ.get("STACK_PYTHON") or str(REPOSITORY / ".venv" / "bin" / "python")
    if not Path(found).exists():
        raise StackError(f"{found} is not there: run `make .venv/.installed`, or name a Python by STACK_PYTHON")
    return found


def postgres_user() -> str | None:
    """Who PostgreSQL runs as, which refuses root: STACK_POSTGRES_USER, else `postgres`; None for who asks."""
    if os.geteuid() != 0:
        return None
    user = os.environ.get("STACK_POSTGRES_USER") or "postgres"
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise StackError(f"no user is called {user}, and PostgreSQL refuses root: adduser --system {user}") from None
    return user


def write_private(file: Path, text: str) -> None:
    """The file, whole, readable by its owner only from its first byte on."""
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
    partial.replace(file)


def new_password() -> str:
    return secrets.token_urlsafe(32)


def say(text: str) -> None:
    sys.stderr.write(f"stack: {text}\n")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
