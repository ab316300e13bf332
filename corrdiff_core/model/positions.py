"""Fields that tell a network where a point lies in its domain."""

from typing import Literal, get_args

import torch
from torch import Tensor

from corrdiff_core.errors import ConfigurationError

Positions = Literal["none", "sinusoidal", "sinusoidal_octave", "linear", "learnable"]


def position_channels(positions: Positions, count: int, rows: int, columns: int) -> Tensor:
    """The fields that physicsnemo's `SongUNetPosEmbd` calls by the same names: (count, rows, columns) float32.

    "sinusoidal": sin x, sin y, cos x, cos y with x and y over 0..2 pi, both ends included, along columns and rows; then
    the same at higher frequencies, up to 2^(count/4) in equal steps of the exponent; "sinusoidal_octave": at 2, 4, ...
    times; "linear": x, then y, over -1..1.
    """
    if positions == "linear":
        x, y = _plane(rows, columns, -1.0, 1.0)
        return torch.stack([x, y]).to(torch.float32)
    x, y = _plane(rows, columns, 0.0, 2 * torch.pi)
    bands = count // 4
    if positions == "sinusoidal_octave":
        exponents = torch.arange(bands, dtype=torch.float64)
    else:
        exponents = torch.linspace(0, bands, bands, dtype=torch.float64)
    waves = [wave(axis * frequency) for frequency in 2**exponents for wave in (torch.sin, torch.cos) for axis in (x, y)]
    return torch.stack(waves).to(torch.float32)


def grid_channels(rows: int, columns: int) -> Tensor:
    """[sin x, sin y, cos x, cos y], (4, rows, columns) float32: the grid channels of CorrDiff's conditioning."""
    return position_channels("sinusoidal", 4, rows, columns)


def check_positions(positions: str, count: int) -> None:
    """ConfigurationError unless there are `count` fields of this kind."""
    fits = {
        "none": count == 0,
        "linear": count == 2,
        "learnable": count > 0,
        "sinusoidal": count > 0 and count % 4 == 0,
        "sinusoidal_octave": count > 0 and count % 4 == 0,
    }
    if not fits.get(positions, False):
        raise ConfigurationError(
            f"{count} position channels of kind {positions!r}: choose 2 linear ones, any number of learnable ones, a"
            f" multiple of 4 of the others, or 0 of 'none'; kinds are {', '.join(get_args(Positions))}"
        )


def _plane(rows: int, columns: int, first: float, last: float) -> tuple[Tensor, Tensor]:
    """x and y of each point, (rows, columns) float64 each, from `first` to `last` along columns and rows."""
    y, x = torch.meshgrid(
        torch.linspace(first, last, rows, dtype=torch.float64),
        torch.linspace(first, last, columns, dtype=torch.float64),
        indexing="ij",
    )
    return x, y
