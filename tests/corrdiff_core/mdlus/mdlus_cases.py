"""`.mdlus` files and inference packages, written here or by NVIDIA's packages."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.corrdiff_core.model.model_cases import random_unet

FILES = Path(__file__).parent / "files"
REFERENCE = Path(__file__).resolve().parents[3] / "../shared/reference"


def written_by_nvidia():
    """Every file in FILES and, where it is set, in the folder MDLUS_FILES (see write_files.py)."""
    folders = [FILES, *(Path(folder) for folder in [os.environ.get("MDLUS_FILES")] if folder)]
    return [path for folder in folders for path in sorted(folder.glob("*.mdlus"))]


def golden(path):
    """What the file's own package computed, as tensors by name."""
    with np.load(path.with_suffix(".npz")) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored if stored[name].ndim}


def reference(*names):
    """A file of the reference folder; the test is skipped where it is absent."""
    path = REFERENCE.joinpath(*names)
    if not path.exists():
        pytest.skip(f"no reference outputs at {path}")
    return path


def members(path):
    """The parts of a `.mdlus` file, by name."""
    content = Path(path).read_bytes()
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def write_members(path, parts, kind="zip"):
    """A `.mdlus` file of these parts, as a "zip" or a "tar"; returns its path."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def stored(state):
    """What torch.save writes of a state dict, or of anything."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_of(parts):
    """The state dict in `parts`."""
    return torch.load(io.BytesIO(parts["model.pt"]), weights_only=True)


def with_state(parts, state):
    """`parts` with other weights."""
    return parts | {"model.pt": stored(state)}


def with_options(parts, **options):
    """`parts` with other options beside, or in place of, its own."""
    described = json.loads(parts["args.json"])
    return parts | {"args.json": json.dumps(described | {"__args__": described["__args__"] | options}).encode()}


def same_network(first, second):
    """Whether two networks are of one class and options, with the same weights to the bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return (
        type(first) is type(second)
        and first.model.config == second.model.config
        and getattr(first, "scale_conditioning", None) == getattr(second, "scale_conditioning", None)
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
    )


def small_parts(class_name="EDMPrecondSR", conditioning=16, positions=0, seed=0, **options):
    """The parts of a `.mdlus` file of a 16 x 16 network with random weights, as physicsnemo 2.2 spells them.

    With `positions` the network has so many sinusoidal position channels of its own.
    """
    embedding = "zero" if class_name in ("UNet", "CorrDiffRegressionUNet") else "positional"
    unet = random_unet(
        seed,
        in_channels=4 + conditioning,
        out_channels=4,
        resolution=16,
        model_channels=8,
        channel_mult=(1, 1),
        attn_resolutions=(8,),
        embedding=embedding,
        positions="sinusoidal" if positions else "none",
        position_count=positions,
    )
    arguments = {
        "img_resolution": 16, "img_in_channels": conditioning, "img_out_channels": 4, "use_fp16": False,
        "model_type": "SongUNet", "embedding_type": embedding, "model_channels": 8, "channel_mult": [1, 1],
        "num_blocks": 1, "attn_resolutions": [8],
    }  # fmt: skip
    if positions:
        arguments |= {"model_type": "SongUNetPosEmbd", "gridtype": "sinusoidal", "N_grid_channels": positions}
    described = {"__name__": class_name, "__module__": "physicsnemo", "__args__": arguments | options}
    return {
        "model.pt": stored({f"model.{name}": value for name, value in unet.state_dict().items()}),
        "args.json": json.dumps(described).encode(),
        "metadata.json": json.dumps({"physicsnemo_version": "2.2.2", "mdlus_file_version": "0.1.0"}).encode(),
    }
