"""Preconditioning against the paper's closed forms, its two variants, and the losses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.edm import (
    Denoiser,
    RegressionUNet,
    c_in,
    c_noise,
    c_out,
    c_skip,
    edm_loss,
    regression_loss,
    sample_sigma,
)
from tests.corrdiff_core.model.model_cases import random_unet

X, CONDITIONING = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 32, 32)


@given(st.floats(1e-3, 1e3), st.floats(0.1, 2))
def test_preconditioning_keeps_unit_variance(sigma, sigma_data):
    """EDM's two conditions: unit variance of the network's input and of its target, for data of variance sd^2."""
    level = torch.tensor(sigma, dtype=torch.float64)
    skip, out, scale = (float(f(level, sigma_data)) for f in (c_skip, c_out, c_in))
    assert scale**2 * (sigma_data**2 + sigma**2) == pytest.approx(1)
    assert ((1 - skip) ** 2 * sigma_data**2 + skip**2 * sigma**2) / out**2 == pytest.approx(1)
    assert float(c_noise(level)) == pytest.approx(math.log(sigma) / 4)


def test_the_denoiser_returns_its_input_without_noise():
    with torch.no_grad():
        denoised = Denoiser(random_unet(), scale_conditioning=True)(X, 1e-6, CONDITIONING)
    torch.testing.assert_close(denoised, X, rtol=0, atol=1e-5)


def test_the_variants_scale_the_conditioning_or_not():
    unet, sigma = random_unet(), 3.0
    scale = float(c_in(torch.tensor(sigma), 0.5))
    with torch.no_grad():
        scaled = Denoiser(unet, scale_conditioning=True)(X, sigma, CONDITIONING)
        plain = Denoiser(unet, scale_conditioning=False)(X, sigma, CONDITIONING)
        again = Denoiser(unet, scale_conditioning=False)(X, sigma, CONDITIONING * scale)
    assert (scaled - plain).abs().max() > 0.01
    torch.testing.assert_close(again, scaled, rtol=0, atol=1e-5)


def test_sigma_per_field_and_conditioning_for_all():
    denoiser = Denoiser(random_unet(), scale_conditioning=False)
    with torch.no_grad():
        both = denoiser(X, torch.tensor([0.1, 20.0]), CONDITIONING[:1])
        alone = [denoiser(X[i : i + 1].double(), sigma, CONDITIONING[:1]) for i, sigma in enumerate((0.1, 20.0))]
    assert both.dtype == alone[0].dtype == torch.float32
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-5)


def test_wrong_channels_and_training_a_blind_denoiser_are_named():
    denoiser = Denoiser(random_unet(), scale_conditioning=False)
    with pytest.raises(ConfigurationError, match="given 6 input channels, its network takes 7; check the conditioning"):
        denoiser(X, 1.0, CONDITIONING[:, 1:])
    with pytest.raises(ConfigurationError, match="RegressionUNet: was given 8"):
        RegressionUNet(random_unet())(torch.randn(1, 5, 32, 32))
    blind = Denoiser(random_unet(embedding="zero"), scale_conditioning=False)
    with pytest.raises(ConfigurationError, match="does not know the noise level"):
        edm_loss(blind, X, CONDITIONING, torch.ones(len(X)), torch.zeros_like(X))


def test_the_regression_sees_zeros_in_place_of_a_noisy_field():
    unet = random_unet(embedding="zero")
    with torch.no_grad():
        expected = unet(torch.cat([torch.zeros(2, 3, 32, 32), CONDITIONING], dim=1), torch.zeros(2))
        assert torch.equal(RegressionUNet(unet)(CONDITIONING), expected)


def test_sigma_is_log_normal_and_repeatable():
    sigma = sample_sigma(20_000, torch.Generator().manual_seed(1))
    assert torch.equal(sigma, sample_sigma(20_000, torch.Generator().manual_seed(1)))
    assert float(sigma.log().mean()) == pytest.approx(0, abs=0.03)
    assert float(sigma.log().std()) == pytest.approx(1.2, rel=0.02)
    assert float(sample_sigma(20_000, mean=-1.2, std=0.5).log().mean()) == pytest.approx(-1.2, abs=0.02)


def test_the_loss_of_a_denoiser_that_knows_nothing_is_one():
    """F = 0 leaves (c_skip (x + n) - x) / c_out, of unit variance, as the error."""
    unet = random_unet(resolution=64, bottleneck_attention=False, attn_resolutions=())
    torch.nn.init.zeros_(unet.dec["64x64_aux_conv"].weight)
    torch.nn.init.zeros_(unet.dec["64x64_aux_conv"].bias)
    residual, noise = 0.5 * torch.randn(4, 3, 64, 64), torch.randn(4, 3, 64, 64)
    sigma = torch.tensor([0.01, 0.5, 3.0, 40.0])
    loss = edm_loss(Denoiser(unet, scale_conditioning=False), residual, torch.randn(4, 4, 64, 64), sigma, noise)
    assert loss.ndim == 0
    assert float(loss.detach()) == pytest.approx(1, rel=0.03)


def test_both_losses_fall_when_trained():
    torch.manual_seed(3)
    conditioning, target = torch.randn(2, 4, 32, 32), torch.randn(2, 3, 32, 32) * 0.5
    sigma, noise = torch.tensor([0.3, 2.0]), torch.randn(2, 3, 32, 32)
    regression = RegressionUNet(random_unet(embedding="zero").train())
    denoiser = Denoiser(random_unet().train(), scale_conditioning=True)
    for network, loss in (
        (regression, lambda: regression_loss(regression, conditioning, target)),
        (denoiser, lambda: edm_loss(denoiser, target, conditioning, sigma, noise)),
    ):
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        first = float(loss().detach())
        for _ in range(5):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        assert float(loss().detach()) < first
