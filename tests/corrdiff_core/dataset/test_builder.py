"""Datasets from archives, files and sources: what goes in comes out, and what does not fit is refused."""

from dataclasses import replace
from datetime import datetime

import cloudpickle
import dask
import numpy as np
import pytest
import xarray as xr
from dask.local import get_sync

from corrdiff_core import nature
from corrdiff_core.archive import Archive, Layout, Series
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.dataset import StoredSamples, box_lines, build, extend, sample_statistics
from corrdiff_core.dataset import builder as building
from corrdiff_core.dataset.cwa_fixture import write_cwa
from corrdiff_core.dataset.origins import NatureTruth
from corrdiff_core.errors import DatasetError, GridError, SourceError
from corrdiff_core.sources.source import Fetched, NotYet
from tests.corrdiff_core.dataset.dataset_cases import END, HOURS, START, built, truth, weather
from tests.small_domain import SMALL

TRUTH = NatureTruth(1, SMALL)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    """Of the six hours, whatever road they took."""
    return built(tmp_path_factory.mktemp("expected") / "dataset").digest


@pytest.fixture(scope="module")
def inputs_url(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("inputs")
    weather().to_zarr(folder / "inputs.zarr", zarr_format=3, consolidated=False)
    return str(folder / "inputs.zarr")


@pytest.fixture(scope="module")
def truth_url(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("truth")
    truth().to_netcdf(folder / "truth.nc", engine="h5netcdf")
    return str(folder / "truth.nc")


def made(url, inputs, target, start=START, end=END, **options) -> StoredSamples:
    return build(str(url), inputs, target, start, end, SMALL, **options)


def written(fields: xr.Dataset, path) -> str:
    fields.to_netcdf(path, engine="h5netcdf")
    return str(path)


class TestFiles:
    def test_zarr_and_netcdf(self, tmp_path, inputs_url, truth_url, digest):
        samples = made(tmp_path / "dataset", inputs_url, truth_url)
        assert samples.digest == digest
        assert samples.description.endswith("inputs fields, truth fields")
        assert {entry.source for entry in samples.index.values()} == {inputs_url}

    def test_a_whole_globe_turned_upside_down(self, tmp_path, truth_url, digest):
        """Larger than the box, latitude descending, longitude counted from -180, dims in another order."""
        latitude, longitude = np.arange(30, 15.9, -0.25), np.arange(112, 130.1, 0.25)
        fields = [nature.weather(1, time, latitude[::-1], longitude) for time in HOURS]
        large = xr.concat(fields, "valid_time").rename(valid_time="time").isel(latitude=slice(None, None, -1))
        large = large.assign_coords(longitude=large["longitude"] - 360).transpose("longitude", "time", "latitude")
        samples = made(tmp_path / "dataset", written(large, tmp_path / "large.nc"), truth_url)
        expected = built(tmp_path / "expected").read(2).inputs
        np.testing.assert_allclose(samples.read(2).inputs, expected, rtol=2e-6, atol=2e-5)

    def test_truth_before_its_crop_by_latitude_and_longitude(self, tmp_path, inputs_url):
        whole = replace(SMALL, crop=0)
        lines = box_lines(SMALL.input_box)
        field = nature.truth(nature.weather(1, START, *lines), 1, whole).drop_vars(["y", "x"])
        field = field.assign_coords(latitude=(("y", "x"), whole.latitude), longitude=(("y", "x"), whole.longitude))
        url = written(field.rename(valid_time="time").expand_dims("time"), tmp_path / "truth.nc")
        samples = made(tmp_path / "dataset", inputs_url, url)
        np.testing.assert_array_equal(samples.read(0).truth, field.to_dataarray().values[:, 1:-1, 1:-1])

    def test_object_storage(self, tmp_path, s3_url, inputs_url, truth_url, digest):
        import fsspec

        fsspec.filesystem("s3").put(inputs_url, f"{s3_url}/inputs.zarr", recursive=True)
        fsspec.filesystem("s3").put(truth_url, f"{s3_url}/truth.nc")
        assert made(f"{s3_url}/dataset", f"{s3_url}/inputs.zarr", f"{s3_url}/truth.nc").digest == digest

    def test_the_cwa_truth(self, tmp_path, inputs_url):
        write_cwa(str(tmp_path / "cwa.zarr"), HOURS, SMALL, invalid=HOURS[1:2])
        samples = made(tmp_path / "dataset", inputs_url, str(tmp_path / "cwa.zarr"))
        assert samples.times == (HOURS[0], *HOURS[2:])
        assert samples.about.truth.kind == "cwa"


ARCHIVED = Layout(SMALL, 1, [hour * HOUR for hour in range(9)], *box_lines(SMALL.input_box))


def archive(url, model="demo-1a2b3c4d", source="gfs", leads=range(9), init=START - 3 * HOUR) -> str:
    """A forecast whose inputs are the weather plus a mark of the lead: its hour of lead time, in kg m-2."""
    series, opened = Series("forecast", source, model), Archive(str(url))
    for lead in leads:
        slot = Slot.forecast(init, lead * HOUR)
        opened.create(series, slot, ARCHIVED)
        fields = nature.weather(1, slot.valid_time, *box_lines(SMALL.input_box))
        fields["tcwv"] += np.float32(0.5 * lead)
        opened.write_inputs(series, slot, fields, {"url": "nowhere"})
    return str(url)


class TestArchive:
    def test_the_shortest_lead_counts(self, tmp_path):
        url = archive(tmp_path / "archive")
        archive(url, "demo-1a2b3c4d", leads=(0, 1), init=START)
        archive(url, "other-5e6f7a8b", leads=(2, 5), init=START)
        samples = made(tmp_path / "dataset", url, TRUTH)
        sources = [samples.index[time].source for time in samples.times]
        assert sources == [
            "forecast/gfs/demo-1a2b3c4d 20210131T21Z+000h (valid 20210131T21Z)",
            "forecast/gfs/demo-1a2b3c4d 20210131T21Z+001h (valid 20210131T22Z)",
            "forecast/gfs/other-5e6f7a8b 20210131T21Z+002h (valid 20210131T23Z)",
            "forecast/gfs/demo-1a2b3c4d 20210131T18Z+006h (valid 20210201T00Z)",
            "forecast/gfs/demo-1a2b3c4d 20210131T18Z+007h (valid 20210201T01Z)",
            "forecast/gfs/other-5e6f7a8b 20210131T21Z+005h (valid 20210201T02Z)",
        ]
        tcwv, _ = samples.store.get(HOURS[3])
        expected = weather(HOURS[3:4])["tcwv"].values[0] + np.float32(3.0)
        np.testing.assert_array_equal(tcwv[0], expected)

    def test_one_source_must_be_named(self, tmp_path):
        url = archive(tmp_path / "archive")
        archive(url, source="gefs-p01")
        with pytest.raises(DatasetError, match=r"2 sources .forecast/gefs-p01, forecast/gfs.: name one"):
            made(tmp_path / "dataset", url, TRUTH)
        samples = made(tmp_path / "dataset", f"{url}/forecast/gefs-p01", TRUTH)
        assert samples.about.inputs.kind == "forecast/gefs-p01"

    def test_a_hindcast(self, tmp_path, digest):
        url, series = str(tmp_path / "archive"), Series("hindcast", "era5", "demo-1a2b3c4d")
        layout = replace(ARCHIVED, lead_times=())
        for time in HOURS:
            Archive(url).create(series, Slot(time), layout)
            fields = nature.weather(1, time, *box_lines(SMALL.input_box))
            Archive(url).write_inputs(series, Slot(time), fields, {})
        assert made(tmp_path / "dataset", url, TRUTH).digest == digest


class Analyses:
    """A source of hindcasts, whose newest hours are not there yet."""

    name = "era5"

    def __init__(self, until=END):
        self.until = until

    def fetch(self, slot, box):
        if slot.valid_time >= self.until:
            return NotYet(slot, "nowhere", "five days late")
        return Fetched(slot, nature.weather(1, slot.valid_time, *box_lines(box)), {})


class TestSource:
    def test_hours_that_are_not_there_yet_are_left_for_the_next_call(self, tmp_path, digest):
        said = []
        samples = made(tmp_path / "dataset", Analyses(HOURS[4]), TRUTH, report=said.append)
        assert samples.times == tuple(HOURS[:4])
        assert said[:2] == ["2021-01: 3 samples, 3 of them new", "2021-02: 1 samples, 1 of them new"]
        assert said[2] == "left out: 20210201T01: not there yet in era5"
        assert made(tmp_path / "dataset", Analyses(), TRUTH).digest == digest

    @pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
    def test_dask_changes_nothing(self, tmp_path, digest, scheduler, monkeypatch):
        monkeypatch.setattr(building, "TOGETHER", 2)
        with dask.config.set(scheduler=scheduler):
            assert made(tmp_path / "dataset", Analyses(), TRUTH).digest == digest

    def test_every_side_travels_to_other_processes(self, tmp_path, inputs_url, truth_url):
        """Tasks go through pickle as a Dask cluster sends them."""
        url = archive(tmp_path / "archive", leads=range(3, 9))
        for number, sides in enumerate(((url, TRUTH), (inputs_url, truth_url), (Analyses(), TRUTH))):
            with dask.config.set(scheduler=_as_a_cluster):
                far = made(tmp_path / f"far-{number}", *sides)
            assert far.digest == made(tmp_path / f"near-{number}", *sides).digest


def _as_a_cluster(graph, keys, **_):
    return get_sync(cloudpickle.loads(cloudpickle.dumps(graph)), keys)


class TestExtend:
    def test_it_goes_on_from_where_the_data_came_from(self, tmp_path, inputs_url, truth_url, digest):
        made(tmp_path / "dataset", inputs_url, truth_url, end=HOURS[2])
        assert extend(str(tmp_path / "dataset"), END).digest == digest
        said = []
        assert extend(str(tmp_path / "dataset"), END, report=said.append).digest == digest
        assert all("0 of them new" in line for line in said)

    def test_truth_that_comes_in_files_of_its_own(self, tmp_path, inputs_url, digest):
        first, second = (
            written(truth(times), tmp_path / f"{name}.nc") for name, times in (("one", HOURS[:3]), ("two", HOURS[3:]))
        )
        made(tmp_path / "dataset", inputs_url, first)
        assert extend(str(tmp_path / "dataset"), END, truth=second).digest == digest

    def test_nothing_new_yet(self, tmp_path, inputs_url, truth_url):
        samples = made(tmp_path / "dataset", inputs_url, truth_url)
        assert extend(str(tmp_path / "dataset"), datetime(2020, 1, 1)).digest == samples.digest
        later = extend(str(tmp_path / "dataset"), datetime(2021, 6, 1), start=datetime(2021, 5, 1))
        assert later.digest == samples.digest

    def test_another_kind_is_refused(self, tmp_path, inputs_url, truth_url):
        made(tmp_path / "dataset", inputs_url, truth_url)
        with pytest.raises(DatasetError, match="inputs: the dataset has fields, given is era5: build another"):
            made(tmp_path / "dataset", Analyses(), truth_url)
        moved = replace(SMALL, x0=SMALL.x0 + 1)
        with pytest.raises(DatasetError, match="domain: the dataset has"):
            build(str(tmp_path / "dataset"), inputs_url, truth_url, START, END, moved)


class TestRefused:
    def test_nothing_in_common(self, tmp_path, inputs_url, truth_url):
        with pytest.raises(DatasetError, match=r"inputs.zarr .*truth.nc .*share no hour"):
            made(tmp_path / "dataset", inputs_url, truth_url, datetime(2020, 1, 1), datetime(2020, 2, 1))
        assert not (tmp_path / "dataset").exists()

    def test_a_variable_that_is_missing(self, tmp_path, inputs_url, truth_url):
        fields = weather().drop_vars(["z500", "u10m"])
        with pytest.raises(SourceError, match=r"missing z500, u10m; there is tcwv; .*: name a variable as ours"):
            made(tmp_path / "dataset", written(fields, tmp_path / "inputs.nc"), truth_url)
        with pytest.raises(DatasetError, match=r"mrr missing among .*tcwv"):
            made(tmp_path / "dataset", inputs_url, inputs_url)

    def test_another_unit(self, tmp_path, inputs_url):
        fields = truth()
        fields["t2m"].attrs["units"] = "degC"
        with pytest.raises(DatasetError, match="t2m is in 'degC', 'K' is due"):
            made(tmp_path / "dataset", inputs_url, written(fields, tmp_path / "truth.nc"))

    def test_units_as_grib_spells_them(self, tmp_path, truth_url, digest):
        fields = weather()
        fields["u500"].attrs["units"] = "m s**-1"
        assert made(tmp_path / "dataset", written(fields, tmp_path / "inputs.nc"), truth_url).digest == digest

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda field: field - 273.15, "t2m .* is beyond the possible 170..340 K: check its unit"),
            (lambda field: field.where(field["x"] > 0), r"t2m at \d+ of 1024 points not finite"),
        ],
    )
    def test_values_that_cannot_be(self, tmp_path, inputs_url, change, words):
        fields = truth()
        fields["t2m"] = change(fields["t2m"].where(fields["time"] == fields["time"][2])).fillna(fields["t2m"])
        if "finite" in words:
            fields["t2m"][2, :, :3] = np.nan
        url = written(fields.drop_attrs(), tmp_path / "truth.nc")
        with pytest.raises(DatasetError, match=words):
            made(tmp_path / "dataset", inputs_url, url)
        said = []
        samples = made(tmp_path / "dataset", inputs_url, url, skip_holes=True, report=said.append)
        assert samples.times == (*HOURS[:2], *HOURS[3:])
        assert "left out" in said[1]
        assert "20210131T23" in said[1]

    def test_a_code_for_missing_radar(self, tmp_path, inputs_url):
        fields = truth()
        fields["mrr"] = fields["mrr"].where(fields["mrr"] > 0, -5.0)
        noise = made(tmp_path / "dataset", inputs_url, written(fields, tmp_path / "noise.nc"))
        assert noise.read(0).truth[0].min() == -5
        fields["mrr"] = fields["mrr"].where(fields["mrr"] > 0, -999.0)
        with pytest.raises(DatasetError, match=r"mrr -999.* beyond the possible -60..90 dBZ"):
            made(tmp_path / "other", inputs_url, written(fields, tmp_path / "code.nc"))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda fields: fields.isel(y=slice(None, None, -1)), r"points lie up to \d+ m .*southernmost"),
            (lambda fields: fields.isel(y=slice(1, None)), r"\(31, 32\) points"),
            (lambda fields: fields.drop_vars(["y", "x"]), "needs coordinates"),
            (lambda fields: fields.assign_coords(x=fields["x"] + 100), "up to 100 m from"),
        ],
    )
    def test_another_grid(self, tmp_path, inputs_url, change, words):
        with pytest.raises(DatasetError, match=words):
            made(tmp_path / "dataset", inputs_url, written(change(truth()), tmp_path / "truth.nc"))

    def test_inputs_that_do_not_cover_the_box(self, tmp_path, truth_url):
        fields = weather().isel(latitude=slice(2, None))
        with pytest.raises(GridError, match="does not cover"):
            made(tmp_path / "dataset", written(fields, tmp_path / "inputs.nc"), truth_url)

    def test_a_finer_grid_than_the_datasets(self, tmp_path, inputs_url, truth_url):
        made(tmp_path / "dataset", inputs_url, truth_url, end=HOURS[1])
        lines = (np.arange(21.5, 25.51, 0.125), np.arange(119.0, 123.01, 0.125))
        fields = xr.concat([nature.weather(1, time, *lines) for time in HOURS], "valid_time").rename(valid_time="time")
        with pytest.raises(DatasetError, match="inputs on other grid lines than the dataset"):
            made(tmp_path / "dataset", written(fields, tmp_path / "fine.nc"), truth_url)

    def test_a_time_that_is_there_twice(self, tmp_path, inputs_url):
        twice = xr.concat([truth(HOURS[:2]), truth(HOURS[:1])], "time")
        with pytest.raises(SourceError, match="no axis of different dates"):
            made(tmp_path / "dataset", inputs_url, written(twice, tmp_path / "twice.nc"))

    def test_what_cannot_be_opened(self, tmp_path, inputs_url):
        (tmp_path / "text.nc").write_text("not NetCDF")
        for url in ("nothing", "nothing.nc"):
            with pytest.raises(SourceError, match=f"{url} cannot be opened"):
                made(tmp_path / "dataset", inputs_url, str(tmp_path / url))
        with pytest.raises(SourceError, match=r"text.nc is neither Zarr .*NetCDF .*b'not '"):
            made(tmp_path / "dataset", inputs_url, str(tmp_path / "text.nc"))

    def test_a_period_that_is_none(self, tmp_path):
        with pytest.raises(DatasetError, match="is no period"):
            made(tmp_path / "dataset", Analyses(), TRUTH, END, START)


def test_it_all_fits_the_statistics(tmp_path, inputs_url, truth_url):
    inputs, outputs = sample_statistics(made(tmp_path / "dataset", inputs_url, truth_url))
    assert 57000 < inputs.center[1] < 58000
    assert outputs.names == ("mrr", "t2m", "u10m", "v10m")
    assert hours_from(START, 6) == HOURS
