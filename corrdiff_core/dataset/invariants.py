"""What never changes about a domain and helps the networks: its terrain."""

import numpy as np
import torch
from torch import Tensor

from corrdiff_core import terrain
from corrdiff_core.grid import Domain

INVARIANTS = ("elevation", "land_fraction")


def terrain_invariants(domain: Domain) -> Tensor:
    """Elevation and land fraction on `domain`, each to mean 0 and standard deviation 1; (invariant, y, x) float32."""
    lines = domain.longitude, domain.latitude
    fields = np.stack([terrain.elevation(*lines), terrain.land_fraction(*lines)])
    mean, std = fields.mean(axis=(1, 2), keepdims=True), fields.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy(((fields - mean) / std).astype(np.float32))
