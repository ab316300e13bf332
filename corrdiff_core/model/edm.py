"""EDM preconditioning and the training losses of both stages (Karras et al. 2022, arXiv 2206.00364, table 1, eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.unet import UNet

SIGMA_DATA = 0.5


def c_skip(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the noisy field in the denoised one (table 1)."""
    return sigma_data**2 / (sigma**2 + sigma_data**2)


def c_out(sigma: Tensor, sigma_data: float) -> Tensor:
    """Scale of the network's output (table 1)."""
    return sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()


def c_in(sigma: Tensor, sigma_data: float) -> Tensor:
    """Scale of the network's input, which makes its variance one (table 1)."""
    return 1 / (sigma**2 + sigma_data**2).sqrt()


def c_noise(sigma: Tensor) -> Tensor:
    """What the network is told of the noise level (table 1)."""
    return sigma.log() / 4


class Denoiser(nn.Module):
    """D(x; sigma, conditioning) = c_skip x + c_out F(input; c_noise) (eq. 7), with a UNet as F.

    Checkpoints exist in two variants, which only the one who trained them knows apart: with `scale_conditioning` the
    input is c_in [x, conditioning] (EDMPrecondSR), without it is [c_in x, conditioning] (EDMPrecondSuperResolution).
    A UNet with embedding "zero" is not told the noise level: files of such denoisers exist, `edm_loss` refuses them.
    """

    def __init__(self, unet: UNet, *, scale_conditioning: bool, sigma_data: float = SIGMA_DATA) -> None:
        super().__init__()
        self.model = unet
        self.scale_conditioning = scale_conditioning
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor | float, conditioning: Tensor) -> Tensor:
        """Denoise `x` (N, C, y, x), noise of standard deviation `sigma` (a number for all, or (N,)), to float32.

        `conditioning` is (N, K, y, x), or (1, K, y, x) for all. Raises ConfigurationError when x and conditioning
        together are not as many channels as the network takes.
        """
        check_channels("Denoiser", self.model, x.shape[1] + conditioning.shape[1])
        x = x.to(torch.float32)
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1, 1, 1, 1)
        scale = c_in(level, self.sigma_data)
        known = scale * conditioning if self.scale_conditioning else conditioning.to(torch.float32)
        known = known.expand(x.shape[0], -1, -1, -1)
        output: Tensor = self.model(torch.cat([scale * x, known], dim=1), c_noise(level).flatten())
        return c_skip(level, self.sigma_data) * x + c_out(level, self.sigma_data) * output.to(torch.float32)


class RegressionUNet(nn.Module):
    """The conditional mean: conditioning (N, K, y, x) -> (N, out_channels, y, x) float32.

    The UNet sees [zeros, conditioning], with as many channels of zeros as it has outputs: the place of a denoiser's
    noisy field, as in the published checkpoints.
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.model = unet

    def forward(self, conditioning: Tensor) -> Tensor:
        """Raises ConfigurationError when `conditioning` has not the channels that the network takes."""
        n, channels, ny, nx = conditioning.shape
        outputs = self.model.config.out_channels
        check_channels("RegressionUNet", self.model, outputs + channels)
        blank = conditioning.new_zeros(n, outputs, ny, nx)
        output: Tensor = self.model(torch.cat([blank, conditioning], dim=1), conditioning.new_zeros(n))
        return output.to(torch.float32)


def check_channels(owner: str, unet: UNet, channels: int) -> None:
    """ConfigurationError unless `unet` takes `channels` input channels."""
    if channels != unet.config.in_channels:
        raise ConfigurationError(
            f"{owner}: was given {channels} input channels, its network takes {unet.config.in_channels};"
            " check the conditioning layout"
        )


def sample_sigma(count: int, generator: torch.Generator | None = None, mean: float = 0.0, std: float = 1.2) -> Tensor:
    """Noise levels for training, ln(sigma) ~ N(mean, std^2) -> (count,) float32 on the generator's device.

    The defaults are CorrDiff's (arXiv 2309.15214); EDM's own mean for images is -1.2.
    """
    device = "cpu" if generator is None else generator.device
    return (torch.randn(count, generator=generator, device=device) * std + mean).exp()


def edm_loss(denoiser: Denoiser, residual: Tensor, conditioning: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Mean of lambda(sigma) (D(residual + sigma noise) - residual)^2 (table 1).

    lambda = (sigma^2 + sd^2) / (sigma sd)^2, sd = sigma_data. `residual` and `noise` (standard normal) are
    (N, C, y, x), `sigma` is (N,); returns a scalar, about 1 for an untrained network on residuals of
    standard deviation sd. Raises ConfigurationError for a denoiser whose UNet does not know the noise level.
    """
    if denoiser.model.config.embedding == "zero":
        raise ConfigurationError(
            "edm_loss: the denoiser's UNet has embedding 'zero' and does not know the noise level; use 'positional'"
        )
    level = sigma[:, None, None, None]
    sd = denoiser.sigma_data
    weight = (level**2 + sd**2) / (level * sd) ** 2
    error: Tensor = denoiser(residual + level * noise, sigma, conditioning) - residual
    return (weight * error**2).mean()


def regression_loss(network: RegressionUNet, conditioning: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the regression mean against `target` (N, C, y, x): a scalar."""
    return nn.functional.mse_loss(network(conditioning), target)
