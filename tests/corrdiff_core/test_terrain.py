"""Terrain: surveyed peaks, sea level at sea, land where there is land."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core import terrain
from corrdiff_core.grid import TAIWAN

LAND = {
    "Taipei": (121.56, 25.04),
    "Taichung": (120.68, 24.14),
    "Tainan": (120.25, 22.99),
    "Kaohsiung": (120.36, 22.65),
    "Hualien": (121.58, 23.98),
    "Taitung": (121.13, 22.78),
    "Yilan": (121.75, 24.75),
    "Xiamen's hinterland": (117.8, 24.8),
}
SEA = {
    "Taiwan Strait": (119.6, 24.4),
    "off Hualien": (122.2, 23.9),
    "Bashi Channel": (121.3, 21.2),
    "South China Sea": (117.5, 21.5),
    "East China Sea": (123.5, 27.0),
}

longitudes, latitudes = st.floats(116.0, 126.0), st.floats(19.0, 28.0)


@pytest.mark.parametrize("peak", terrain.PEAKS, ids=lambda peak: peak.name)
def test_peaks_have_their_surveyed_elevation(peak):
    assert terrain.elevation(peak.longitude, peak.latitude) == pytest.approx(peak.elevation, abs=1e-6)


def test_yushan_is_the_highest():
    longitude, latitude = np.meshgrid(np.arange(119.9, 122.1, 0.015), np.arange(21.8, 25.4, 0.015))
    elevation = terrain.elevation(longitude, latitude)
    row, column = np.unravel_index(elevation.argmax(), elevation.shape)
    assert abs(longitude[row, column] - 120.957) < 0.03
    assert abs(latitude[row, column] - 23.470) < 0.03
    assert elevation.max() <= 3952.0


@pytest.mark.parametrize("place", LAND)
def test_towns_are_on_land(place):
    assert terrain.shore_distance(*LAND[place]) > 0
    assert terrain.land_fraction(*LAND[place]) > 0.5
    assert terrain.elevation(*LAND[place]) > 0


@pytest.mark.parametrize("place", SEA)
def test_the_sea_is_flat(place):
    assert terrain.shore_distance(*SEA[place]) < -20
    assert terrain.land_fraction(*SEA[place]) == 0
    assert terrain.elevation(*SEA[place]) == 0


def test_taiwan_has_its_area_and_its_mountains():
    longitude, latitude = np.meshgrid(np.arange(119.9, 122.1, 0.02), np.arange(21.8, 25.4, 0.02))
    cell = (0.02 * 111.19) ** 2 * np.cos(np.deg2rad(latitude))  # km2
    land = (cell * terrain.land_fraction(longitude, latitude)).sum()
    high = cell[terrain.elevation(longitude, latitude) > 1000].sum()
    assert land == pytest.approx(35_800, rel=0.05)
    assert 0.2 < high / land < 0.45  # a third of the island


def test_elevation_is_within_bounds_and_zero_at_sea():
    elevation = terrain.elevation(TAIWAN.longitude, TAIWAN.latitude)
    assert elevation.shape == TAIWAN.shape
    assert elevation.min() == 0
    assert (elevation[terrain.shore_distance(TAIWAN.longitude, TAIWAN.latitude) <= 0] == 0).all()


@settings(max_examples=50)
@given(longitudes, latitudes, longitudes, latitudes)
def test_shore_distance_changes_no_faster_than_one_moves(lon1, lat1, lon2, lat2):
    shrink = np.cos(np.deg2rad(23.5))
    moved = terrain.KM_PER_DEGREE * np.hypot((lon2 - lon1) * shrink, lat2 - lat1)
    change = abs(terrain.shore_distance(lon2, lat2) - terrain.shore_distance(lon1, lat1))
    assert change <= moved + 1e-6


@settings(max_examples=30)
@given(st.lists(st.tuples(longitudes, latitudes), min_size=1, max_size=6))
def test_a_point_has_one_elevation_in_any_array(points):
    longitude, latitude = np.array(points).T
    together = terrain.elevation(longitude, latitude)
    alone = [float(terrain.elevation(*point)) for point in points]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert (together >= 0).all()


def test_land_fraction_is_half_at_the_shore():
    for longitude, latitude in terrain.COASTLINES[0]:
        assert terrain.land_fraction(longitude, latitude) == pytest.approx(0.5, abs=1e-6)


def test_smoothing_keeps_the_mean_and_takes_the_peaks():
    longitude, latitude = TAIWAN.longitude, TAIWAN.latitude
    for fine, smooth in (
        (terrain.elevation(longitude, latitude), terrain.smooth_elevation(longitude, latitude)),
        (terrain.land_fraction(longitude, latitude), terrain.smooth_land_fraction(longitude, latitude)),
    ):
        assert smooth.mean() == pytest.approx(fine.mean(), rel=0.03)
        assert smooth.min() >= 0
        assert smooth.max() <= fine.max()
    assert terrain.smooth_elevation(120.957, 23.470) < 2500


@pytest.mark.parametrize("point", [(110.9, 24.0), (131.1, 24.0), (121.0, 15.9), (121.0, 33.1)])
@pytest.mark.parametrize("smooth", [terrain.smooth_elevation, terrain.smooth_land_fraction])
def test_smooth_fields_are_refused_outside_their_raster(smooth, point):
    with pytest.raises(ValueError, match="out of bounds"):
        smooth(np.array([point[0]]), np.array([point[1]]))
