"""What never changes about a domain: its terrain, standardized."""

import torch

from corrdiff_core import terrain
from corrdiff_core.dataset import terrain_invariants
from tests.small_domain import SMALL


def test_invariants_are_standardized_terrain():
    invariants = terrain_invariants(SMALL)
    assert invariants.shape == (2, *SMALL.shape)
    assert invariants.dtype == torch.float32
    torch.testing.assert_close(invariants.mean((1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(invariants.std((1, 2), correction=0), torch.ones(2))
    elevation = terrain.elevation(SMALL.longitude, SMALL.latitude)
    assert int(invariants[0].argmax()) == int(elevation.argmax())
