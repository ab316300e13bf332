"""The whole hourly run, synthetic GFS to archive with the demo checkpoint: seconds, memory, what sampling hides."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corrdiff_core.nature import write_gfs
from tests.flows.conftest import INIT, REPOSITORY

pytestmark = pytest.mark.benchmark

# The largest process that the command started and waited for, in MiB.
MEASURED = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode;"
    "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); sys.exit(code)"
)


@pytest.fixture(scope="module")
def gfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gfs")
    write_gfs(str(root), INIT, list(range(8)))
    return root


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hours", [1, 2, 8])
def test_hourly(gfs: Path, tmp_path: Path, hours: int) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CORRDIFF_", "PREFECT_", "OMP_"))}
    environment = inherited | {
        "CORRDIFF_GFS_URL": str(gfs),
        "PREFECT_HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "flows.cli", "hourly", "--init", INIT.isoformat(), "--hours", str(hours)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - started
    assert done.returncode == 0, done.stdout + done.stderr
    peak = float(re.findall(r"peak ([\d.]+)", done.stdout)[-1])
    slots = [json.loads(path.read_text()) for path in tmp_path.glob("archive/forecast/gfs/*/*.zarr/provenance/*.json")]
    assert len(slots) == hours
    stages = {stage: sum(slot["seconds"][stage] for slot in slots) for stage in ("fetch", "sample", "write")}
    how = f"{slots[0]['members']} members, {slots[0]['steps']} {slots[0]['solver']} steps"
    seconds = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in stages.items())
    print(f"\n{hours} hours x {how}: {wall:.1f} s in all, {seconds}; peak {peak:.0f} MiB")
