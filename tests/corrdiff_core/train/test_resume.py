"""A training that is killed, at any moment and as often as may be, ends as if it had not been."""

import json
import subprocess
import sys

import pytest

from corrdiff_core.checkpoint import DIFFUSION, REGRESSION
from corrdiff_core.manifest import MANIFEST
from tests.training_cases import read_curve

pytestmark = pytest.mark.service

# One training with dropout and validation, then one that is killed until it ends, as one child of this process after
# another: a quarter of them soon after birth, the others some time after they have saved something, which is 20 times
# in a whole training. Prints what stood in the folder at each death.
KILLING = """
import json, os, random, signal, sys, time
sys.path[:0] = sys.argv[2:]
from dataclasses import replace
from pathlib import Path
import torch
import torch._dynamo  # takes a second, and every child's first optimizer would import it
from corrdiff_core.train import train
from tests.training_cases import HELD_OUT, QUICK, SAMPLES

preset = replace(
    QUICK, dropout=0.2, regression_samples=40, diffusion_samples=40, save_every=4, validate_every=10, warm_up=8
)
folder = Path(sys.argv[1])

def training(name):
    torch.set_num_threads(1)
    train(preset, SAMPLES, folder / name, HELD_OUT, workers=0, report=lambda line: None)

def child(name):
    pid = os.fork()
    if pid == 0:
        training(name)
        os._exit(0)
    return pid

start = time.monotonic()
assert os.waitpid(child("undisturbed"), 0)[1] == 0
whole = time.monotonic() - start
def states():
    return [(path.name, path.stat().st_mtime_ns) for path in sorted((folder / "killed").glob("*.state"))]

deaths, rng = [], random.Random(1)
while True:
    pid, before = child("killed"), states()
    death = time.monotonic() + rng.uniform(0, 0.2) * whole if rng.random() < 0.25 else None
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and (death is None or time.monotonic() < death):
        if death is None and states() != before:
            death = time.monotonic() + rng.uniform(0, 0.08) * whole
        time.sleep(0.0005)
    if not ended[0]:
        os.kill(pid, signal.SIGKILL)
        ended = os.waitpid(pid, 0)
    if os.WIFEXITED(ended[1]):
        assert os.WEXITSTATUS(ended[1]) == 0
        break
    deaths.append(sorted(path.name for path in (folder / "killed").glob("*")))
print(json.dumps(deaths))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of both trainings, and what stood there at each death."""
    folder = tmp_path_factory.mktemp("killed")
    script = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLING, str(folder), *sys.path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    return folder, json.loads(script.stdout)


def test_it_died_often_and_in_both_stages(killed):
    deaths = killed[1]
    assert len(deaths) >= 4
    assert any("diffusion.state" not in names for names in deaths)
    assert any("diffusion.state" in names for names in deaths)


@pytest.mark.parametrize("name", [REGRESSION, DIFFUSION, MANIFEST])
def test_it_ends_in_the_same_bytes(killed, name):
    one, other = ((killed[0] / run / "checkpoint" / name).read_bytes() for run in ("undisturbed", "killed"))
    assert one == other


def test_it_leaves_nothing_behind_but_its_states(killed):
    left = {path.name for path in (killed[0] / "killed").iterdir() if not path.name.endswith(".partial")}
    assert left == {"checkpoint", "curves", "progress.json", "statistics.json", "regression.state", "diffusion.state"}


@pytest.mark.parametrize("stage", ["regression", "diffusion"])
@pytest.mark.parametrize("name", ["loss", "validation", "learning_rate"])
def test_its_curves_are_those_of_one_run(killed, stage, name):
    """What a killed run drew beyond its last state is void."""
    whole, pieces = (read_curve(killed[0] / run, stage, name) for run in ("undisturbed", "killed"))
    assert pieces == whole
