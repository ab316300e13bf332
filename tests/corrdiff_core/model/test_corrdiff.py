"""CorrDiff: layouts, one regression for all members, and what batching may change."""

from datetime import datetime

import pytest
import torch

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.corrdiff import CorrDiff
from corrdiff_core.model.edm import Denoiser, RegressionUNet
from corrdiff_core.model.noise import latents
from corrdiff_core.model.sampler import sample
from tests.corrdiff_core.model.model_cases import random_unet

INPUTS, INVARIANTS = torch.randn(5, 32, 32), torch.randn(2, 32, 32)
TIME = datetime(2025, 8, 1, 7)


def small_corrdiff(**changes):
    """3 outputs from 5 inputs: regression on [input, grid, invariants], diffusion on [mean, input, invariants]."""
    arguments = {
        "regression": RegressionUNet(random_unet(1, in_channels=3 + 5 + 4 + 2, embedding="zero")),
        "diffusion": Denoiser(random_unet(2, in_channels=3 + 3 + 5 + 2), scale_conditioning=False),
        "regression_layout": ("input", "grid", "invariants"),
        "diffusion_layout": ("mean", "input", "invariants"),
        "invariants": INVARIANTS,
    }
    model = CorrDiff(**(arguments | changes))
    for network in (model.regression, model.diffusion):
        network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return model


def test_members_are_the_mean_plus_their_sampled_residuals():
    model, start = small_corrdiff(), latents(0, TIME, range(2), (3, 32, 32))
    mean = model.mean(INPUTS)
    conditioning = torch.cat([mean, INPUTS, INVARIANTS])[None]
    residuals = sample(model.diffusion, start, conditioning, 4, "heun")
    members = model.members(INPUTS, start, 4)
    assert mean.shape == (3, 32, 32)
    assert members.shape == (2, 3, 32, 32)
    assert members.dtype == torch.float32
    assert torch.equal(members, mean + residuals)
    assert float(residuals.std()) > 0.1


def test_batches_change_members_by_rounding_only_and_runs_not_at_all():
    model, start = small_corrdiff(), latents(0, TIME, range(8), (3, 32, 32))
    whole = model.members(INPUTS, start, 3, "euler")
    assert torch.equal(model.members(INPUTS, start, 3, "euler"), whole)
    for batch in (1, 3, 8):
        members = model.members(INPUTS, start, 3, "euler", batch)
        torch.testing.assert_close(members, whole, rtol=0, atol=2e-4)
        assert torch.equal(model.members(INPUTS, start, 3, "euler", batch), members)


def test_the_regression_is_evaluated_once():
    model, calls = small_corrdiff(), []
    model.regression.register_forward_hook(lambda *_: calls.append(1))
    model.members(INPUTS, latents(0, TIME, range(4), (3, 32, 32)), 2, "euler", batch=1)
    assert len(calls) == 1


def test_progress_counts_over_all_batches():
    told = []
    model = small_corrdiff()
    model.members(
        INPUTS, latents(0, TIME, range(3), (3, 32, 32)), 2, "euler", 2, on_step=lambda *step: told.append(step)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_layouts_that_hold_the_same_channels_differ():
    """[mean, input] and [input, grid] of the public checkpoints: as many channels, another result."""
    inputs = torch.randn(4, 32, 32)
    networks = {
        "regression": RegressionUNet(random_unet(1, in_channels=3 + 4 + 4, embedding="zero")),
        "diffusion": Denoiser(random_unet(2, in_channels=3 + 3 + 4), scale_conditioning=True),
        "regression_layout": ("input", "grid"),
        "invariants": torch.empty(0, 32, 32),
    }
    forward, backward = (
        small_corrdiff(**networks, diffusion_layout=layout).members(inputs, latents(0, TIME, [0], (3, 32, 32)), 2)
        for layout in (("mean", "input"), ("input", "mean"))
    )
    assert not torch.allclose(forward, backward, atol=0.01)


def test_a_layout_that_does_not_fit_is_named():
    start = latents(0, TIME, [0], (3, 32, 32))
    with pytest.raises(ConfigurationError, match="given 11 input channels, its network takes 13"):
        small_corrdiff(diffusion_layout=("mean", "input")).members(INPUTS, start, 2)
    with pytest.raises(ConfigurationError, match="needs \\['topography'\\]"):
        small_corrdiff(diffusion_layout=("mean", "topography")).members(INPUTS, start, 2)
    with pytest.raises(ConfigurationError, match="take 'mean' out"):
        small_corrdiff(regression_layout=("mean", "input"))
