"""What a UNet of CorrDiff is made of: the options of the DDPM++ architecture, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.positions import Positions, check_positions

# Fields that manifests written before they existed do not have: their defaults say what held then.
ADDED = frozenset({"channel_mult_noise", "positions", "position_count", "additive_positions", "attention_over"})


@dataclass(frozen=True)
class UNetConfig:
    """All that decides what a `UNet` computes, its weights apart; defaults are the Taiwan networks'.

    `resolution` is (ny, nx) of the field the network is made for, an int meaning a square; ny names the layers and
    places attention where ny divided by a power of two equals an entry of `attn_resolutions`. `embedding` "zero" is for
    a network that knows no noise level (the regression), "positional" for a denoiser. `unbiased_norm` is for
    checkpoints that physicsnemo evaluates, see `Norm`.

    `positions` are fields of its own that the UNet joins behind its `in_channels`, `position_count` of them (see
    `positions`); `additive_positions` adds a learned field to what the first convolution returns. A network with
    either accepts fields of its `resolution` only.
    """

    in_channels: int
    out_channels: int
    resolution: tuple[int, int] | int = 448
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (28,)
    bottleneck_attention: bool = True
    dropout: float = 0.13
    embedding: Literal["positional", "zero"] = "positional"
    unbiased_norm: bool = False
    channel_mult_noise: int = 1
    positions: Positions = "none"
    position_count: int = 0
    additive_positions: bool = False
    attention_over: Literal["points", "channels"] = "points"

    def __post_init__(self) -> None:
        """Turn lists into tuples and an int resolution into (ny, nx); ConfigurationError for what makes no network."""
        size = self.resolution
        square = (size, size) if isinstance(size, int) else tuple(int(n) for n in size)
        object.__setattr__(self, "resolution", square)
        object.__setattr__(self, "channel_mult", tuple(self.channel_mult))
        object.__setattr__(self, "attn_resolutions", tuple(self.attn_resolutions))
        counts = (self.in_channels, self.out_channels, self.model_channels, self.num_blocks)
        if (
            min(*counts, self.channel_mult_emb, self.channel_mult_noise) < 1
            or not self.channel_mult
            or min(self.channel_mult) < 1
        ):
            raise ConfigurationError(f"UNetConfig: channels, blocks and multipliers must be at least 1, got {self}")
        if self.embedding not in ("positional", "zero"):
            raise ConfigurationError(f"UNetConfig: embedding is {self.embedding!r}, must be 'positional' or 'zero'")
        if self.attention_over not in ("points", "channels"):
            raise ConfigurationError(
                f"UNetConfig: attention over {self.attention_over!r}, must be over 'points' or 'channels'"
            )
        if self.model_channels % 4:
            raise ConfigurationError(f"UNetConfig: model_channels is {self.model_channels}, must be a multiple of 4")
        if len(square) != 2:
            raise ConfigurationError(f"UNetConfig: resolution is {size!r}, must be an int or (ny, nx)")
        check_divisible(square, self.factor)
        check_positions(self.positions, self.position_count)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of `resolution`."""
        size = self.resolution
        return (size, size) if isinstance(size, int) else size

    @property
    def factor(self) -> int:
        """How many times coarser the innermost level is; every side must be a multiple of it."""
        return 1 << (len(self.channel_mult) - 1)

    @property
    def emb_channels(self) -> int:
        """Channels of the noise embedding that every block receives."""
        return self.model_channels * self.channel_mult_emb

    @property
    def noise_channels(self) -> int:
        """Sines and cosines of the noise label that the embedding starts from."""
        return self.model_channels * self.channel_mult_noise

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, outermost first."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)

    def to_dict(self) -> dict[str, Any]:
        """A mapping that JSON can hold; `from_dict` is its inverse."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UNetConfig:
        """Inverse of `to_dict`; ConfigurationError unless the keys are the fields, of which `ADDED` may be missing."""
        names = {field.name for field in fields(cls)}
        missing, unknown = names - set(values) - ADDED, set(values) - names
        if missing or unknown:
            raise ConfigurationError(
                f"UNetConfig: missing keys {sorted(missing)}, unknown keys {sorted(unknown)};"
                " the network was described by another version of this package"
            )
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**arguments)


def check_divisible(shape: tuple[int, ...], factor: int) -> None:
    """ConfigurationError unless both sides of `shape` (ny, nx) are positive multiples of `factor`."""
    ny, nx = shape
    if ny < factor or nx < factor or ny % factor or nx % factor:
        raise ConfigurationError(
            f"UNet: a field of {ny} x {nx} points does not fit a network whose innermost level is {factor} times"
            f" coarser; crop or pad both sides to multiples of {factor}"
        )
