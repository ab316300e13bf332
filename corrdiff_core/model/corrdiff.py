"""CorrDiff (Mardani et al. 2023, arXiv 2309.15214): a regression mean plus a sampled residual."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.conditioning import assemble
from corrdiff_core.model.edm import Denoiser, RegressionUNet
from corrdiff_core.model.positions import grid_channels
from corrdiff_core.model.sampler import Solver, StepCallback, sample


@dataclass(frozen=True)
class CorrDiff:
    """The two stages as one sampler; everything normalized, one slot at a time.

    The layouts name what each network is conditioned on, in channel order: "input" (the prepared variables), "grid"
    (four position channels), "invariants" (K, y, x) and, for the diffusion, "mean" (the regression mean). Networks and
    `invariants` lie on one device, in eval mode.
    """

    regression: RegressionUNet
    diffusion: Denoiser
    regression_layout: Sequence[str]
    diffusion_layout: Sequence[str]
    invariants: Tensor

    def __post_init__(self) -> None:
        """ConfigurationError where the regression would need its own result."""
        if "mean" in self.regression_layout:
            raise ConfigurationError(
                f"regression conditioning is {list(self.regression_layout)}: the mean is its result, take 'mean' out"
            )

    def mean(self, inputs: Tensor) -> Tensor:
        """The regression mean of `inputs` (channel, y, x): (output channel, y, x) float32."""
        with torch.no_grad():
            mean: Tensor = self.regression(assemble(self.regression_layout, self._parts(inputs)))
        return mean[0]

    def conditioning(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """What the diffusion is conditioned on, given its slot's `inputs` and regression `mean`: (1, K, y, x)."""
        return assemble(self.diffusion_layout, self._parts(inputs) | {"mean": mean[None]})

    def members(
        self,
        inputs: Tensor,
        latents: Tensor,
        num_steps: int = 18,
        solver: Solver = "heun",
        batch: int | None = None,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        on_step: StepCallback | None = None,
    ) -> Tensor:
        """The ensemble (member, output channel, y, x) float32 that `latents` of this shape select, `batch` at a time.

        `inputs` is (channel, y, x). The regression is evaluated once. `batch` None takes all members together; which
        batch a member is computed in changes it by rounding only. `on_step(done, all)` counts steps over all batches.
        """
        mean = self.mean(inputs)
        conditioning = self.conditioning(inputs, mean)
        groups = torch.split(latents.to(inputs.device), len(latents) if batch is None else batch)
        ensemble = []
        for index, group in enumerate(groups):
            report = _within(on_step, index, len(groups))
            residuals = sample(
                self.diffusion, group, conditioning, num_steps, solver, sigma_min, sigma_max, rho, report
            )
            ensemble.append(mean + residuals)
        return torch.cat(ensemble)

    def _parts(self, inputs: Tensor) -> dict[str, Tensor]:
        """The named parts that do not depend on the regression, (1, K, y, x) each."""
        grid = grid_channels(*inputs.shape[-2:]).to(inputs.device)
        return {"input": inputs[None], "grid": grid[None], "invariants": self.invariants[None]}


def _within(on_step: StepCallback | None, index: int, count: int) -> StepCallback | None:
    """`on_step` as seen by batch `index` of `count`."""
    if on_step is None:
        return None
    return lambda done, steps: on_step(index * steps + done, count * steps)
