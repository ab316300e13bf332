"""From one slot's coarse inputs to its 2-km ensemble: the one place where labelled arrays meet the networks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from corrdiff_core.checkpoint import Checkpoint
from corrdiff_core.errors import CheckpointError, ConfigurationError, GridError, QualityError
from corrdiff_core.manifest import Sampling
from corrdiff_core.model.edm import Denoiser
from corrdiff_core.model.memory import keep_freed_memory
from corrdiff_core.model.noise import latents as keyed_latents
from corrdiff_core.model.sampler import Solver, sample
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.prepare import prepare
from corrdiff_core.quality import check_magnitudes
from corrdiff_core.regrid import cover
from corrdiff_core.variables import OUTPUT

Progress = Callable[[int, int], None]

MEMORY_SHARE = 0.7  # of a GPU's free memory that one batch may be planned to take


def best_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def generate(
    checkpoint: Checkpoint,
    inputs: xr.Dataset,
    members: int | None = None,
    latents: NDArray[np.floating] | Tensor | None = None,
    num_steps: int | None = None,
    solver: Solver | None = None,
    seed: int = 0,
    batch: int | None = None,
    on_member: Progress | None = None,
) -> xr.Dataset:
    """Sample the ensemble of one slot on the checkpoint's device: (member, y, x), float32, physical units, mrr >= 0.

    `inputs` holds the checkpoint's input variables on (latitude, longitude) in physical units, with a scalar coordinate
    valid_time; `prepared_inputs` normalizes and regrids them, `generate_prepared` says the rest.

    Raises QualityError for an input that is missing, not finite, or of another unit such as geopotential height,
    GridError where inputs do not cover the domain, and what `generate_prepared` raises.
    """
    prepared = prepared_inputs(checkpoint, inputs)
    return generate_prepared(checkpoint, prepared, members, latents, num_steps, solver, seed, batch, on_member)


def generate_prepared(
    checkpoint: Checkpoint,
    prepared: xr.DataArray,
    members: int | None = None,
    latents: NDArray[np.floating] | Tensor | None = None,
    num_steps: int | None = None,
    solver: Solver | None = None,
    seed: int = 0,
    batch: int | None = None,
    on_member: Progress | None = None,
) -> xr.Dataset:
    """`generate` from inputs that are on the checkpoint's domain already, normalized: (channel, y, x).

    Channels are those of the manifest's input statistics, in their order; valid_time is a scalar coordinate: member m's
    latents are a function of (seed, valid_time, m) and of nothing else. `latents` (member, variable, y, x) replace
    them, and give the number of members. What is None comes from the manifest. `batch` members are sampled at once (as
    many as fit the device's memory when None); out of memory halves it and goes on. `on_member(done, all)` is told of
    progress. Coordinates: member, and those of `prepared` but channel.

    Raises QualityError for inputs that are not finite, GridError for those of another domain or other channels,
    ConfigurationError for a number, latents or a valid_time that make no sense, torch.OutOfMemoryError when not even
    one member fits.
    """
    manifest = checkpoint.manifest
    shape = (len(manifest.outputs), *manifest.domain.shape)
    sampling = _sampling(manifest.defaults, members, num_steps, solver)
    if latents is None:
        draw, count = _keyed(prepared, seed, shape), sampling.members
    else:
        fixed = _given(latents, members, shape)
        draw, count = (lambda first, last: fixed[first:last]), len(fixed)
    if checkpoint.device.type == "cpu":
        keep_freed_memory()
    known = _known(checkpoint, prepared)
    model = checkpoint.model
    mean = model.mean(known)
    size = batch_size(checkpoint) if batch is None else batch
    normalized = np.empty((count, *shape), np.float32)
    for first, residuals in _residuals(model.diffusion, model.conditioning(known, mean), draw, count, size, sampling):
        normalized[first : first + len(residuals)] = (mean + residuals).cpu().numpy()
        if on_member is not None:
            on_member(first + len(residuals), count)
    attrs = {"model": manifest.identity, "num_steps": sampling.num_steps, "solver": sampling.solver}
    return _physical(checkpoint, normalized, prepared, attrs | ({"seed": seed} if latents is None else {}))


def regression_mean(checkpoint: Checkpoint, inputs: xr.Dataset) -> xr.Dataset:
    """The regression mean of one slot alone, (y, x), float32, physical units, mrr >= 0; errors as in `generate`."""
    return regression_mean_prepared(checkpoint, prepared_inputs(checkpoint, inputs))


def regression_mean_prepared(checkpoint: Checkpoint, prepared: xr.DataArray) -> xr.Dataset:
    """`regression_mean` from inputs as `generate_prepared` takes them."""
    mean = checkpoint.model.mean(_known(checkpoint, prepared))
    return _physical(checkpoint, mean[None].cpu().numpy(), prepared, {}).isel(member=0, drop=True)


def prepared_inputs(checkpoint: Checkpoint, inputs: xr.Dataset) -> xr.DataArray:
    """What the networks are given of `inputs` (latitude, longitude): (channel, y, x), once it is of the right size."""
    manifest = checkpoint.manifest
    prepared = prepare(inputs, manifest.domain, manifest.input_statistics).compute()
    _refuse_not_finite(prepared)
    check_magnitudes(cover(inputs, manifest.domain.input_box), manifest.inputs)
    return prepared


def batch_size(checkpoint: Checkpoint) -> int:
    """How many members are planned to fit in memory at once; 1 on a CPU, whose caches like it best."""
    if checkpoint.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(checkpoint.device)
    return max(1, int(MEMORY_SHARE * free / member_bytes(checkpoint)))


def member_bytes(checkpoint: Checkpoint) -> int:
    """Estimated peak of one member's forward pass: the encoder's kept outputs and eight fields of the first level."""
    config = UNetConfig.from_dict(checkpoint.manifest.diffusion.unet)
    rows, columns = checkpoint.manifest.domain.shape
    kept = (config.num_blocks + 1) * sum(mult / 4**level for level, mult in enumerate(config.channel_mult))
    return int(4 * rows * columns * config.model_channels * (kept + 8 * max(config.channel_mult[:2])))


def _sampling(defaults: Sampling, members: int | None, num_steps: int | None, solver: Solver | None) -> Sampling:
    given = {"members": members, "num_steps": num_steps, "solver": solver}
    try:
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except CheckpointError as error:
        raise ConfigurationError(str(error)) from error


def _known(checkpoint: Checkpoint, prepared: xr.DataArray) -> Tensor:
    """The networks' inputs (channel, y, x) on the checkpoint's device, once they are finite and as it needs them."""
    manifest = checkpoint.manifest
    names = manifest.input_statistics.names
    found = [str(name) for name in prepared.channel.values] if "channel" in prepared.coords else []
    if found != list(names) or prepared.shape != (len(names), *manifest.domain.shape):
        raise GridError(
            f"prepared inputs {', '.join(found) or 'without names'} of shape {prepared.shape}, the checkpoint needs "
            f"{', '.join(names)} on {manifest.domain.shape} points of {manifest.domain.name}: prepare them for it"
        )
    _refuse_not_finite(prepared)
    return torch.from_numpy(np.asarray(prepared.values, np.float32)).to(checkpoint.device)


def _refuse_not_finite(prepared: xr.DataArray) -> None:
    broken = ~np.isfinite(prepared.values).all(axis=(1, 2))
    if broken.any():
        names = ", ".join(map(str, prepared.channel.values[broken]))
        raise QualityError(f"inputs {names}: not finite after regridding; fetch the slot again from a sound source")


Shape = tuple[int, int, int]  # variable, y, x
Draw = Callable[[int, int], Tensor]  # first member, one past the last -> (member, variable, y, x)


def _keyed(inputs: xr.DataArray, seed: int, shape: Shape) -> Draw:
    time = inputs.coords.get("valid_time")
    if time is None or time.ndim or np.isnat(time.values):
        found = "no valid_time" if time is None else f"valid_time {time.values}"
        raise ConfigurationError(f"inputs have {found}: assign the one time that keys the noise, or give latents")
    valid_time: datetime = time.values.astype("datetime64[s]").item()
    return lambda first, last: keyed_latents(seed, valid_time, range(first, last), shape)


def _given(latents: NDArray[np.floating] | Tensor, members: int | None, shape: Shape) -> Tensor:
    fixed = torch.as_tensor(latents, dtype=torch.float32)
    count = (len(fixed) if fixed.ndim else 0) if members is None else members
    if count < 1 or tuple(fixed.shape) != (count, *shape):
        needed = ("members" if members is None else members, *shape)
        raise ConfigurationError(f"latents of shape {tuple(fixed.shape)}, the checkpoint needs {needed}: draw others")
    return fixed


def _residuals(
    denoiser: Denoiser, conditioning: Tensor, draw: Draw, count: int, batch: int, sampling: Sampling
) -> Iterator[tuple[int, Tensor]]:
    """(first member, residuals) batch by batch; a batch that runs out of memory is tried again at half the size."""
    if batch < 1:
        raise ConfigurationError(f"a batch of {batch} members: at least 1 is needed")
    schedule = sampling.num_steps, sampling.solver, sampling.sigma_min, sampling.sigma_max, sampling.rho
    first = 0
    while first < count:
        residuals, last = None, min(first + batch, count)
        try:
            residuals = sample(denoiser, draw(first, last).to(conditioning.device), conditioning, *schedule)
        except torch.OutOfMemoryError:
            if last - first == 1:
                raise
        if residuals is None:  # here, no traceback holds the failed batch's tensors any more
            batch = (last - first) // 2
            torch.cuda.empty_cache()
            continue
        yield first, residuals
        first = last


def _physical(
    checkpoint: Checkpoint, normalized: NDArray[np.float32], prepared: xr.DataArray, attrs: dict[str, object]
) -> xr.Dataset:
    """(member, variable, y, x) normalized, to a Dataset in physical units with reflectivity clamped to 0 dBZ."""
    statistics = checkpoint.manifest.output_statistics
    dims = ("member", "y", "x")
    fields = xr.Dataset({name: (dims, normalized[:, index]) for index, name in enumerate(statistics.names)})
    physical = statistics.denormalize(fields)
    if "mrr" in physical:
        physical["mrr"] = physical["mrr"].clip(min=0.0)
    for name in statistics.names:
        physical[name].attrs = dict(OUTPUT[name].attrs)
    coords = {name: coord for name, coord in prepared.coords.items() if name != "channel"}
    return physical.assign_coords(coords).assign_coords(member=np.arange(len(normalized))).assign_attrs(attrs)
