"""The sampler against a case solved by hand, and the schedules that the reference uses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.sampler import sample, sigma_schedule

MEAN, SPREAD = 0.7, 0.4
NOTHING = torch.empty(0)


def gaussian(x, sigma, _conditioning):
    """The perfect denoiser of data distributed as N(MEAN, SPREAD^2)."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def gaussian_result(latents, sigma_max=80.0):
    """Where the probability flow from `latents * sigma_max` ends: (x - mean) / sqrt(spread^2 + sigma^2) is constant."""
    return MEAN + (latents * sigma_max - MEAN) * SPREAD / math.hypot(SPREAD, sigma_max)


def test_golden_schedules():
    expected = [800, 560.7, 385.6, 259.6, 170.7, 109.3, 67.9, 40.7, 23.4, 12.9, 6.69, 3.25, 1.45, 0.584, 0.205]
    schedule = sigma_schedule(18, sigma_max=800)
    assert schedule.dtype == torch.float64
    assert schedule.tolist() == pytest.approx([*expected, 0.060, 0.0134, 0.002, 0], rel=6e-3)
    euler = sigma_schedule(8)
    assert euler.tolist() == pytest.approx([80, 35.0, 13.7, 4.64, 1.29, 0.268, 0.0352, 0.002, 0], rel=5e-3)
    by_hand = [(80 ** (1 / 7) + i / 7 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(8)]
    assert euler[:-1].tolist() == pytest.approx(by_hand, rel=1e-13)


@given(st.integers(1, 60), st.floats(1e-3, 1), st.floats(1, 1e3), st.floats(1, 10))
def test_schedules_fall_from_the_largest_to_zero(num_steps, sigma_min, sigma_max, rho):
    schedule = sigma_schedule(num_steps, sigma_min, sigma_max, rho)
    assert len(schedule) == num_steps + 1
    assert float(schedule[0]) == pytest.approx(sigma_max)
    assert schedule[-1] == 0
    if num_steps > 1:
        assert float(schedule[-2]) == pytest.approx(sigma_min)
    if sigma_min < sigma_max:
        assert (schedule.diff() < 0).all()


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver, order):
    latents = torch.randn(400, dtype=torch.float64).reshape(1, 1, 20, 20)
    exact = gaussian_result(latents)
    errors = [
        float((sample(gaussian, latents, NOTHING, steps, solver, sigma_min=1e-6) - exact).abs().max())
        for steps in (100, 200)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert errors[1] < (0.05 if order == 1 else 0.002)


@pytest.mark.parametrize(
    ("solver", "num_steps", "schedule", "lowest", "highest"),
    [
        ("euler", 10, {}, 0.70, 0.75),
        ("heun", 18, {}, 1.04, 1.10),
        ("heun", 6, {"sigma_min": 0.08, "sigma_max": 5.0, "rho": 5.0}, 0.92, 1.10),
    ],
)
def test_what_few_steps_do_to_the_spread(solver, num_steps, schedule, lowest, highest):
    """Discretization alone makes an ensemble too narrow (Euler) or too wide (Heun), however good the network is."""
    latents = torch.randn(1, 1, 60, 60, dtype=torch.float64)
    spread = sample(gaussian, latents, NOTHING, num_steps, solver, **schedule).std() / latents.std()
    assert lowest < float(spread) / SPREAD < highest


def test_samples_have_the_data_s_distribution():
    result = sample(gaussian, torch.randn(1, 1, 300, 300), NOTHING, 100)
    assert result.dtype == torch.float32
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(result.std()) == pytest.approx(SPREAD, rel=0.02)


@pytest.mark.parametrize(("solver", "calls"), [("euler", 8), ("heun", 15)])
def test_calls_and_progress(solver, calls):
    seen, told = [], []

    def denoiser(x, sigma, conditioning):
        seen.append((x.dtype, float(sigma), conditioning, torch.is_grad_enabled()))
        return gaussian(x, sigma, conditioning)

    latents = torch.randn(1, 1, 4, 4)
    sample(denoiser, latents, NOTHING, 8, solver, on_step=lambda done, steps: told.append((done, steps)))
    assert len(seen) == calls
    assert all(dtype == torch.float64 and not grad and given is NOTHING for dtype, _, given, grad in seen)
    assert min(sigma for _, sigma, _, _ in seen) == pytest.approx(0.002)
    assert told == [(step, 8) for step in range(1, 9)]


def test_one_step_is_one_call_of_the_denoiser():
    latents = torch.randn(1, 1, 4, 4)
    expected = gaussian(latents.double() * 80, torch.tensor(80.0), NOTHING).float()
    for solver in ("heun", "euler"):
        torch.testing.assert_close(sample(gaussian, latents, NOTHING, 1, solver), expected)


def test_nonsense_is_refused():
    with pytest.raises(ConfigurationError, match="solver is 'dpm', must be 'heun' or 'euler'"):
        sample(gaussian, torch.zeros(1, 1, 2, 2), NOTHING, solver="dpm")
    for steps, low, high in ((0, 0.002, 80), (8, 0, 80), (8, 80, 0.002)):
        with pytest.raises(ConfigurationError, match="at least 1 step, 0 < sigma_min <= sigma_max"):
            sigma_schedule(steps, low, high)
