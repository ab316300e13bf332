"""The nature run as samples: chosen by number alone, and what they are is in their digest."""

import pickle
import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core import nature
from corrdiff_core.dataset import NatureRun, Samples, box_lines
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import TAIWAN
from tests.corrdiff_core.dataset.dataset_cases import interpolated
from tests.small_domain import SMALL

RUN = NatureRun(SMALL, 1, datetime(2018, 1, 1), datetime(2021, 1, 1))


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


class TestSamples:
    def test_a_sample_is_the_pair_on_the_domain(self):
        run = replace(RUN, count=3)
        for index in range(3):
            sample, (_, truth) = run.read(index), run.pair(index)
            time = run.times[index]
            assert sample.time == time == run.time(index)
            np.testing.assert_array_equal(sample.truth, truth.to_dataarray().values)
            np.testing.assert_allclose(sample.inputs, interpolated(time), rtol=1e-6)
            assert (sample.inputs.dtype, sample.truth.dtype) == (np.float32, np.float32)

    def test_it_has_as_many_as_asked_for_or_as_hours(self):
        assert len(replace(RUN, count=7)) == 7
        assert len(NatureRun(SMALL, 1, datetime(2020, 2, 28), datetime(2020, 3, 1))) == 48
        with pytest.raises(IndexError):
            replace(RUN, count=7).read(7)
        with pytest.raises(DatasetError, match="0 samples"):
            replace(RUN, count=0)
        with pytest.raises(DatasetError, match="one hour or more"):
            NatureRun(SMALL, 1, datetime(2020, 2, 28), datetime(2020, 2, 28))

    def test_selected_samples_are_the_same_samples(self):
        run = replace(RUN, count=40)
        start, end = datetime(2019, 1, 1), datetime(2020, 1, 1)
        chosen = run.select(start, end)
        assert 5 < len(chosen) < 25
        assert chosen.times == tuple(time for time in run.times if start <= time < end)
        number = chosen.numbers[2]
        assert chosen.time(2) == run.time(number) == chosen.times[2]
        np.testing.assert_array_equal(chosen.read(2).truth, run.read(number).truth)
        assert chosen.select(start, end).digest == chosen.digest

    def test_the_digest_is_of_content_and_order(self):
        run = replace(RUN, count=9)
        assert run.digest == pickle.loads(pickle.dumps(run)).digest  # noqa: S301 (as a worker gets it)
        assert run.select(RUN.start, RUN.end).digest == run.digest
        others = [
            replace(run, count=8),
            replace(run, seed=2),
            replace(run, domain=replace(SMALL, x0=SMALL.x0 + 1)),
            replace(run, chosen=(1, 0, *range(2, 9))),
        ]
        assert len({run.digest, *(other.digest for other in others)}) == 5

    def test_the_recipe_is_raised_when_the_weather_changes(self):
        """These were made by RECIPE 1: where they change on purpose, so must it, and the digests with it."""
        sample = replace(RUN, count=1).read(0)
        found = [*sample.inputs.mean((1, 2)), *sample.truth.mean((1, 2))]
        np.testing.assert_allclose(found, MADE_BY_RECIPE_1, rtol=1e-4, atol=1e-3)

    def test_it_says_what_it_is(self):
        said = replace(RUN, count=3).description
        span = r"3 samples of \d{8}T\d\d\.\.\d{8}T\d\d on small"
        assert re.fullmatch(rf"nature run 1: synthetic weather, no forecast; {span}", said)
        assert "no samples" in replace(RUN, count=3).select(datetime(1999, 1, 1), datetime(1999, 1, 2)).description
        assert isinstance(RUN, Samples)


MADE_BY_RECIPE_1 = [
    43.331, 57226.8, 267.975, 14.0998, 1.32852, 14761.2, 289.621, 3.04897,
    2.99257, 295.437, -0.195356, 2.00603, 3.5294, 295.472, -0.175431, 1.89745,
]  # fmt: skip
