"""From the description in a `.mdlus` file to a network: which class, which options, which keys, in which generation.

| class | input of the UNet | call |
|---|---|---|
| UNet, CorrDiffRegressionUNet | [zeros, conditioning] | net(conditioning) |
| EDMPrecondSR | c_in [x, conditioning], unless scale_cond_input is false | net(x, sigma, conditioning) |
| EDMPrecondSRV2, EDMPrecondSuperResolution | [c_in x, conditioning] | net(x, sigma, conditioning) |

Source: the classes' documentation in modulus 0.5 to 0.9 and physicsnemo 1.0 to 2.2, and what these versions compute.
"""

import math
import os
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.mdlus.file import MdlusFile, read_mdlus
from corrdiff_core.model.edm import SIGMA_DATA, Denoiser, RegressionUNet
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig

REGRESSIONS = ("UNet", "CorrDiffRegressionUNet")
SCALES_CONDITIONING = {"EDMPrecondSR": True, "EDMPrecondSRV2": False, "EDMPrecondSuperResolution": False}

# Options that change nothing in evaluation, or that are read elsewhere.
_WITHOUT_EFFECT = {
    "img_channels", "use_fp16", "label_dropout", "checkpoint_level", "profile_mode", "amp_mode", "use_apex_gn",
    "augment_dim", "lead_time_steps", "sigma_min", "sigma_max", "sigma_data", "scale_cond_input",
}  # fmt: skip
_COUNTS = (
    "img_in_channels", "img_out_channels", "model_channels", "num_blocks", "channel_mult_emb", "channel_mult_noise",
    "N_grid_channels",
)  # fmt: skip
# Options of which this package knows one value.
_ONLY = {
    "label_dim": 0, "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1], "act": "silu",
    "lead_time_mode": False, "lead_time_channels": None, "prob_channels": [],
}  # fmt: skip
# The constructor's defaults: a file holds only what its writer was given.
_SONG_UNET = {
    "model_channels": 128, "channel_mult": [1, 2, 2, 2], "channel_mult_emb": 4, "num_blocks": 4,
    "attn_resolutions": [16], "dropout": 0.1, "embedding_type": "positional", "channel_mult_noise": 1,
    "bottleneck_attention": True, "additive_pos_embed": False,
}  # fmt: skip
_GRID = {"gridtype": "sinusoidal", "N_grid_channels": 4}
_TAIWAN = {"channel_mult": [1, 2, 2, 2, 2], "attn_resolutions": [28], "dropout": 0.13}
# Entries of a state dict that are constants, or that evaluation does not use.
_POSITIONS = "model.pos_embd"
_CONSTANTS = ("device_buffer", "resample_filter", "map_noise.freqs", "map_augment.weight")
_ATTENTION_KEYS = {"norm2": "attn.norm", "qkv": "attn.qkv", "proj": "attn.proj"}  # old name in its block: new one


def load_network(path: str | os.PathLike[str]) -> RegressionUNet | Denoiser:
    """The network in the `.mdlus` file at `path`, of any generation, in eval mode, float32, on the CPU.

    A regression is called as net(conditioning), a denoiser as net(x, sigma, conditioning); conditioning (N, K, y, x) is
    what the reference calls `img_lr`: position channels that the network makes itself are not part of it. Raises
    CheckpointError for a file that is missing or damaged, that needs more than tensors to be unpickled, whose class or
    options this package does not know, and whose weights do not fit them.
    """
    return build_network(read_mdlus(path))


def build_network(file: MdlusFile) -> RegressionUNet | Denoiser:
    """The network that `file` describes; errors as in `load_network`."""
    if file.class_name not in (*REGRESSIONS, *SCALES_CONDITIONING):
        known = ", ".join((*REGRESSIONS, *SCALES_CONDITIONING))
        raise CheckpointError(f"{file.name}: class {file.class_name!r} is unknown; this package reads {known}")
    state = _state(file)
    try:
        config = _config(file, dict(file.options))
        with torch.device("meta"):  # takes no memory, however wrong the options
            expected = _network(file, config).state_dict()
        _check(state, expected, file.name)
        network = _network(file, config)
    except (ConfigurationError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{file.name}: its options describe no network of CorrDiff: {error}") from error
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _network(file: MdlusFile, config: UNetConfig) -> RegressionUNet | Denoiser:
    """The network as initialized, on torch's default device."""
    if file.class_name in REGRESSIONS:
        return RegressionUNet(UNet(config))
    sigma_data = file.options.get("sigma_data", SIGMA_DATA)
    if type(sigma_data) not in (int, float) or not 0 < sigma_data < math.inf:
        raise ConfigurationError(f"sigma_data is {sigma_data!r}, a number above 0 is due")
    scaled = bool(file.options.get("scale_cond_input", SCALES_CONDITIONING[file.class_name])) and not _is_1_1(file)
    return Denoiser(UNet(config), scale_conditioning=scaled, sigma_data=sigma_data)


def _config(file: MdlusFile, given: dict[str, Any]) -> UNetConfig:
    """The UNet's options; `given` are the file's own."""
    options = _defaults(file, given.pop("model_type", None)) | given
    for name in _COUNTS:
        if name in options and type(options[name]) is not int:
            raise ConfigurationError(f"{name} is {options[name]!r}, a whole number is due")
    for name, value in _ONLY.items():
        if options.pop(name, value) != value:
            raise CheckpointError(
                f"{file.name}: option {name} is {file.options[name]!r}, this package knows {value!r} only"
            )
    rows, columns = _resolution(options.pop("img_resolution"))
    inputs, outputs = options.pop("img_in_channels"), options.pop("img_out_channels")
    count, positions = options.pop("N_grid_channels", 0), options.pop("gridtype", "none")
    if _POSITIONS in file.state:
        positions = "learnable"  # versions differ in how they compute them: the file's own are right
    conditioning = _conditioning_channels(file, rows, inputs, outputs, count)
    config = UNetConfig(
        in_channels=outputs + conditioning,
        out_channels=outputs,
        resolution=(rows, columns),
        embedding=options.pop("embedding_type"),
        additive_positions=options.pop("additive_pos_embed"),
        positions=positions if count else "none",
        position_count=count,
        unbiased_norm=(file.package, file.version) >= ("modulus", (0, 6)),
        attention_over="channels" if _is_1_1(file) else "points",
        **{name: options.pop(name) for name in _SONG_UNET if name in options},
    )
    unknown = sorted(set(options) - _WITHOUT_EFFECT)
    if unknown:
        raise CheckpointError(
            f"{file.name}: options {', '.join(unknown)} are unknown, and what they do would be missing; upgrade this"
            " package"
        )
    return config


def _is_1_1(file: MdlusFile) -> bool:
    """Whether the file's network is physicsnemo 1.1's, which attends over channels and never scales conditioning."""
    return (file.package, file.version) == ("physicsnemo", (1, 1))


def _defaults(file: MdlusFile, model_type: str | None) -> dict[str, Any]:
    """What the inner network's constructor assumes in the version that wrote the file."""
    if model_type == "SongUNet":
        return dict(_SONG_UNET)
    if model_type == "SongUNetPosEmbd":
        later = (file.package, file.version) >= ("modulus", (0, 9))
        return _SONG_UNET | _GRID | (_TAIWAN if later else {})
    raise CheckpointError(f"{file.name}: inner network {model_type!r}; this package reads SongUNet, SongUNetPosEmbd")


def _resolution(size: Any) -> tuple[int, int]:
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise ConfigurationError(f"img_resolution is {size!r}, a whole number or two are due")
    return sides[0], sides[1]


def _conditioning_channels(file: MdlusFile, rows: int, inputs: int, outputs: int, positions: int) -> int:
    """Channels of the conditioning; `img_in_channels` counts the position channels in some files, in others not."""
    key = f"model.enc.{rows}x{rows}_conv.weight"
    if key not in file.state:
        raise CheckpointError(f"{file.name}: missing key {key}: the weights belong to another network, or are cut")
    weight = file.state[key]
    channels = weight.shape[1] - outputs - positions if weight.ndim == 4 else None
    if channels not in (inputs, inputs - positions):
        raise CheckpointError(
            f"{file.name}: {key} has shape {tuple(weight.shape)}, which does not take {outputs} channels of the field,"
            f" {inputs} of the conditioning and {positions} of positions: weights and options do not belong together"
        )
    return channels


def _state(file: MdlusFile) -> dict[str, Tensor]:
    """The file's weights under this package's keys."""
    kept = {key: value for key, value in file.state.items() if not key.endswith(_CONSTANTS)}
    odd = [key for key, value in kept.items() if not _is_plain(value)]
    if odd:
        raise CheckpointError(f"{file.name}: not of plain floating-point numbers: {_some(odd)}; no network has such")
    broken = [key for key, value in kept.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{file.name}: not finite: {_some(broken)}; training failed, or the file is damaged")
    state = {_key(key): value for key, value in kept.items()}
    twice = [key for key in kept if key not in state and _key(key) in kept]
    if twice:
        raise CheckpointError(f"{file.name}: under an old and a new name: {_some(twice)}; remove those of one kind")
    return state


def _is_plain(value: Tensor) -> bool:
    return value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu"


def _key(key: str) -> str:
    """Attention sat directly in its block before physicsnemo 1.2, under `attn` since."""
    path = key.split(".")
    if len(path) > 2 and path[-2] in _ATTENTION_KEYS and path[-3] != "attn":
        return ".".join((*path[:-2], _ATTENTION_KEYS[path[-2]], path[-1]))
    return key


def _check(state: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> None:
    """CheckpointError unless `state` has the keys and shapes of `expected`."""
    for problem, keys in (("missing", expected.keys() - state.keys()), ("unknown", state.keys() - expected.keys())):
        if keys:
            raise CheckpointError(f"{name}: {problem} key {_some(keys)}: weights and options do not belong together")
    other = [key for key in expected if expected[key].shape != state[key].shape]
    if other:
        shapes = f"{tuple(state[other[0]].shape)}, its options say {tuple(expected[other[0]].shape)}"
        raise CheckpointError(f"{name}: {other[0]} has shape {shapes}; weights and options do not belong together")


def _some(keys: Collection[str]) -> str:
    """The first few of `keys`, and how many more there are."""
    return ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
