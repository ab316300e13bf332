"""A small domain over the middle of Taiwan, and untrained networks on it."""

from dataclasses import replace

import torch

from corrdiff_core.checkpoint import Checkpoint, build_denoiser, build_regression
from corrdiff_core.dataset import INVARIANTS, terrain_invariants
from corrdiff_core.grid import TAIWAN, Box
from corrdiff_core.manifest import Manifest, Sampling
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from corrdiff_core.train import networks, read_preset

# 32 x 32 points at 8 km: 22.3..24.7 N, 119.8..122.3 E
SMALL = replace(
    TAIWAN, name="small", x0=-30000.0, y0=-132000.0, step=8000.0, rows=34, columns=34,
    input_box=Box(south=21.75, north=25.25, west=119.25, east=122.75),
)  # fmt: skip

PRESET = replace(
    read_preset("demo"), name="small", statistics_samples=16, model_channels=4, channel_mult=(1, 2), window=16,
    windows_per_time=2, times_per_step=1, times_per_pass=1, regression_samples=10, diffusion_samples=12, warm_up=4,
    half_life=20, save_every=4, validate_every=6, validation_times=2, skip_limit=1,
    defaults=Sampling(members=3, num_steps=2, solver="euler"),
)  # fmt: skip


def manifest() -> Manifest:
    regression, diffusion = networks(PRESET, SMALL)
    return Manifest(
        name="small",
        domain=SMALL,
        input_statistics=CWA_INPUT_STATISTICS,
        output_statistics=CWA_OUTPUT_STATISTICS,
        invariants=INVARIANTS,
        regression=regression,
        diffusion=diffusion,
        preconditioning="EDMPrecondSuperResolution",
        defaults=PRESET.defaults,
        training={"data": "none"},
    )


def checkpoint() -> Checkpoint:
    """Networks of random weights, large enough that every output depends on every input."""
    torch.manual_seed(7)
    described = manifest()
    regression, diffusion = build_regression(described.regression), build_denoiser(described)
    for network in (regression, diffusion):
        network.eval().requires_grad_(False)
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return Checkpoint(described, regression, diffusion, terrain_invariants(SMALL))
