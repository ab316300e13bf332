"""A process that was started ends with the one that started it, however that ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.children import ended_with_this_process
from tests.flows.flow_cases import REPOSITORY

PARENT = """
import subprocess, sys, time
from pathlib import Path
from flows.children import ended_with_this_process
child = subprocess.Popen(["sleep", "60"])
with ended_with_this_process(child.pid, Path(sys.argv[1])):
    print(child.pid, flush=True)
    time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_of_a_killed_process_ends_and_its_folder_goes(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-c", PARENT, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.send_signal(number)
    deadline = time.monotonic() + 20
    while not (gone(child) and not folder.exists()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_goes_on_leaves_its_child_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        with ended_with_this_process(child.pid, tmp_path):
            pass
        assert child.poll() is None
        assert tmp_path.exists()
        child.kill()
