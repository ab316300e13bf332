"""Training samples: chosen by index alone, and nothing but windows of what a run would see."""

import pickle
from datetime import datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core import nature, terrain
from corrdiff_core.dataset import NatureRun, TrainingSamples, box_lines, statistics, terrain_invariants
from corrdiff_core.grid import TAIWAN
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from corrdiff_core.prepare import prepare
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from tests.small_domain import SMALL

RUN = NatureRun(SMALL, 1, datetime(2018, 1, 1), datetime(2021, 1, 1))


def samples(size=16, crops=3, count=100):
    return TrainingSamples(RUN, CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS, size, count, crops)


def test_lines_are_the_quarter_degrees_of_the_box():
    latitude, longitude = box_lines(TAIWAN.input_box)
    np.testing.assert_array_equal(latitude, np.linspace(19.25, 28.0, 36))
    np.testing.assert_array_equal(longitude, np.linspace(116.0, 125.75, 40))


class TestNatureRun:
    @given(st.integers(0, 2**31), st.integers(0, 2**40))
    def test_times_are_whole_hours_of_the_period(self, seed, index):
        run = NatureRun(SMALL, seed, datetime(2020, 2, 28), datetime(2020, 3, 1))
        time = run.time(index)
        assert run.start <= time < run.end
        assert (time.minute, time.second, time.microsecond) == (0, 0, 0)
        assert run.time(index) == time

    def test_times_spread_over_the_period(self):
        times = [RUN.time(index) for index in range(600)]
        assert {time.month for time in times} == set(range(1, 13))
        assert {time.hour for time in times} == set(range(24))
        assert {time.year for time in times} == {2018, 2019, 2020}

    def test_a_pair_is_the_weather_and_its_truth(self):
        inputs, truth = RUN.pair(5)
        expected = nature.weather(1, RUN.time(5), *box_lines(SMALL.input_box))
        assert inputs.identical(expected)
        assert truth.identical(nature.truth(expected, 1, SMALL, sample=5))

    def test_pairs_of_one_hour_have_noise_of_their_own(self):
        hour = NatureRun(SMALL, 1, datetime(2020, 7, 1), datetime(2020, 7, 1, 1))
        (first, one), (second, two) = hour.pair(0), hour.pair(1)
        assert first.identical(second)
        assert not one.equals(two)


def test_statistics_are_those_of_the_samples():
    inputs, outputs = statistics(RUN, 3)
    assert (inputs.names, outputs.names) == (INPUT_NAMES, OUTPUT_NAMES)
    pairs = [RUN.pair(index) for index in range(3)]
    for found, column in ((inputs, 0), (outputs, 1)):
        for name, center, scale in zip(found.names, found.center, found.scale, strict=True):
            values = np.stack([pair[column][name].values for pair in pairs]).astype(np.float64)
            assert (center, scale) == pytest.approx((values.mean(), values.std()))


def test_invariants_are_standardized_terrain():
    invariants = terrain_invariants(SMALL)
    assert invariants.shape == (2, *SMALL.shape)
    assert invariants.dtype == torch.float32
    torch.testing.assert_close(invariants.mean((1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(invariants.std((1, 2), correction=0), torch.ones(2))
    elevation = terrain.elevation(SMALL.longitude, SMALL.latitude)
    assert int(invariants[0].argmax()) == int(elevation.argmax())


class TestTrainingSamples:
    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 10**8), st.sampled_from([8, 16, 31, 32]), st.integers(1, 4))
    def test_crops_are_windows_of_the_normalized_fields(self, index, size, crops):
        given, target, corners = samples(size, crops)[index]
        inputs, truth = RUN.pair(index)
        whole = prepare(inputs, SMALL, CWA_INPUT_STATISTICS).values
        wanted = CWA_OUTPUT_STATISTICS.normalize(truth).to_dataarray("channel").values
        assert given.shape == (crops, 12, size, size)
        assert target.shape == (crops, 4, size, size)
        assert corners.shape == (crops, 2)
        for crop, (row, column) in enumerate(corners.tolist()):
            window = np.s_[:, row : row + size, column : column + size]
            np.testing.assert_array_equal(given[crop].numpy(), whole[window])
            np.testing.assert_array_equal(target[crop].numpy(), wanted[window])

    def test_an_index_gives_the_same_sample_always(self):
        first, again = samples()[41], pickle.loads(pickle.dumps(samples()))[41]  # noqa: S301 (as a worker gets it)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        assert not torch.equal(first[0], samples()[42][0])

    def test_corners_reach_every_place(self):
        corners = torch.cat([samples(size=31, crops=8)[index][2] for index in range(6)])
        assert {tuple(corner) for corner in corners.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}

    def test_the_whole_domain_is_one_crop(self):
        assert samples(size=32, crops=2)[0][2].tolist() == [[0, 0], [0, 0]]

    def test_length(self):
        assert len(samples(count=7)) == 7
