"""What one call of a network costs on 448 x 448 points: a small one and Taiwan's, by memory format and precision."""

import time
from contextlib import nullcontext

import pytest
import torch

from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig

SIZE, IN_CHANNELS, OUT_CHANNELS = 448, 20, 4
SMALL = UNetConfig(
    IN_CHANNELS, OUT_CHANNELS, SIZE, model_channels=32, channel_mult=(1, 2, 2, 2), num_blocks=1, attn_resolutions=(),
    bottleneck_attention=False, dropout=0.0,
)  # fmt: skip
TAIWAN = UNetConfig(IN_CHANNELS, OUT_CHANNELS, SIZE)
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def network(config, device, memory_format):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    unet = UNet(config).to(device=device, memory_format=memory_format)
    x = torch.randn(1, config.in_channels, SIZE, SIZE, device=device).contiguous(memory_format=memory_format)
    return unet, x, torch.zeros(1, device=device)


def seconds(action, device, repeats):
    """The fastest of `repeats` calls after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def precision(device, half):
    return torch.autocast(device, torch.bfloat16) if half else nullcontext()


def forward_seconds(config, device, memory_format, half, repeats):
    unet, x, labels = network(config, device, memory_format)
    with torch.no_grad(), precision(device, half):
        return seconds(lambda: unet.eval()(x, labels), device, repeats)


def step_seconds(config, device, memory_format, half, repeats):
    """Forward and backward, one field."""
    unet, x, labels = network(config, device, memory_format)

    def step():
        with precision(device, half):
            loss = unet(x, labels).float().square().mean()
        loss.backward()

    return seconds(step, device, repeats)


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "config", "repeats"), [("small", SMALL, 3), ("Taiwan", TAIWAN, 1)])
def test_forward(name, config, repeats, device, capsys):
    lines = []
    for layout, memory_format in FORMATS.items():
        for half in (False, True):
            taken = forward_seconds(config, device, memory_format, half, repeats)
            lines.append(f"{layout} {'bfloat16' if half else 'float32'} {taken:.3f} s")
    with capsys.disabled():
        print(f"\n{name} network, one forward on {device}, {torch.get_num_threads()} threads: " + ", ".join(lines))
    assert len(lines) == 4


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("device", DEVICES)
def test_training_step(device, capsys):
    lines = []
    for layout, memory_format in FORMATS.items():
        for half in (False, True):
            taken = step_seconds(SMALL, device, memory_format, half, repeats=2)
            lines.append(f"{layout} {'bfloat16' if half else 'float32'} {taken:.3f} s")
    with capsys.disabled():
        print(f"\nsmall network, forward and backward of one field on {device}: " + ", ".join(lines))
    assert len(lines) == 4
