"""Training and test data: samples of coarse inputs beside 2-km truth, and what is made of them."""

from corrdiff_core.dataset.builder import build, extend
from corrdiff_core.dataset.cwa import CwaDataset
from corrdiff_core.dataset.invariants import INVARIANTS, domain_invariants, terrain_invariants
from corrdiff_core.dataset.nature_run import NatureRun, box_lines
from corrdiff_core.dataset.opened import open_samples
from corrdiff_core.dataset.samples import Sample, Samples
from corrdiff_core.dataset.statistics import sample_statistics
from corrdiff_core.dataset.store import StoredSamples
from corrdiff_core.dataset.windows import WindowedSamples, sample_at

__all__ = [
    "INVARIANTS",
    "CwaDataset",
    "NatureRun",
    "Sample",
    "Samples",
    "StoredSamples",
    "WindowedSamples",
    "box_lines",
    "build",
    "domain_invariants",
    "extend",
    "open_samples",
    "sample_at",
    "sample_statistics",
    "terrain_invariants",
]
