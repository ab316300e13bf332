"""The UNet of both CorrDiff stages: the DDPM++ architecture as EDM configures it.

Sources: Song et al. 2021 (arXiv 2011.13456, DDPM++), Karras et al. 2022 (arXiv 2206.00364, appendix F and table 7),
Mardani et al. 2023 (arXiv 2309.15214, CorrDiff). Module names follow the published checkpoints, so that a state dict
of theirs loads after renaming its attention keys: `enc.448x448_conv`, `enc.224x224_down`, `dec.28x28_in0`,
`dec.448x448_aux_norm`, `map_layer0`.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.norm import Norm
from corrdiff_core.model.positions import position_channels
from corrdiff_core.model.unet_config import UNetConfig, check_divisible

Resample = Literal["up", "down"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

SKIP_SCALE = math.sqrt(0.5)
MAX_POSITIONS = 10000.0


class UNet(nn.Module):
    """DDPM++ UNet: (N, in_channels, y, x) and noise labels (N,), or (1,) for all, -> (N, out_channels, y, x).

    Any field whose sides are multiples of `config.factor` is accepted, `config.resolution` or not, unless the network
    has positions of its own. Memory format is kept: after `.to(memory_format=torch.channels_last)`, several times
    faster on a CPU, all activations are channels_last.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        if config.embedding == "positional":
            self.map_layer0 = xavier(nn.Linear(config.noise_channels, config.emb_channels))
            self.map_layer1 = xavier(nn.Linear(config.emb_channels, config.emb_channels))
        if config.positions == "learnable":
            self.pos_embd = nn.Parameter(torch.randn(config.position_count, *config.shape))
        elif config.positions != "none":
            fields = position_channels(config.positions, config.position_count, *config.shape)
            self.register_buffer("pos_embd", fields, persistent=False)
        if config.additive_positions:
            self.spatial_emb = nn.Parameter(torch.randn(1, config.widths[0], *config.shape))
        self.enc, skip_widths = build_encoder(config)
        self.dec = build_decoder(config, skip_widths)

    def forward(self, x: Tensor, noise_labels: Tensor) -> Tensor:
        """Shapes as in the class; `noise_labels` are c_noise of EDM (ignored by a "zero" embedding).

        Raises ConfigurationError when a side of `x` is not a multiple of `config.factor`, or not `config.resolution`
        in a network that knows positions.
        """
        check_divisible(tuple(x.shape[-2:]), self.config.factor)
        x = self._with_positions(x)
        embedding = self._embed(noise_labels)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            if isinstance(layer, Block):
                x = layer(x, embedding)
            else:
                x = layer(x) + self.spatial_emb if self.config.additive_positions else layer(x)
            skips.append(x)
        for layer in self.dec.values():
            if isinstance(layer, JoiningBlock):
                x = torch.cat([x, skips.pop()], dim=1)
            if isinstance(layer, Block):
                x = layer(x, embedding)
            else:
                x = activated(layer(x)) if isinstance(layer, Norm) else layer(x)
        return x

    def _with_positions(self, x: Tensor) -> Tensor:
        """`x` and behind it the network's own position channels."""
        config = self.config
        if config.positions == "none" and not config.additive_positions:
            return x
        if tuple(x.shape[-2:]) != config.shape:
            raise ConfigurationError(
                f"UNet: a field of {tuple(x.shape[-2:])} points for a network that knows the positions of"
                f" {config.shape}: give it the whole domain"
            )
        if config.positions == "none":
            return x
        return torch.cat([x, self.pos_embd.to(x.dtype).expand(x.shape[0], -1, -1, -1)], dim=1)

    def _embed(self, noise_labels: Tensor) -> Tensor:
        config = self.config
        if config.embedding == "zero":
            weight = next(self.parameters())
            return weight.new_zeros(1, config.emb_channels)
        waves = positional_embedding(noise_labels, config.noise_channels)
        hidden = functional.silu(self.map_layer0(waves.to(self.map_layer0.weight.dtype)))
        return functional.silu(self.map_layer1(hidden))


def build_encoder(config: UNetConfig) -> tuple[nn.ModuleDict, list[int]]:
    """The encoder's layers by name, and the channels of each one's output (which the decoder joins in reverse)."""
    layers = nn.ModuleDict()
    widths: list[int] = []
    channels = config.widths[0]
    for level, width in enumerate(config.widths):
        name = level_name(config, level)
        if level == 0:
            layers[f"{name}_conv"] = xavier(nn.Conv2d(config.in_channels + config.position_count, width, 3, padding=1))
        else:
            layers[f"{name}_down"] = Block(config, channels, channels, resample="down")
        widths.append(channels)
        for index in range(config.num_blocks):
            attention = has_attention(config, level)
            layers[f"{name}_block{index}"] = Block(config, channels, width, attention=attention)
            channels = width
            widths.append(channels)
    return layers, widths


def build_decoder(config: UNetConfig, skip_widths: list[int]) -> nn.ModuleDict:
    """The decoder's layers by name, innermost level first; attention sits in the last block of its level."""
    layers = nn.ModuleDict()
    remaining = list(skip_widths)
    channels = config.widths[-1]
    for level, width in reversed(list(enumerate(config.widths))):
        name = level_name(config, level)
        if level == len(config.widths) - 1:
            bottleneck = config.bottleneck_attention
            layers[f"{name}_in0"] = Block(config, channels, channels, attention=bottleneck)
            layers[f"{name}_in1"] = Block(config, channels, channels)
        else:
            layers[f"{name}_up"] = Block(config, channels, channels, resample="up")
        for index in range(config.num_blocks + 1):
            attention = has_attention(config, level) and index == config.num_blocks
            layers[f"{name}_block{index}"] = JoiningBlock(
                config, channels + remaining.pop(), width, attention=attention
            )
            channels = width
    name = level_name(config, 0)
    layers[f"{name}_aux_norm"] = Norm(channels, unbiased=config.unbiased_norm)
    layers[f"{name}_aux_conv"] = xavier(nn.Conv2d(channels, config.out_channels, 3, padding=1), gain=1e-5)
    return layers


def level_name(config: UNetConfig, level: int) -> str:
    """As the published checkpoints name a level: its rows twice, whatever its columns."""
    rows = config.shape[0] >> level
    return f"{rows}x{rows}"


def has_attention(config: UNetConfig, level: int) -> bool:
    return config.shape[0] >> level in config.attn_resolutions


class Block(nn.Module):
    """Residual block: norm, SiLU, (resample,) conv, + noise embedding, norm, SiLU, dropout, conv, then maybe attention.

    (N, in_channels, y, x) and (N or 1, emb_channels) -> (N, out_channels, y', x'), y' = 2y ("up"), y/2 ("down") or y.
    """

    def __init__(
        self,
        config: UNetConfig,
        in_channels: int,
        out_channels: int,
        *,
        resample: Resample | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.dropout = config.dropout
        self.norm0 = Norm(in_channels, unbiased=config.unbiased_norm)
        self.conv0 = xavier(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.affine = xavier(nn.Linear(config.emb_channels, out_channels))
        self.norm1 = Norm(out_channels, unbiased=config.unbiased_norm)
        self.conv1 = xavier(nn.Conv2d(out_channels, out_channels, 3, padding=1), gain=1e-5)
        project = resample is not None or in_channels != out_channels
        self.skip = xavier(nn.Conv2d(in_channels, out_channels, 1)) if project else None
        self.attn = Attention(config, out_channels) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = resampled(activated(self.norm0(x)), self.resample)
        hidden = self._embedded_conv(hidden, self.affine(embedding))
        hidden = functional.dropout(activated(self.norm1(hidden)), self.dropout, self.training)
        hidden = self._joined(scaled_conv(self.conv1, hidden), x)
        return self.attn(hidden) if self.attn is not None else hidden

    def _embedded_conv(self, hidden: Tensor, shift: Tensor) -> Tensor:
        """conv0, plus `shift` (N or 1, out_channels) at every point; one shift for all fields is part of the bias."""
        if shift.shape[0] > 1:
            moved: Tensor = self.conv0(hidden) + shift[:, :, None, None]
            return moved
        bias = shift[0] if self.conv0.bias is None else shift[0] + self.conv0.bias
        return functional.conv2d(hidden, self.conv0.weight, bias, padding=1)

    def _joined(self, hidden: Tensor, x: Tensor) -> Tensor:
        """`hidden`, already scaled, plus the scaled way around the block."""
        if self.skip is None:
            return torch.add(hidden, x, alpha=SKIP_SCALE)
        if self.resample == "up":
            return hidden + resampled(scaled_conv(self.skip, x), self.resample)
        return hidden + scaled_conv(self.skip, resampled(x, self.resample))


class JoiningBlock(Block):
    """A decoder block, whose input is the previous output joined with the encoder's output of the same size."""


class Attention(nn.Module):
    """Single-head self-attention over all points of a level, added to its input; (N, C, y, x) -> the same shape.

    With `config.attention_over` "channels", each channel attends to the other channels instead, as physicsnemo 1.1 did
    in the networks that it trained.
    """

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.over_channels = config.attention_over == "channels"
        self.norm = Norm(channels, unbiased=config.unbiased_norm)
        self.qkv = xavier(nn.Conv2d(channels, 3 * channels, 1), gain=math.sqrt(0.2))
        self.proj = xavier(nn.Conv2d(channels, channels, 1), gain=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        n, c, ny, nx = x.shape
        # Output channel 3 i + j of qkv is channel i of query (j = 0), key (1) or value (2).
        points = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).reshape(n, 1, ny * nx, c, 3)
        query, key, value = points.unbind(-1)
        if self.over_channels:
            query, key, value = (part.transpose(2, 3) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        if self.over_channels:
            mixed = mixed.transpose(2, 3)
        mixed = mixed.reshape(n, ny, nx, c).permute(0, 3, 1, 2)
        return torch.add(scaled_conv(self.proj, mixed), x, alpha=SKIP_SCALE)


def activated(x: Tensor) -> Tensor:
    """SiLU; overwrites `x`, which nobody else may hold, when no gradients are recorded."""
    return functional.silu(x, inplace=not torch.is_grad_enabled())


def scaled_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """SKIP_SCALE times `conv` of `x`: scaling the weights is cheaper than scaling the field."""
    bias = None if conv.bias is None else conv.bias * SKIP_SCALE
    return functional.conv2d(x, conv.weight * SKIP_SCALE, bias, padding=conv.padding)


def resampled(x: Tensor, resample: Resample | None) -> Tensor:
    """Halve or double both sides with the box filter [1, 1]: the mean of 2 x 2 points, or each point repeated."""
    if resample == "down":
        return functional.avg_pool2d(x, 2)
    if resample == "up":
        return functional.interpolate(x, scale_factor=2, mode="nearest")
    return x


def positional_embedding(labels: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of `labels` (N,) at frequencies 1 down to 1/10000 -> (N, channels) float32."""
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=labels.device) / max(half - 1, 1)
    angles = labels.to(torch.float32)[:, None] * MAX_POSITIONS ** (-exponents)[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialize a layer's weight uniformly after Glorot times `gain`, its bias with zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
