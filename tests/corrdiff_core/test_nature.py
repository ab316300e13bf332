"""The nature run: balances, ranges, reproducibility, and a truth whose distribution is what the closed form says."""

import hashlib
import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.dataset import box_lines
from corrdiff_core.errors import GridError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.metrics import crps_ensemble
from corrdiff_core.normalization import CWA_INPUT_STATISTICS
from corrdiff_core.quality import check_ensemble, check_inputs
from corrdiff_core.sources.gfs import GFS
from corrdiff_core.variables import INPUT, INPUT_NAMES, OUTPUT_NAMES
from tests.small_domain import SMALL

BOX = box_lines(TAIWAN.input_box)
LINES = box_lines(SMALL.input_box)
WINTER, SUMMER, TYPHOON = datetime(2020, 1, 9, 18), datetime(2020, 7, 1, 6), datetime(2018, 4, 17)
OMEGA, EARTH = 7.2921e-5, 6.371e6

# Means of inputs over the box and of the truth over the domain, printed when the demo checkpoint was trained.
GOLDEN = {
    WINTER: (
        [
            24.48084,
            56927.78,
            266.5062,
            20.86383,
            -2.268228,
            14846.96,
            286.037,
            -3.888127,
            2.321779,
            292.8925,
            -6.111367,
            -4.201296,
        ],
        [0.002129721, 292.8144, -6.045508, -4.445618],
    ),
    SUMMER: (
        [
            68.43603,
            57756.26,
            271.2406,
            6.986763,
            0.7866115,
            14693.26,
            294.199,
            -1.7921,
            -0.4610942,
            302.5052,
            -1.264108,
            0.7842553,
        ],
        [20.9618, 302.4565, -1.145523, 0.5613632],
    ),
    TYPHOON: (
        [
            44.41159,
            57581.85,
            269.9256,
            12.07211,
            6.158803,
            14865.39,
            290.9639,
            -1.885549,
            5.982236,
            298.443,
            -4.317702,
            1.192977,
        ],
        [7.840747, 298.379, -4.319283, 1.452022],
    ),
}

times = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)).map(
    lambda t: t.replace(minute=0, second=0, microsecond=0)
)


def hours(seed, count):
    rng = np.random.default_rng(seed)
    return [datetime(2000, 1, 1) + int(hour) * HOUR for hour in rng.integers(0, 30 * 8766, count)]


def typhoon_times(seed, count):
    """The first `count` times, 12 hours apart, at which a typhoon is over the box."""
    west, east = TAIWAN.input_box.west, TAIWAN.input_box.east
    time, found = datetime(2018, 4, 1), []
    while len(found) < count:
        for typhoon in nature._typhoons(seed, time):
            longitude = 121 + typhoon.x / (np.deg2rad(1) * EARTH * np.cos(np.deg2rad(23.5)))
            if west < longitude < east:
                found.append(time)
        time += timedelta(hours=12)
    return found


def digest(fields):
    return hashlib.sha256(b"".join(fields[name].values.tobytes() for name in fields.data_vars)).hexdigest()


class TestWeather:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_every_time_passes_the_quality_checks(self, seed):
        for time in hours(seed, 120) + typhoon_times(seed, 20):
            check_inputs(nature.weather(seed, time, *BOX), Slot(time), CWA_INPUT_STATISTICS)

    def test_a_year_looks_like_taiwan(self):
        """Means and spreads near those of four years of real weather (the public CWA dataset's)."""
        year = [nature.weather(1, datetime(2019, 1, 1) + timedelta(hours=73 * k), *BOX) for k in range(120)]
        for name, center, scale in CWA_INPUT_STATISTICS._rows():
            values = np.stack([fields[name].values for fields in year])
            assert abs(values.mean() - center) < scale
            assert 0.4 < values.std() / scale < 3.5

    def test_winter_is_colder_drier_and_blows_from_the_northeast(self):
        january = [nature.weather(1, datetime(2020, 1, 1) + k * 31 * HOUR, *LINES).mean() for k in range(24)]
        july = [nature.weather(1, datetime(2020, 7, 1) + k * 31 * HOUR, *LINES).mean() for k in range(24)]

        def mean(fields, name):
            return float(np.mean([field[name] for field in fields]))

        assert mean(july, "t2m") - mean(january, "t2m") > 6
        assert mean(july, "tcwv") - mean(january, "tcwv") > 12
        assert mean(january, "u10m") < 0
        assert mean(january, "v10m") < 0

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**31), times)
    def test_thickness_is_in_hydrostatic_balance(self, seed, time):
        """z500 - z850 = R ln(850 / 500) x the mean of both temperatures, typhoons included."""
        fields = nature.weather(seed, time, *LINES).astype(np.float64)
        expected = 287.05 * np.log(850 / 500) * (fields.t500 + fields.t850) / 2
        np.testing.assert_allclose(fields.z500 - fields.z850, expected, rtol=0, atol=0.02)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 2**31), times.filter(lambda t: t.month in (1, 2)))
    def test_wind_is_in_geostrophic_balance(self, seed, time):
        """f u = -dz/dy and f v = dz/dx by finite differences, where there is no typhoon."""
        if nature._typhoons(seed, time):
            return
        step = 0.05
        latitude, longitude = np.arange(22.0, 25.01, step), np.arange(120.0, 123.01, step)
        fields = nature.weather(seed, time, latitude, longitude).astype(np.float64)
        f = 2 * OMEGA * np.sin(np.deg2rad(latitude))[1:-1, None]
        dy = np.deg2rad(step) * EARTH
        dx = dy * np.cos(np.deg2rad(23.5))
        for level in ("500", "850"):
            z = fields[f"z{level}"].values
            u = -(z[2:, 1:-1] - z[:-2, 1:-1]) / (2 * dy) / f
            v = (z[1:-1, 2:] - z[1:-1, :-2]) / (2 * dx) / f
            np.testing.assert_allclose(fields[f"u{level}"].values[1:-1, 1:-1], u, rtol=0, atol=0.1)
            np.testing.assert_allclose(fields[f"v{level}"].values[1:-1, 1:-1], v, rtol=0, atol=0.1)

    @settings(max_examples=30, deadline=None)
    @given(st.floats(15, 55), st.floats(50e3, 120e3), st.floats(3e-5, 8e-5))
    def test_a_typhoon_is_in_gradient_balance(self, wind, radius, f):
        """V^2 / r + f V = dPhi / dr, and the wind has its maximum at its radius."""
        typhoon = nature._Typhoon(0.0, 0.0, wind, radius)
        r = np.linspace(5e3, 500e3, 4000)
        depression, u, v, _ = typhoon.vortex(nature._Plane(r, np.zeros_like(r)), np.full_like(r, f))
        np.testing.assert_allclose(np.gradient(depression, r)[1:-1], (v**2 / r + f * v)[1:-1], rtol=1e-3, atol=1e-6)
        assert np.abs(u).max() == 0
        assert v.max() == pytest.approx(wind, rel=1e-3)
        assert r[v.argmax()] == pytest.approx(radius, abs=500)

    def test_typhoons_come_in_the_warm_season(self):
        def days(month):
            return sum(
                bool(nature._typhoons(1, datetime(y, month, d))) for y in range(2000, 2030) for d in range(1, 29, 3)
            )

        assert days(1) == 0
        assert days(7) > 50

    @settings(max_examples=10, deadline=None)
    @given(
        st.sampled_from([WINTER, SUMMER, TYPHOON]),
        st.lists(st.integers(0, 35), min_size=1, max_size=6, unique=True),
        st.lists(st.integers(0, 39), min_size=1, max_size=6, unique=True),
    )
    def test_a_point_has_one_value_on_any_lines(self, time, rows, columns):
        whole = nature.weather(1, time, *BOX)
        part = nature.weather(1, time, BOX[0][sorted(rows)], BOX[1][sorted(columns)])
        for name in INPUT_NAMES:
            expected = whole[name].values[np.ix_(sorted(rows), sorted(columns))]
            np.testing.assert_allclose(part[name].values, expected, rtol=1e-6, atol=1e-5)

    def test_it_is_labeled(self):
        fields = nature.weather(1, SUMMER, *LINES)
        assert tuple(fields.data_vars) == INPUT_NAMES
        assert fields.valid_time.values == np.datetime64(SUMMER, "ns")
        for name in INPUT_NAMES:
            assert fields[name].dims == ("latitude", "longitude")
            assert fields[name].dtype == np.float32
            assert fields[name].attrs == INPUT[name].attrs

    def test_seeds_and_hours_differ(self):
        first = nature.weather(1, SUMMER, *LINES)
        for other in (nature.weather(2, SUMMER, *LINES), nature.weather(1, SUMMER + HOUR, *LINES)):
            assert all((first[name] != other[name]).any() for name in INPUT_NAMES)

    def test_it_moves_smoothly(self):
        """An hour changes the weather a little, at midnight and at new year too."""
        start = datetime(2017, 12, 31, 20)
        steps = [nature.weather(1, start + k * HOUR, *LINES) for k in range(8)]
        for before, after in pairwise(steps):
            assert float(abs(after.t850 - before.t850).max()) < 1.0
            assert float(abs(after.z850 - before.z850).max()) < 60.0

    def test_it_is_refused_beyond_the_terrain(self):
        with pytest.raises(GridError, match=r"no weather in .*: choose a region in 16..33 N, 111..131 E"):
            nature.weather(1, SUMMER, np.array([10.0, 11.0]), np.array([120.0, 121.0]))


class TestReproducibility:
    @pytest.mark.service
    def test_it_is_the_same_in_another_process(self):
        program = (
            "import sys; sys.path[:0] = sys.argv[1:]\n"
            "from tests.corrdiff_core.test_nature import *\n"
            "fields = nature.weather(1, TYPHOON, *LINES)\n"
            "print(digest(fields), digest(nature.truth(fields, 1, SMALL)))"
        )
        found = subprocess.run(
            [sys.executable, "-c", program, *sys.path], capture_output=True, text=True, check=True
        ).stdout.split()
        fields = nature.weather(1, TYPHOON, *LINES)
        assert found == [digest(fields), digest(nature.truth(fields, 1, SMALL))]
        assert digest(nature.weather(1, TYPHOON, *LINES)) == found[0]

    @pytest.mark.parametrize("time", GOLDEN)
    def test_it_is_the_weather_that_the_demo_checkpoint_was_trained_on(self, time):
        inputs, outputs = GOLDEN[time]
        fields = nature.weather(nature.SEED, time, *BOX)
        assert [float(fields[name].mean(dtype="f8")) for name in INPUT_NAMES] == pytest.approx(
            inputs, rel=1e-5, abs=1e-4
        )
        truth = nature.truth(fields, nature.SEED)
        assert [float(truth[name].mean(dtype="f8")) for name in OUTPUT_NAMES] == pytest.approx(
            outputs, rel=1e-4, abs=1e-3
        )


class TestConditional:
    def test_it_depends_on_the_inputs_alone(self):
        fields = nature.weather(1, SUMMER, *LINES)
        given = nature.conditional(fields, SMALL)
        later = fields.assign_coords(valid_time=np.datetime64("1987-02-03T04", "ns"))
        timeless = fields.drop_vars("valid_time")
        for other in (nature.conditional(later, SMALL), nature.conditional(timeless, SMALL)):
            np.testing.assert_array_equal(given.mean, other.mean)
            np.testing.assert_array_equal(given.spread, other.spread)

    @pytest.mark.parametrize("name", INPUT_NAMES)
    def test_it_is_pointwise(self, name):
        """Changing the inputs in the north leaves the south as it was."""
        fields = nature.weather(1, SUMMER, *LINES)
        changed = fields.copy(deep=True)
        changed[name][-3:] = changed[name][-3:] * 1.01 + 0.5
        given, other = nature.conditional(fields, SMALL), nature.conditional(changed, SMALL)
        south = SMALL.latitude < fields.latitude.values[-4]
        for first, second in ((given.mean, other.mean), (given.spread, other.spread)):
            np.testing.assert_array_equal(first[:, south], second[:, south])

    @pytest.mark.parametrize("time", [WINTER, SUMMER, TYPHOON])
    def test_the_spread_is_positive_and_the_mean_plausible(self, time):
        given = nature.conditional(nature.weather(1, time, *BOX))
        assert given.mean.shape == given.spread.shape == (4, *TAIWAN.shape)
        assert given.spread.min() > 0.3
        assert np.isfinite(given.mean).all()
        assert given.mean[0].max() < 70
        assert 240 < given.mean[1].min() < given.mean[1].max() < 315

    def test_mountains_are_cold(self):
        given = nature.conditional(nature.weather(1, SUMMER, *BOX))
        yushan = np.unravel_index(np.argmax(nature._relief(TAIWAN).height), TAIWAN.shape)
        assert given.mean[1][yushan] < 288 < given.mean[1].max()


class TestNoise:
    def test_it_has_unit_variance_at_every_point(self):
        draws = np.stack([nature.noise(1, SUMMER, SMALL, sample) for sample in range(600)])
        assert draws.shape == (600, 4, *SMALL.shape)
        np.testing.assert_allclose(draws.var(axis=0).mean(axis=(1, 2)), 1, atol=0.05)
        np.testing.assert_allclose(draws.var(axis=0), 1, atol=6 * np.sqrt(2 / 600))
        np.testing.assert_allclose(draws.mean(axis=0), 0, atol=6 / np.sqrt(600))

    def test_it_has_unit_variance_on_the_full_domain(self):
        draws = np.stack([nature.noise(seed, SUMMER) for seed in range(6)])
        np.testing.assert_allclose(draws.var(axis=(0, 2, 3)), 1, atol=0.12)

    def test_variables_are_correlated_as_stated(self):
        """Cold pools under rain; nothing else."""
        draws = np.stack([nature.noise(2, SUMMER, SMALL, sample) for sample in range(300)])
        found = np.corrcoef(draws.transpose(1, 0, 2, 3).reshape(4, -1))
        expected = np.eye(4)
        expected[0, 1] = expected[1, 0] = -0.35
        np.testing.assert_allclose(found, expected, atol=0.06)

    def test_neighbors_are_alike_and_edges_do_not_wrap(self):
        draws = np.stack([nature.noise(3, SUMMER, SMALL, sample)[2] for sample in range(300)])
        centered = draws - draws.mean(axis=0)

        def correlation(shift):
            return (centered[:, :, : -shift or None] * centered[:, :, shift:]).mean() / centered.var()

        assert correlation(1) > 0.5
        assert correlation(1) > correlation(3) > correlation(8) > -0.2
        edges = (centered[:, :, 0] * centered[:, :, -1]).mean()
        assert abs(edges) < 0.2

    def test_every_key_has_its_own(self):
        fields = [
            nature.noise(1, SUMMER, SMALL),
            nature.noise(2, SUMMER, SMALL),
            nature.noise(1, SUMMER + HOUR, SMALL),
            nature.noise(1, SUMMER, SMALL, 1),
        ]
        for index, field in enumerate(fields):
            np.testing.assert_array_equal(field, [nature.noise(1, SUMMER, SMALL), *fields[1:]][index])
            for other in fields[:index]:
                assert abs(np.corrcoef(field.ravel(), other.ravel())[0, 1]) < 0.5


class TestTruth:
    def test_draws_score_as_the_closed_form_says(self):
        """The fair CRPS of an ensemble of draws against draws is `perfect_crps`, on average and at most points."""
        fields = nature.weather(1, TYPHOON, *LINES)
        given = nature.conditional(fields, SMALL)
        draws = [nature.truth(fields, 1, SMALL, sample) for sample in range(240)]
        for name in OUTPUT_NAMES:
            members = np.stack([draw[name].values for draw in draws[:120]])
            observed = np.stack([draw[name].values for draw in draws[120:]])
            sampled = np.mean([crps_ensemble(members, value) for value in observed], axis=0)
            perfect = np.mean([nature.perfect_crps(given, draw)[name] for draw in draws[120:]], axis=0)
            assert sampled.mean() == pytest.approx(perfect.mean(), rel=0.02)
            np.testing.assert_allclose(sampled, perfect, rtol=0.25, atol=0.02)

    def test_the_perfect_score_of_a_normal_is_its_spread_over_root_pi(self):
        fields = nature.weather(1, WINTER, *LINES)
        given = nature.conditional(fields, SMALL)
        scores = [nature.perfect_crps(given, nature.truth(fields, 1, SMALL, k)) for k in range(200)]
        for index, name in enumerate(OUTPUT_NAMES[1:], start=1):
            mean = np.mean([score[name] for score in scores])
            assert mean == pytest.approx(given.spread[index].mean() / np.sqrt(np.pi), rel=0.04)

    def test_it_passes_the_checks_of_an_ensemble(self):
        for time in hours(5, 40) + typhoon_times(5, 10):
            fields = nature.truth(nature.weather(5, time, *LINES), 5, SMALL)
            summary = check_ensemble(fields.expand_dims("member"), Slot(time))
            assert summary["mrr"]["min"] >= 0
            assert tuple(fields.data_vars) == OUTPUT_NAMES
            assert all(fields[name].dtype == np.float32 for name in fields)

    def test_reflectivity_has_clear_sky_and_storms(self):
        mrr = nature.truth(nature.weather(1, TYPHOON, *BOX), 1).mrr
        assert float((mrr == 0).mean()) > 0.05
        assert float(mrr.max()) > 30

    def test_it_repeats_itself(self):
        fields = nature.weather(1, SUMMER, *LINES)
        assert nature.truth(fields, 1, SMALL).equals(nature.truth(fields, 1, SMALL))
        assert not nature.truth(fields, 1, SMALL).equals(nature.truth(fields, 1, SMALL, 1))


class TestFiles:
    def test_what_is_written_is_fetched(self, tmp_path):
        init_time = datetime(2025, 8, 1, 6)
        urls = nature.write_gfs(str(tmp_path), init_time, [0, 3], seed=4)
        assert len(urls) == 2
        for lead in (0, 3):
            slot = Slot.forecast(init_time, lead * HOUR)
            fetched = GFS(str(tmp_path)).fetch(slot, TAIWAN.input_box)
            expected = nature.weather(4, slot.valid_time, *BOX)
            check_inputs(fetched.inputs, slot, CWA_INPUT_STATISTICS)
            for name in INPUT_NAMES:
                unit = 9.80665 if name[0] == "z" else 1.0  # packed in gpm
                np.testing.assert_allclose(
                    fetched.inputs[name].values, expected[name].values, rtol=2e-7, atol=2.1e-3 * unit
                )
            np.testing.assert_allclose(fetched.inputs.latitude, expected.latitude, atol=1e-6)

    def test_the_grid_of_the_files_is_wider_than_the_box(self):
        box = TAIWAN.input_box
        assert nature.GFS_LATITUDE[0] < box.south < box.north < nature.GFS_LATITUDE[-1]
        assert nature.GFS_LONGITUDE[0] < box.west < box.east < nature.GFS_LONGITUDE[-1]
