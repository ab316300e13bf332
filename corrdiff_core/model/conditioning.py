"""What the networks are conditioned on: named parts, joined along the channels in the order that a manifest states."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from corrdiff_core.errors import ConfigurationError


def assemble(layout: Sequence[str], parts: Mapping[str, Tensor]) -> Tensor:
    """Join `parts` along channels in the order of `layout`: (N, K, y, x) each -> (N, sum of K, y, x).

    ConfigurationError for a part that the layout names and nobody gave.
    """
    missing = [name for name in layout if name not in parts]
    if missing:
        raise ConfigurationError(f"conditioning {list(layout)} needs {missing}, given are {sorted(parts)}")
    return torch.cat([parts[name] for name in layout], dim=1)
