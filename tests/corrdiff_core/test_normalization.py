"""Normalization: the formula, the round trip, order, and every way statistics can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import CheckpointError, QualityError
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS, Statistics
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

PACKAGE = (
    Path(__file__).resolve().parents[2]
    / "../shared/reference/earth2studio-0.19.0/corrdiff_inference_package"
    / "dataset/2023-01-24-cwb-4years_5times.zarr"
)
LONG_NAMES = {
    "z": "geopotential_height",
    "t": "temperature",
    "u": "eastward_wind",
    "v": "northward_wind",
    "tcwv": "tcwv",
    "t2m": "temperature_2m",
    "u10m": "eastward_wind_10m",
    "v10m": "northward_wind_10m",
    "mrr": "maximum_radar_reflectivity",
}


def dataset(values, names=("a", "b"), **attrs):
    return xr.Dataset({name: ("point", np.asarray(values, np.float32), attrs) for name in names})


class TestStatistics:
    @given(
        st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=20),
        st.floats(-1e5, 1e5),
        st.floats(0.01, 1e4),
    )
    def test_normalize_is_the_formula_and_denormalize_undoes_it(self, values, center, scale):
        statistics = Statistics(("a", "b"), (center, 0.0), (scale, 1.0))
        fields = dataset(values)
        normalized = statistics.normalize(fields)
        expected = (np.asarray(values, np.float32).astype(np.float64) - center) / scale
        np.testing.assert_array_equal(normalized["a"], expected.astype(np.float32))
        np.testing.assert_array_equal(normalized["b"], fields["b"])
        restored = statistics.denormalize(normalized)
        size = max(1.0, np.abs(expected).max()) * scale + abs(center)
        np.testing.assert_allclose(restored["a"], fields["a"], rtol=0, atol=2e-7 * size)
        np.testing.assert_array_equal(restored["b"], fields["b"])

    def test_follows_its_own_order_and_leaves_others_out(self):
        statistics = Statistics(("b", "a"), (0.0, 0.0), (1.0, 1.0))
        fields = dataset([1.0], names=("a", "extra", "b"))
        assert list(statistics.normalize(fields)) == ["b", "a"]
        assert list(statistics.denormalize(fields)) == ["b", "a"]

    def test_units_follow_what_the_numbers_mean(self):
        statistics = Statistics(("a",), (0.0,), (1.0,))
        normalized = statistics.normalize(dataset([1.0], ("a",), units="K", long_name="temperature"))
        assert normalized["a"].attrs["units"] == "1"
        assert "units" not in statistics.denormalize(normalized)["a"].attrs

    def test_keeps_coordinates_and_stays_lazy(self):
        statistics = Statistics(("a",), (1.0,), (2.0,))
        fields = dataset([1.0, 3.0], ("a",)).assign_coords(valid_time=np.datetime64("2025-08-01", "ns")).chunk(point=1)
        normalized = statistics.normalize(fields)
        assert normalized["a"].chunks == ((1, 1),)
        assert normalized["a"].dtype == np.float32
        assert "valid_time" in normalized.coords
        np.testing.assert_array_equal(normalized["a"], [0.0, 1.0])

    def test_nan_stays_nan(self):
        assert np.isnan(Statistics(("a",), (1.0,), (2.0,)).normalize(dataset([np.nan], ("a",)))["a"]).all()

    @pytest.mark.parametrize("method", ["normalize", "denormalize"])
    def test_refuses_a_missing_variable(self, method):
        with pytest.raises(QualityError, match="b to be normalized but not among a: fetch every variable"):
            getattr(Statistics(("a", "b"), (0.0, 0.0), (1.0, 1.0)), method)(dataset([1.0], ("a",)))

    def test_z_score(self):
        statistics = Statistics(("a", "b"), (0.0, 280.0), (1.0, 5.0))
        assert statistics.z_score("b", 270.0) == -2.0

    @pytest.mark.parametrize(
        ("names", "center", "scale", "message"),
        [
            (("a", "b"), (0.0,), (1.0, 1.0), r"2 names \(2 different\), 1 centers and 2 scales"),
            (("a", "a"), (0.0, 0.0), (1.0, 1.0), r"2 names \(1 different\)"),
            (("a",), (0.0,), (0.0,), "statistics of a: center 0.0 and scale 0.0 must be finite and the scale above 0"),
            (("a",), (0.0,), (-1.0,), "scale -1.0"),
            (("a",), (float("nan"),), (1.0,), "center nan"),
            (("a",), (0.0,), (float("inf"),), "scale inf"),
        ],
    )
    def test_refuses_statistics_that_cannot_be(self, names, center, scale, message):
        with pytest.raises(CheckpointError, match=message):
            Statistics(names, center, scale)

    @pytest.mark.parametrize("statistics", [CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS])
    def test_a_manifest_restores_equal_statistics(self, statistics):
        restored = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
        assert restored == statistics
        assert hash(restored) == hash(statistics)


def test_public_statistics_are_in_channel_order():
    assert CWA_INPUT_STATISTICS.names == INPUT_NAMES
    assert CWA_OUTPUT_STATISTICS.names == OUTPUT_NAMES


@pytest.mark.parametrize(("prefix", "statistics"), [("era5", CWA_INPUT_STATISTICS), ("cwb", CWA_OUTPUT_STATISTICS)])
def test_public_statistics_equal_those_of_the_reference_package(prefix, statistics):
    if not PACKAGE.exists():
        pytest.skip(f"no reference package at {PACKAGE}")
    group = zarr.open_group(str(PACKAGE), mode="r")
    channels = list(zip(group[f"{prefix}_variable"][:], group[f"{prefix}_pressure"][:], strict=True))
    for name, center, scale in zip(statistics.names, statistics.center, statistics.scale, strict=True):
        letter, level = (name[0], float(name[1:])) if name[1:].isdigit() else (name, None)
        wanted = LONG_NAMES[letter]
        (at,) = [
            position
            for position, (channel, pressure) in enumerate(channels)
            if channel == wanted and (np.isnan(pressure) if level is None else pressure == level)
        ]
        np.testing.assert_allclose(group[f"{prefix}_center"][at], center, rtol=1e-6)
        np.testing.assert_allclose(group[f"{prefix}_scale"][at], scale, rtol=1e-6)
