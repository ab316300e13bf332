"""Group normalization on channels_last CPU tensors against torch's own in float64, forward and backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from corrdiff_core.model.norm import Norm, channels_last_group_norm, group_count


def fields(n, channels, ny, nx, dtype=torch.float32):
    """Channels of different mean and spread, channels_last."""
    x = torch.randn(n, channels, ny, nx) * torch.rand(1, channels, 1, 1) + 3 * torch.randn(1, channels, 1, 1)
    return x.to(dtype).to(memory_format=torch.channels_last)


def random_norm(channels):
    norm = Norm(channels)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


@given(st.integers(1, 300))
def test_groups_are_equal_and_of_at_least_four_channels(channels):
    groups = group_count(channels)
    assert channels % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or channels // groups >= 4
    if channels >= 4 and channels % min(32, channels // 4) == 0:
        assert groups == min(32, channels // 4), "the published networks' number"


@pytest.mark.parametrize(
    ("n", "channels", "ny", "nx"), [(1, 16, 200, 150), (3, 48, 20, 24), (2, 6, 1, 5), (1, 128, 7, 9)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
def test_values_and_gradients_agree_with_float64(n, channels, ny, nx, dtype, tolerance):
    norm = random_norm(channels)
    x, dy = fields(n, channels, ny, nx, dtype).requires_grad_(), torch.randn(n, channels, ny, nx).to(dtype)
    exact_x = x.detach().double().contiguous().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in (norm.weight, norm.bias))
    exact = functional.group_norm(exact_x, norm.num_groups, weight, bias, norm.eps)
    y = norm(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.backward(dy)
    exact.backward(dy.double())
    for ours, theirs in (
        (y, exact),
        (x.grad, exact_x.grad),
        (norm.weight.grad, weight.grad),
        (norm.bias.grad, bias.grad),
    ):
        theirs = theirs.detach()
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours.detach().double(), theirs, rtol=0, atol=tolerance * scale)


def test_gradients_pass_gradcheck():
    x = fields(2, 8, 3, 4, torch.float64).requires_grad_()
    weight, bias = torch.randn(2, 8, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda *args: channels_last_group_norm(*args, 2, 1e-6), (x, weight, bias))


def test_big_fields_keep_their_digits():
    x = torch.randn(1, 16, 448, 448).to(memory_format=torch.channels_last) + 3
    exact = functional.group_norm(x.double().contiguous(), 4, eps=1e-6)
    with torch.no_grad():
        assert (Norm(16)(x) - exact).abs().max() < 5e-6


def test_unbiased_variance_in_evaluation_only():
    x = fields(2, 8, 4, 5)
    groups = x.contiguous().double().reshape(2, 2, 4 * 20)
    centered = groups - groups.mean(2, keepdim=True)
    norm = Norm(8, unbiased=True)
    for training, correction in ((True, 0), (False, 1)):
        norm.train(training)
        variance = groups.var(2, keepdim=True, correction=correction)
        expected = (centered * (variance + norm.eps).rsqrt()).reshape(x.shape)
        for layout in (x, x.contiguous()):
            torch.testing.assert_close(norm(layout).double(), expected, rtol=0, atol=1e-5)
