"""Write `.mdlus` files with NVIDIA's own packages, and what their networks compute, for test_versions.py.

    pip install --no-deps --target there nvidia-modulus==0.5.0     # or nvidia-physicsnemo==1.3.0, ...
    pip install --no-deps --target extra treelib tqdm nvtx cftime einops importlib_metadata zipp ruamel.yaml
    PYTHONPATH=there:extra python tests/corrdiff_core/mdlus/write_files.py FOLDER [--all]

physicsnemo 2 needs all of its dependencies. The weights are random. `--all` writes every option of every class that
the installed version knows; set MDLUS_FILES=FOLDER to compare them too.
"""

import contextlib
import inspect
import json
import sys
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

SIZE, CHANNELS, OUTPUTS = 16, 8, 4
BASE = {"model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [8]}
SIGMAS = (0.002, 0.5, 80.0)
POSITIONED, PLAIN = {"model_type": "SongUNetPosEmbd"}, {"model_type": "SongUNet"}
REGRESSION = {"embedding_type": "zero"}
OF_VERSION = {
    "modulus 0.5.0": ["UNet plain", "EDMPrecondSR plain"],
    "modulus 0.6.0": ["EDMPrecondSR plain"],
    "modulus 0.7.0": ["EDMPrecondSRV2 positioned", "UNet positioned"],
    "modulus 0.9.0": ["EDMPrecondSR unscaled", "EDMPrecondSR learnable"],
    "physicsnemo 1.0.1": ["EDMPrecondSR positioned"],
    "physicsnemo 1.1.1": ["EDMPrecondSR plain", "UNet positioned"],
    "physicsnemo 1.2.0": ["EDMPrecondSuperResolution positioned"],
    "physicsnemo 1.3.0": ["EDMPrecondSuperResolution sinusoidal12", "UNet additive"],
    "physicsnemo 2.2.2": [
        "CorrDiffRegressionUNet octave", "EDMPrecondSuperResolution oblong", "EDMPrecondSR positioned",
        "EDMPrecondSuperResolution options", "EDMPrecondSuperResolution blind",
    ],
}  # fmt: skip
VARIANTS = {
    "plain": PLAIN,
    "positioned": POSITIONED,
    "unscaled": PLAIN | {"scale_cond_input": False},
    "learnable": POSITIONED | {"gridtype": "learnable", "N_grid_channels": 7},
    "linear": POSITIONED | {"gridtype": "linear", "N_grid_channels": 2},
    "sinusoidal12": POSITIONED | {"gridtype": "sinusoidal", "N_grid_channels": 12},
    "octave": POSITIONED | {"gridtype": "sinusoidal_octave", "N_grid_channels": 8},
    "oblong": POSITIONED | {"img_resolution": [SIZE, 2 * SIZE]},
    "attentive": PLAIN | {"attn_resolutions": [16, 8]},
    "inattentive": PLAIN | {"attn_resolutions": []},
    "noise": PLAIN | {"channel_mult_noise": 2},
    "embedding": PLAIN | {"channel_mult_emb": 2},
    "additive": PLAIN | {"additive_pos_embed": True},
    "open": PLAIN | {"bottleneck_attention": False},
    "augmented": PLAIN | {"augment_dim": 3},
    "half": PLAIN | {"use_fp16": True},
    "amp": POSITIONED | {"amp_mode": True},
    "blind": PLAIN | {"embedding_type": "zero"},
    "options": PLAIN | {"channel_mult_noise": 2, "sigma_data": 0.7, "sigma_max": 80.0, "bottleneck_attention": False},
}
CLASSES = ("UNet", "CorrDiffRegressionUNet", "EDMPrecondSR", "EDMPrecondSRV2", "EDMPrecondSuperResolution")


def main(folder, whole):
    package, number, classes = installed()
    names = [f"{c} {v}" for c in CLASSES for v in VARIANTS] if whole else OF_VERSION[f"{package} {number}"]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        class_name, variant = name.split()
        regression = class_name in ("UNet", "CorrDiffRegressionUNet")
        options = BASE | VARIANTS[variant] | (REGRESSION if regression else {})
        network = construct(classes.get(class_name), options)
        if network is None:
            continue
        stem = Path(folder) / f"{package}-{number}-{class_name}-{variant}"
        golden = compute(network.eval(), options, regression)
        network.save(f"{stem}.mdlus")
        np.savez_compressed(f"{stem}.npz", **golden)
        print(stem)


def installed():
    """Package, version, and its classes by name."""
    quiet_nvtx()
    for package in ("modulus", "physicsnemo"):
        with contextlib.suppress(PackageNotFoundError):
            number = version(f"nvidia-{package}")
            break
    rooms = ("models.diffusion", "models.diffusion_unets", "diffusion.preconditioners")
    found = {}
    for room in rooms:
        with contextlib.suppress(ModuleNotFoundError):
            found |= vars(import_module(f"{package}.{room}"))
    return package, number, found


def quiet_nvtx():
    """Old versions mark their blocks for NVIDIA's profiler, which a CPU build of torch refuses."""
    import torch.cuda.nvtx

    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None


def construct(class_, options):
    """The network with random weights; None where the version has no such class or option."""
    if class_ is None:
        return None
    arguments = {"img_resolution": SIZE, "img_in_channels": CHANNELS, "img_out_channels": OUTPUTS} | options
    if options.get("N_grid_channels", 4) >= CHANNELS:
        arguments["img_in_channels"] += options["N_grid_channels"]
    if "img_channels" in inspect.signature(class_.__init__).parameters:
        arguments["img_channels"] = OUTPUTS
    try:
        network = class_(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        print(class_.__name__, json.dumps(options), error, file=sys.stderr)
        return None
    generator = torch.Generator().manual_seed(len(json.dumps(options)))
    with torch.no_grad():
        for parameter in network.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


def compute(network, options, regression):
    """Conditioning, latents, and the network's output: `mean`, or `denoised_<sigma>` and `denoised_each`."""
    size = options.get("img_resolution", [SIZE, SIZE])
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, OUTPUTS, *size, generator=generator)
    takes = next(p.shape[1] for n, p in network.named_parameters() if n.endswith("_conv.weight")) - OUTPUTS
    if options["model_type"] == "SongUNetPosEmbd":
        takes -= options.get("N_grid_channels", 4)
    conditioning = torch.randn(2, takes, *size, generator=generator)
    call = caller(network, conditioning)
    with torch.no_grad():
        if regression:
            outputs = {"mean": call(torch.zeros_like(latents), torch.zeros(1))}
        else:
            outputs = {f"denoised_{sigma}": call(latents * sigma, torch.tensor(sigma)) for sigma in SIGMAS}
            outputs["denoised_each"] = call(latents, torch.tensor([0.3, 7.0]))
    return {
        "conditioning": conditioning.numpy(),
        "latents": latents.numpy(),
        **{name: value.numpy() for name, value in outputs.items()},
    }


def caller(network, conditioning):
    """(x, sigma) -> the network's output, however its version orders the arguments."""
    parameters = inspect.signature(network.forward).parameters
    known = {"condition" if "condition" in parameters else "img_lr": conditioning}
    if "sigma" in parameters:
        return lambda x, sigma: network(x, sigma=sigma, **known)
    return lambda x, sigma: network(x, **known)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], "--all" in sys.argv)
