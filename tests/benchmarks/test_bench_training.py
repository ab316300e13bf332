"""Samples per second of both stages and of what feeds them, and a step of the denoiser beside nvidia-physicsnemo's.

Where physicsnemo is not installed, ours alone is timed; `test_bench_reference` says how to install it beside us.
"""

import contextlib
import resource
import statistics
import time
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from corrdiff_core.dataset import NatureRun, build, sample_statistics
from corrdiff_core.dataset.origins import NatureInputs, NatureTruth
from corrdiff_core.grid import TAIWAN
from corrdiff_core.mdlus import load_network
from corrdiff_core.model.edm import Denoiser, edm_loss
from corrdiff_core.model.memory import keep_freed_memory
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.train import read_preset, train
from corrdiff_core.train.batches import KeyedWindows, Share, loader

START, HOURS = datetime(2018, 7, 1), 24
OUTPUTS, CONDITIONING = 4, 16


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A day of the nature run in our own layout, as training data lie on a disk."""
    sides = NatureInputs(1, TAIWAN.input_box), NatureTruth(1, TAIWAN)
    url = str(tmp_path_factory.mktemp("data") / "dataset")
    return build(url, *sides, START, START + timedelta(hours=HOURS))


def loaded_per_second(samples, preset, workers, passes=40):
    """Windows with noise that the loader delivers, once it runs."""
    windows = KeyedWindows(samples, sample_statistics(samples, 2), preset, "diffusion training", noisy=True)
    positions = Share(preset.times_per_step, preset.times_per_pass, 0, 1).positions(0, 3 * passes)
    batches = iter(loader(windows, positions, preset.times_per_pass, workers, torch.device("cpu")))
    for _ in range(2 * passes if workers else 1):  # what workers had ready
        next(batches)
    start = time.perf_counter()
    for _ in range(passes):
        next(batches)
    return passes * preset.times_per_pass * preset.windows_per_time / (time.perf_counter() - start)


def trained_per_second(folder, stage, batch):
    """From the times between the events of two steps; the first steps allocate."""
    events = EventAccumulator(str(folder / "curves" / stage)).Reload().Scalars("loss")
    times = [event.wall_time for event in events][2:]
    return batch / statistics.median(after - before for before, after in pairwise(times))


def peak_gib(whose):
    return resource.getrusage(whose).ru_maxrss / 2**20


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
def test_both_stages_and_the_loader(stored, tmp_path, capsys):
    demo = read_preset("demo")
    preset = replace(demo, statistics_samples=2, regression_samples=72, diffusion_samples=72)
    nature = NatureRun(TAIWAN, 1, START, START + timedelta(hours=HOURS))
    lines = [
        f"loader alone, {name}, {workers} workers: {loaded_per_second(samples, demo, workers):.1f} windows/s"
        for name, samples in (("stored", stored), ("made on the way", nature))
        for workers in (0, 1)
        if samples is stored or not workers
    ]
    train(preset, stored, tmp_path, report=lambda line: None)
    lines += [
        f"{stage}: {trained_per_second(tmp_path, stage, preset.batch):.1f} windows/s"
        for stage in ("regression", "diffusion")
    ]
    lines.append(
        f"peak memory: {peak_gib(resource.RUSAGE_SELF):.2f} GiB, the loader's worker "
        f"{peak_gib(resource.RUSAGE_CHILDREN):.2f} GiB"
    )
    with capsys.disabled():
        print(
            f"\nDemo preset, windows of {preset.window} x {preset.window} points, 2 of each time,"
            f" {torch.get_num_threads()} threads\n  " + "\n  ".join(lines)
        )
    assert len(lines) == 6


def physicsnemo():
    """Its denoiser class and its denoising loss, in whichever rooms the installed version keeps them; None without."""
    for networks, losses in (
        ("physicsnemo.models.diffusion", "physicsnemo.metrics.diffusion"),
        ("physicsnemo.diffusion.preconditioners", "physicsnemo.diffusion.metrics"),
    ):
        with contextlib.suppress(ModuleNotFoundError, AttributeError):
            return import_module(networks).EDMPrecondSuperResolution, import_module(losses).EDMLossSR
    return None


def our_step(denoiser, residual, conditioning, half):
    """Loss and gradients, with the random numbers that physicsnemo's loss would draw."""
    device = residual.device.type
    sigma = (torch.randn([len(residual), 1, 1, 1], device=device) * 1.2).exp().flatten()
    with torch.autocast(device, torch.bfloat16, enabled=half):
        loss = edm_loss(denoiser, residual, conditioning, sigma, torch.randn_like(residual))
    loss.backward()
    return float(loss)


def their_step(network, loss_class, residual, conditioning, half):
    """The same by its denoising loss."""
    device = residual.device.type
    network.amp_mode = half
    loss_of = loss_class(P_mean=0.0, P_std=1.2, sigma_data=0.5)
    with torch.autocast(device, torch.bfloat16, enabled=half):
        loss = loss_of(net=network, img_clean=residual, img_lr=conditioning).mean()
    loss.backward()
    return float(loss)


def seconds(action, device, repeats):
    """The fastest of `repeats` after one that warms up, and what the last returned."""
    times, result = [], None
    for _ in range(repeats + 1):
        torch.manual_seed(3)
        start = time.perf_counter()
        result = action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:]), result


def compared(device, size, channels, batch, tmp_path):
    """A line for each precision and side."""
    found = physicsnemo()
    options = {"model_channels": channels, "channel_mult": [1, 2, 2, 2, 2], "num_blocks": 4}
    if found is None:
        config = UNetConfig(
            OUTPUTS + CONDITIONING, OUTPUTS, size, channels, dropout=0.0, attn_resolutions=(size // 16,)
        )
        mine, theirs = Denoiser(UNet(config), scale_conditioning=False), None
    else:
        theirs = found[0](
            img_resolution=size, img_in_channels=CONDITIONING, img_out_channels=OUTPUTS, model_type="SongUNet",
            attn_resolutions=[size // 16], dropout=0.0, **options,
        )  # fmt: skip
        theirs.save(str(tmp_path / "network.mdlus"))
        mine = load_network(tmp_path / "network.mdlus").requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    residual, conditioning = (
        torch.randn(batch, count, size, size, generator=generator)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
        for count in (OUTPUTS, CONDITIONING)
    )
    for half in (False, True):
        sides = {"ours": (mine, lambda net: our_step(net, residual, conditioning, half))}  # noqa: B023
        if theirs is not None and not (half and device == "cpu"):  # theirs asks whether CUDA is autocast
            sides["physicsnemo"] = (theirs, lambda net: their_step(net, found[1], residual, conditioning, half))  # noqa: B023
        for name, (network, step) in sides.items():
            network = network.to(device=device, memory_format=torch.channels_last).train()
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken, loss = seconds(lambda: step(network), device, repeats=3 if device == "cuda" else 1)  # noqa: B023
            memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""
            yield f"{'bfloat16' if half else 'float32'}, {name}: {batch / taken:.2f} windows/s{memory}, loss {loss:.5f}"


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
def test_a_step_beside_physicsnemo(tmp_path, capsys):
    keep_freed_memory()
    lines = list(compared("cpu", 128, 32, 2, tmp_path))
    with capsys.disabled():
        print(
            f"\nForward and backward of a denoiser of 32 channels, 128 x 128 points, {torch.get_num_threads()} threads"
        )
        print("  " + "\n  ".join(lines))
    assert lines


@pytest.mark.benchmark
@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_a_step_of_taiwan_on_a_gpu(tmp_path, capsys):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lines = list(compared("cuda", 448, 128, read_preset("taiwan").times_per_pass, tmp_path))
    with capsys.disabled():
        print(f"\nForward and backward of the Taiwan denoiser, 448 x 448 points, on {torch.cuda.get_device_name()}")
        print("  " + "\n  ".join(lines))
    assert lines
