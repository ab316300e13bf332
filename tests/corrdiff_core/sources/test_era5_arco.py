"""ERA5 from ARCO's layout: on disk, over HTTP, from S3, written by us and by xarray; and all that can be wrong."""

import json
import re
import shutil
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import cloudpickle
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.blosc import Blosc
from s3fs import S3FileSystem

from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.errors import ConfigurationError, GridError, SourceError
from corrdiff_core.grid import Box
from corrdiff_core.nature_era5 import write_arco
from corrdiff_core.quality import check_inputs
from corrdiff_core.sources import as_forecasts, era5_arco, open_source
from corrdiff_core.sources.era5 import ARCO, ERA5, NCAR
from corrdiff_core.sources.source import Fetched, NotYet
from tests.corrdiff_core.sources.era5_cases import AREA, BOX, END, HOURS, SLOT, START, assert_weather, edit


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Three hours, the last of them preliminary; read-only."""
    path = tmp_path_factory.mktemp("arco") / "store"
    write_arco(str(path), START, END, era5t_from=HOURS[2], area=AREA)
    return path


@pytest.fixture
def store(written, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "store"))


def chunk(store: Path, name: str, time: datetime = SLOT.valid_time) -> Path:
    """The object of one hour; the axis begins a day before the data."""
    index = 24 + (time - START) // HOUR
    (path,) = (store / name).glob(f"{index}.*")
    return path


class TestValues:
    @pytest.mark.parametrize("time", HOURS)
    def test_bit_for_bit(self, written, time):
        answer = ERA5(str(written)).fetch(Slot(time), BOX)
        assert_weather(answer, time)
        assert check_inputs(answer.inputs, Slot(time)) == []
        assert answer.preliminary == (time == HOURS[2])
        assert answer.provenance["stream"] == ("ERA5T" if time == HOURS[2] else "final")

    def test_a_store_that_xarray_wrote(self, tmp_path):
        """By zarr's own hand, another codec, level by level the weather of another hour: names and positions count."""
        times = [np.datetime64(time, "ns") for time in hours_from(START - HOUR, 5)]
        store = xr.open_zarr(write_whole(tmp_path / "ours")).load()
        fields = store.assign_attrs(valid_time_start="2021-06-07", valid_time_stop="2021-06-07")
        fields.attrs["valid_time_stop_era5t"] = "2021-06-08"
        encoding = {
            name: {
                "chunks": (1, *field.shape[1:]),
                "compressors": None if name.startswith("10m") else Blosc("zstd", 3),
                "filters": None,
            }
            for name, field in fields.data_vars.items()
        }
        for field in fields.variables.values():
            field.encoding = {}
        fields["time"].encoding = {"units": "hours since 1900-01-01"}
        fields = fields.sel(time=times)
        fields.to_zarr(tmp_path / "theirs", zarr_format=2, consolidated=True, encoding=encoding)
        assert_weather(ERA5(str(tmp_path / "theirs")).fetch(SLOT, BOX), SLOT.valid_time)

    def test_http(self, written, serve):
        url, requests = serve(written)
        source = ERA5(url)
        assert_weather(source.fetch(Slot(HOURS[0]), BOX), HOURS[0])
        requests.lines.clear()
        answer = source.fetch(SLOT, BOX)
        assert_weather(answer, SLOT.valid_time)
        ranges = [line.removeprefix("GET bytes=").split("-") for line in requests.lines if line.startswith("GET bytes")]
        traveled = sum(int(last) - int(first) + 1 for first, last in ranges)
        assert answer.provenance["bytes"] == traveled
        sizes = [described["size"] for described in answer.provenance["objects"].values()]
        assert traveled <= sum(sizes)
        assert [line for line in requests.lines if line.startswith("GET") and "bytes" not in line] == []

    def test_s3(self, written, s3_url):
        fsspec.filesystem("s3").put(str(written), f"{s3_url}/store", recursive=True)
        answer = ERA5(f"{s3_url}/store").fetch(SLOT, BOX)
        assert_weather(answer, SLOT.valid_time)
        described = answer.provenance["objects"]["geopotential"]
        assert described["etag"]
        assert described["url"] == f"{s3_url}/store/geopotential/25.0.0.0"
        json.dumps(answer.provenance)

    def test_pickled_and_in_threads(self, written):
        from concurrent.futures import ThreadPoolExecutor

        source = ERA5(str(written))
        source.fetch(SLOT, BOX)
        copy = cloudpickle.loads(cloudpickle.dumps(source))
        with ThreadPoolExecutor(4) as threads:
            for time, answer in zip(HOURS, threads.map(lambda time: copy.fetch(Slot(time), BOX), HOURS), strict=True):
                assert_weather(answer, time)


def write_whole(path: Path) -> Path:
    """Two days without a hole, on few lines."""
    write_arco(str(path), START - 2 * HOUR, END + 2 * HOUR, area=AREA, extended=0)
    return path


class TestEnds:
    def test_beyond_the_end(self, written):
        source = ERA5(str(written))
        answer = source.fetch(Slot(END), BOX)
        assert isinstance(answer, NotYet)
        assert "its data end at 20210607T23Z (valid_time_start 2021-06-07T21:00, valid_time_stop" in str(answer)
        assert not source.available(Slot(END))
        assert all(source.available(Slot(time)) for time in HOURS)

    def test_xarray_would_have_handed_out_nan(self, written):
        later = xr.open_zarr(written)["2m_temperature"].sel(time=np.datetime64(END, "ns"))
        assert bool(later.isnull().all())

    def test_it_grows_under_the_same_object(self, store):
        source = ERA5(str(store))
        assert isinstance(source.fetch(Slot(END), BOX), NotYet)
        write_arco(str(store), END, END + HOUR, era5t_from=END, area=AREA)
        assert source.available(Slot(END))
        answer = source.fetch(Slot(END), BOX)
        assert_weather(answer, END)
        assert answer.preliminary
        assert isinstance(source.fetch(Slot(END + HOUR), BOX), NotYet)

    def test_it_grows_on_s3_and_is_not_read_again_for_nothing(self, s3_url, monkeypatch):
        url = f"{s3_url}/store"
        write_arco(url, START, START + HOUR, area=AREA)
        source = ERA5(url)
        assert isinstance(source.fetch(Slot(HOURS[1]), BOX), NotYet)
        read: list[str] = []
        call = S3FileSystem._call_s3

        async def counted(self, method, *arguments, **options):
            read.append(f"{method} {options.get('Key', '')}")
            return await call(self, method, *arguments, **options)

        monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
        assert isinstance(source.fetch(Slot(HOURS[1]), BOX), NotYet)
        assert read == ["head_object store/.zmetadata"]
        write_arco(url, HOURS[1], HOURS[2], area=AREA)
        assert_weather(source.fetch(Slot(HOURS[1]), BOX), HOURS[1])

    def test_preliminary_data_turn_final_minutes_later(self, store, monkeypatch):
        source = ERA5(str(store))
        assert source.fetch(Slot(HOURS[2]), BOX).preliminary
        write_arco(str(store), HOURS[2], END, area=AREA)
        assert source.fetch(Slot(HOURS[2]), BOX).preliminary
        monkeypatch.setattr(era5_arco, "RE_READ", timedelta(0))
        answer = source.fetch(Slot(HOURS[2]), BOX)
        assert not answer.preliminary
        assert answer.provenance["ends"]["valid_time_stop"] == "2021-06-07"

    def test_metadata_are_read_once_in_minutes(self, written, serve):
        url, requests = serve(written)
        source = ERA5(url)
        source.fetch(SLOT, BOX)
        requests.lines.clear()
        assert source.available(Slot(HOURS[0]))
        assert requests.lines == []
        assert not source.available(Slot(END))
        assert len(requests.lines) == 2

    def test_before_the_start(self, written):
        with pytest.raises(ConfigurationError, match="begins at 20210607T21Z, after 20210607T20Z"):
            ERA5(str(written)).fetch(Slot(START - HOUR), BOX)
        with pytest.raises(ConfigurationError, match="ERA5 begins at 1940"):
            ERA5(str(written)).fetch(Slot(datetime(1939, 12, 31)), BOX)

    @pytest.mark.parametrize("name", ["valid_time_start", "valid_time_stop", "valid_time_stop_era5t"])
    def test_an_end_that_is_not_told(self, store, name):
        edit(store, ".zattrs", **{name: None})
        with pytest.raises(SourceError, match=rf"store/.zmetadata: attribute {name} is None"):
            ERA5(str(store)).available(SLOT)


class TestWrong:
    def refused(self, store: Path, words: str) -> None:
        with pytest.raises(SourceError, match=words):
            ERA5(str(store)).fetch(SLOT, BOX)

    def test_an_absent_chunk_inside_the_valid_range(self, store):
        chunk(store, "temperature").unlink()
        self.refused(
            store, r"temperature/25.0.0.0: absent, though the store says .*CORRDIFF_ERA5_URL to the other layout"
        )

    def test_an_empty_chunk(self, store):
        chunk(store, "2m_temperature").write_bytes(b"")
        self.refused(store, "2m_temperature/25.0.0: absent, though")

    @pytest.mark.parametrize("everywhere", [True, False])
    def test_nan_inside_the_valid_range(self, store, everywhere):
        path, shape = chunk(store, "total_column_water_vapour"), (AREA[0].size, AREA[1].size)
        values = np.frombuffer(Blosc().decode(path.read_bytes()), "<f4").reshape(shape).copy()
        values[... if everywhere else (20, 20)] = np.nan
        path.write_bytes(Blosc("lz4").encode(values))
        count = r"1440 of 1440" if everywhere else "1 of 1440"
        self.refused(store, rf"vapour/25.0.0: tcwv is NaN at {count} points, .*set CORRDIFF_ERA5_URL")

    def test_a_truncated_chunk(self, store):
        path = chunk(store, "geopotential")
        path.write_bytes(path.read_bytes()[:-1000])
        self.refused(store, r"geopotential/25.0.0.0: .*truncated")

    @pytest.mark.parametrize(
        ("key", "changes", "words"),
        [
            ("geopotential/.zattrs", {"units": "m"}, "z500 is in 'm', 'm2 s-2' is due"),
            ("2m_temperature/.zattrs", {"units": None}, "t2m is in None, 'K' is due"),
            ("time/.zattrs", {"units": "days since 1900-01-01"}, "counts 'days since 1900-01-01'"),
            ("time/.zattrs", {"units": "hours since 1901-01-01"}, "20210607T22Z is not where an hourly axis has it"),
            ("time/.zattrs", {"calendar": "noleap"}, "calendar 'noleap'"),
            ("temperature/.zattrs", {"_ARRAY_DIMENSIONS": ["time", "level", "x", "y"]}, "are due: give the root"),
            ("temperature/.zattrs", {"scale_factor": 2}, r"\['scale_factor'\], plain <f4"),
            ("temperature/.zarray", {"chunks": [1, 37, 9, 47]}, "one hour a chunk"),
            ("temperature/.zarray", {"dtype": "<f8"}, "<f8 C with"),
            ("temperature/.zarray", {"filters": [{"id": "delta"}]}, "with filters"),
            ("temperature/.zarray", {"shape": [75, 37, 9, 9], "chunks": [1, 37, 9, 9]}, "its axes have"),
            ("level/.zattrs", {"units": "Pa"}, "500 hPa is 1 times among its levels .* Pa"),
            ("latitude/.zarray", {"shape": None}, "tells of no whole array 'latitude'"),
        ],
    )
    def test_metadata(self, store, key, changes, words):
        edit(store, key, **changes)
        self.refused(store, words)

    def test_another_level(self, store):
        levels = np.frombuffer(Blosc().decode((store / "level/0").read_bytes()), "<i8").copy()
        levels[levels == 850] = 851
        (store / "level/0").write_bytes(Blosc().encode(levels))
        self.refused(store, "850 hPa is 0 times among its levels")

    def test_an_axis_that_jumps(self, store):
        times = np.frombuffer(Blosc().decode((store / "time/0").read_bytes()), "<i8").copy()
        times[25:] += 1
        (store / "time/0").write_bytes(Blosc().encode(times))
        self.refused(store, "20210607T22Z is not where an hourly axis has it")

    def test_an_area_that_does_not_reach(self, written):
        with pytest.raises(GridError, match="does not cover"):
            ERA5(str(written)).fetch(SLOT, Box(south=10, north=20, west=116, east=125))

    def test_metadata_that_are_none(self, store):
        for body in (b"no JSON", b"{}", b'{"metadata": {".zgroup": {"zarr_format": 3}}}'):
            (store / ".zmetadata").write_bytes(body)
            self.refused(store, r"store/.zmetadata: no consolidated Zarr v2 metadata")

    def test_a_chunk_that_is_replaced_while_it_is_read(self, store, monkeypatch):
        path, rows = chunk(store, "temperature"), era5_arco.ZarrV2.rows

        def replacing(zarr, name, *arguments):
            if name == "temperature":
                (store / "new").write_bytes(path.read_bytes())
                (store / "new").replace(path)
            return rows(zarr, name, *arguments)

        monkeypatch.setattr(era5_arco.ZarrV2, "rows", replacing)
        answer = ERA5(str(store)).fetch(SLOT, BOX)
        assert isinstance(answer, NotYet)
        assert "temperature/25.0.0.0" in answer.url
        assert answer.reason == "it was replaced while it was read"

    def test_a_server_that_fails(self, written, serve):
        with pytest.raises(ConnectionError, match="HTTP 503"):
            ERA5(serve(written, "503")[0]).fetch(SLOT, BOX)

    def test_a_root_of_neither_layout(self, tmp_path, s3_url, serve):
        for url in (str(tmp_path), s3_url, serve(tmp_path)[0]):
            with pytest.raises(
                ConfigurationError, match=rf"{re.escape(url)} has neither .zmetadata .*CORRDIFF_ERA5_URL"
            ):
                ERA5(url).available(SLOT)

    def test_a_slot_of_a_forecast(self, written):
        with pytest.raises(ConfigurationError, match="ERA5 slots are valid times"):
            ERA5(str(written)).fetch(Slot.forecast(START, HOUR), BOX)


class TestSource:
    def test_by_name(self, written):
        source = open_source("era5", str(written))
        assert (source.name, source.kind) == ("era5", "hindcast")
        assert isinstance(source.fetch(SLOT, BOX), Fetched)
        assert open_source("era5").url == ARCO
        with pytest.raises(ConfigurationError, match="no source is called 'era5-land'"):
            open_source("era5-land")
        with pytest.raises(ConfigurationError, match="era5 is a source of analyses"):
            as_forecasts(open_source("era5"))

    def test_hours_are_all_since_1940(self):
        source = ERA5()
        assert source.hours(datetime(1939, 1, 1), datetime(1940, 1, 1, 2)) == hours_from(datetime(1940, 1, 1), 2)
        assert source.hours(datetime(1930, 1, 1), datetime(1939, 1, 1)) == []
        assert source.hours(END, END) == []
        assert len(source.hours(datetime(2020, 1, 1), datetime(2021, 1, 1))) == 8784

    @given(
        st.datetimes(datetime(1939, 12, 25), datetime(1940, 1, 9)),
        st.datetimes(datetime(1939, 12, 25), datetime(1940, 1, 9)),
    )
    def test_hours_as_pandas_counts_them(self, start, end):
        axis = pd.date_range("1940-01-01", "1940-01-10", freq="h")
        expected = axis[(axis >= start) & (axis < end)].to_pydatetime().tolist()
        assert ERA5().hours(start, end) == expected

    def test_settings_of_our_own_storage_do_not_reach_the_public_bucket(self, s3_url):
        for url in (NCAR, f"{NCAR}/e5.oper.an.pl"):
            filesystem, path = ERA5(url)._root.filesystem_and_path
            assert path.startswith("nsf-ncar-era5")
            assert filesystem.anon
            assert filesystem.endpoint_url == "https://s3.us-west-2.amazonaws.com"
            assert filesystem.client_kwargs == {"region_name": "us-west-2"}
        assert not ERA5("s3://nsf-ncar-era5-of-my-own")._root.options

    def test_google_storage_without_its_package_is_named(self):
        if find_spec("gcsfs"):
            pytest.skip("gcsfs is installed")
        with pytest.raises(ConfigurationError, match=r"gs://gcp-public-data-arco-era5/ar/x cannot be opened .*gcsfs"):
            ERA5("gs://gcp-public-data-arco-era5/ar/x").available(SLOT)
