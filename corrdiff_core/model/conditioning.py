"""What the networks are conditioned on: named parts, joined along the channels in the order that a manifest states."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from corrdiff_core.errors import ConfigurationError


def grid_channels(rows: int, columns: int) -> Tensor:
    """Where a point lies in the domain: [sin x, sin y, cos x, cos y], (4, rows, columns) float32.

    x and y run over 0..2 pi, both ends included, along columns and rows: physicsnemo's "sinusoidal" position embedding.
    """
    y, x = torch.meshgrid(
        torch.linspace(0, 2 * torch.pi, rows, dtype=torch.float64),
        torch.linspace(0, 2 * torch.pi, columns, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([x.sin(), y.sin(), x.cos(), y.cos()]).to(torch.float32)


def assemble(layout: Sequence[str], parts: Mapping[str, Tensor]) -> Tensor:
    """Join `parts` along channels in the order of `layout`: (N, K, y, x) each -> (N, sum of K, y, x).

    ConfigurationError for a part that the layout names and nobody gave.
    """
    missing = [name for name in layout if name not in parts]
    if missing:
        raise ConfigurationError(f"conditioning {list(layout)} needs {missing}, given are {sorted(parts)}")
    return torch.cat([parts[name] for name in layout], dim=1)
