"""Training of the two stages, one after the other: the regression mean, then diffusion on its residuals.

Every random choice of step n is a function of (seed, stage, n), so a run that was stopped continues exactly.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from corrdiff_core import __version__, nature
from corrdiff_core.checkpoint import Checkpoint, build_denoiser, build_regression, load_checkpoint, save_checkpoint
from corrdiff_core.cycle import HOUR
from corrdiff_core.dataset import INVARIANTS, NatureRun, TrainingSamples, statistics, terrain_invariants
from corrdiff_core.errors import ConfigurationError, TrainingError
from corrdiff_core.grid import TAIWAN, Domain
from corrdiff_core.manifest import MANIFEST, Manifest, Network, Sampling
from corrdiff_core.model.conditioning import assemble
from corrdiff_core.model.edm import Denoiser, RegressionUNet, edm_loss, sample_sigma
from corrdiff_core.model.memory import keep_freed_memory
from corrdiff_core.model.positions import grid_channels
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.normalization import Statistics
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

Stage = Literal["regression", "diffusion"]
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Preset:
    """What is trained and for how long. Durations are in crops (samples); `half_life` of the EMA too.

    Raises ConfigurationError where a stage would not take a single step, or the period holds no hour.
    """

    name: str
    seed: int
    start: datetime
    end: datetime
    statistics_samples: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_blocks: int
    crop: int
    crops_per_time: int
    times_per_step: int
    regression_samples: int
    diffusion_samples: int
    learning_rate: float
    warm_up: int
    half_life: int
    bfloat16: bool  # autocast of the forward and backward pass; weights, loss and optimizer stay float32
    sigma_mean: float
    sigma_std: float
    defaults: Sampling

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.regression_samples, self.diffusion_samples) < self.batch:
            raise ConfigurationError(
                f"preset {self.name}: stages of {self.regression_samples} and {self.diffusion_samples} samples in "
                f"batches of {self.batch}: each stage needs at least one batch of at least one sample"
            )
        if self.end - self.start < HOUR or self.statistics_samples < 1:
            raise ConfigurationError(
                f"preset {self.name}: {self.start} to {self.end}, {self.statistics_samples} samples for statistics: "
                "at least one hour and one sample are needed"
            )

    @property
    def batch(self) -> int:
        return self.crops_per_time * self.times_per_step

    def steps(self, stage: Stage) -> int:
        return (self.regression_samples if stage == "regression" else self.diffusion_samples) // self.batch


# Small enough for two CPU cores; residuals of the nature run have a standard deviation of 0.1 to 0.7 in normalized
# units, so noise levels are drawn a little lower than CorrDiff's ln sigma ~ N(0, 1.2^2).
DEMO = Preset(
    name="demo",
    seed=nature.SEED,
    start=datetime(2018, 1, 1),
    end=datetime(2021, 1, 1),
    statistics_samples=400,
    model_channels=24,
    channel_mult=(1, 2, 2, 2),
    num_blocks=1,
    crop=160,
    crops_per_time=2,
    times_per_step=3,
    regression_samples=7_200,
    diffusion_samples=16_200,
    learning_rate=1.5e-3,
    warm_up=600,
    half_life=900,
    bfloat16=True,
    sigma_mean=-0.4,
    sigma_std=1.2,
    # 11 network calls; noise levels that bracket these residuals. Euler's 10 calls over 0.002..80 end underdispersed
    # (spread 0.7 of a Gaussian's with the exact denoiser).
    defaults=Sampling(members=4, num_steps=6, solver="heun", sigma_min=0.08, sigma_max=5.0, rho=5.0),
)


def learning_rate(preset: Preset, stage: Stage, step: int) -> float:
    """Linear warm-up over `warm_up` samples, then a half cosine to 2% at the end; a function of the step alone."""
    done = step * preset.batch
    rise = min(1.0, (done + preset.batch) / max(preset.warm_up, 1))
    fall = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / max(preset.steps(stage), 1)))
    return preset.learning_rate * rise * fall


def networks(preset: Preset, domain: Domain) -> tuple[Network, Network]:
    """The architectures: regression on [input, grid, invariants], diffusion on [mean, input, invariants]."""
    common: dict[str, Any] = {
        "out_channels": len(OUTPUT_NAMES), "resolution": domain.shape, "model_channels": preset.model_channels,
        "channel_mult": preset.channel_mult, "num_blocks": preset.num_blocks, "attn_resolutions": (),
        "bottleneck_attention": False, "dropout": 0.0,
    }  # fmt: skip
    known = len(INPUT_NAMES) + len(INVARIANTS)
    regression = UNetConfig(in_channels=len(OUTPUT_NAMES) + known + 4, embedding="zero", **common)
    diffusion = UNetConfig(in_channels=2 * len(OUTPUT_NAMES) + known, embedding="positional", **common)
    return (
        Network(regression.to_dict(), ("input", "grid", "invariants")),
        Network(diffusion.to_dict(), ("mean", "input", "invariants")),
    )


@dataclass(frozen=True)
class Task:
    """Everything that both stages share."""

    preset: Preset
    manifest: Manifest
    run: NatureRun
    invariants: Tensor
    folder: Path

    @property
    def key(self) -> str:
        """Digest of what training state belongs to: a state of another task is refused."""
        described = {"preset": asdict(self.preset), "manifest": self.manifest.to_dict()}
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def train(
    preset: Preset, folder: str | Path, domain: Domain = TAIWAN, report: Callable[[str], None] = print
) -> Checkpoint:
    """Train both stages on the nature run and write `folder`/checkpoint; continues where an earlier call stopped.

    Raises TrainingError for a non-finite loss, or for what stands in `folder` and belongs to another task or is
    damaged; ConfigurationError where the preset's crops do not fit the domain.
    """
    if preset.crop > min(domain.shape):
        raise ConfigurationError(
            f"preset {preset.name}: crops of {preset.crop} points, the domain {domain.name} has {domain.shape}: "
            "choose smaller crops"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = NatureRun(domain, preset.seed, preset.start, preset.end)
    manifest = _manifest(preset, domain, *_statistics(folder, run, preset.statistics_samples))
    checkpoint = folder / "checkpoint"
    if not (checkpoint / MANIFEST).exists():
        _train(Task(preset, manifest, run, terrain_invariants(domain), folder), checkpoint, report)
    finished = load_checkpoint(str(checkpoint))
    if replace(finished.manifest, files={}, scores={}).digest != manifest.digest:
        raise TrainingError(f"{checkpoint}: a checkpoint of another task stands here: train into another folder")
    return finished


def _manifest(preset: Preset, domain: Domain, inputs: Statistics, outputs: Statistics) -> Manifest:
    regression_network, diffusion_network = networks(preset, domain)
    return Manifest(
        name=preset.name,
        domain=domain,
        input_statistics=inputs,
        output_statistics=outputs,
        invariants=INVARIANTS,
        regression=regression_network,
        diffusion=diffusion_network,
        preconditioning="EDMPrecondSuperResolution",
        defaults=preset.defaults,
        training={
            "data": "nature run: synthetic weather, no forecast",
            "preset": json.loads(json.dumps(asdict(preset), default=str)),
            "version": __version__,
        },
    )


def _train(task: Task, checkpoint: Path, report: Callable[[str], None]) -> None:
    keep_freed_memory()
    torch.manual_seed(task.preset.seed)
    regression, denoiser = build_regression(task.manifest.regression), build_denoiser(task.manifest)
    regression = _run_stage(task, "regression", regression, _regression_step(task, regression), report)
    regression.requires_grad_(False).eval()
    denoiser = _run_stage(task, "diffusion", denoiser, _diffusion_step(task, denoiser, regression), report)
    save_checkpoint(str(checkpoint), task.manifest, regression, denoiser, task.invariants)


def _statistics(folder: Path, run: NatureRun, samples: int) -> tuple[Statistics, Statistics]:
    """The run's statistics, kept in `folder` with what they are of."""
    path = folder / "statistics.json"
    described = json.loads(json.dumps({**asdict(run), "samples": samples}, default=str))
    if not path.exists():
        inputs, outputs = statistics(run, samples)
        stored = {"of": described, "input": inputs.to_dict(), "output": outputs.to_dict()}
        _write_atomically(path, json.dumps(stored).encode())
    stored = json.loads(path.read_text())
    if stored["of"] != described:
        raise TrainingError(f"{path}: statistics of {stored['of']}, this is {described}: train into another folder")
    return Statistics.from_dict(stored["input"]), Statistics.from_dict(stored["output"])


# --- one step of either stage -----------------------------------------------------------------------------------------

Batch = tuple[Tensor, Tensor, Tensor]
Loss = Callable[[Batch, torch.Generator], Tensor]


def _crop(field: Tensor, corners: Tensor, size: int) -> Tensor:
    """(channel, y, x) cut at each of `corners` (N, 2) -> (N, channel, size, size)."""
    return torch.stack([field[:, r : r + size, c : c + size] for r, c in corners.tolist()])


def _parts(task: Task, batch: Batch) -> dict[str, Tensor]:
    given, _, corners = batch
    grid = grid_channels(*task.run.domain.shape)
    size = task.preset.crop
    return {"input": given, "grid": _crop(grid, corners, size), "invariants": _crop(task.invariants, corners, size)}


def _regression_step(task: Task, network: RegressionUNet) -> Loss:
    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        conditioning = assemble(task.manifest.regression.conditioning, _parts(task, batch))
        return nn.functional.mse_loss(network(_fast(conditioning)), batch[1])

    return loss


def _diffusion_step(task: Task, denoiser: Denoiser, regression: RegressionUNet) -> Loss:
    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        parts = _parts(task, batch)
        with torch.no_grad():
            mean = regression(_fast(assemble(task.manifest.regression.conditioning, parts)))
        conditioning = assemble(task.manifest.diffusion.conditioning, parts | {"mean": mean})
        residual = batch[1] - mean
        sigma = sample_sigma(len(residual), generator, task.preset.sigma_mean, task.preset.sigma_std)
        noise = torch.randn(residual.shape, generator=generator)
        return edm_loss(denoiser, _fast(residual), _fast(conditioning), sigma, _fast(noise))

    return loss


def _fast(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


# --- the loop ---------------------------------------------------------------------------------------------------------

_SAVE_EVERY = 200  # steps


def _run_stage(task: Task, stage: Stage, network: Net, loss_of: Loss, report: Callable[[str], None]) -> Net:
    """Train `network` to the end of `stage`; returns it holding the EMA weights."""
    preset = task.preset
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=preset.learning_rate)
    state_path = task.folder / f"{stage}.pt"
    first = _resume(state_path, task.key, network, average, optimizer)
    total = preset.steps(stage)
    running = 0.0
    for step, batch in _batches(task, stage, first, total):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(preset, stage, step)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=preset.bfloat16):
            loss = loss_of(batch, _generator(preset.seed, stage, step))
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"{stage} step {step}: loss {loss.item()}, gradient {norm.item()}: lower the learning rate"
            )
        optimizer.step()
        _update_average(average, network, step, preset)
        running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            report(f"{stage} {step + 1}/{total} loss {running:.4f}")
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == total:
            _save(state_path, task.key, step + 1, network, average, optimizer)
    network.load_state_dict(average)
    return network


def _generator(seed: int, stage: Stage, step: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}|{stage}|{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _batches(task: Task, stage: Stage, first: int, total: int) -> Iterator[tuple[int, Batch]]:
    """Batches of steps first..total-1; the diffusion stage sees other samples than the regression did."""
    if first == total:
        return
    preset = task.preset
    offset = 0 if stage == "regression" else 10_000_000
    times = preset.times_per_step
    samples = TrainingSamples(
        task.run, task.manifest.input_statistics, task.manifest.output_statistics,
        preset.crop, offset + total * times, preset.crops_per_time,
    )  # fmt: skip
    wanted = Subset(samples, range(offset + first * times, offset + total * times))
    loader = DataLoader(
        wanted, batch_size=times, num_workers=1, prefetch_factor=4, multiprocessing_context="spawn", shuffle=False
    )
    for step, (given, target, corners) in enumerate(loader, start=first):
        yield step, (given.flatten(0, 1), target.flatten(0, 1), corners.flatten(0, 1))


def _update_average(average: dict[str, Tensor], network: nn.Module, step: int, preset: Preset) -> None:
    """Exponential moving average with `half_life` samples, shorter at the start (EDM's 5% ramp-up)."""
    half_life = min(preset.half_life, 0.05 * (step + 1) * preset.batch)
    keep = 0.5 ** (preset.batch / max(half_life, 1e-8))
    with torch.no_grad():
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - keep)


def _save(
    path: Path, key: str, step: int, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    partial = path.with_suffix(".partial")
    weights = {"network": network.state_dict(), "average": average, "optimizer": optimizer.state_dict()}
    torch.save({"key": key, "step": step, **weights}, partial)
    partial.replace(path)


def _resume(
    path: Path, key: str, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    """Restore the state at `path` and return the next step; 0 where there is none."""
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        reason = type(error).__name__
        raise TrainingError(f"{path}: damaged training state ({reason}): remove it to train the stage anew") from error
    if state["key"] != key:
        found, ours = state["key"][:12], key[:12]
        raise TrainingError(f"{path}: training state of task {found}, this one is {ours}: train into another folder")
    network.load_state_dict(state["network"])
    average.update(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
