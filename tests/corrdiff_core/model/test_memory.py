"""Whether freed memory is really kept, counted by the operating system in a process of its own."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from corrdiff_core.model.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
layers = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))).requires_grad_(False)
fields = torch.ones(1, 16, 512, 512)
layers(fields)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layers(fields)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc has no mallopt")
def test_layers_that_run_again_cost_no_page_faults():
    assert page_faults("kept") < page_faults("returned") / 10
