"""Training of both stages, one after the other, to a checkpoint."""

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from corrdiff_core import __version__
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.checkpoint import Checkpoint, build_denoiser, build_regression, load_checkpoint, save_checkpoint
from corrdiff_core.dataset import Samples, domain_invariants, sample_statistics
from corrdiff_core.errors import CheckpointError, ConfigurationError, DatasetError, TrainingError
from corrdiff_core.grid import NO_INVARIANTS, TERRAIN, Domain
from corrdiff_core.manifest import MANIFEST, Manifest, Network
from corrdiff_core.model.memory import keep_freed_memory
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.normalization import Statistics
from corrdiff_core.quality import check_statistics
from corrdiff_core.train.batches import KeyedWindows, share_of
from corrdiff_core.train.curves import Report
from corrdiff_core.train.loop import Run, train_stage
from corrdiff_core.train.networks import networks
from corrdiff_core.train.preset import Preset, StageName
from corrdiff_core.train.processes import training_processes
from corrdiff_core.train.stages import DiffusionStage, DomainFields, RegressionStage
from corrdiff_core.train.state import Progress, differences
from corrdiff_core.variables import INPUT, OUTPUT

CHECKPOINT, STATISTICS = "checkpoint", "statistics.json"
OUTCOME = ("regression", "diffusion")  # what a manifest's training says of each stage once it is over
_TOLD = 20  # validation losses of a stage, at most


def train(
    preset: Preset,
    samples: Samples,
    folder: str | Path,
    validation: Samples | None = None,
    *,
    initial: Checkpoint | None = None,
    device: str | None = None,
    workers: int = 1,
    report: Report = print,
) -> Checkpoint:
    """Train both stages on `samples` and write `folder`/checkpoint; continues where an earlier call stopped.

    `validation` are samples of other times, whose loss is followed. Under torchrun each step is shared by all
    processes, whose folder is the same. `initial` is a checkpoint to go on from instead of random weights: of the same
    domain and networks, whose statistics are kept, since its weights mean nothing with others. `workers` processes
    read the samples, 0: this one does. On a CPU the result is the same to the bit however often the training was
    stopped.

    Raises TrainingError for more steps without finite gradients than the preset allows, and for what stands in
    `folder` and belongs to another task or is damaged; ConfigurationError where preset, domain, samples and processes
    do not fit each other; DatasetError for a sample that cannot be read, and for samples in other units.
    """
    _refuse_misfit(preset, samples, validation)
    with training_processes(device) as processes, _own_randomness(processes.device):
        share_of(preset, processes)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        statistics = (
            None if initial is None else (initial.manifest.input_statistics, initial.manifest.output_statistics)
        )
        if statistics is None:
            with processes.leader_first():
                statistics = _statistics(folder, samples, preset.statistics_samples)
        _refuse_other_units(samples, statistics)
        manifest = _manifest(preset, samples, validation, statistics)
        if initial is not None:
            manifest = _going_on_from(initial.manifest, manifest)
        run = Run(preset, _described(manifest), folder, processes, workers, report)
        if not (folder / CHECKPOINT / MANIFEST).exists():
            _train(run, manifest, samples, validation, initial)
        processes.wait()
        return _finished(folder / CHECKPOINT, run.task)


def _refuse_misfit(preset: Preset, samples: Samples, validation: Samples | None) -> None:
    preset.window_of(samples.domain)
    networks(preset, samples.domain, domain_invariants(samples.domain).names)
    if not len(samples) or (validation is not None and not len(validation)):
        raise ConfigurationError("no samples to train on or to validate with: name a period that the dataset covers")
    if validation is None:
        return
    if validation.domain != samples.domain:
        raise ConfigurationError(
            f"validation on the domain {validation.domain.name}, training on {samples.domain.name}: use one domain"
        )
    common = set(samples.times) & set(validation.times)
    if common:
        raise ConfigurationError(
            f"{len(common)} times are in training and validation, first {min(common):%Y-%m-%dT%H}: separate the periods"
        )


def _statistics(folder: Path, samples: Samples, limit: int) -> tuple[Statistics, Statistics]:
    """Of the samples, kept in `folder` with what they are of."""
    objects = open_objects(str(folder))
    described = {"samples": samples.digest, "limit": limit}
    stored = objects.get(STATISTICS)
    if stored is None:
        inputs, outputs = sample_statistics(samples, limit)
        found = {"of": described, "input": inputs.to_dict(), "output": outputs.to_dict()}
        stored = json.dumps({**found, "sha256": _sha256(found)}).encode()
        objects.put(STATISTICS, stored)
    path = folder / STATISTICS
    try:
        values = json.loads(stored)
        sound = values.pop("sha256") == _sha256(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise TrainingError(f"{path}: damaged statistics: remove the file to compute them anew")
    other = list(differences(values["of"], described))
    if other:
        raise TrainingError(f"{path}: statistics of other data: {'; '.join(other)}: train into another folder")
    return Statistics.from_dict(values["input"]), Statistics.from_dict(values["output"])


def _refuse_other_units(samples: Samples, statistics: tuple[Statistics, Statistics]) -> None:
    """What no checkpoint may have is refused before the training, not after it."""
    for part, variables in zip(statistics, (INPUT, OUTPUT), strict=True):
        try:
            check_statistics(part, [variables[name] for name in part.names])
        except CheckpointError as error:
            raise DatasetError(f"{samples.description}: {error}") from None


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _manifest(
    preset: Preset, samples: Samples, validation: Samples | None, statistics: tuple[Statistics, Statistics]
) -> Manifest:
    domain, invariants = samples.domain, domain_invariants(samples.domain)
    regression, diffusion = networks(preset, domain, invariants.names)
    of_file = domain.invariants not in (TERRAIN, NO_INVARIANTS)
    read = {"invariants_digest": _content(invariants.fields)} if of_file else {}
    held_out = {} if validation is None else {"validation": _data(validation)}
    return Manifest(
        name=preset.name,
        domain=domain,
        input_statistics=statistics[0],
        output_statistics=statistics[1],
        invariants=invariants.names,
        regression=regression,
        diffusion=diffusion,
        preconditioning="EDMPrecondSuperResolution",
        defaults=preset.defaults,
        training={**_data(samples), **held_out, **read, "preset": preset.to_dict(), "version": __version__},
    )


def _content(fields: torch.Tensor) -> str:
    return hashlib.sha256(fields.numpy().tobytes()).hexdigest()


def _data(samples: Samples) -> dict[str, str]:
    return {"data": samples.description, "data_digest": samples.digest}


def _going_on_from(initial: Manifest, manifest: Manifest) -> Manifest:
    """The manifest, with what it goes on from; ConfigurationError where those weights do not fit its networks."""
    fixed = ("domain", "invariants", "regression", "diffusion", "preconditioning", "sigma_data")
    kept, asked = ({name: _comparable(getattr(one, name)) for name in fixed} for one in (initial, manifest))
    other = list(differences(kept, asked))
    if other:
        raise ConfigurationError(
            f"{initial.identity} cannot be gone on from with the preset {manifest.name}: {'; '.join(other)}: take its "
            "networks into the preset, or train from random weights"
        )
    return replace(
        manifest, training={**manifest.training, "initial": initial.identity, "initial_digest": initial.digest}
    )


def _comparable(part: Any) -> Any:
    """JSON values; dropout may differ, it is no part of the weights."""
    if isinstance(part, Network):
        config = replace(UNetConfig.from_dict(part.unet), dropout=0.0)
        return {"unet": config.to_dict(), "conditioning": list(part.conditioning)}
    return json.loads(json.dumps(part.to_dict() if isinstance(part, Domain) else part))


def _described(manifest: Manifest) -> dict[str, Any]:
    """The manifest as it is before training, in JSON values: the task."""
    training = {name: value for name, value in manifest.training.items() if name not in OUTCOME}
    described: dict[str, Any] = json.loads(replace(manifest, files={}, scores={}, training=training).to_json())
    return described


def _train(
    run: Run, manifest: Manifest, samples: Samples, validation: Samples | None, initial: Checkpoint | None
) -> None:
    """Both stages and the checkpoint."""
    preset, device = run.preset, run.processes.device
    statistics = manifest.input_statistics, manifest.output_statistics
    _prepare(device)
    torch.manual_seed(preset.seed)
    regression, denoiser = build_regression(manifest.regression), build_denoiser(manifest)
    if initial is not None:
        regression.load_state_dict(initial.regression.state_dict())
        denoiser.load_state_dict(initial.diffusion.state_dict())
    invariants = domain_invariants(manifest.domain).fields
    fields = DomainFields(invariants.to(device))

    def windows(stage: StageName, of: Samples, purpose: str) -> KeyedWindows:
        return KeyedWindows(of, statistics, preset, f"{stage} {purpose}", noisy=stage == "diffusion")

    def held_out(stage: StageName) -> KeyedWindows | None:
        return None if validation is None else windows(stage, validation, "validation")

    regression_stage = RegressionStage(fields, manifest.regression.conditioning)
    regression, first = train_stage(
        run, regression_stage, regression, windows("regression", samples, "training"), held_out("regression")
    )
    diffusion_stage = DiffusionStage(
        fields, manifest.diffusion.conditioning, regression, manifest.regression.conditioning
    )
    denoiser, second = train_stage(
        run, diffusion_stage, denoiser, windows("diffusion", samples, "training"), held_out("diffusion")
    )
    if run.processes.leads:
        outcome = {"regression": _outcome(preset, first), "diffusion": _outcome(preset, second)}
        complete = replace(manifest, training={**manifest.training, **outcome})
        save_checkpoint(run.folder / CHECKPOINT, complete, regression, denoiser, invariants)


def _own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Within it torch is seeded as training needs; the caller's random numbers go on afterwards as if nothing was."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _prepare(device: torch.device) -> None:
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True  # all windows have one shape


def _outcome(preset: Preset, progress: Progress) -> dict[str, Any]:
    """What the manifest says of a finished stage; the last validation loss and some before it."""
    history = progress.validation
    stride = -(-len(history) // _TOLD) or 1
    return {
        "samples": progress.step * preset.batch,
        "skipped_steps": progress.skipped,
        "loss": progress.loss,
        "validation": [list(entry) for entry in history[::-1][::stride][::-1]],
    }


def _finished(path: Path, task: dict[str, Any]) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    other = list(differences(_described(checkpoint.manifest), task))
    if other:
        raise TrainingError(f"{path}: a checkpoint of another task: {'; '.join(other)}: train into another folder")
    return checkpoint
