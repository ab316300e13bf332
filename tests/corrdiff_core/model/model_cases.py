"""Small networks, shared by the tests of the networks."""

import torch

from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig


def small_config(**changes):
    """16 channels, two levels of 32 x 32 and 16 x 16 with attention inside, 7 channels in and 3 out."""
    values = {"in_channels": 7, "out_channels": 3, "resolution": 32, "model_channels": 16, "channel_mult": (1, 2)}
    return UNetConfig(**(values | {"num_blocks": 1, "attn_resolutions": (16,), "dropout": 0.0} | changes))


def random_unet(seed=0, **changes):
    """A small UNet in eval mode whose weights are all random: as initialized, whole branches are nearly zero."""
    unet = UNet(small_config(**changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return unet
