"""EDM's deterministic sampler (Karras et al. 2022, arXiv 2206.00364): a noise schedule and a solver that follows it."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from corrdiff_core.errors import ConfigurationError

Solver = Literal["heun", "euler"]
DenoiserFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
StepCallback = Callable[[int, int], None]


def sigma_schedule(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels from `sigma_max` down to `sigma_min`, then 0 (eq. 5): (num_steps + 1,) float64.

    Raises ConfigurationError unless num_steps >= 1 and 0 < sigma_min <= sigma_max.
    """
    if num_steps < 1 or not 0 < sigma_min <= sigma_max or rho <= 0:
        raise ConfigurationError(
            f"sampler: {num_steps} steps from sigma_max {sigma_max} to sigma_min {sigma_min} with rho {rho};"
            " needed: at least 1 step, 0 < sigma_min <= sigma_max, rho > 0"
        )
    ramp = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(first + ramp * (last - first)) ** rho, torch.zeros(1, dtype=torch.float64)])


def sample(
    denoiser: DenoiserFunction,
    latents: Tensor,
    conditioning: Tensor,
    num_steps: int = 18,
    solver: Solver = "heun",
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Turn standard normal `latents` (N, C, y, x) into samples of the same shape, dtype and device (algorithm 1).

    `denoiser(x, sigma, conditioning)` is called 2 num_steps - 1 times by "heun" (the last step is Euler's), num_steps
    times by "euler", with x in float64: the loop's own arithmetic is float64, a network casts what it gets. The
    reference's "stochastic" sampler is the same with sigma_max 800. `on_step(done, num_steps)` is told of progress.
    Raises ConfigurationError for an unknown solver or an impossible schedule.
    """
    if solver not in ("heun", "euler"):
        raise ConfigurationError(f"sampler: solver is {solver!r}, must be 'heun' or 'euler'")
    sigmas = sigma_schedule(num_steps, sigma_min, sigma_max, rho).to(latents.device)
    x = latents.to(torch.float64) * sigmas[0]
    with torch.no_grad():
        for step in range(num_steps):
            x = solver_step(denoiser, x, sigmas[step], sigmas[step + 1], conditioning, heun=solver == "heun")
            if on_step is not None:
                on_step(step + 1, num_steps)
    return x.to(latents.dtype)


def solver_step(
    denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor, conditioning: Tensor, *, heun: bool
) -> Tensor:
    """Follow dx/dsigma = (x - D(x; sigma)) / sigma (eq. 3) from `sigma` to `sigma_next`, by Euler where that is 0."""
    slope = (x - denoiser(x, sigma, conditioning)) / sigma
    ahead = x + (sigma_next - sigma) * slope
    if not heun or sigma_next == 0:
        return ahead
    slope_ahead = (ahead - denoiser(ahead, sigma_next, conditioning)) / sigma_next
    return x + (sigma_next - sigma) * (slope + slope_ahead) / 2
