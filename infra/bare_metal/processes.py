"""Processes in the background that outlive who started them, and that are told from others of the same number."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MARK = "STACK_PART"  # in the environment of a part and of all that it starts: whose they are
LARGEST_LOG = 10_000_000  # bytes; a larger one is put aside, once, when its part starts


@dataclass(frozen=True)
class Process:
    """A process, by its number and by when it started: clock ticks since boot, and which boot."""

    pid: int
    ticks: int
    boot: str
    since: float  # s since 1970

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this number now; None where none runs."""
        ticks = _ticks(pid)
        return None if ticks is None else cls(pid, ticks, _boot(), time.time())

    @classmethod
    def read(cls, file: Path) -> "Process | None":
        """The one that `file` names; None where there is no such file, or one cut off by a crash."""
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, file: Path) -> None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(file)

    @property
    def running(self) -> bool:
        return self.boot == _boot() and _ticks(self.pid) == self.ticks

    def end(self, how: signal.Signals, seconds: float) -> bool:
        """Ask it to end, and kill it after `seconds`; whether it ended when it was asked."""
        self._send(how)
        if self._gone(seconds):
            return True
        self._send(signal.SIGKILL)
        self._gone(10)
        return False

    def _send(self, how: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self.running:
                os.kill(self.pid, how)

    def _gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def launch(
    command: Sequence[str], environment: Mapping[str, str], log: Path, mark: str, user: str | None = None
) -> Process:
    """Start `command` in a session of its own, its output appended to `log`; as another `user` where one is named.

    Whoever calls this must not ignore SIGINT, which is inherited: Prefect's worker would not end when it is asked to.
    """
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env={**environment, MARK: mark},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user(user),
        )
    process = Process.of(child.pid)
    child.returncode = 0  # it is nobody's child from here on: no warning that it still runs
    return process or Process(child.pid, -1, _boot(), time.time())


def as_user(user: str | None) -> dict[str, Any]:
    """Options of `subprocess` that run a command as `user`."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def marked(mark: str) -> Iterator[Process]:
    """The processes that a part has started, itself among them, whoever their parent is now."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # gone meanwhile, or another user's
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                process = Process.of(int(folder.name))
                if process is not None:
                    yield process


def _ticks(pid: int) -> int | None:
    """When a process started; None where there is none or it has ended and nobody has asked how."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
