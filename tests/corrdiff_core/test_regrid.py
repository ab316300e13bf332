"""Regridding against closed forms and xarray.interp: exactness, coverage, bounds, NaN, conventions, chunks, cache."""

import pickle
from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from corrdiff_core.errors import GridError
from corrdiff_core.grid import TAIWAN, Box
from corrdiff_core.regrid import Regridder, cover, regrid, regridder

LATITUDE = np.arange(19.25, 28.01, 0.25)
LONGITUDE = np.arange(116.0, 125.76, 0.25)
BOX = TAIWAN.input_box
SMALL = replace(TAIWAN, name="small", x0=-40000.0, y0=-40000.0, rows=18, columns=22)


def globe(step, first_longitude=0.0, descending=True):
    """A global field that knows where it is: latitude + 1000 x longitude counted 0..360."""
    latitude = np.arange(-90.0, 90.0 + step / 2, step)
    longitude = first_longitude + np.arange(0.0, 360.0, step)
    latitude = latitude[::-1] if descending else latitude
    values = latitude[:, None] + 1000 * (longitude % 360)
    return xr.Dataset(
        {"here": (("latitude", "longitude"), values)}, coords={"latitude": latitude, "longitude": longitude}
    )


@st.composite
def lines(draw, low=-80.0, high=80.0):
    """Ascending lines, irregular: spacings that differ by up to a factor of 2.5."""
    count = draw(st.integers(2, 30))
    spacings = draw(st.lists(st.floats(0.2, 0.5), min_size=count - 1, max_size=count - 1))
    first = draw(st.floats(low, high - 15))
    return first + np.concatenate([[0.0], np.cumsum(spacings)])


@st.composite
def grids_and_points(draw):
    latitude, longitude = draw(lines()), draw(lines(-170, 340))
    shares = draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
    share = np.array(shares)
    points_latitude = np.clip(latitude[0] + share[:, 0] * np.ptp(latitude), latitude[0], latitude[-1])
    points_longitude = np.clip(longitude[0] + share[:, 1] * np.ptp(longitude), longitude[0], longitude[-1])
    return latitude, longitude, points_latitude[None], points_longitude[None]


class TestCover:
    @pytest.mark.parametrize(
        ("step", "shape", "latitudes", "longitudes"),
        [
            (0.25, (36, 40), (19.25, 28.0), (116.0, 125.75)),
            (0.5, (19, 21), (19.0, 28.0), (116.0, 126.0)),
            (1.0, (10, 11), (19.0, 28.0), (116.0, 126.0)),
            (2.5, (6, 6), (17.5, 30.0), (115.0, 127.5)),
        ],
    )
    @pytest.mark.parametrize("first_longitude", [0.0, -180.0, 20.0])
    @pytest.mark.parametrize("descending", [True, False])
    def test_fewest_lines_that_span_the_box(self, step, shape, latitudes, longitudes, first_longitude, descending):
        cut = cover(globe(step, first_longitude, descending), BOX)
        assert cut["here"].shape == shape
        assert (cut.latitude.values[0], cut.latitude.values[-1]) == latitudes
        assert (cut.longitude.values[0], cut.longitude.values[-1]) == longitudes
        np.testing.assert_array_equal(cut["here"], cut.latitude.values[:, None] + 1000 * cut.longitude.values)

    def test_is_idempotent_and_keeps_the_values_dtype(self):
        cut = cover(globe(1.0).astype(np.float32), BOX)
        assert cut["here"].dtype == np.float32
        xr.testing.assert_identical(cover(cut, BOX), cut)

    def test_takes_an_array_with_leading_dims_and_keeps_it_lazy(self):
        field = globe(1.0)["here"].expand_dims(lead_time=3).chunk(lead_time=1)
        cut = cover(field, BOX)
        assert isinstance(cut, xr.DataArray)
        assert cut.chunks is not None
        assert cut.sizes == {"lead_time": 3, "latitude": 10, "longitude": 11}

    @pytest.mark.parametrize("first_longitude", [0.0, -180.0])
    @pytest.mark.parametrize(("west", "east"), [(-5.0, 7.0), (355.0, 367.0)])
    def test_box_across_greenwich(self, first_longitude, west, east):
        cut = cover(globe(1.0, first_longitude), Box(south=40, north=50, west=west, east=east))
        np.testing.assert_array_equal(cut.longitude, np.arange(west, east + 1))
        np.testing.assert_array_equal((cut["here"].values[0] - 40) / 1000, np.arange(west, east + 1) % 360)

    @pytest.mark.parametrize("first_longitude", [0.0, -180.0])
    def test_box_across_the_date_line(self, first_longitude):
        cut = cover(globe(2.0, first_longitude), Box(south=40, north=50, west=171, east=191))
        np.testing.assert_array_equal(cut.longitude, np.arange(170, 193, 2))

    def test_line_repeated_by_the_source_comes_once(self):
        field = globe(1.0)
        closed = xr.concat([field, field.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude")
        cut = cover(closed, Box(south=40, north=50, west=-5, east=5))
        np.testing.assert_array_equal(cut.longitude, np.arange(-5, 6))

    def test_lines_rounded_to_float32_still_meet_the_edges(self):
        step = np.float32(0.1)
        latitude, longitude = np.arange(191, 282, dtype="f4") * step, np.arange(1159, 1260, dtype="f4") * step
        field = xr.DataArray(
            np.zeros((91, 101)), {"latitude": latitude, "longitude": longitude}, ("latitude", "longitude")
        )
        cut = cover(field, Box(south=19.2, north=28.0, west=116.0, east=125.7))
        assert cut.shape == (89, 98)

    def test_coordinates_say_what_they_are(self):
        field = globe(1.0)
        field.latitude.attrs["stored_direction"] = "decreasing"
        cut = cover(field, BOX)
        assert cut.latitude.attrs == {"standard_name": "latitude", "units": "degrees_north"}
        assert cut.longitude.attrs == {"standard_name": "longitude", "units": "degrees_east"}

    @given(lines(0, 60), lines(0, 60), st.data())
    def test_every_edge_lies_between_the_two_outer_lines(self, latitude, longitude, data):
        inside = st.floats(0, 1)
        south, north = sorted(latitude[0] + np.ptp(latitude) * np.array(data.draw(st.tuples(inside, inside))))
        west, east = sorted(longitude[0] + np.ptp(longitude) * np.array(data.draw(st.tuples(inside, inside))))
        assume(north - south > 1e-3)
        assume(east - west > 1e-3)
        field = xr.DataArray(
            np.zeros((latitude.size, longitude.size)),
            {"latitude": latitude, "longitude": longitude},
            ("latitude", "longitude"),
        )
        cut = cover(field, Box(float(south), float(north), float(west), float(east)))
        for name, low, high in (("latitude", south, north), ("longitude", west, east)):
            chosen = cut[name].values
            edge = 2e-5
            assert chosen[0] <= low + edge
            assert chosen[-1] >= high - edge
            assert chosen[1] > low + edge
            assert chosen[-2] < high - edge

    def test_refuses_a_source_that_ends_inside_the_box(self):
        field = globe(1.0).sel(latitude=slice(27, 10))
        with pytest.raises(GridError, match=r"latitude 10\.\.27 does not cover 19\.25\.\.28: get a larger area"):
            cover(field, BOX)

    def test_refuses_a_source_elsewhere_on_the_circle(self):
        field = globe(1.0).sel(longitude=slice(0, 60))
        with pytest.raises(GridError, match=r"longitude .* does not cover 116\.\.125\.75"):
            cover(field, BOX)

    def test_refuses_to_bridge_the_far_side_of_the_earth(self):
        """A regional source from 350 to 20 E has lines east and west of Taiwan, none near it."""
        field = globe(1.0)
        europe = xr.concat([field.sel(longitude=slice(350, 359)), field.sel(longitude=slice(0, 20))], "longitude")
        with pytest.raises(GridError, match=r"does not cover|jumps from"):
            cover(europe, Box(south=40, north=50, west=175, east=185))
        with pytest.raises(GridError, match=r"longitude jumps from 20 to 350 where its lines are 1 degrees apart"):
            cover(europe.sortby("longitude"), Box(south=40, north=50, west=175, east=185))

    def test_refuses_missing_rows(self):
        field = globe(0.25).isel(latitude=[row for row in range(721) if not 260 <= row < 264])
        with pytest.raises(GridError, match="latitude jumps from"):
            cover(field, BOX)

    def test_refuses_axes_of_other_names(self):
        with pytest.raises(GridError, match="no 1-D coordinate 'latitude'"):
            cover(globe(1.0).rename(latitude="lat"), BOX)

    def test_refuses_a_single_line_and_a_nan_line(self):
        field = globe(1.0)
        with pytest.raises(GridError, match="is no grid"):
            cover(field.isel(latitude=[30]), BOX)
        with pytest.raises(GridError, match="is no grid"):
            cover(field.assign_coords(latitude=np.where(field.latitude == 25, np.nan, field.latitude)), BOX)


class TestRegridder:
    @given(grids_and_points(), st.tuples(*[st.floats(-10, 10)] * 4))
    def test_reproduces_bilinear_functions(self, grid, coefficients):
        latitude, longitude, target_latitude, target_longitude = grid
        a, b, c, d = coefficients

        def plane(lat, lon):
            return a + b * lat + c * lon + d * lat * lon

        field = plane(latitude[:, None], longitude[None])
        regrid_to = Regridder(latitude, longitude, target_latitude, target_longitude)
        size = max(1.0, np.abs(field).max())
        exact = plane(target_latitude, target_longitude).ravel()
        np.testing.assert_allclose(regrid_to.weights @ field.ravel(), exact, rtol=0, atol=1e-11 * size)
        np.testing.assert_allclose(regrid_to(field).ravel(), exact, rtol=0, atol=1e-7 * size)

    @given(grids_and_points())
    def test_rows_are_four_shares_of_one(self, grid):
        weights = Regridder(*grid).weights
        assert weights.shape == (grid[2].size, grid[0].size * grid[1].size)
        assert (np.diff(weights.indptr) == 4).all()
        assert weights.data.min() >= 0
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-14)

    @given(grids_and_points(), st.integers(0, 2**32 - 1))
    def test_stays_between_the_extremes(self, grid, seed):
        field = np.random.default_rng(seed).normal(0, 100, (grid[0].size, grid[1].size)).astype(np.float32)
        out = Regridder(*grid)(field)
        assert field.min() <= out.min()
        assert out.max() <= field.max()

    @given(grids_and_points(), st.floats(-1e5, 1e5, width=32))
    def test_a_constant_stays_that_constant(self, grid, value):
        out = Regridder(*grid)(np.full((grid[0].size, grid[1].size), value, np.float32))
        np.testing.assert_array_equal(out, np.float32(value))

    @given(grids_and_points(), st.data())
    def test_nan_reaches_exactly_the_points_of_its_cells(self, grid, data):
        latitude, longitude, target_latitude, target_longitude = grid
        row = data.draw(st.integers(0, latitude.size - 1))
        column = data.draw(st.integers(0, longitude.size - 1))
        field = np.zeros((latitude.size, longitude.size), np.float32)
        field[row, column] = np.nan
        broken = np.isnan(Regridder(*grid)(field))

        def near(lines, position, points):
            low, high = lines[max(position - 1, 0)], lines[min(position + 1, lines.size - 1)]
            return (points > low) & (points < high)

        strictly_in_a_cell = near(latitude, row, target_latitude) & near(longitude, column, target_longitude)
        assert broken[strictly_in_a_cell].all()
        beyond = (np.abs(target_latitude - latitude[row]) > 0.51) | (
            np.abs(target_longitude - longitude[column]) > 0.51
        )
        assert not broken[beyond].any()

    def test_a_grid_onto_itself_is_the_identity_up_to_its_last_lines(self):
        field = np.random.default_rng(1).normal(280, 10, (36, 40)).astype(np.float32)
        own = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
        np.testing.assert_array_equal(Regridder(LATITUDE, LONGITUDE, *own)(field), field)

    def test_a_point_a_rounding_beyond_the_last_line_is_on_it(self):
        field = LATITUDE[:, None] * np.ones(40)
        edges = np.array([[LATITUDE[0] - 1e-5, LATITUDE[-1] + 1e-5]])
        out = Regridder(LATITUDE, LONGITUDE, edges, np.array([[LONGITUDE[0] - 1e-5, LONGITUDE[-1] + 1e-5]]))(field)
        np.testing.assert_array_equal(out, [[19.25, 28.0]])

    @pytest.mark.parametrize("step", [0.25, 1.0, 2.5])
    def test_equals_xarray_interp(self, step):
        """Two double-precision sums of the same four terms, rounded to float32: half a last place apart at most."""
        cut = cover(globe(step), BOX)
        field = cut["here"].copy(data=np.random.default_rng(2).normal(280, 10, cut["here"].shape))
        points = {"latitude": (("y", "x"), TAIWAN.latitude), "longitude": (("y", "x"), TAIWAN.longitude)}
        expected = field.interp(points, method="linear").values
        to_taiwan = regridder(cut.latitude, cut.longitude, TAIWAN)
        double = (to_taiwan.weights @ field.values.ravel()).reshape(TAIWAN.shape)
        np.testing.assert_allclose(double, expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(to_taiwan(field.values), expected, rtol=6e-8, atol=0)

    def test_regrids_every_leading_dim_alike(self):
        fields = np.random.default_rng(3).normal(size=(2, 3, 36, 40))
        to_small = regridder(LATITUDE, LONGITUDE, SMALL)
        out = to_small(fields)
        assert out.shape == (2, 3, *SMALL.shape)
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out[1, 2], to_small(fields[1, 2]))

    @given(grids_and_points(), st.floats(1e-3, 300), st.sampled_from(["north", "south", "east", "west"]))
    def test_refuses_points_outside(self, grid, distance, side):
        latitude, longitude, target_latitude, target_longitude = grid
        beyond = {
            "north": (latitude[-1] + distance, longitude[0]),
            "south": (latitude[0] - distance, longitude[0]),
            "east": (latitude[0], longitude[-1] + distance),
            "west": (latitude[0], longitude[0] - distance),
        }[side]
        with pytest.raises(GridError, match=r"1 of \d+ target points, such as (latitude|longitude)"):
            Regridder(
                latitude,
                longitude,
                np.append(target_latitude, beyond[0])[None],
                np.append(target_longitude, beyond[1])[None],
            )

    def test_a_target_of_nan_is_outside(self):
        with pytest.raises(GridError, match="such as latitude nan"):
            Regridder(LATITUDE, LONGITUDE, np.array([[np.nan]]), np.array([[120.0]]))

    @pytest.mark.parametrize("bad", [LATITUDE[::-1], LATITUDE[[0, 1, 1, 2]], LATITUDE[:1], LATITUDE[None]])
    def test_refuses_lines_that_do_not_ascend(self, bad):
        with pytest.raises(GridError, match=r"does not ascend strictly: cut it out with regrid\.cover"):
            Regridder(bad, LONGITUDE, np.array([[20.0]]), np.array([[120.0]]))

    def test_refuses_fields_of_another_grid(self):
        with pytest.raises(GridError, match=r"shape \(12, 40, 36\) do not end in the source grid's \(36, 40\)"):
            regridder(LATITUDE, LONGITUDE, TAIWAN)(np.zeros((12, 40, 36)))

    def test_is_built_once_for_the_same_content(self):
        first = regridder(LATITUDE, LONGITUDE, TAIWAN)
        assert regridder(list(LATITUDE), LONGITUDE.copy(), replace(TAIWAN)) is first
        assert regridder(LATITUDE + 1e-9, LONGITUDE, TAIWAN) is not first
        assert regridder(LATITUDE, LONGITUDE, SMALL) is not first


@pytest.fixture(scope="module")
def fields():
    values = np.random.default_rng(4).normal(280, 10, (5, 3, 36, 40)).astype(np.float32)
    coords = {"lead_time": np.arange(5), "channel": ["a", "b", "c"], "latitude": LATITUDE, "longitude": LONGITUDE}
    dims = ("lead_time", "channel", "latitude", "longitude")
    return xr.DataArray(values, coords, dims, attrs={"units": "1"})


class TestRegrid:
    @pytest.mark.parametrize(
        "chunks",
        [
            {"lead_time": 1},
            {"lead_time": 2, "channel": 1},
            {"lead_time": -1, "latitude": 7, "longitude": 40},
            {"channel": 2, "latitude": 9, "longitude": 11},
        ],
    )
    def test_is_lazy_and_the_same_whatever_the_chunks(self, fields, chunks):
        eager = regrid(fields, SMALL)
        lazy = regrid(fields.chunk(chunks), SMALL)
        assert lazy.chunks is not None
        assert [len(lazy.chunksizes[dim]) for dim in ("y", "x")] == [1, 1]
        assert lazy.dtype == eager.dtype == np.float32
        with dask.config.set(scheduler="threads"):
            xr.testing.assert_identical(lazy.compute(), eager)

    def test_brings_the_target_coordinates(self, fields):
        out = regrid(fields, SMALL)
        assert out.dims == ("lead_time", "channel", "y", "x")
        np.testing.assert_array_equal(out.y, SMALL.y)
        np.testing.assert_array_equal(out.x, SMALL.x)
        np.testing.assert_array_equal(out.latitude, SMALL.latitude)
        np.testing.assert_array_equal(out.longitude, SMALL.longitude)
        np.testing.assert_array_equal(out.lead_time, fields.lead_time)
        assert out.attrs == {"units": "1"}

    def test_refuses_at_once_a_domain_outside(self, fields):
        with pytest.raises(GridError, match="lie outside the source's latitude"):
            regrid(fields.isel(latitude=slice(0, 20)).chunk(lead_time=1), TAIWAN)

    def test_carries_no_weights_and_no_target_to_the_workers(self, fields):
        assert TAIWAN.latitude.nbytes > 1_000_000
        lazy = regrid(fields[:1, :1].chunk(), TAIWAN)
        assert len(pickle.dumps(dict(lazy.__dask_graph__()))) < 40_000
