"""The full Taiwan network: one call and one 8-step member, beside nvidia-physicsnemo's on the same weights; GPUs.

Where physicsnemo is not installed, ours alone is timed. To install it beside this project:
`pip install --no-deps nvidia-physicsnemo==1.3.0`, `pip install einops treelib tqdm nvtx cftime`.
"""

import contextlib
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from corrdiff_core.mdlus import load_network
from corrdiff_core.model.edm import Denoiser
from corrdiff_core.model.memory import keep_freed_memory
from corrdiff_core.model.sampler import sample
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig

SIZE, OUTPUTS, CONDITIONING, STEPS, SIGMA = 448, 4, 16, 8, 1.0
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Cost:
    """Of one run: seconds, joules (None where nothing measures them), and what came out."""

    seconds: float
    joules: float | None
    result: torch.Tensor


def cost(action, device, warm_up=True):
    """What `action` costs, after a first call that may compile and allocate."""
    if warm_up:
        action()
    meter = energy_meter(device)
    before, start = meter(), time.perf_counter()
    result = action()
    if device == "cuda":
        torch.cuda.synchronize()
    taken, after = time.perf_counter() - start, meter()
    return Cost(taken, None if before is None else after - before, result.float().cpu())


def energy_meter(device):
    """Joules that the GPU has used since its driver was loaded, by NVML; None on a CPU."""
    if device != "cuda":
        return lambda: None
    nvml = pytest.importorskip("pynvml")
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000


def fields(members, device):
    """Latents and conditioning as in use: channels_last."""
    generator = torch.Generator().manual_seed(0)
    conditioning = torch.randn(1, CONDITIONING, SIZE, SIZE, generator=generator)
    latents = torch.randn(members, OUTPUTS, SIZE, SIZE, generator=generator)
    return (field.to(device=device, memory_format=torch.channels_last) for field in (latents, conditioning))


def randomize(network):
    """Weights of the size that training gives; as initialized, whole branches are nearly zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network.eval().requires_grad_(False)


def physicsnemo():
    """Its denoiser class and deterministic sampler, or None where it is not installed."""
    if find_spec("physicsnemo") is None:
        return None
    later = find_spec("physicsnemo.diffusion") is not None
    networks = import_module("physicsnemo.diffusion.preconditioners" if later else "physicsnemo.models.diffusion")
    samplers = import_module("physicsnemo.diffusion.samplers" if later else "physicsnemo.utils.diffusion")
    return networks.EDMPrecondSuperResolution, samplers.deterministic_sampler


def taiwan():
    return Denoiser(UNet(UNetConfig(OUTPUTS + CONDITIONING, OUTPUTS, SIZE)), scale_conditioning=False)


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
def test_one_call_and_one_member_beside_physicsnemo(tmp_path, capsys):
    keep_freed_memory()
    latents, conditioning = fields(1, "cpu")
    found, lines, results = physicsnemo(), [], {}
    if found is None:
        actions = ours(randomize(taiwan()), latents, conditioning)
    else:
        theirs = randomize(
            found[0](
                img_resolution=SIZE, img_in_channels=CONDITIONING, img_out_channels=OUTPUTS, model_type="SongUNet",
                model_channels=128, channel_mult=[1, 2, 2, 2, 2], num_blocks=4, attn_resolutions=[28],
            )
        )  # fmt: skip
        theirs.save(str(tmp_path / "network.mdlus"))
        actions = ours(load_network(tmp_path / "network.mdlus"), latents, conditioning) | reference(
            theirs, found[1], latents, conditioning
        )
    with torch.no_grad():
        for name, action in actions.items():
            results[name] = cost(action, "cpu", warm_up="member" not in name)
            lines.append(f"{name}: {results[name].seconds:.1f} s")
    for what in ("one call", "8-step member") if found else ():
        difference = (results[f"ours, {what}"].result - results[f"physicsnemo, {what}"].result).abs().max()
        lines.append(f"largest difference, {what}: {difference:.1e}")
    with capsys.disabled():
        print(f"\nTaiwan denoiser on 448 x 448, {torch.get_num_threads()} threads, float32\n  " + "\n  ".join(lines))
    assert all(torch.isfinite(measured.result).all() for measured in results.values())


def reference(network, sampler, latents, conditioning):
    """physicsnemo's calls; its member in channels_last, which it is faster in."""

    def call(memory_format):
        return network.to(memory_format=memory_format)(
            (latents * SIGMA).contiguous(memory_format=memory_format),
            conditioning.contiguous(memory_format=memory_format),
            torch.tensor(SIGMA),
        )

    return {
        "physicsnemo, one call, contiguous": lambda: call(torch.contiguous_format),
        "physicsnemo, one call": lambda: call(torch.channels_last),
        "physicsnemo, 8-step member": lambda: sampler(network, latents, conditioning, num_steps=STEPS, solver="euler"),
    }


def ours(network, latents, conditioning):
    network = network.to(memory_format=torch.channels_last)
    return {
        "ours, one call": lambda: network(latents * SIGMA, SIGMA, conditioning),
        "ours, 8-step member": lambda: sample(network, latents, conditioning, STEPS, "euler"),
    }


@pytest.mark.benchmark
@pytest.mark.gpu
@pytest.mark.timeout(3600)
def test_members_on_a_gpu(capsys):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lines = list(precision_lines(randomize(taiwan()), "cuda", batches=(1, 4, 16)))
    with capsys.disabled():
        print(f"\nTaiwan denoiser on {torch.cuda.get_device_name()}, {STEPS} Euler steps\n  " + "\n  ".join(lines))
    assert lines


def precision_lines(network, device, batches, precisions=PRECISIONS, compiling=(False, True)):
    """For each precision, compiled or not: seconds, members per second, joules per member, difference to float32."""
    network = network.to(device=device, memory_format=torch.channels_last)
    exact = None
    for name, dtype in precisions.items():
        for compiled in compiling:
            denoiser = torch.compile(network) if compiled else network
            for members in batches:
                latents, conditioning = fields(members, device)
                with autocast(device, dtype):
                    measured = cost(
                        lambda: sample(denoiser, latents, conditioning, STEPS, "euler"),  # noqa: B023
                        device,
                    )
                exact = measured.result[:1] if exact is None else exact
                joules = "" if measured.joules is None else f", {measured.joules / members:.0f} J a member"
                yield (
                    f"{name}{', compiled' if compiled else ''}, {members} at once: {measured.seconds:.2f} s,"
                    f" {members / measured.seconds:.2f} members/s{joules},"
                    f" largest difference {(measured.result[:1] - exact).abs().max():.1e}"
                )


def autocast(device, dtype):
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype)
