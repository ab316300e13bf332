"""Latents keyed by (seed, valid_time, member): the same bits in any batch, in any order, on any machine.

How one member's latents are made, so that anybody can make them again:

1. key: BLAKE2b with 16 bytes of digest over the ASCII text `corrdiff latents 1|SEED|SECONDS|MEMBER`, SECONDS being
   valid_time in whole seconds since 1970-01-01T00 UTC; the digest is two little-endian 64-bit words.
2. bits: Philox4x64-10 (Salmon et al. 2011) with that key, counter from 1, words in order: numpy's `Philox.random_raw`.
3. uniforms: of each word the upper 53 bits k; even words give u = (k + 1) / 2^53, odd words v = k / 2^53.
4. normals: Box-Muller, sqrt(-2 ln u) cos(2 pi v) and then sqrt(-2 ln u) sin(2 pi v), rounded to float32, which fill
   (channel, y, x) in C order.

Logarithm, sine and cosine are series of our own in float64 that use only +, -, *, / and sqrt: IEEE 754 fixes those to
the last bit, whereas the functions of math libraries differ between machines.
"""

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

LABEL = "corrdiff latents 1"
EPOCH = datetime(1970, 1, 1)
LOG_TERMS = 12
TRIGONOMETRY_TERMS = 10


def latents(seed: int, valid_time: datetime, members: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal latents of `members` for one valid time (naive UTC): (len(members), *shape) float32 on the CPU.

    `shape` is (channel, y, x). Every member depends on nothing but (seed, valid_time, member) and `shape`.
    """
    return torch.stack([member_latents(seed, valid_time, member, shape) for member in members])


def member_latents(seed: int, valid_time: datetime, member: int, shape: tuple[int, int, int]) -> Tensor:
    """One member's latents, `shape` float32, as the module's first lines state."""
    count = math.prod(shape)
    words = np.random.Philox(key=philox_key(seed, valid_time, member)).random_raw(count + count % 2)
    return torch.from_numpy(box_muller(words)[:count].astype(np.float32).reshape(shape))


def philox_key(seed: int, valid_time: datetime, member: int) -> NDArray[np.uint64]:
    """The two 64-bit words that select a member's stream."""
    seconds = (valid_time - EPOCH) // timedelta(seconds=1)
    text = f"{LABEL}|{seed}|{seconds}|{member}"
    return np.frombuffer(hashlib.blake2b(text.encode("ascii"), digest_size=16).digest(), dtype="<u8").astype(np.uint64)


def box_muller(words: NDArray[np.uint64]) -> Floats:
    """An even number of random 64-bit words -> as many independent standard normals."""
    upper = (words >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2.0 * log((upper[0::2] + 1.0) * 2.0**-53))
    cosine, sine = circle(upper[1::2] * 2.0**-53)
    return np.stack([radius * cosine, radius * sine], axis=1).ravel()


def log(u: Floats) -> Floats:
    """ln u for u in (0, 1]: u = m 2^e with m in [sqrt(1/2), sqrt(2)), and the series of 2 artanh((m - 1) / (m + 1))."""
    m, e = np.frexp(u)
    low = m < math.sqrt(0.5)
    m, e = np.where(low, 2.0 * m, m), e - low
    s = (m - 1.0) / (m + 1.0)
    series = horner(s * s, [1.0 / (2 * k + 1) for k in range(LOG_TERMS)])
    return e * 0.6931471805599453 + 2.0 * s * series


def circle(v: Floats) -> tuple[Floats, Floats]:
    """cos(2 pi v) and sin(2 pi v) for v in [0, 1): the nearest quarter turn, and Taylor series for the rest."""
    quarter = np.floor(4.0 * v + 0.5)
    angle = (4.0 * v - quarter) * 1.5707963267948966
    square = angle * angle
    cosine = horner(square, [(-1.0) ** k / math.factorial(2 * k) for k in range(TRIGONOMETRY_TERMS)])
    sine = angle * horner(square, [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(TRIGONOMETRY_TERMS)])
    swap = quarter % 2.0 == 1.0
    cosine, sine = np.where(swap, sine, cosine), np.where(swap, cosine, sine)
    return (
        np.where((quarter == 1.0) | (quarter == 2.0), -cosine, cosine),
        np.where((quarter == 2.0) | (quarter == 3.0), -sine, sine),
    )


def horner(x: Floats, coefficients: Sequence[float]) -> Floats:
    """The polynomial with `coefficients`, constant first."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result *= x
        result += coefficient
    return result
