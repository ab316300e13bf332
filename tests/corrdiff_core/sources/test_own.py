"""Data of one's own: whatever it is written in and however named, the same fields come out, or a refusal by name."""

import gc
import re
from datetime import datetime

import eccodes
import fsspec
import numpy as np
import pytest
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.errors import ConfigurationError, GridError, SourceError
from corrdiff_core.grid import TAIWAN, Box
from corrdiff_core.nature import write_gfs
from corrdiff_core.quality import check_inputs
from corrdiff_core.sources import open_source
from corrdiff_core.sources.own import OwnData
from corrdiff_core.sources.ranged_file import RangedFile
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT, INPUT_NAMES, STANDARD_GRAVITY

BOX = Box(south=22.0, north=24.5, west=119.5, east=122.5)
LINES = np.arange(21.0, 26.01, 0.5), np.arange(118.0, 124.01, 0.5)
START = datetime(2021, 2, 27, 12)
HOURS = [START + 6 * hour * HOUR for hour in range(4)]
REAL = "gfs/gfs.t00z.pgrb2.2p50.f000"
ANALYSIS = datetime(2017, 3, 22)


def weather(times=HOURS) -> xr.Dataset:
    """(time, latitude, longitude), under our names."""
    fields = [nature.weather(1, time, *LINES) for time in times]
    return xr.concat(fields, "valid_time").rename(valid_time="time")


def on_levels(fields: xr.Dataset, names, axis: xr.DataArray) -> xr.Dataset:
    """Fields with a level axis (850 first) under the names for z, t, u, v."""
    made = {}
    for letter, name in zip("ztuv", names, strict=True):
        both = [fields[f"{letter}{level}"].assign_attrs(long_name="") for level in (850, 500)]
        made[name] = xr.concat(both, axis).transpose("time", axis.name, ...)
    return xr.Dataset(made)


def levels(name: str, values, **attrs: str) -> xr.DataArray:
    return xr.DataArray(np.array(values, "f8"), dims=name, name=name, attrs=attrs)


def as_era5(fields: xr.Dataset) -> xr.Dataset:
    """As ARCO-ERA5 and WeatherBench name them: long names, a level axis without a unit, latitude descending."""
    axis = levels("level", [850, 500])
    names = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind")
    surface = {
        "tcwv": "total_column_water_vapour", "t2m": "2m_temperature", "u10m": "10m_u_component_of_wind",
        "v10m": "10m_v_component_of_wind",
    }  # fmt: skip
    made = on_levels(fields, names, axis).merge(fields[[*surface]].rename(surface))
    return made.isel(latitude=slice(None, None, -1))


def as_cds(fields: xr.Dataset) -> xr.Dataset:
    """As the CDS delivers it: short names, valid_time, hPa, an axis of length one, GRIB's spelling of units."""
    axis = levels("pressure_level", [850, 500], units="hPa", standard_name="air_pressure")
    made = on_levels(fields, "ztuv", axis).merge(fields[["tcwv", "t2m"]])
    made = made.merge(fields[["u10m", "v10m"]].rename(u10m="u10", v10m="v10")).rename(time="valid_time")
    made["tcwv"].attrs["units"] = "kg m**-2"
    made["z"].attrs["units"] = "m**2 s**-2"
    return made.expand_dims(number=[0]).assign_coords(expver=((), 1))


def as_cmip6(fields: xr.Dataset) -> xr.Dataset:
    """CF and CMIP: plev in Pa, geopotential height, degrees Celsius, a height coordinate, lon from -180, noleap."""
    axis = levels("plev", [85000, 50000], units="Pa", standard_name="air_pressure", positive="down")
    made = on_levels(fields, ("zg", "ta", "ua", "va"), axis)
    made["zg"] = (made["zg"] / STANDARD_GRAVITY).assign_attrs(units="m", standard_name="geopotential_height")
    made["prw"] = fields["tcwv"].assign_attrs(units="mm")
    made["near"] = (fields["t2m"] - 273.15).assign_attrs(units="degC", standard_name="air_temperature", height="2 m")
    for name in ("u", "v"):
        made[f"{name}as"] = fields[f"{name}10m"]
    made = made.rename(latitude="lat", longitude="lon").assign_coords(lon=LINES[1] - 360)
    days = np.array([(datetime(2021, 2, 27, 12) - datetime(2021, 1, 1)).days + 0.5 + 0.25 * n for n in range(4)])
    return made.assign_coords(time=("time", days, {"units": "days since 2021-01-01", "calendar": "noleap"}))


WRITERS = {
    "v2.zarr": lambda fields, path: fields.to_zarr(path, zarr_format=2, consolidated=True),
    "v3.zarr": lambda fields, path: fields.to_zarr(path, zarr_format=3, consolidated=False),
    "three.nc": lambda fields, path: fields.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT"),
    "four.nc": lambda fields, path: fields.to_netcdf(path, engine="h5netcdf"),
}


def written(fields: xr.Dataset, path) -> str:
    WRITERS[path.name if path.name in WRITERS else "four.nc"](fields, path)
    return str(path)


def fetched(url: str, time: datetime = HOURS[1], box: Box = BOX) -> Fetched:
    answer = open_source(url).fetch(Slot(time), box)
    assert isinstance(answer, Fetched)
    return answer


def assert_same(inputs: xr.Dataset, time: datetime = HOURS[1]) -> None:
    """The weather of that hour, to what a conversion in float32 costs."""
    expected = weather([time]).isel(time=0).sel(latitude=slice(22, 24.5), longitude=slice(119.5, 122.5))
    assert tuple(inputs.data_vars) == INPUT_NAMES
    for name in INPUT_NAMES:
        np.testing.assert_allclose(inputs[name], expected[name], rtol=3e-7, atol=4e-5, err_msg=name)
        assert inputs[name].attrs == INPUT[name].attrs
    np.testing.assert_array_equal(inputs.longitude, expected.longitude)


class TestNames:
    @pytest.mark.parametrize("file", [*WRITERS])
    @pytest.mark.parametrize("named", [weather, as_era5, as_cds, as_cmip6])
    def test_the_twelve_whatever_they_are_called(self, tmp_path, named, file):
        fields = weather() if named is weather else named(weather())
        answer = fetched(written(fields, tmp_path / file))
        assert_same(answer.inputs)
        check_inputs(answer.inputs, Slot(HOURS[1]))
        assert answer.provenance["bytes"] >= 12 * 6 * 7 * 4

    def test_conversions_are_in_the_provenance(self, tmp_path):
        channels = fetched(written(as_cmip6(weather()), tmp_path / "my_cmip6.nc")).provenance["channels"]
        told = {name: (row["variable"], row["units"], row["conversion"]) for name, row in channels.items()}
        assert told["z500"] == ("zg at 500 hPa", "m", "x 9.80665")
        assert told["t2m"] == ("near at 2 m", "degC", "+ 273.15")
        assert told["tcwv"] == ("prw", "mm", "none")

    def test_missing_and_ambiguous_are_named_together(self, tmp_path):
        fields = as_cds(weather()).drop_vars(["tcwv"])
        fields["gh"] = fields["z"]
        with pytest.raises(SourceError) as refused:
            fetched(written(fields, tmp_path / "two.nc"))
        words = str(refused.value)
        assert "missing tcwv; ambiguous z500 (z at 500 hPa, gh at 500 hPa), z850 (z at 850 hPa, gh at 850 hPa)" in words
        assert "there is z at 500, 850 hPa; t at 500, 850 hPa" in words
        assert "name a variable as ours is named" in words

    def test_our_own_name_decides(self, tmp_path):
        fields = weather().merge(weather()[["t2m"]].rename(t2m="tas") + 40)
        assert_same(fetched(written(fields, tmp_path / "both.nc")).inputs)

    def test_the_level_must_be_exact(self, tmp_path):
        fields = as_cds(weather()).assign_coords(pressure_level=[850.0, 501.0])
        fields["pressure_level"].attrs["units"] = "hPa"
        with pytest.raises(SourceError, match=r"missing z500, t500, u500, v500; there is z at 501, 850 hPa"):
            fetched(written(fields, tmp_path / "other.nc"))

    def test_an_axis_of_members_is_not_cut_silently(self, tmp_path):
        fields = xr.concat([as_cds(weather()), as_cds(weather()).assign_coords(number=[1])], "number")
        with pytest.raises(SourceError, match=r"missing tcwv, .*there is .*with 2 of number, where one is due"):
            fetched(written(fields, tmp_path / "members.nc"))

    def test_units_are_converted_by_the_table_only(self, tmp_path):
        fields = weather()
        fields["t2m"].attrs["units"], fields["u500"].attrs["units"] = "degF", "kt"
        del fields["tcwv"].attrs["units"]
        with pytest.raises(SourceError) as refused:
            fetched(written(fields, tmp_path / "units.nc"))
        assert "t2m (t2m) is in 'degF', 'K' or what the table" in str(refused.value)
        assert "tcwv (tcwv) has no units, 'kg m-2' or what" in str(refused.value)
        assert "u500" not in str(refused.value)


class TestTimes:
    def test_hours_go_on_beyond_the_end(self, tmp_path):
        source = OwnData(written(weather(), tmp_path / "a.nc"))
        assert source.hours(HOURS[1], datetime(2021, 3, 1, 1)) == [START + 6 * n * HOUR for n in range(1, 7)]
        assert source.hours(datetime(2021, 3, 5), datetime(2021, 3, 5, 12)) == [datetime(2021, 3, 5, h) for h in (0, 6)]
        assert source.hours(datetime(2000, 1, 1), HOURS[0]) == []
        answer = source.fetch(Slot(datetime(2021, 3, 1)), BOX)
        assert isinstance(answer, NotYet)
        assert "the data end at 20210228T06Z" in str(answer)
        assert source.available(Slot(HOURS[0]))
        assert not source.available(Slot(HOURS[-1] + HOUR))

    def test_no_leap_day_where_the_calendar_has_none(self, tmp_path):
        fields = as_cmip6(weather())
        days = xr.Variable("time", [-307.5, -307.25], {"units": "days since 2021-01-01", "calendar": "noleap"})
        source = OwnData(written(fields.isel(time=[0, 1]).assign_coords(time=days), tmp_path / "a.nc"))
        there = [datetime(2020, 2, 27, 12), datetime(2020, 2, 27, 18)]
        to_come = [datetime(2020, 2, 28, hour) for hour in (0, 6, 12, 18)] + [datetime(2020, 3, 1)]
        assert source.hours(datetime(2020, 1, 1), datetime(2020, 3, 1, 6)) == there + to_come

    def test_a_time_that_the_data_skip(self, tmp_path):
        source = OwnData(written(weather().isel(time=[0, 1, 3]), tmp_path / "a.nc"))
        with pytest.raises(SourceError, match=r"tcwv of 20210228T00Z is not there, its data are of 3 times"):
            source.fetch(Slot(HOURS[2]), BOX)

    def test_a_calendar_of_360_days(self, tmp_path):
        fields = as_cmip6(weather())
        fields["time"].attrs["calendar"] = "360_day"
        with pytest.raises(SourceError, match=r"'360_day' has months of 30 days"):
            fetched(written(fields, tmp_path / "a.nc"))

    def test_a_forecast_slot_is_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="holds analyses"):
            OwnData(written(weather(), tmp_path / "a.nc")).fetch(Slot(HOURS[0], HOURS[0]), BOX)

    def test_a_file_that_grows_is_read_anew(self, tmp_path):
        source = OwnData(written(weather(HOURS[:2]), tmp_path / "a.nc"))
        assert source.last == HOURS[1]
        written(weather(), tmp_path / "a.nc")
        assert source.last == HOURS[3]


class TestFiles:
    def test_a_glob_of_variables_and_of_times(self, tmp_path):
        fields = weather()
        written(fields[["t2m", "u10m", "v10m"]], tmp_path / "file_surface.nc")
        written(fields.drop_vars(["t2m", "u10m", "v10m"]).isel(time=[0, 1]), tmp_path / "file_one.nc")
        written(fields.drop_vars(["t2m", "u10m", "v10m"]).isel(time=[2, 3]), tmp_path / "file_two.nc")
        source = OwnData(str(tmp_path / "file_*.nc"))
        assert source.name.startswith("file-")
        assert_same(fetched(source.url, HOURS[2]).inputs, HOURS[2])
        read = source.read(HOURS, BOX)
        np.testing.assert_array_equal(
            read["z500"], weather()["z500"].sel(latitude=slice(22, 24.5), longitude=slice(119.5, 122.5))
        )
        written(fields[["t2m"]], tmp_path / "file_more.nc")
        with pytest.raises(SourceError, match=r"both have t2m \(t2m\) of 20210227T12Z: drop one"):
            fetched(source.url)

    @pytest.mark.parametrize("file", ["v3.zarr", "four.nc", "three.nc"])
    def test_object_storage(self, tmp_path, s3_url, file):
        path = written(as_cds(weather()), tmp_path / file)
        fsspec.filesystem("s3").put(path, f"{s3_url}/{file}", recursive=True)
        answer = fetched(f"{s3_url}/{file}")
        assert_same(answer.inputs)
        assert len(answer.provenance["files"][0]["etag"].strip('"')) == 32

    def test_remote_hdf5_is_read_as_others_of_ours(self, tmp_path, s3_url, monkeypatch):
        """In blocks that travel once and are counted, while no garbage is collected."""
        fsspec.filesystem("s3").put(written(weather(), tmp_path / "four.nc"), f"{s3_url}/four.nc")
        read, collecting = RangedFile._read, []
        monkeypatch.setattr(RangedFile, "_read", lambda self, at: collecting.append(gc.isenabled()) or read(self, at))
        first, second = (fetched(f"{s3_url}/four.nc", time).provenance for time in HOURS[:2])
        assert set(collecting[1:]) == {False}  # after the first four bytes, which HDF5 does not read
        assert gc.isenabled()
        assert 0 < first["bytes"] <= first["files"][0]["size"]
        assert first["bytes"] + second["bytes"] <= first["files"][0]["size"]

    @pytest.mark.parametrize("pattern", ["mine_*.nc", "mine_?.nc", "mine_[ab].nc", "**/mine_?.nc", "../*/mine_[!c].nc"])
    def test_a_relative_glob(self, tmp_path, monkeypatch, pattern):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        for name, time in (("a", HOURS[0]), ("b", HOURS[1])):
            written(weather([time]), tmp_path / "here" / f"mine_{name}.nc")
        source = open_source(pattern)
        assert isinstance(source, OwnData)
        assert source.hours(START, START + 12 * HOUR) == HOURS[:2]
        assert_same(fetched(pattern).inputs)

    def test_a_name_with_brackets_is_a_file_where_there_is_one(self, tmp_path):
        assert_same(fetched(written(weather(), tmp_path / "mine[1].nc")).inputs)

    @pytest.mark.parametrize("version", [2, 3])
    def test_a_chunk_that_is_missing_is_no_zero(self, tmp_path, version):
        path = tmp_path / "holes.zarr"
        fields = weather()
        encoding = {name: {"chunks": (1, 6, 13)} for name in fields.data_vars}
        fields.to_zarr(path, zarr_format=version, consolidated=version == 2, encoding=encoding)
        assert_same(fetched(str(path)).inputs)
        (path / ("u500/1.0.0" if version == 2 else "u500/c/1/0/0")).unlink()
        with pytest.raises(SourceError, match=r"u500.* (lacks the chunk .*which would read as 0|values are missing)"):
            fetched(str(path))
        assert_same(fetched(str(path), HOURS[2]).inputs, HOURS[2])

    @pytest.mark.parametrize("file", ["three.nc", "four.nc"])
    @pytest.mark.parametrize("share", [0.2, 0.6, 0.9, 0.999])
    def test_a_truncated_file(self, tmp_path, file, share):
        path = tmp_path / file
        written(weather(), path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(SourceError):
            fetched(str(path), HOURS[3])

    def test_what_cannot_be_opened(self, tmp_path):
        (tmp_path / "text.nc").write_text("no fields")
        for url, said in (
            (tmp_path / "none.nc", "cannot be opened"),
            (tmp_path / "*.zarr", "no file matches"),
            (tmp_path / "text.nc", "neither Zarr"),
        ):
            with pytest.raises(SourceError, match=said):
                fetched(str(url))

    def test_missing_values_and_a_box_beyond(self, tmp_path):
        fields = weather()
        fields["t500"][1, 4, 6] = np.nan
        url = written(fields, tmp_path / "a.nc")
        with pytest.raises(SourceError, match=r"t500 of 20210227T18Z: 1 of 42 values are missing"):
            fetched(url)
        with pytest.raises(GridError, match="does not cover"):
            fetched(url, HOURS[0], Box(south=10, north=24, west=119, east=122))


class TestGrib:
    @pytest.fixture
    def leads(self, tmp_path) -> list[str]:
        """Two leads of synthetic weather as NCEP writes it."""
        return write_gfs(str(tmp_path / "gfs"), datetime(2021, 2, 27, 12), [0, 6])

    def test_many_messages_of_two_times(self, tmp_path, leads):
        whole = tmp_path / "mine.grib2"
        whole.write_bytes(b"".join(fsspec.open(url, "rb").open().read() for url in leads))
        source = OwnData(str(whole))
        assert source.hours(START, datetime(2021, 2, 28)) == hours_from(START, 7)[::6]
        inputs = fetched(str(whole), START + 6 * HOUR).inputs
        expected = nature.weather(1, START + 6 * HOUR, inputs.latitude.values, inputs.longitude.values)
        for name in INPUT_NAMES:
            np.testing.assert_allclose(inputs[name], expected[name], rtol=0, atol=0.03, err_msg=name)

    def test_what_is_cut_or_damaged_is_refused(self, tmp_path, leads):
        body = fsspec.open(leads[0], "rb").open().read()
        second = body.index(b"GRIB", 4)
        path = tmp_path / "cut.grib2"
        for damaged in (
            body[:-100],
            body[:second] + b"XXXX" + body[second + 4 :],
            body[:second] + b"noise" + body[second:],
            body[: second - 4] + b"0000" + body[second:],
        ):
            path.write_bytes(damaged)
            with pytest.raises(SourceError, match=r"cut.grib2"):
                fetched(str(path), START)

    def test_the_same_field_twice(self, tmp_path, leads):
        path = tmp_path / "twice.grib2"
        path.write_bytes(2 * fsspec.open(leads[0], "rb").open().read())
        with pytest.raises(SourceError, match=r"is there twice, at bytes 0 and \d+"):
            fetched(str(path), START)

    def test_remote(self, s3_url, leads):
        fsspec.filesystem("s3").put(leads[0], f"{s3_url}/mine.grib2")
        inputs = fetched(f"{s3_url}/mine.grib2", START).inputs
        local = fetched(leads[0], START).inputs
        xr.testing.assert_identical(inputs, local)

    def test_edition_1(self, tmp_path):
        """As ECMWF's ERA5 comes: geopotential itself, the surface fields at the level `surface`."""
        path = tmp_path / "era5.grib"
        fields = nature.weather(1, START, *LINES)
        path.write_bytes(b"".join(_edition_1(fields[name], code, level) for name, (code, level) in ERA5.items()))
        assert path.read_bytes()[7] == 1
        source = OwnData(str(path), taken=["era5"])
        assert source.name.startswith("own-era5-")
        inputs = fetched(str(path), START).inputs
        expected = fields.sel(latitude=inputs.latitude, longitude=inputs.longitude)
        for name in INPUT_NAMES:
            np.testing.assert_allclose(inputs[name], expected[name], rtol=1e-5, atol=1e-3, err_msg=name)


ERA5 = {
    "tcwv": (137, 0), "z500": (129, 500), "t500": (130, 500), "u500": (131, 500), "v500": (132, 500),
    "z850": (129, 850), "t850": (130, 850), "u850": (131, 850), "v850": (132, 850), "t2m": (167, 0), "u10m": (165, 0),
    "v10m": (166, 0),
}  # fmt: skip


def _edition_1(field: xr.DataArray, code: int, level: int) -> bytes:
    """One message, south to north, by ecCodes alone."""
    kind = {"typeOfLevel": "isobaricInhPa", "level": level} if level else {"typeOfLevel": "surface"}
    keys = {
        "centre": "ecmf", "table2Version": 128, "indicatorOfParameter": code, **kind,
        "dataDate": int(f"{START:%Y%m%d}"), "dataTime": 100 * START.hour, "Ni": 13, "Nj": 11, "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": 21.0, "latitudeOfLastGridPointInDegrees": 26.0,
        "longitudeOfFirstGridPointInDegrees": 118.0, "longitudeOfLastGridPointInDegrees": 124.0,
        "iDirectionIncrementInDegrees": 0.5, "jDirectionIncrementInDegrees": 0.5, "bitsPerValue": 24,
    }  # fmt: skip
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
    try:
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set_values(handle, field.values.astype("f8").ravel())
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)


class TestReal:
    def test_an_analysis_of_gfs(self, shared):
        answer = fetched(str(shared(REAL)), ANALYSIS, TAIWAN.input_box)
        check_inputs(answer.inputs, Slot(ANALYSIS))
        assert OwnData(str(shared(REAL))).hours(datetime(2017, 1, 1), datetime(2018, 1, 1)) == [ANALYSIS]
        looked_up = {(name, level): values for name, level, values in _points(shared(REAL))}
        for name, short, level in zip(INPUT_NAMES, SHORT, LEVELS, strict=True):
            factor = STANDARD_GRAVITY if short == "gh" else 1
            ours = answer.inputs[name].sel(latitude=25.0, longitude=120.0)
            np.testing.assert_allclose(ours, factor * looked_up[short, level], rtol=1e-6, err_msg=name)

    def test_a_message_of_two_winds(self, shared):
        answer = fetched(str(shared("gefs/gep19.t00z.pgrb2af180")), datetime(2009, 6, 12, 12), TAIWAN.input_box)
        assert float(answer.inputs["u500"].sel(longitude=slice(116, 126)).mean()) == pytest.approx(13.5, abs=0.8)
        assert float(answer.inputs["v10m"].mean()) == pytest.approx(1.8, abs=0.5)

    def test_era5_without_its_surface(self, shared):
        with pytest.raises(SourceError, match=r"ERA5_1980050100.nc: missing tcwv, t2m, u10m, v10m; there is d at 200,"):
            fetched(str(shared("era5/ERA5_1980050100.nc")), datetime(1980, 5, 1))


SHORT = ("pwat", *("gh", "t", "u", "v") * 2, "2t", "10u", "10v")
LEVELS = (0, *(500,) * 4, *(850,) * 4, 2, 10, 10)


def _points(path):
    """Short name, level and the value at 25 N, 120 E of every message, by ecCodes alone."""
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            (nearest,) = eccodes.codes_grib_find_nearest(handle, 25.0, 120.0)
            assert nearest.distance < 0.1
            kind = eccodes.codes_get(handle, "typeOfLevel")
            if kind in ("isobaricInhPa", "heightAboveGround", "atmosphereSingleLayer"):
                yield eccodes.codes_get(handle, "shortName"), eccodes.codes_get(handle, "level"), nearest.value
            eccodes.codes_release(handle)


class TestName:
    def test_a_source_is_called_after_its_place(self, tmp_path):
        assert re.fullmatch("my_cmip6-[0-9a-f]{6}", open_source("s3://bucket/my_cmip6.zarr").name)
        assert open_source("s3://bucket/my_cmip6.zarr/").name == open_source("s3://bucket/my_cmip6.zarr").name
        assert open_source("s3://other/my_cmip6.zarr").name != open_source("s3://bucket/my_cmip6.zarr").name
        assert open_source(str(tmp_path / "gfs.nc")).name.startswith("own-gfs-")
        assert open_source("gfs").name == "gfs"
        assert open_source(str(tmp_path / "mine" / "*.nc")).name.startswith("mine-")

    def test_what_names_nothing(self):
        with pytest.raises(ConfigurationError, match="names no folder"):
            open_source("./*.nc")
        with pytest.raises(ConfigurationError, match="or the path or URL of your data"):
            open_source("nowhere")
