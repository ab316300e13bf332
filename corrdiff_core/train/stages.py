"""The two stages: what each network is given, and its loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from corrdiff_core.model.conditioning import assemble
from corrdiff_core.model.edm import RegressionUNet, edm_loss, regression_loss
from corrdiff_core.model.positions import grid_channels
from corrdiff_core.train.batches import Batch
from corrdiff_core.train.preset import StageName


class Stage(Protocol):
    """One of the two: `loss(network, *terms)` of a batch is what training makes small."""

    @property
    def name(self) -> StageName: ...

    @property
    def loss(self) -> Callable[..., Tensor]:
        """The mean over windows and points, a scalar."""
        ...

    def terms(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the loss needs beside the network; free of gradients."""
        ...


@dataclass(frozen=True)
class DomainFields:
    """What every window is a part of: the invariants of the domain, (invariant, y, x), and its position channels."""

    invariants: Tensor

    @cached_property
    def grid(self) -> Tensor:
        return grid_channels(*self.invariants.shape[-2:]).to(self.invariants.device)

    def parts(self, batch: Batch) -> dict[str, Tensor]:
        """The named parts of a batch's conditioning that do not depend on the regression."""
        shape = batch.inputs.shape[-2:]
        return {
            "input": batch.inputs,
            "grid": cut(self.grid, batch.corners, shape),
            "invariants": cut(self.invariants, batch.corners, shape),
        }


def cut(field: Tensor, corners: Tensor, shape: Sequence[int]) -> Tensor:
    """(channel, y, x) cut to `shape` at each of `corners` (N, 2) -> (N, channel, *shape)."""
    rows, columns = shape
    return torch.stack([field[:, row : row + rows, column : column + columns] for row, column in corners.tolist()])


def fast(field: Tensor) -> Tensor:
    """In channels_last, as the networks are."""
    return field.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class RegressionStage:
    """The conditional mean: the squared error is least there."""

    fields: DomainFields
    layout: Sequence[str]
    name: StageName = "regression"

    @property
    def loss(self) -> Callable[..., Tensor]:
        return regression_loss

    def terms(self, batch: Batch) -> tuple[Tensor, ...]:
        return fast(assemble(self.layout, self.fields.parts(batch))), batch.truth


@dataclass(frozen=True)
class DiffusionStage:
    """The residuals of a finished `regression`, which is in eval mode, by EDM's loss (arXiv 2206.00364, table 1)."""

    fields: DomainFields
    layout: Sequence[str]
    regression: RegressionUNet
    regression_layout: Sequence[str]
    name: StageName = "diffusion"

    @property
    def loss(self) -> Callable[..., Tensor]:
        return edm_loss

    def terms(self, batch: Batch) -> tuple[Tensor, ...]:
        parts = self.fields.parts(batch)
        with torch.no_grad():
            mean = self.regression(fast(assemble(self.regression_layout, parts)))
        conditioning = fast(assemble(self.layout, parts | {"mean": mean}))
        return fast(batch.truth - mean), conditioning, batch.sigma, fast(batch.noise)


class Objective(nn.Module):
    """A stage's loss as a module, so that processes that train together see one forward pass."""

    def __init__(self, network: nn.Module, stage: Stage) -> None:
        super().__init__()
        self.network = network
        self.loss = stage.loss

    def forward(self, *terms: Tensor) -> Tensor:
        return self.loss(self.network, *terms)
