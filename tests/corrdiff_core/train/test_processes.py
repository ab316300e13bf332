"""Two real processes under torchrun, beside one."""

import subprocess
import sys

import pytest
import torch

from corrdiff_core.train import leads
from corrdiff_core.train.processes import Processes, training_processes
from tests.training_cases import read_curve

# Both stages in FOLDER/RANK where the last argument is "apart", else in FOLDER.
TRAINING = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from corrdiff_core.train import train
from tests.training_cases import HELD_OUT, QUICK, SAMPLES

torch.set_num_threads(1)
folder = Path(sys.argv[1])
if sys.argv[2] == "apart":
    folder /= os.environ["RANK"]
preset = replace(
    QUICK, times_per_step=4, times_per_pass=1, regression_samples=64, diffusion_samples=64, save_every=32,
    validate_every=24,
)
train(preset, SAMPLES, folder, HELD_OUT, workers=0, report=print)
"""


def trained(script, folder, how, processes):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, "-W", "error", *(torchrun if processes > 1 else []), str(script), str(folder), how]
    path = {
        "PYTHONPATH": ":".join(entry for entry in sys.path if entry),
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, env=path)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder of a training by one process and of the same by two."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "training.py"
    script.write_text(TRAINING)
    for processes in (1, 2):
        run = trained(script, folder / str(processes), "together", processes)
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("regression 64/64 samples, validation loss") == 1  # one of them speaks
    return folder


@pytest.mark.service
@pytest.mark.parametrize("stage", ["regression", "diffusion"])
@pytest.mark.parametrize("name", ["loss", "gradient_norm", "validation"])
def test_two_processes_have_the_losses_of_one(both, stage, name):
    one, two = (read_curve(both / processes, stage, name) for processes in ("1", "2"))
    assert len(one) == (8 if name != "validation" else 3)
    assert [seen for seen, _ in two] == [seen for seen, _ in one]
    assert [value for _, value in two] == pytest.approx([value for _, value in one], rel=1e-5)


@pytest.mark.service
def test_processes_that_do_not_share_a_folder_are_refused(both):
    """One of them finds the state of an earlier run, the other does not."""
    folder = both / "apart"
    for rank in "01":
        (folder / rank).mkdir(parents=True)
    for name in ("statistics.json", "regression.state"):
        (folder / "0" / name).write_bytes((both / "1" / name).read_bytes())
    run = trained(both / "training.py", folder, "apart", 2)
    assert run.returncode != 0
    assert "step of regression.state is [8, 0] in the 2 processes: give all of them the same folder" in run.stderr


def test_one_process_is_alone():
    with training_processes("cpu") as processes:
        assert processes == Processes(0, 1, torch.device("cpu"))
        assert processes.leads
        assert leads()
        assert processes.total(torch.ones(2)).tolist() == [1, 1]
        processes.wait()
        processes.agree("anything", 3)
