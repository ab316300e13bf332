"""Small networks and published checkpoints, shared by the tests of the networks."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from corrdiff_core.model.edm import Denoiser, RegressionUNet
from corrdiff_core.model.unet import UNet, UNetConfig

REFERENCE = Path(__file__).resolve().parents[3] / "../shared/reference"
CONSTANTS = ("device_buffer", "resample_filter", "freqs", "pos_embd")


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


def reference(*names):
    """A file of the reference folder; the test is skipped where it is absent."""
    path = REFERENCE.joinpath(*names)
    if not path.exists():
        pytest.skip(f"no reference outputs at {path}")
    return path


def load_reference(path):
    """A network of NVIDIA's packages in our classes, its attention keys renamed and its constants dropped."""
    described, state = read_package(path)
    options = described["__args__"] | described["__args__"].get("model_kwargs", {})
    state = {renamed(key): value for key, value in state.items() if not key.endswith(CONSTANTS)}
    first = next(value for key, value in state.items() if key.endswith("_conv.weight"))
    unet = UNet(
        UNetConfig(
            in_channels=first.shape[1],
            out_channels=options["img_out_channels"],
            resolution=options["img_resolution"],
            model_channels=options["model_channels"],
            channel_mult=options["channel_mult"],
            num_blocks=options["num_blocks"],
            attn_resolutions=options["attn_resolutions"],
            embedding=options["embedding_type"],
            unbiased_norm=described["__module__"].startswith("physicsnemo"),
        )
    )
    if described["__name__"] in ("UNet", "CorrDiffRegressionUNet"):
        network = RegressionUNet(unet)
    else:
        network = Denoiser(unet, scale_conditioning=described["__name__"] == "EDMPrecondSR")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read_package(path):
    """args.json and the weights of a `.mdlus` file, a tar or a zip."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            contents = {
                Path(member.name).name: archive.extractfile(member).read() for member in archive if member.isfile()
            }
    else:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(contents["args.json"]), torch.load(io.BytesIO(contents["model.pt"]), weights_only=True)


def renamed(key):
    for old, new in ((".norm2.", ".attn.norm."), (".qkv.", ".attn.qkv."), (".proj.", ".attn.proj.")):
        key = key if ".attn." in key else key.replace(old, new)
    return key
