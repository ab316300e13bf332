"""Rounding of mantissas against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numcodecs import BitRound

from corrdiff_core.archive.quantize import round_mantissa

any_float32 = arrays(np.float32, array_shapes(max_dims=3), elements=st.floats(width=32))
normal_float32 = arrays(
    np.float32,
    array_shapes(max_dims=2),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
)
widths = st.integers(1, 23)


def same_bits(left, right):
    return np.array_equal(left.view(np.uint32), right.view(np.uint32))


@given(normal_float32, widths)
def test_relative_error_is_at_most_half_a_unit_of_the_last_bit_kept(values, bits):
    rounded = round_mantissa(values, bits).astype(np.float64)
    largest = np.float64(2.0**128) * (1 - 2.0 ** -(bits + 1))
    inside = np.abs(values) < largest * (1 - 2.0 ** -(bits + 2))
    error = np.abs(rounded - values.astype(np.float64))
    assert (error[inside] <= np.abs(values[inside].astype(np.float64)) * 2.0 ** -(bits + 1)).all()


@given(any_float32, widths)
def test_rounding_twice_changes_nothing_and_the_dropped_bits_are_zero(values, bits):
    rounded = round_mantissa(values, bits)
    assert same_bits(round_mantissa(rounded, bits), rounded)
    finite = np.isfinite(values)
    assert not (rounded.view(np.uint32)[finite] & np.uint32((1 << (23 - bits)) - 1)).any()


@given(any_float32, widths)
def test_finite_stays_finite_and_the_rest_is_untouched(values, bits):
    rounded = round_mantissa(values, bits)
    assert np.array_equal(np.isfinite(rounded), np.isfinite(values))
    assert np.array_equal(np.isnan(rounded), np.isnan(values))
    infinite = np.isinf(values)
    assert np.array_equal(rounded[infinite], values[infinite])


@given(normal_float32, st.integers(1, 22))
def test_agrees_with_numcodecs(values, bits):
    rounded = round_mantissa(values, bits)
    theirs = np.asarray(BitRound(keepbits=bits).encode(values.copy())).view(np.float32).reshape(values.shape)
    representable = np.isfinite(theirs)
    assert np.array_equal(rounded[representable], theirs[representable])


def test_half_rounds_to_even():
    halves = np.array([1.25, 1.75, -1.25, -1.75], np.float32)
    assert round_mantissa(halves, 1).tolist() == [1.0, 2.0, -1.0, -2.0]


def test_the_largest_floats_do_not_become_infinite():
    largest = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max], np.float32)
    assert np.abs(round_mantissa(largest, 7)).tolist() == [2.0**128 - 2.0**120] * 2


def test_the_input_is_left_alone():
    values = np.linspace(0, 1, 7, dtype=np.float32)
    before = values.copy()
    for bits in (7, 23):
        assert round_mantissa(values, bits) is not values
        assert same_bits(values, before)


@pytest.mark.parametrize("bits", [0, 24])
def test_impossible_widths_are_refused(bits):
    with pytest.raises(ValueError, match=f"{bits} mantissa bits"):
        round_mantissa(np.zeros(3, np.float32), bits)
