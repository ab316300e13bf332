"""Preparation against xarray.interp and the formula, across chunk schemes and schedulers, and on real weather."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import LocalCluster, get_client

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import GridError, QualityError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, Statistics
from corrdiff_core.prepare import prepare, workers
from corrdiff_core.quality import check_inputs
from corrdiff_core.regrid import cover
from corrdiff_core.variables import INPUT, INPUT_NAMES, STANDARD_GRAVITY

SHARED = Path(__file__).resolve().parents[2] / "../shared"
GFS = SHARED / "data/gfs/gfs.t00z.pgrb2.2p50.f000"
GEFS = SHARED / "data/gefs/gep19.t00z.pgrb2af180"
ERA5 = SHARED / "data/era5/ERA5_1980050100.nc"
EARTH2STUDIO = SHARED / "reference/earth2studio-0.19.0"
SMALL = replace(TAIWAN, name="small", x0=-40000.0, y0=-40000.0, rows=18, columns=22)
GRIB_NAMES = {"pwat": "tcwv", "gh": "z", "2t": "t2m", "10u": "u10m", "10v": "v10m", "t": "t", "u": "u", "v": "v"}


def there(path):
    if not path.exists():
        pytest.skip(f"no real weather at {path}")
    return path


def weather(leads=3):
    """Random fields on the 0.25-degree input grid with a halo of one line, latitude from north to south."""
    latitude, longitude = np.arange(28.25, 18.9, -0.25), np.arange(115.75, 126.1, 0.25)
    random = np.random.default_rng(5).normal(size=(12, leads, latitude.size, longitude.size))
    table = zip(CWA_INPUT_STATISTICS.center, CWA_INPUT_STATISTICS.scale, strict=True)
    return xr.Dataset(
        {
            name: (
                ("lead_time", "latitude", "longitude"),
                (center + scale * noise).astype(np.float32),
                INPUT[name].attrs,
            )
            for name, noise, (center, scale) in zip(INPUT_NAMES, random, table, strict=True)
        },
        coords={
            "lead_time": np.arange(leads) * np.timedelta64(1, "h").astype("m8[ns]"),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


def read_grib(path):
    """The twelve fields of an NCEP file by plain ecCodes, latitude from north to south, geopotential in m2 s-2."""
    import eccodes

    fields = {}
    eccodes.codes_grib_multi_support_on()
    with path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            short, level, kind = (eccodes.codes_get(message, key) for key in ("shortName", "level", "typeOfLevel"))
            name = GRIB_NAMES.get(short, short) + (str(level) if kind == "isobaricInhPa" else "")
            if name in INPUT:
                assert not eccodes.codes_get(message, "jScansPositively")
                size = eccodes.codes_get(message, "Nj"), eccodes.codes_get(message, "Ni")
                values = eccodes.codes_get_values(message).reshape(size)
                fields[name] = values * (STANDARD_GRAVITY if short == "gh" else 1)
            eccodes.codes_release(message)
    eccodes.codes_grib_multi_support_off()
    step = 360 / size[1]
    lines = {"latitude": 90 - step * np.arange(size[0]), "longitude": step * np.arange(size[1])}
    dims = ("latitude", "longitude")
    return xr.Dataset({name: (dims, fields[name].astype("f4"), INPUT[name].attrs) for name in INPUT_NAMES}, lines)


class TestPrepare:
    def test_is_interpolation_then_normalization(self):
        inputs = weather(1).isel(lead_time=0)
        channels = prepare(inputs, TAIWAN, CWA_INPUT_STATISTICS)
        assert channels.dims == ("channel", "y", "x")
        assert channels.dtype == np.float32
        assert tuple(channels.channel.values) == INPUT_NAMES
        points = {"latitude": (("y", "x"), TAIWAN.latitude), "longitude": (("y", "x"), TAIWAN.longitude)}
        table = zip(CWA_INPUT_STATISTICS.center, CWA_INPUT_STATISTICS.scale, strict=True)
        for name, (center, scale) in zip(INPUT_NAMES, table, strict=True):
            expected = (inputs[name].astype(np.float64).interp(points).values - center) / scale
            np.testing.assert_allclose(channels.sel(channel=name), expected, rtol=0, atol=5e-7)

    def test_a_halo_more_or_less_changes_nothing(self):
        inputs = weather()
        xr.testing.assert_identical(
            prepare(inputs, SMALL, CWA_INPUT_STATISTICS),
            prepare(cover(inputs, SMALL.input_box), SMALL, CWA_INPUT_STATISTICS),
        )

    def test_channels_are_those_of_the_statistics(self):
        statistics = Statistics(("v10m", "t2m"), (0.0, 280.0), (1.0, 5.0))
        channels = prepare(weather(), SMALL, statistics)
        assert channels.dims == ("lead_time", "channel", "y", "x")
        assert list(channels.channel.values) == ["v10m", "t2m"]

    @pytest.mark.parametrize(
        "chunks",
        [
            {"lead_time": 1},
            {"lead_time": -1},
            {"lead_time": 2, "latitude": 10},
            {"lead_time": 1, "latitude": 5, "longitude": 9},
        ],
    )
    def test_is_lazy_by_lead_and_the_same_whatever_the_chunks(self, chunks):
        inputs = weather()
        lazy = prepare(inputs.chunk(chunks), SMALL, CWA_INPUT_STATISTICS)
        assert lazy.chunks == ((1, 1, 1), (12,), SMALL.shape[:1], SMALL.shape[1:])
        with workers():
            xr.testing.assert_identical(lazy.compute(), prepare(inputs, SMALL, CWA_INPUT_STATISTICS))

    def test_computes_nothing_before_it_is_asked(self):
        def explode(block):
            raise AssertionError("computed")

        inputs = (
            weather()
            .chunk(lead_time=1)
            .map(lambda field: field.copy(data=field.data.map_blocks(explode, meta=field.data)))
        )
        lazy = prepare(inputs, SMALL, CWA_INPUT_STATISTICS)
        with workers(), pytest.raises(AssertionError, match="computed"):
            lazy.compute()

    def test_takes_two_leading_dims(self):
        inputs = xr.concat([weather(2), weather(2) + 1], dim=xr.DataArray([0, 1], dims="init", name="init"))
        channels = prepare(inputs, SMALL, CWA_INPUT_STATISTICS)
        assert channels.dims == ("init", "lead_time", "channel", "y", "x")
        xr.testing.assert_allclose(
            channels.isel(init=0, drop=True), prepare(weather(2), SMALL, CWA_INPUT_STATISTICS), rtol=0, atol=0
        )

    def test_nan_goes_through(self):
        inputs = weather()
        inputs["t2m"][1] = np.nan
        missing = np.isnan(prepare(inputs, SMALL, CWA_INPUT_STATISTICS)).any(("y", "x"))
        assert missing.sum() == 1
        assert missing.sel(channel="t2m").isel(lead_time=1)

    def test_refuses_a_missing_variable(self):
        with pytest.raises(QualityError, match="tcwv, v850 to be normalized but not among z500"):
            prepare(weather().drop_vars(["tcwv", "v850"]), SMALL, CWA_INPUT_STATISTICS)

    def test_refuses_a_source_that_is_too_small_before_computing(self):
        with pytest.raises(GridError, match=r"latitude 20\.\.28\.25 does not cover 19\.25\.\.28"):
            prepare(weather().sel(latitude=slice(None, 20)).chunk(lead_time=1), SMALL, CWA_INPUT_STATISTICS)


class TestWorkers:
    @pytest.mark.parametrize("processes", [False, True])
    def test_a_distributed_scheduler_by_address_gives_the_same(self, processes):
        inputs = weather()
        lazy = prepare(inputs.chunk(lead_time=1), SMALL, CWA_INPUT_STATISTICS)
        with (
            LocalCluster(n_workers=1, threads_per_worker=2, processes=processes, dashboard_address=None) as cluster,
            workers(cluster.scheduler_address),
        ):
            assert get_client().scheduler.address == cluster.scheduler_address
            xr.testing.assert_identical(lazy.compute(), prepare(inputs, SMALL, CWA_INPUT_STATISTICS))

    def test_threads_of_this_process_are_the_default(self):
        with dask.config.set(scheduler="processes"), workers():
            assert dask.config.get("scheduler") == "threads"


class TestRealWeather:
    BOX_MEANS = {  # noqa: RUF012
        GFS: (39.0, 5829.7, 265.2, 19.3, 6.3, 1514.1, 285.1, -1.2, 5.1, 292.5, -5.9, -1.5),
        GEFS: (53.95, 5833.5, 269.3, 13.5, 0.5, 1457.9, 291.1, 3.4, 2.7, 298.8, 0.7, 1.8),
    }

    @pytest.mark.parametrize(
        ("path", "slot", "shape"),
        [
            (GFS, Slot(datetime(2017, 3, 22), datetime(2017, 3, 22)), (6, 6)),
            (GEFS, Slot(datetime(2009, 6, 12, 12), datetime(2009, 6, 5)), (10, 11)),
        ],
        ids=["gfs-2.5-degrees", "gefs-1-degree"],
    )
    def test_coarse_forecasts_pass_the_checks_and_reach_the_grid(self, path, slot, shape):
        whole = read_grib(there(path))
        means = whole.sel(latitude=slice(28, 19.25), longitude=slice(116, 126)).mean()
        for name, expected in zip(INPUT_NAMES, self.BOX_MEANS[path], strict=True):
            factor = STANDARD_GRAVITY if name.startswith("z") else 1
            assert abs(float(means[name]) / factor - expected) < 0.06
        inputs = cover(whole, TAIWAN.input_box)
        assert inputs["t2m"].shape == shape
        timed = inputs.assign_coords(valid_time=slot.valid_time, init_time=slot.init_time)
        assert check_inputs(timed, slot, CWA_INPUT_STATISTICS) == []
        channels = prepare(inputs, TAIWAN, CWA_INPUT_STATISTICS)
        assert np.isfinite(channels).all()
        assert np.abs(channels).max() < 6
        temperature = CWA_INPUT_STATISTICS.denormalize(channels.to_dataset("channel"))["t2m"]
        assert inputs["t2m"].min() <= temperature.min() < temperature.max() <= inputs["t2m"].max()
        assert abs(float(temperature.mean() - means["t2m"])) < 1.5

    def test_era5_levels_reach_the_grid(self):
        era5 = xr.open_dataset(there(ERA5), engine="scipy", decode_times=False)
        (latitude,) = [name for name in era5.dims if name.startswith("lat")]
        (longitude,) = [name for name in era5.dims if name.startswith("lon")]
        (level,) = [name for name in era5.dims if "lev" in name]
        era5 = era5.rename({latitude: "latitude", longitude: "longitude"}).squeeze(drop=True)
        inputs = xr.Dataset(
            {f"{letter}{hPa}": era5[letter].sel({level: hPa}, drop=True) for letter in "ztuv" for hPa in (500, 850)}
        )
        places = [CWA_INPUT_STATISTICS.names.index(name) for name in inputs]
        statistics = Statistics(
            tuple(map(str, inputs)),
            tuple(CWA_INPUT_STATISTICS.center[place] for place in places),
            tuple(CWA_INPUT_STATISTICS.scale[place] for place in places),
        )
        assert cover(inputs, TAIWAN.input_box)["z500"].shape == (36, 40)
        channels = prepare(inputs, TAIWAN, statistics)
        assert np.isfinite(channels).all()
        assert np.abs(channels).max() < 6

    def test_earth2studio_inputs_on_the_original_coordinates(self):
        """What NVIDIA's package does to its input (bilinear to XLAT/XLONG, crop, normalize), by xarray.interp."""
        golden = np.load(there(EARTH2STUDIO / "golden_e2s.npz"))
        original = zarr.open_group(
            str(EARTH2STUDIO / "corrdiff_inference_package/dataset/2023-01-24-cwb-4years_5times.zarr"), mode="r"
        )
        coords = {"channel": list(INPUT_NAMES), "latitude": golden["lat"], "longitude": golden["lon"]}
        stacked = xr.DataArray(golden["x"], coords, ("channel", "latitude", "longitude"))
        inner = slice(1, -1)
        points = {
            ours: (("y", "x"), np.asarray(original[theirs][inner, inner], np.float64))
            for ours, theirs in (("latitude", "XLAT"), ("longitude", "XLONG"))
        }
        center, scale = (
            np.reshape(column, (12, 1, 1)) for column in (CWA_INPUT_STATISTICS.center, CWA_INPUT_STATISTICS.scale)
        )
        expected = (stacked.astype(np.float64).interp(points).values - center) / scale
        channels = prepare(stacked.to_dataset("channel"), TAIWAN, CWA_INPUT_STATISTICS)
        steepest = max(np.abs(np.diff(golden["x"] / scale, axis=axis)).max() for axis in (1, 2)) / 0.25
        np.testing.assert_allclose(channels, expected, rtol=0, atol=2 * 3.7e-5 * steepest + 1e-6)
