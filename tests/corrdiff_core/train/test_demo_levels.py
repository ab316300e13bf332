"""The demo preset's noise levels against the closed form of a Gaussian field with the spectrum of its residuals."""

import itertools

import numpy as np
import pytest
import torch

from corrdiff_core.model.sampler import sample
from corrdiff_core.train import read_preset

SIDE, STEP = 448, 2.0  # points, km
CORRELATION = 60.0  # km, the nature run's noise
WAVELENGTHS = np.geomspace(8, 100, 9)  # km, bands in which downscaling is judged


def spectrum() -> tuple[np.ndarray, np.ndarray]:
    """Wavenumber (rad km-1) and variance of each mode of a field with variance 1: (kappa^2 + k^2)^-1.75."""
    along = np.fft.fftfreq(SIDE, STEP)
    wavenumber = 2 * np.pi * np.hypot(*np.meshgrid(along, along))
    power = ((2 * np.pi / CORRELATION) ** 2 + wavenumber**2) ** -1.75
    power[0, 0] = 0.0
    return wavenumber, power / power.mean()


def gains(variance: np.ndarray) -> np.ndarray:
    """Variance of the preset's samples over `variance`, mode by mode.

    The best denoiser of a Gaussian mode is D(x; sigma) = v / (v + sigma^2) x (Karras et al. 2022, appendix B.3), so a
    latent of 1 comes out as a sample's standard deviation.
    """
    v, levels = torch.from_numpy(variance), read_preset("demo").defaults

    def denoiser(x, sigma, conditioning):
        return v / (v + sigma**2) * x

    made = sample(
        denoiser,
        torch.ones_like(v),
        torch.empty(0),
        levels.num_steps,
        levels.solver,
        levels.sigma_min,
        levels.sigma_max,
        levels.rho,
    )
    return (made.numpy() ** 2 / variance).astype(float)


@pytest.mark.parametrize("spread", [0.13, 0.35, 0.6])
def test_they_keep_the_spread_and_the_power_of_every_band(spread):
    wavenumber, power = spectrum()
    variance = np.maximum(spread**2 * power, 1e-12)
    sampled = gains(variance) * variance
    assert abs(np.sqrt(sampled.sum() / variance.sum()) - 1) <= 0.07
    edges = 2 * np.pi / WAVELENGTHS[::-1]
    for low, high in itertools.pairwise(edges):
        band = (wavenumber >= low) & (wavenumber < high)
        assert abs(sampled[band].sum() / variance[band].sum() - 1) <= 0.27, 2 * np.pi / high


def test_the_former_levels_lost_spread_in_the_same_measure():
    """The test can tell: 6 steps from 5 to 0.08 lost a sixth of the widest field's spread."""
    _wavenumber, power = spectrum()
    variance = torch.from_numpy(np.maximum(0.6**2 * power, 1e-12))

    def denoiser(x, sigma, conditioning):
        return variance / (variance + sigma**2) * x

    made = sample(denoiser, torch.ones_like(variance), torch.empty(0), 6, "heun", 0.08, 5.0, 5.0)
    lost = 1 - float(torch.sqrt((made**2).sum() / variance.sum()))
    assert 0.07 < lost < 0.25
