"""From the description in a `.mdlus` file to a network: which class, which options, which keys, in which generation.

| class | input of the UNet | call |
|---|---|---|
| UNet, CorrDiffRegressionUNet | [zeros, conditioning] | net(conditioning) |
| EDMPrecondSR | c_in [x, conditioning], unless scale_cond_input is false | net(x, sigma, conditioning) |
| EDMPrecondSRV2, EDMPrecondSuperResolution | [c_in x, conditioning] | net(x, sigma, conditioning) |

Source: the classes' documentation in modulus 0.5 to 0.9 and physicsnemo 1.0 to 2.2, and what these versions compute.
"""

import os
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
    "augment_dim", "lead_time_steps", "sigma_min", "sigma_max",
}  # fmt: skip
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
    options = dict(file.options)
    sigma_data = options.pop("sigma_data", SIGMA_DATA)
    scaled = options.pop("scale_cond_input", SCALES_CONDITIONING.get(file.class_name, False)) and not _is_1_1(file)
    try:
        unet = UNet(_config(file, options))
        network: RegressionUNet | Denoiser
        if file.class_name in REGRESSIONS:
            network = RegressionUNet(unet)
        else:
            network = Denoiser(unet, scale_conditioning=scaled, sigma_data=sigma_data)
    except (ConfigurationError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file.name}: its options describe no network of CorrDiff: {error}") from error
    _load(network, _state(file), file.name)
    return network.eval().requires_grad_(False)


def _config(file: MdlusFile, given: dict[str, Any]) -> UNetConfig:
    """The UNet's options; `given` are the file's own."""
    options = _defaults(file, given.pop("model_type", None)) | given
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
    rows, columns = (size, size) if isinstance(size, int) else size
    return int(rows), int(columns)


def _conditioning_channels(file: MdlusFile, rows: int, inputs: int, outputs: int, positions: int) -> int:
    """Channels of the conditioning; `img_in_channels` counts the position channels in some files, in others not."""
    key = f"model.enc.{rows}x{rows}_conv.weight"
    if key not in file.state:
        raise CheckpointError(f"{file.name}: missing key {key}: the weights belong to another network, or are cut")
    channels = file.state[key].shape[1] - outputs - positions
    if channels not in (inputs, inputs - positions):
        raise CheckpointError(
            f"{file.name}: {key} takes {file.state[key].shape[1]} channels, which are not {outputs} of the field,"
            f" {inputs} of the conditioning and {positions} position channels"
        )
    return channels


def _state(file: MdlusFile) -> dict[str, Tensor]:
    """The file's weights under this package's keys."""
    state = {_key(key): value for key, value in file.state.items() if not key.endswith(_CONSTANTS)}
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{file.name}: {broken[0]} and {len(broken) - 1} more are not finite: the file is damaged"
        )
    return state


def _key(key: str) -> str:
    """Attention sat directly in its block before physicsnemo 1.2, under `attn` since."""
    *path, layer, kind = key.split(".")
    if layer in _ATTENTION_KEYS and path and path[-1] != "attn":
        return ".".join((*path, _ATTENTION_KEYS[layer], kind))
    return key


def _load(network: RegressionUNet | Denoiser, state: dict[str, Tensor], name: str) -> None:
    expected = network.state_dict()
    for problem, keys in (("missing", expected.keys() - state.keys()), ("unknown", state.keys() - expected.keys())):
        if keys:
            some = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise CheckpointError(f"{name}: {problem} key {some}: weights and options do not belong together")
    other = [key for key in expected if expected[key].shape != state[key].shape]
    if other:
        shapes = f"{tuple(state[other[0]].shape)}, its options say {tuple(expected[other[0]].shape)}"
        raise CheckpointError(f"{name}: {other[0]} has shape {shapes}; weights and options do not belong together")
    network.load_state_dict(state)
