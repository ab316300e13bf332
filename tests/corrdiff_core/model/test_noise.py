"""Latents against the published generator and the math library, their golden bits, and their statistics."""

import hashlib
import itertools
import math
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from scipy import stats

from corrdiff_core.model.noise import box_muller, circle, latents, log, member_latents, philox_key

TIME = datetime(2025, 8, 1, 7)
SHAPE = (4, 448, 448)
MASK = 2**64 - 1


def philox_4x64_10(key, counter):
    """Ten rounds of Philox4x64 (Salmon et al. 2011, section 3.3) in plain integers."""
    words = [counter, 0, 0, 0]
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [
            (product1 >> 64) ^ words[1] ^ k0, product1 & MASK,
            (product0 >> 64) ^ words[3] ^ k1, product0 & MASK,
        ]  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return words


def test_the_first_values_are_what_the_recipe_gives():
    text = f"corrdiff latents 1|42|{int((TIME - datetime(1970, 1, 1)).total_seconds())}|3"
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    words = list(itertools.chain.from_iterable(philox_4x64_10(key, counter) for counter in range(1, 11)))
    expected = []
    for first, second in zip(words[0::2], words[1::2], strict=True):
        u, v = ((first >> 11) + 1) / 2**53, (second >> 11) / 2**53
        radius, angle = math.sqrt(-2 * math.log(u)), 2 * math.pi * v
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    assert philox_key(42, TIME, 3).tolist() == list(key)
    assert member_latents(42, TIME, 3, SHAPE).flatten()[:40].tolist() == pytest.approx(expected, rel=1e-7)


def test_golden_bits():
    digest = hashlib.sha256(member_latents(0, TIME, 0, SHAPE).numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "5e1c17e8176ee5af3c97f71cc4e4da007f4ecd5bdbec4497247620bb5c3024cb"


def test_members_do_not_depend_on_the_batch():
    alone = [member_latents(7, TIME, member, (4, 16, 16)) for member in range(8)]
    for batch in (1, 3, 8):
        batches = [latents(7, TIME, range(8)[i : i + batch], (4, 16, 16)) for i in range(0, 8, batch)]
        assert torch.equal(torch.cat(batches), torch.stack(alone))
    assert torch.equal(latents(7, TIME, [5, 2], (4, 16, 16)), torch.stack([alone[5], alone[2]]))


def test_a_field_is_standard_normal():
    values = member_latents(1, TIME, 0, SHAPE)
    assert values.dtype == torch.float32
    flat = values.double().flatten().numpy()
    assert abs(flat.mean()) < 4 / math.sqrt(flat.size)
    assert abs(flat.var() - 1) < 4 * math.sqrt(2 / flat.size)
    assert abs(stats.skew(flat)) < 4 * math.sqrt(6 / flat.size)
    assert abs(stats.kurtosis(flat)) < 4 * math.sqrt(24 / flat.size)
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert 4.5 < np.abs(flat).max() < 6.5


def test_neighbors_channels_members_times_and_seeds_are_independent():
    first = member_latents(1, TIME, 0, SHAPE)
    others = [
        member_latents(1, TIME, 1, SHAPE),
        member_latents(1, TIME + timedelta(hours=1), 0, SHAPE),
        member_latents(2, TIME, 0, SHAPE),
        first.roll(1, 2),
        first.roll(1, 1),
        first.roll(1, 0),
    ]
    bound = 4.5 / math.sqrt(first.numel())
    for other in others:
        assert abs(float((first * other).mean())) < bound
        assert abs(float(((first**2 - 1) * (other**2 - 1)).mean())) < 2 * bound


def test_streams_differ_wherever_the_key_does():
    keys = {
        tuple(philox_key(seed, TIME + timedelta(hours=hour), member).tolist())
        for seed in (0, 1, 11) for hour in range(24) for member in range(12)
    }  # fmt: skip
    assert len(keys) == 3 * 24 * 12


def test_odd_counts_are_a_beginning_of_even_ones():
    assert torch.equal(
        member_latents(0, TIME, 0, (1, 3, 5)).flatten(), member_latents(0, TIME, 0, (1, 4, 4)).flatten()[:15]
    )


def test_own_functions_agree_with_the_math_library():
    u = np.concatenate([np.random.default_rng(1).random(20_000), 2.0 ** -np.arange(54), [0.5**0.5, 1 - 2.0**-53]])
    u = u[u > 0]
    np.testing.assert_allclose(log(u), np.log(u), rtol=1e-15, atol=0)
    v = np.concatenate([np.random.default_rng(2).random(20_000), np.arange(64) / 64, [1 - 2.0**-53]])
    cosine, sine = circle(v)
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi * v), rtol=0, atol=2e-15)
    np.testing.assert_allclose(sine, np.sin(2 * np.pi * v), rtol=0, atol=2e-15)


def test_extreme_words_stay_finite():
    words = np.array([0, 0, MASK, MASK, 0, MASK, MASK, 0], dtype=np.uint64)
    values = box_muller(words)
    assert np.isfinite(values).all()
    assert values[0] == pytest.approx(math.sqrt(2 * 53 * math.log(2)))
    assert abs(values).max() < 9
