"""Networks against what the packages that wrote them computed: every generation of the format, every trap in it."""

import pytest
import torch

from corrdiff_core.mdlus import load_network
from corrdiff_core.model.edm import RegressionUNet
from tests.corrdiff_core.mdlus.mdlus_cases import golden, written_by_nvidia

TOLERANCE = 1e-5


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
@pytest.mark.parametrize("path", written_by_nvidia(), ids=lambda path: path.stem)
def test_network_computes_what_its_own_package_computed(path, memory_format):
    expected, network = golden(path), load_network(path).to(memory_format=memory_format)
    conditioning = expected["conditioning"]
    if isinstance(network, RegressionUNet):
        assert (network(conditioning) - expected["mean"]).abs().max() < TOLERANCE
        return
    for sigma in (0.002, 0.5, 80.0):
        denoised = network(expected["latents"] * sigma, sigma, conditioning)
        assert (denoised - expected[f"denoised_{sigma}"]).abs().max() < TOLERANCE
    each = network(expected["latents"], torch.tensor([0.3, 7.0]), conditioning)
    assert (each - expected["denoised_each"]).abs().max() < TOLERANCE


def test_files_of_every_generation_are_there():
    """What this file proves depends on them."""
    names = [path.stem for path in written_by_nvidia()]
    for word in ("modulus-0.5", "modulus-0.7", "physicsnemo-1.1", "physicsnemo-2", "SRV2", "SuperResolution", "UNet"):
        assert any(word in name for name in names)
