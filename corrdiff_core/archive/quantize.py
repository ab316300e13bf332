"""Rounding of float32 fields to the mantissa bits that mean something, so that they compress."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

ALGORITHM = "bitround"  # CF 1.12 section 8.4.1, controlled vocabulary
MANTISSA_BITS = 23  # of IEEE binary32, the implicit leading 1 not counted


def round_mantissa(values: Float32, bits: int) -> Float32:
    """`values` rounded to `bits` explicit mantissa bits, half to even; any shape, a new array.

    BitRound of CF 1.12 section 8.4.3: for normal numbers the relative error is at most 2**-(bits + 1), and rounding
    twice changes nothing. What would round to infinity is cut to the largest number of `bits` bits; infinities and
    NaN pass unchanged.
    """
    if not 1 <= bits <= MANTISSA_BITS:
        raise ValueError(f"{bits} mantissa bits: 1..{MANTISSA_BITS} are possible for float32 (CF 1.12 section 8.4.2)")
    if bits == MANTISSA_BITS:
        return values.copy()
    drop = MANTISSA_BITS - bits
    keep = np.uint32((0xFFFFFFFF << drop) & 0xFFFFFFFF)
    pattern = np.ascontiguousarray(values).view(np.uint32)
    rounded = pattern >> np.uint32(drop)
    rounded &= np.uint32(1)
    rounded += np.uint32((1 << (drop - 1)) - 1)
    rounded += pattern
    rounded &= keep
    result = rounded.view(np.float32)
    if not np.isfinite(result).all():
        result = np.where(np.isfinite(result), result, (pattern & keep).view(np.float32))
        result = np.where(np.isfinite(values), result, values)
    return result
