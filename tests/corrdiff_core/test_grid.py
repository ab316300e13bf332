"""The Taiwan grid against the original's coordinates and Snyder's formulas; boxes; what a manifest keeps."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.grid import TAIWAN, Box, Domain

PACKAGE = (
    Path(__file__).resolve().parents[2]
    / "../shared/reference/earth2studio-0.19.0/corrdiff_inference_package"
    / "dataset/2023-01-24-cwb-4years_5times.zarr"
)
RADIUS = 6_370_000.0


def lambert(latitude, longitude):
    """Spherical Lambert conformal conic with two standard parallels (Snyder 1987, USGS PP 1395, eqs. 15-1 to 15-4)."""
    phi, phi_0, phi_1, phi_2 = np.radians(latitude), np.radians(23.5), np.radians(10.0), np.radians(40.0)

    def half(angle):
        return np.tan(np.pi / 4 + angle / 2)

    n = np.log(np.cos(phi_1) / np.cos(phi_2)) / np.log(half(phi_2) / half(phi_1))
    f = np.cos(phi_1) * half(phi_1) ** n / n
    rho, rho_0 = RADIUS * f / half(phi) ** n, RADIUS * f / half(phi_0) ** n
    theta = n * np.radians(longitude - 120.0)
    return rho * np.sin(theta), rho_0 - rho * np.cos(theta)


class TestTaiwan:
    def test_extent_is_the_contracts(self):
        assert TAIWAN.shape == TAIWAN.latitude.shape == TAIWAN.longitude.shape == (448, 448)
        corners = TAIWAN.latitude.min(), TAIWAN.latitude.max(), TAIWAN.longitude.min(), TAIWAN.longitude.max()
        np.testing.assert_allclose(corners, (19.5187, 27.9282, 116.1372, 125.5459), rtol=0, atol=1e-4)

    def test_row_0_is_south_and_column_0_west(self):
        assert (np.diff(TAIWAN.latitude, axis=0) > 0).all()
        assert (np.diff(TAIWAN.longitude, axis=1) > 0).all()

    def test_axes_start_one_step_inside_the_stored_grid(self):
        assert TAIWAN.y.size == TAIWAN.x.size == 448
        assert (TAIWAN.x[0], TAIWAN.y[0]) == (-368973.703 + 2000, -420351.935 + 2000)
        np.testing.assert_allclose(np.diff(TAIWAN.y), 2000, rtol=0, atol=1e-9)

    def test_agrees_with_the_formulas_of_the_projection(self):
        x, y = lambert(TAIWAN.latitude, TAIWAN.longitude)
        np.testing.assert_allclose(x, np.broadcast_to(TAIWAN.x, TAIWAN.shape), rtol=0, atol=1e-3)
        np.testing.assert_allclose(y, np.broadcast_to(TAIWAN.y[:, None], TAIWAN.shape), rtol=0, atol=1e-3)

    def test_agrees_with_the_original_coordinates(self):
        if not PACKAGE.exists():
            pytest.skip(f"no reference package at {PACKAGE}")
        original = zarr.open_group(str(PACKAGE), mode="r")
        inner = slice(TAIWAN.crop, -TAIWAN.crop)
        for name, ours in (("XLAT", TAIWAN.latitude), ("XLONG", TAIWAN.longitude)):
            assert np.abs(original[name][inner, inner] - ours).max() <= 3.7e-5

    def test_lies_inside_its_input_box(self):
        box = TAIWAN.input_box
        assert box.south < TAIWAN.latitude.min() < TAIWAN.latitude.max() < box.north
        assert box.west < TAIWAN.longitude.min() < TAIWAN.longitude.max() < box.east

    def test_cells_are_two_kilometers_wide_within_the_distortion_of_the_projection(self):
        latitude, longitude = np.radians(TAIWAN.latitude), np.radians(TAIWAN.longitude)
        north = RADIUS * np.hypot(np.diff(latitude, axis=0), np.cos(latitude[1:]) * np.diff(longitude, axis=0))
        assert 2000 < north.min() < north.max() < 2080

    def test_grid_mapping_is_cf_and_restores_the_projection(self):
        mapping = TAIWAN.grid_mapping
        assert mapping["grid_mapping_name"] == "lambert_conformal_conic"
        assert mapping["standard_parallel"] == [10.0, 40.0]
        assert mapping["longitude_of_central_meridian"] == 120.0
        assert mapping["latitude_of_projection_origin"] == 23.5
        assert mapping["earth_radius"] == RADIUS
        json.dumps(mapping)

    @given(st.floats(19.5, 28), st.floats(116, 126))
    def test_project_follows_the_formulas(self, latitude, longitude):
        x, y = TAIWAN.project(np.array(longitude), np.array(latitude))
        np.testing.assert_allclose((x, y), lambert(latitude, longitude), rtol=0, atol=1e-3)

    def test_project_undoes_latitude_longitude(self):
        x, y = TAIWAN.project(TAIWAN.longitude[::37, ::41], TAIWAN.latitude[::37, ::41])
        np.testing.assert_allclose(x, np.broadcast_to(TAIWAN.x[::41], x.shape), rtol=0, atol=1e-3)
        np.testing.assert_allclose(y, np.broadcast_to(TAIWAN.y[::37, None], y.shape), rtol=0, atol=1e-3)


class TestDomain:
    def test_a_manifest_restores_an_equal_domain(self):
        restored = Domain.from_dict(json.loads(json.dumps(TAIWAN.to_dict())))
        assert restored == TAIWAN
        assert hash(restored) == hash(TAIWAN)
        assert isinstance(restored.input_box, Box)

    @given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5), st.floats(100, 25_000))
    def test_shape_follows_from_rows_columns_and_crop(self, rows, columns, crop, step):
        size = rows + 2 * crop, columns + 2 * crop
        domain = Domain("any", TAIWAN.projection, 0.0, 0.0, step, *size, crop, TAIWAN.input_box)
        assert domain.shape == (rows, columns) == (domain.y.size, domain.x.size) == domain.latitude.shape
        assert domain.x[0] == step * crop
        np.testing.assert_allclose(np.diff(domain.y), step, rtol=1e-9)

    def test_refuses_a_manifest_with_an_unknown_field(self):
        with pytest.raises(TypeError, match="rotation"):
            Domain.from_dict({**TAIWAN.to_dict(), "rotation": 3})


class TestBox:
    @given(st.floats(), st.floats(), st.floats(), st.floats())
    def test_is_a_box_or_refused(self, south, north, west, east):
        if -90 <= south < north <= 90 and west < east <= west + 360:
            Box(south, north, west, east)
            return
        with pytest.raises(ValueError, match=r"is no box: south < north in -90..90 and west < east are required"):
            Box(south, north, west, east)
