"""Spectra: waves fall where they belong, variance adds up, and known noise has the spectrum that it was made with."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core import nature
from corrdiff_core.grid import TAIWAN
from corrdiff_core.metrics import bands, power_spectrum

STEP = 2000.0


@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(2, 40))
def test_power_adds_up_to_the_variance(seed, rows, columns):
    """Parseval, for any field: whole domain, odd sides, trends and jumps at the edges included."""
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(rows, columns)) + 3 * np.arange(columns)
    assert power_spectrum(field, STEP).sum() == pytest.approx(field.var(), rel=1e-9)


@pytest.mark.parametrize("half_waves", [3, 10, 40, 150])
def test_a_wave_that_fits_is_in_one_band(half_waves):
    """cos(pi m (x + 1/2) / N) has wavelength 2 N / m points and variance 1/2."""
    count = 200
    wave = np.cos(np.pi * half_waves * (np.arange(count) + 0.5) / count)
    power = power_spectrum(np.broadcast_to(wave, (120, count)), STEP)
    wavelength = bands((120, count), STEP).wavelength
    found = int(power.argmax())
    assert power[found] == pytest.approx(0.5)
    assert abs(np.log2(wavelength[found] / (2 * count * STEP / half_waves))) <= 1 / 6 + 1e-9, "a sixth of an octave"


@given(st.floats(0, 2 * np.pi), st.floats(0, np.pi), st.sampled_from([12e3, 25e3, 60e3]))
def test_any_plane_wave_is_at_its_wavelength(phase, direction, length):
    """Whatever its phase and direction: nine tenths of its variance lie within an octave of its wavelength."""
    y, x = np.mgrid[:160, :160] * STEP
    field = np.sin(2 * np.pi * (np.cos(direction) * x + np.sin(direction) * y) / length + phase)
    power, wavelength = power_spectrum(field, STEP), bands((160, 160), STEP).wavelength
    near = np.abs(np.log2(wavelength / length)) < 0.67
    assert power[near].sum() > 0.9 * field.var()


def test_white_noise_has_the_same_power_in_every_mode():
    fields = np.random.default_rng(0).normal(size=(200, 48, 64))
    chosen = bands((48, 64), STEP)
    per_mode = power_spectrum(fields, STEP).mean(axis=0) / chosen.modes * 48 * 64
    np.testing.assert_allclose(per_mode, 1, atol=6 * np.sqrt(2 / (200 * chosen.modes.min())))


def test_the_noise_of_the_nature_run_has_its_own_spectrum():
    """Density (kappa^2 + k^2)^-1.75, integrated over the cells of the modes, is what 60 draws have on the mean."""
    domain = replace(TAIWAN, rows=194, columns=194)
    fields = np.concatenate([nature.noise(7, datetime(2020, 1, 1), domain, sample) for sample in range(60)])
    found = power_spectrum(fields, domain.step).mean(axis=0)
    rows, columns = domain.shape
    ky, kx = (np.pi * np.arange(count) / (count * domain.step) for count in (rows, columns))
    density = ((2 * np.pi / 60e3) ** 2 + ky[:, None] ** 2 + kx**2) ** -1.75
    total = quarter_plane(np.pi / domain.step)  # of unit variance
    cell = (np.pi / (rows * domain.step)) * (np.pi / (columns * domain.step))
    chosen = bands(domain.shape, domain.step)
    expected = np.add.reduceat((density * cell / total).ravel()[1:][chosen.order], chosen.starts)
    resolved = (chosen.wavelength >= 6e3) & (chosen.wavelength <= 100e3)
    np.testing.assert_allclose(found[resolved], expected[resolved], rtol=0.08)


def quarter_plane(edge: float) -> float:
    """Integral of the density over 0..edge in both wavenumbers, on a fine grid."""
    k = (np.arange(4000) + 0.5) * edge / 4000
    return float((((2 * np.pi / 60e3) ** 2 + k[:, None] ** 2 + k**2) ** -1.75).sum() * (edge / 4000) ** 2)


def test_fields_are_taken_together():
    fields = np.random.default_rng(1).normal(size=(3, 2, 20, 24)).astype(np.float32)
    together = power_spectrum(fields, STEP)
    assert together.shape == (3, 2, len(bands((20, 24), STEP).wavelength))
    np.testing.assert_allclose(together[1, 1], power_spectrum(fields[1, 1], STEP))


def test_bands_hold_every_mode_once():
    chosen = bands((31, 44), STEP)
    assert sorted(chosen.order) == list(range(31 * 44 - 1))
    assert chosen.modes.sum() == 31 * 44 - 1
    assert (np.diff(chosen.wavelength) > 0).all()
    np.testing.assert_allclose(np.log2(chosen.wavelength[-1] / (2 * 44 * STEP)), 0, atol=1 / 6)
