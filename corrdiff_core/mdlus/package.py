"""NVIDIA's CorrDiff inference package for Taiwan, turned into a checkpoint of ours.

A package is a zip, or the folder it unpacks to: `checkpoints/regression.mdlus`, `checkpoints/diffusion.mdlus` and a
Zarr v2 group `dataset/*.zarr` with statistics (`era5_*`, `cwb_*`) and the grid (`XLAT`, `XLONG`). What is done with
them follows earth2studio's `CorrDiffTaiwan`. Where the package does not say what its networks expect, the choice is
one of `training.assumptions` in the manifest, and a logged warning.
"""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from corrdiff_core.checkpoint import save_checkpoint
from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.manifest import Manifest, Network, Part, Sampling
from corrdiff_core.mdlus.contents import DIFFUSION, REGRESSION, Contents, open_package
from corrdiff_core.mdlus.dataset import PackageData, read_dataset
from corrdiff_core.mdlus.file import MdlusFile, parse_mdlus
from corrdiff_core.mdlus.network import build_network
from corrdiff_core.model.edm import Denoiser, RegressionUNet
from corrdiff_core.variables import INPUTS, OUTPUTS

Precision = Literal["float16", "float32"]

EARTH2STUDIO: tuple[Part, ...] = ("mean", "input")
CHANNELS: dict[Part, int] = {"input": len(INPUTS), "mean": len(OUTPUTS), "grid": 4}
# The ensemble size is ours, the rest is earth2studio's.
DEFAULTS = Sampling(members=8, num_steps=8, solver="euler", sigma_min=0.002, sigma_max=80.0, rho=7.0)
_PEDIGREE = {
    "mean,input": "earth2studio feeds it so since November 2025, but modulus 0.5 trained with input,grid, which has as"
    " many channels: only a score on held-out truth can tell which is right",
    "input,grid": "modulus 0.5 trained so, but earth2studio feeds mean,input since November 2025, which has as many"
    " channels: only a score on held-out truth can tell which is right",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferencePackage:
    """A package that was read and found sound; `manifest` has no digests of files yet."""

    manifest: Manifest
    regression: RegressionUNet
    diffusion: Denoiser

    @property
    def assumptions(self) -> list[str]:
        """What the package leaves open, and what was chosen."""
        assumptions: list[str] = self.manifest.training["assumptions"]
        return assumptions

    def save(self, destination: str | os.PathLike[str]) -> Manifest:
        """Write the checkpoint folder at `destination` (a path or fsspec URL); errors as in `save_checkpoint`."""
        nothing = torch.empty(0, *self.manifest.domain.shape)
        return save_checkpoint(os.fspath(destination), self.manifest, self.regression, self.diffusion, nothing)


def import_package(
    package: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    name: str = "taiwan",
    diffusion_conditioning: str | Sequence[str] = EARTH2STUDIO,
    weights: Precision = "float16",
) -> Manifest:
    """Turn the inference package (a zip or a folder) into the checkpoint folder `destination` (path or fsspec URL).

    `load_checkpoint(destination)` opens it. `diffusion_conditioning` says what the diffusion network was trained on:
    "mean,input" as earth2studio feeds it, "input,grid" as modulus 0.5 trained; both have 16 channels. `weights`
    "float16" rounds them as earth2studio does; either way networks compute in float32. All that is assumed is logged as
    one warning and kept in the manifest. Raises CheckpointError for a package that is damaged or is not one of Taiwan,
    and where a checkpoint stands already; ConfigurationError for a choice that is none.
    """
    found = read_package(package, name, diffusion_conditioning, weights)
    manifest = found.save(destination)
    _log.warning("%s rests on assumptions:%s", manifest.identity, "".join(f"\n- {line}" for line in found.assumptions))
    return manifest


def read_package(
    package: str | os.PathLike[str],
    name: str = "taiwan",
    diffusion_conditioning: str | Sequence[str] = EARTH2STUDIO,
    weights: Precision = "float16",
) -> InferencePackage:
    """The package at `package` as networks and a manifest called `name`; all else as in `import_package`."""
    if weights not in get_args(Precision):
        raise ConfigurationError(f"weights in {weights!r}: choose {' or '.join(get_args(Precision))}")
    chosen = _layout(diffusion_conditioning)
    with open_package(package) as contents:
        first, regression = _regression(contents)
        second, diffusion = _diffusion(contents)
        if weights == "float16":
            _round(regression, first.name)
            _round(diffusion, second.name)
        shape = _shape(regression, diffusion, contents.name)
        data = read_dataset(contents.dataset(), contents.name, shape)
    layouts = (
        _regression_layout(regression, first.name),
        _diffusion_layout(diffusion, second.name, chosen),
    )
    sampling = _within(DEFAULTS, second)
    manifest = Manifest(
        name=name,
        domain=data.domain,
        input_statistics=data.inputs,
        output_statistics=data.outputs,
        invariants=(),
        regression=Network(regression.model.config.to_dict(), layouts[0]),
        diffusion=Network(diffusion.model.config.to_dict(), layouts[1]),
        preconditioning="EDMPrecondSR" if diffusion.scale_conditioning else "EDMPrecondSuperResolution",
        defaults=sampling,
        sigma_data=diffusion.sigma_data,
        training={
            "data": "NVIDIA's inference package for Taiwan",
            "files": {Path(file.name).name: _origin(file) for file in (first, second)},
            "assumptions": [
                *_of_networks(first, second, layouts, diffusion.scale_conditioning),
                *_of_use(weights, sampling, data),
            ],
        },
    )
    return InferencePackage(manifest, regression, diffusion)


def _round(network: nn.Module, name: str) -> None:
    """Round every weight to float16, in place; CheckpointError where one is beyond float16."""
    for key, parameter in network.named_parameters():
        parameter.copy_(parameter.to(torch.float16))
        if not torch.isfinite(parameter).all():
            raise CheckpointError(f"{name}: {key} does not fit float16, which ends at 65504; choose --weights float32")


def _origin(file: MdlusFile) -> dict[str, str]:
    return {"sha256": file.sha256, "class": file.class_name, "written_by": file.written_by}


def _regression(contents: Contents) -> tuple[MdlusFile, RegressionUNet]:
    file, network = _network(contents, REGRESSION)
    if not isinstance(network, RegressionUNet):
        raise CheckpointError(
            f"{file.name}: holds {file.class_name}, a diffusion network, where the regression is due; are the two files"
            " swapped?"
        )
    return file, network


def _diffusion(contents: Contents) -> tuple[MdlusFile, Denoiser]:
    file, network = _network(contents, DIFFUSION)
    if not isinstance(network, Denoiser):
        raise CheckpointError(
            f"{file.name}: holds {file.class_name}, a regression network, where the diffusion is due; are the two files"
            " swapped?"
        )
    return file, network


def _network(contents: Contents, member: str) -> tuple[MdlusFile, RegressionUNet | Denoiser]:
    """What the file `member` says, its weights apart, and its network: the weights are held once."""
    file = parse_mdlus(contents.read(member), f"{contents.name}/{member}")
    return replace(file, state={}), build_network(file)


def _shape(regression: RegressionUNet, diffusion: Denoiser, name: str) -> tuple[int, int]:
    """(y, x) of both networks, once they agree and have the four outputs."""
    first, second = regression.model.config, diffusion.model.config
    if first.shape != second.shape or not first.out_channels == second.out_channels == len(OUTPUTS):
        raise CheckpointError(
            f"{name}: a regression of {first.out_channels} outputs on {first.shape} points and a diffusion of"
            f" {second.out_channels} on {second.shape}: both need {len(OUTPUTS)} outputs on the same grid"
        )
    return first.shape


def _known_channels(network: RegressionUNet | Denoiser) -> int:
    return network.model.config.in_channels - network.model.config.out_channels


def _regression_layout(network: RegressionUNet, name: str) -> tuple[Part, ...]:
    """What the regression is conditioned on: its number of channels leaves no choice."""
    layouts: tuple[tuple[Part, ...], ...] = (("input",), ("input", "grid"))
    for layout in layouts:
        if _channels(layout) == _known_channels(network):
            return layout
    raise CheckpointError(
        f"{name}: conditioning of {_known_channels(network)} channels, known are"
        f" {' and '.join(f'{_channels(layout)} ({_spelled(layout)})' for layout in layouts)}"
    )


def _layout(given: str | Sequence[str]) -> tuple[Part, ...]:
    """The parts that `given` names, each once."""
    words = [word.strip() for word in (given.split(",") if isinstance(given, str) else given)]
    layout: tuple[Part, ...] = tuple(part for word in words for part in CHANNELS if part == word)
    if len(layout) != len(words) or len(set(layout)) != len(layout) or not layout:
        raise ConfigurationError(
            f"diffusion conditioning {_spelled(words)!r}: choose mean,input or input,grid (parts of a package are"
            f" {', '.join(CHANNELS)})"
        )
    return layout


def _diffusion_layout(network: Denoiser, name: str, layout: tuple[Part, ...]) -> tuple[Part, ...]:
    if _channels(layout) != _known_channels(network):
        raise CheckpointError(
            f"{name}: conditioning of {_known_channels(network)} channels, but {_spelled(layout)} has"
            f" {_channels(layout)}; choose another --diffusion-conditioning"
        )
    return layout


def _channels(layout: Sequence[Part]) -> int:
    return sum(CHANNELS[part] for part in layout)


def _spelled(layout: Sequence[str]) -> str:
    return ",".join(layout)


def _within(sampling: Sampling, file: MdlusFile) -> Sampling:
    """`sampling` within the noise levels that the denoiser's file says it supports."""
    given = file.options.get("sigma_min", 0.0), file.options.get("sigma_max", math.inf)
    low, high = (float(value) if type(value) in (int, float) else math.nan for value in given)
    sigma_min, sigma_max = max(low, sampling.sigma_min), min(high, sampling.sigma_max)
    if not sigma_min < sigma_max:
        raise CheckpointError(
            f"{file.name}: supports sigma {given[0]!r}..{given[1]!r}, of which nothing lies within the sampler's"
            f" {sampling.sigma_min:g}..{sampling.sigma_max:g}; the file is damaged, or for another use"
        )
    return replace(sampling, sigma_min=sigma_min, sigma_max=sigma_max)


def _of_networks(
    regression: MdlusFile, diffusion: MdlusFile, layouts: tuple[Sequence[Part], Sequence[Part]], scaled: bool
) -> Iterator[str]:
    """What is assumed of what the networks are."""
    yield (
        f"the diffusion network is conditioned on {_spelled(layouts[1])};"
        f" {_PEDIGREE.get(_spelled(layouts[1]), 'nobody documents this layout')}"
    )
    yield f"the regression network is conditioned on {_spelled(layouts[0])}, the known layout of as many channels"
    yield (
        f"the diffusion network is {diffusion.class_name} of {diffusion.written_by}, so its conditioning is"
        f" {'' if scaled else 'not '}scaled by c_in"
    )
    if diffusion.options.get("embedding_type") == "zero":
        yield "the diffusion network is not told the noise level (embedding_type zero), which is seldom what was meant"
    yield (
        f"the networks compute what {' and '.join(sorted({regression.written_by, diffusion.written_by}))}, which wrote"
        " them, would compute; other versions differ in rounding, and a few in more"
    )


def _of_use(weights: Precision, sampling: Sampling, data: PackageData) -> Iterator[str]:
    """What is assumed of how to use them."""
    if weights == "float16":
        yield "weights are rounded to float16, as earth2studio runs them; --weights float32 keeps them as they are"
    else:
        yield "weights are as in the package; earth2studio rounds them to float16"
    crop = "1 point" if data.domain.crop == 1 else f"{data.domain.crop} points"
    yield (
        f"the networks' grid is the stored one without its outermost {crop} on each side, as in earth2studio;"
        " training code exists that crops otherwise, which would shift fields by a point (2 km)"
    )
    yield "z500 and z850 are geopotential in m2 s-2, by the size of their statistics, though the package says height"
    yield from data.assumptions
    yield (
        f"{sampling.num_steps} {sampling.solver} steps from sigma {sampling.sigma_max:g} to {sampling.sigma_min:g}, rho"
        f" {sampling.rho:g}, are earth2studio's defaults within the file's bounds; {sampling.members} members are not"
    )
    yield "inputs were ERA5 in training; on GFS or any other source nobody has published a score"
