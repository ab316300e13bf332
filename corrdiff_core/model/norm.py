"""The UNet's group normalization, with a way of its own for channels_last tensors on a CPU.

There, torch's forward pass sums in a single float32, which costs four digits on 448 x 448 points, and its backward
pass is 3 (float32) to 8 (bfloat16) times slower than the one here.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPSILON = 1e-6
POINTS_PER_SUM = 8192


class Norm(nn.GroupNorm):
    """GroupNorm of up to 32 groups of at least 4 channels: the most that divide the channels evenly.

    With `unbiased`, evaluation divides by the unbiased variance, as physicsnemo's evaluation mode does (its training
    mode does not): n / (n - 1) times the variance, n values in a group, is the same as scaling weight and epsilon.
    """

    def __init__(self, channels: int, *, unbiased: bool = False) -> None:
        super().__init__(group_count(channels), channels, eps=EPSILON)
        self.unbiased = unbiased

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that nn.GroupNorm gives it)
        weight: Tensor = self.weight
        epsilon = self.eps
        if self.unbiased and not self.training:
            ratio = 1 - self.num_groups / input[0].numel()
            weight, epsilon = weight * math.sqrt(ratio), epsilon * ratio
        if input.device.type == "cpu" and input.is_contiguous(memory_format=torch.channels_last):
            return channels_last_group_norm(input, weight, self.bias, self.num_groups, epsilon)
        return functional.group_norm(input, self.num_groups, weight, self.bias, epsilon)


def group_count(channels: int) -> int:
    """The largest number of equal groups, at most 32, of at least 4 channels each (1 for fewer than 4 channels)."""
    return max(count for count in range(1, 33) if channels % count == 0 and (count == 1 or channels // count >= 4))


def channels_last_group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    """`functional.group_norm` of a channels_last (N, C, y, x) on the CPU."""
    y: Tensor = ChannelsLastGroupNorm.apply(x, weight, bias, groups, epsilon)  # type: ignore[no-untyped-call]
    return y


class ChannelsLastGroupNorm(torch.autograd.Function):
    """Where x' = (x - mean) rstd in each group: y = w x' + b, dx = rstd (w dy - mean(w dy) - x' mean(w dy x'))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
        n, c, ny, nx = x.shape
        if x.dtype in (torch.bfloat16, torch.float16):
            y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, ny * nx, groups, epsilon)
        else:
            mean, rstd = group_statistics(x, groups, epsilon)
            scale = spread(rstd, c) * weight
            y = affine_sum(bias - spread(mean, c) * scale, (scale, x))
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        c, groups = x.shape[1], mean.shape[1]
        n = x[0].numel() // groups
        mean, rstd = spread(mean, c), spread(rstd, c)
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        slopes, offsets = channel_sums(dy, x, mean.to(weight.dtype), rstd.to(weight.dtype))
        slope, offset = (spread(grouped(weight * sums, groups).sum(2), c) / n for sums in (slopes, offsets))
        dx = affine_sum(rstd * (rstd * mean * slope - offset), (-(rstd**2) * slope, x), (rstd * weight, dy))
        return dx, slopes.sum(0).to(weight.dtype), offsets.sum(0).to(weight.dtype), None, None


def group_statistics(x: Tensor, groups: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + epsilon) of each group of a channels_last field: (N, groups) float64 each."""
    moments = torch.stack([field_moments(field) for field in torch.split(x, 1)])
    mean, square = (grouped(moment, groups).mean(2) for moment in moments.unbind(1))
    return mean, (square - mean**2 + epsilon).rsqrt()


def field_moments(field: Tensor) -> Tensor:
    """First and second moment over y and x of each channel of (1, C, y, x): (2, C) float64.

    Points take turns in `strands` sums, which batch norm sees as that many more channels of shorter fields.
    """
    points = field.shape[2] * field.shape[3]
    strands = 1
    while points % (2 * strands) == 0 and points > strands * POINTS_PER_SUM:
        strands *= 2
    longer = field.permute(0, 2, 3, 1).reshape(1, points // strands, 1, -1).permute(0, 3, 1, 2)
    mean, variance = (part.double() for part in torch.batch_norm_update_stats(longer, None, None, 0.0))
    return torch.stack([mean, variance + mean**2]).reshape(2, strands, -1).mean(1)


def channel_sums(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over y and x of dy (x - mean) rstd and of dy, (N, C) float64 each: what a batch norm of one field gives."""
    sums = [
        torch.ops.aten.native_batch_norm_backward(
            dy[i : i + 1], x[i : i + 1], None, None, None, mean[i], rstd[i], True, EPSILON, [False, True, True]
        )[1:]
        for i in range(x.shape[0])
    ]
    slopes, offsets = zip(*sums, strict=True)
    return torch.stack(slopes).double(), torch.stack(offsets).double()


def affine_sum(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """A constant per field and channel (N, C) plus products of such coefficients with fields (N, C, y, x)."""
    (factor, field), *rest = terms
    result = torch.addcmul(_as(constant, field), field, _as(factor, field))
    for factor, field in rest:
        result.addcmul_(field, _as(factor, field))
    return result


def _as(coefficients: Tensor, field: Tensor) -> Tensor:
    return coefficients.to(field.dtype)[:, :, None, None]


def grouped(values: Tensor, groups: int) -> Tensor:
    """(N, C) -> (N, groups, C / groups)."""
    return values.reshape(values.shape[0], groups, -1)


def spread(values: Tensor, channels: int) -> Tensor:
    """Repeat each group's value for its channels: (N, groups) -> (N, channels) float64."""
    return values.double().repeat_interleave(channels // values.shape[1], dim=1)
