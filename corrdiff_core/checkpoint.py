"""Checkpoints: a folder of manifest and safetensors. Nothing in it can run code."""

import hashlib
import os
from dataclasses import dataclass, replace

import fsspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.manifest import MANIFEST, Manifest, Network, read_manifest
from corrdiff_core.model.corrdiff import CorrDiff
from corrdiff_core.model.edm import Denoiser, RegressionUNet
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.quality import check_statistics

REGRESSION, DIFFUSION, INVARIANTS = "regression.safetensors", "diffusion.safetensors", "invariants.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A manifest and the networks that it describes, in eval mode.

    `invariants` is (invariant, y, x), normalized as the networks were trained, in the manifest's order; empty (0, y, x)
    where there are none.
    """

    manifest: Manifest
    regression: RegressionUNet
    diffusion: Denoiser
    invariants: Tensor

    @property
    def device(self) -> torch.device:
        return self.invariants.device

    @property
    def model(self) -> CorrDiff:
        """The two stages as one sampler of (member, channel, y, x) in normalized units."""
        return CorrDiff(
            self.regression,
            self.diffusion,
            regression_layout=self.manifest.regression.conditioning,
            diffusion_layout=self.manifest.diffusion.conditioning,
            invariants=self.invariants,
        )

    def to(self, device: str | torch.device) -> "Checkpoint":
        """The same checkpoint on another device, convolutions in channels_last."""
        kwargs = {"device": torch.device(device), "memory_format": torch.channels_last}
        return replace(
            self,
            regression=self.regression.to(**kwargs),  # type: ignore[call-overload]
            diffusion=self.diffusion.to(**kwargs),  # type: ignore[call-overload]
            invariants=self.invariants.to(device),
        )


def build_regression(network: Network) -> RegressionUNet:
    return RegressionUNet(UNet(UNetConfig.from_dict(network.unet)))


def build_denoiser(manifest: Manifest) -> Denoiser:
    scaled = manifest.preconditioning == "EDMPrecondSR"
    unet = UNet(UNetConfig.from_dict(manifest.diffusion.unet))
    return Denoiser(unet, scale_conditioning=scaled, sigma_data=manifest.sigma_data)


def save_checkpoint(
    path: str | os.PathLike[str],
    manifest: Manifest,
    regression: RegressionUNet,
    diffusion: Denoiser,
    invariants: Tensor,
) -> Manifest:
    """Write the folder at `path` (any fsspec URL), its manifest last; returns the manifest with the files' digests.

    Raises CheckpointError where a checkpoint already stands: checkpoints are never changed. What a killed writer left
    is no checkpoint and is written over.
    """
    folder = open_objects(os.fspath(path))
    occupied = f"{path}: a checkpoint stands here already; write to another folder"
    if folder.exists(MANIFEST):
        raise CheckpointError(occupied)
    files = {
        REGRESSION: safetensors.torch.save(_plain(regression.state_dict())),
        DIFFUSION: safetensors.torch.save(_plain(diffusion.state_dict())),
        INVARIANTS: safetensors.torch.save({"invariants": invariants.detach().cpu().contiguous()}),
    }
    complete = manifest.with_files(files)
    for name, content in files.items():
        folder.put(name, content)
    if not folder.create(MANIFEST, complete.to_json().encode()):
        raise CheckpointError(occupied)
    return complete


def copy_checkpoint(source: str | os.PathLike[str], destination: str | os.PathLike[str], name: str) -> Manifest:
    """Write the checkpoint at `source` once more, under another name; errors as in `load_` and `save_checkpoint`."""
    found = load_checkpoint(source)
    return save_checkpoint(
        destination, replace(found.manifest, name=name), found.regression, found.diffusion, found.invariants
    )


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Checkpoint:
    """The checkpoint folder at `path` (any fsspec URL) on `device`, every file's digest and every key checked.

    Raises CheckpointError for a missing or damaged file, for statistics in other units (geopotential height), and for
    weights that do not fit the manifest's networks.
    """
    path = os.fspath(path)
    manifest = read_manifest(path)
    try:
        check_statistics(manifest.input_statistics, manifest.inputs)
        check_statistics(manifest.output_statistics, manifest.outputs)
    except CheckpointError as error:
        raise CheckpointError(f"{path}/{MANIFEST}: {error}") from error
    weights = {name: _tensors(path, name, manifest.files.get(name)) for name in (REGRESSION, DIFFUSION, INVARIANTS)}
    try:
        regression, diffusion = build_regression(manifest.regression), build_denoiser(manifest)
    except (ConfigurationError, TypeError) as error:
        raise CheckpointError(f"{path}/{MANIFEST}: describes no network: {error}") from error
    for name, network in ((REGRESSION, regression), (DIFFUSION, diffusion)):
        try:
            network.load_state_dict(weights[name])
        except RuntimeError as error:
            raise CheckpointError(f"{path}/{name}: weights do not fit the manifest's network: {error}") from error
    invariants = weights[INVARIANTS].get("invariants", torch.empty(0))
    expected = (len(manifest.invariants), *manifest.domain.shape)
    if tuple(invariants.shape) != expected:
        raise CheckpointError(f"{path}/{INVARIANTS}: shape {tuple(invariants.shape)}, the manifest needs {expected}")
    for module in (regression, diffusion):
        module.eval().requires_grad_(False)
    return Checkpoint(manifest, regression, diffusion, invariants).to(device)


def _tensors(path: str, name: str, digest: str | None) -> dict[str, Tensor]:
    url = f"{path.rstrip('/')}/{name}"
    if digest is None:
        raise CheckpointError(f"{path}: the manifest has no digest of {name}; the checkpoint is incomplete")
    try:
        with fsspec.open(url, "rb") as file:  # type: ignore[no-untyped-call]
            content = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"{url} is missing: copy the whole checkpoint folder") from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CheckpointError(f"{url}: SHA-256 {found[:12]}, the manifest says {digest[:12]}: restore the file")
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{url}: not a safetensors file ({error})") from error
