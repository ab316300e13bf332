"""Statistics in parts are those of the whole."""

from datetime import datetime

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from corrdiff_core.dataset import NatureRun, sample_statistics
from corrdiff_core.dataset.statistics import Moments
from corrdiff_core.errors import DatasetError
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from tests.corrdiff_core.dataset.dataset_cases import built
from tests.small_domain import SMALL

RUN = NatureRun(SMALL, 1, datetime(2018, 1, 1), datetime(2021, 1, 1), count=40)


@given(arrays(np.float64, st.tuples(st.just(2), st.integers(2, 40)), elements=st.floats(-1e5, 1e5)), st.data())
def test_parts_add_up(values, data):
    cut = data.draw(st.integers(1, values.shape[1] - 1))
    total = Moments.of(values[:, :cut]) + Moments.of(values[:, cut:])
    assert total.count == values.shape[1]
    np.testing.assert_allclose(total.mean, values.mean(axis=1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(total.squares / total.count, values.var(axis=1), rtol=1e-9, atol=1e-9 * 1e5)


def test_one_value_far_from_zero_loses_nothing():
    geopotential = np.full((1, 10), 57383.76) + np.linspace(-1e-3, 1e-3, 10)
    total = Moments.of(geopotential[:, :3]) + Moments.of(geopotential[:, 3:])
    assert np.sqrt(total.squares / total.count) == pytest.approx(geopotential.std(), rel=1e-6)


def test_statistics_are_those_of_all_samples():
    inputs, outputs = sample_statistics(RUN)
    samples = [RUN.read(index) for index in range(len(RUN))]
    for found, names, field in ((inputs, INPUT_NAMES, "inputs"), (outputs, OUTPUT_NAMES, "truth")):
        values = np.stack([getattr(sample, field) for sample in samples], axis=1).astype(np.float64)
        assert found.names == names
        np.testing.assert_allclose(found.center, values.mean(axis=(1, 2, 3)), rtol=1e-10)
        np.testing.assert_allclose(found.scale, values.std(axis=(1, 2, 3)), rtol=1e-10)


def test_the_scheduler_changes_no_bit():
    found = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler, num_workers=4):
            found.append(sample_statistics(RUN))
    assert found[0] == found[1]


def test_a_limit_is_spread_over_the_index():
    inputs, _ = sample_statistics(RUN, limit=4)
    values = np.stack([RUN.read(index).inputs for index in (0, 10, 20, 30)]).astype(np.float64)
    np.testing.assert_allclose(inputs.center, values.mean(axis=(0, 2, 3)), rtol=1e-10)
    assert sample_statistics(RUN, limit=1000) == sample_statistics(RUN)


def test_a_stored_dataset_knows_its_statistics_without_reading(tmp_path):
    stored = built(tmp_path / "dataset")
    for path in tmp_path.glob("dataset/*.zarr"):
        path.rename(path.with_suffix(".away"))
    known = sample_statistics(stored)
    for path in tmp_path.glob("dataset/*.away"):
        path.rename(path.with_suffix(".zarr"))
    for found, field in zip(known, ("inputs", "truth"), strict=True):
        samples = [getattr(stored.read(index), field) for index in range(len(stored))]
        values = np.stack(samples, axis=1).astype(np.float64)
        np.testing.assert_allclose(found.center, values.mean(axis=(1, 2, 3)), rtol=1e-10)
        np.testing.assert_allclose(found.scale, values.std(axis=(1, 2, 3)), rtol=1e-10)


def test_what_has_no_statistics_is_named():
    with pytest.raises(DatasetError, match=r"tcwv, z500.* same value at all"):
        Moments.of(np.ones((12, 4, 4))).statistics(INPUT_NAMES)
    empty = RUN.select(datetime(2030, 1, 1), datetime(2031, 1, 1))
    with pytest.raises(DatasetError, match="of 0 samples"):
        sample_statistics(empty)
