"""Position channels against their closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.positions import check_positions, grid_channels, position_channels

ROWS, COLUMNS = 6, 11


def expected_waves(frequencies):
    """sin x, sin y, cos x, cos y at each of `frequencies`, point by point."""
    x, y = (2 * np.pi * np.arange(size) / (size - 1) for size in (COLUMNS, ROWS))
    x, y = np.broadcast_to(x, (ROWS, COLUMNS)), np.broadcast_to(y[:, None], (ROWS, COLUMNS))
    return np.stack([wave(axis * f) for f in frequencies for wave in (np.sin, np.cos) for axis in (x, y)])


def assert_equal(fields, expected):
    assert fields.dtype == torch.float32
    np.testing.assert_allclose(fields.numpy(), expected, rtol=0, atol=2e-7)


def test_the_grid_channels_of_corrdiff():
    assert_equal(grid_channels(ROWS, COLUMNS), expected_waves([1.0]))
    corners = grid_channels(ROWS, COLUMNS)[:, [0, 0, -1], [0, -1, 0]]
    assert_equal(corners, np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]))


@pytest.mark.parametrize(
    ("count", "frequencies"),
    [(4, [1.0]), (8, [1.0, 4.0]), (12, [1.0, 2**1.5, 8.0]), (16, [1.0, 2 ** (4 / 3), 2 ** (8 / 3), 16.0])],
)
def test_sinusoidal(count, frequencies):
    assert_equal(position_channels("sinusoidal", count, ROWS, COLUMNS), expected_waves(frequencies))


@pytest.mark.parametrize(("count", "frequencies"), [(4, [1.0]), (8, [1.0, 2.0]), (16, [1.0, 2.0, 4.0, 8.0])])
def test_octaves(count, frequencies):
    assert_equal(position_channels("sinusoidal_octave", count, ROWS, COLUMNS), expected_waves(frequencies))


def test_linear():
    x, y = np.linspace(-1, 1, COLUMNS), np.linspace(-1, 1, ROWS)
    expected = np.stack([np.tile(x, (ROWS, 1)), np.tile(y[:, None], (1, COLUMNS))])
    assert_equal(position_channels("linear", 2, ROWS, COLUMNS), expected)


@given(
    st.sampled_from(["sinusoidal", "sinusoidal_octave"]),
    st.integers(1, 5),
    st.integers(2, 20),
    st.integers(2, 20),
)
def test_as_many_as_asked_for(positions, bands, rows, columns):
    fields = position_channels(positions, 4 * bands, rows, columns)
    assert fields.shape == (4 * bands, rows, columns)
    assert float(fields.abs().max()) <= 1


@pytest.mark.parametrize(
    ("positions", "count"),
    [("none", 0), ("linear", 2), ("learnable", 1), ("learnable", 100), ("sinusoidal", 12), ("sinusoidal_octave", 4)],
)
def test_counts_that_fit(positions, count):
    check_positions(positions, count)


@pytest.mark.parametrize(
    ("positions", "count"),
    [
        ("none", 1), ("linear", 4), ("learnable", 0), ("sinusoidal", 0), ("sinusoidal", 6), ("sinusoidal", -4),
        ("sinusoidal_octave", 2), ("test", 4),
    ],
)  # fmt: skip
def test_counts_that_do_not(positions, count):
    message = f"^{count} position channels of kind '{positions}': choose 2 linear ones, .* kinds are none, sinusoidal, "
    with pytest.raises(ConfigurationError, match=message):
        check_positions(positions, count)
