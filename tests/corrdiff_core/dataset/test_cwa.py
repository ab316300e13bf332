"""The public CWA dataset's layout, written of the nature run and read beside xarray; every way in which it can lie."""

import json
import pickle
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, hours_from
from corrdiff_core.dataset import CwaDataset, box_lines, open_samples, sample_statistics
from corrdiff_core.dataset.cwa_fixture import INPUT_ORDER, write_cwa
from corrdiff_core.errors import DatasetError
from corrdiff_core.variables import STANDARD_GRAVITY
from tests.corrdiff_core.dataset.dataset_cases import interpolated
from tests.small_domain import SMALL

TIMES = hours_from(datetime(2020, 12, 31, 21), 6)
INVALID = TIMES[1]
USED = [0, 1, 2, 3, 4, 9, 10, 11, 12, 17, 18, 19]  # in_channels of physicsnemo's cwb.yaml


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("cwa") / "cwa_dataset.zarr")
    write_cwa(url, TIMES, SMALL, invalid=[INVALID])
    return url


@pytest.fixture
def url(written, tmp_path) -> str:
    """One of the test's own, to be changed."""
    return str(shutil.copytree(written, tmp_path / "cwa.zarr"))


def change(url, name, function):
    """Rewrite an array by `function` of its values."""
    array = zarr.open_group(url, mode="r+", zarr_format=2, use_consolidated=False)[name]
    array[...] = function(array[...])


def change_attribute(url, name, **attributes):
    zarr.open_group(url, mode="r+", zarr_format=2, use_consolidated=False)[name].attrs.update(attributes)
    zarr.consolidate_metadata(url, zarr_format=2)


class TestFixture:
    def test_it_is_the_public_layout(self, written):
        with xr.open_zarr(written, zarr_format=2, decode_times=False) as stored:
            channels = {"cwb_channel": 4, "era5_channel": 20}
            points = {"south_north": 34, "west_east": 34, "south_north_stag": 35, "west_east_stag": 35}
            assert dict(stored.sizes) == {"time": 6, **channels, **points}
            assert stored["era5"].dims == ("time", "era5_channel", "south_north", "west_east")
            assert stored["cwb"].dims == ("time", "cwb_channel", "south_north", "west_east")
            assert (stored["cwb_valid"].dtype, stored["era5_valid"].dtype) == (np.int8, np.bool_)
            assert (stored["cwb_variable"].dtype, stored["era5_variable"].dtype) == (np.dtype("<U26"), np.dtype("<U19"))
            assert stored["XLAT"].dtype == stored["XLONG"].dtype == stored["era5_center"].dtype == np.float32
            assert np.isnan(stored["cwb_pressure"]).all()
            assert stored["era5_pressure"].values[1:17].tolist() == np.repeat([500, 700, 850, 925], 4).tolist()
            assert [str(stored["era5_variable"].values[i]) for i in (0, 1, 17)] == [
                "tcwv", "geopotential_height", "temperature_2m",
            ]  # fmt: skip

    def test_center_and_scale_are_those_of_the_valid_times(self, written):
        with xr.open_zarr(written, zarr_format=2) as stored:
            valid = stored.isel(time=[0, 2, 3, 4, 5])
            for name in ("era5", "cwb"):
                values = valid[name].values.astype("f8")
                np.testing.assert_allclose(stored[f"{name}_center"], values.mean((0, 2, 3)), rtol=1e-6)
                np.testing.assert_allclose(stored[f"{name}_scale"], values.std((0, 2, 3)), rtol=1e-6)

    def test_levels_between_are_plausible(self, written):
        with xr.open_zarr(written, zarr_format=2) as stored:
            fields = stored["era5"].isel(time=0).values
        z, t = fields[1:17:4], fields[2:17:4]
        assert ((z[:-1] - z[1:]) > 0).all(), "geopotential falls with pressure"
        assert ((t[1:] - t[:-1]) > 0).all(), "temperature rises with it"
        assert 2.8e4 < z[1].mean() < 3.2e4  # 700 hPa
        assert len(INPUT_ORDER) == 20

    def test_times_must_ascend(self, tmp_path):
        for times in ([], TIMES[::-1], [TIMES[0], TIMES[0]]):
            with pytest.raises(DatasetError, match="do not ascend"):
                write_cwa(str(tmp_path / "cwa.zarr"), times, SMALL)


class TestReading:
    def test_samples_are_what_xarray_reads(self, written):
        samples = CwaDataset.open(written, SMALL)
        assert samples.times == tuple(time for time in TIMES if time != INVALID)
        with xr.open_zarr(written, zarr_format=2) as stored:
            for index, time in enumerate(samples.times):
                sample, row = samples.read(index), stored.sel(time=time)
                assert sample.time == time
                np.testing.assert_array_equal(sample.inputs, row["era5"].values[USED, 1:-1, 1:-1])
                np.testing.assert_array_equal(sample.truth, row["cwb"].values[:, 1:-1, 1:-1])

    def test_samples_are_the_weather(self, written):
        sample = CwaDataset.open(written, SMALL).read(2)
        np.testing.assert_allclose(sample.inputs, interpolated(sample.time), rtol=1e-6)
        whole = replace(SMALL, crop=0)
        expected = nature.truth(nature.weather(1, sample.time, *box_lines(SMALL.input_box)), 1, whole)
        np.testing.assert_array_equal(sample.truth, expected.to_dataarray().values[:, 1:-1, 1:-1])

    def test_the_crop_is_the_domains(self, written):
        cut, whole = (CwaDataset.open(written, replace(SMALL, crop=crop)) for crop in (3, 0))
        assert cut.read(0).truth.shape == (4, 28, 28)
        np.testing.assert_array_equal(whole.read(0).truth[:, 3:-3, 3:-3], cut.read(0).truth)
        assert "cut to [3:-3]" in cut.description
        assert "not cut" in whole.description
        assert cut.digest != whole.digest

    def test_a_split_by_year(self, written):
        samples = CwaDataset.open(written, SMALL)
        train = samples.select(datetime(2018, 1, 1), datetime(2021, 1, 1))
        test = samples.select(datetime(2021, 1, 1), datetime(2022, 1, 1))
        assert train.times == (TIMES[0], TIMES[2])
        assert test.times == tuple(TIMES[3:])
        np.testing.assert_array_equal(test.read(0).truth, samples.read(2).truth)

    def test_what_is_said(self, written):
        assert CwaDataset.open(written, SMALL).description == (
            "CWA dataset: 5 samples of 20201231T21..20210101T02 of 6 times, cut to [1:-1], "
            "z500 stored as geopotential, z850 stored as geopotential"
        )

    def test_a_worker_gets_the_same(self, written):
        samples = CwaDataset.open(written, SMALL)
        samples.read(0)
        copy = pickle.loads(pickle.dumps(samples))  # noqa: S301 (as a worker gets it)
        assert copy.digest == samples.digest
        np.testing.assert_array_equal(copy.read(3).inputs, samples.read(3).inputs)

    def test_object_storage(self, written, s3_url):
        fsspec.filesystem("s3").put(written, f"{s3_url}/cwa.zarr", recursive=True)
        near, far = CwaDataset.open(written, SMALL), open_samples(f"{s3_url}/cwa.zarr", SMALL)
        assert far.digest == near.digest
        np.testing.assert_array_equal(far.read(4).inputs, near.read(4).inputs)
        fsspec.filesystem("s3").rm(f"{s3_url}/cwa.zarr/cwb/5.0.0.0")
        with pytest.raises(DatasetError, match=r"cwb/5\.0\.0\.0 is absent"):
            far.read(4)

    def test_statistics(self, written):
        """Of the samples; the store's own are of the whole grid."""
        inputs, _ = sample_statistics(CwaDataset.open(written, SMALL))
        with xr.open_zarr(written, zarr_format=2) as stored:
            np.testing.assert_allclose(inputs.center, stored["era5_center"].values[USED], rtol=0.05, atol=0.5)


class TestChannels:
    def test_they_are_found_by_name_wherever_they_stand(self, url, written):
        order = np.random.default_rng(5).permutation(20)
        for name in ("era5_variable", "era5_pressure", "era5_center", "era5_scale"):
            change(url, name, lambda values: values[order])
        for name in ("era5", "era5_valid"):
            change(url, name, lambda values: values[:, order])
        np.testing.assert_array_equal(
            CwaDataset.open(url, SMALL).read(0).inputs, CwaDataset.open(written, SMALL).read(0).inputs
        )

    def test_one_that_is_missing(self, url):
        change(url, "cwb_variable", lambda names: np.where(names == "temperature_2m", "something", names))
        with pytest.raises(DatasetError, match=r"channels of cwb: t2m is temperature_2m, which stands 0 times"):
            CwaDataset.open(url, SMALL)

    def test_chunks_of_single_channels(self, written, tmp_path):
        """Another chunking is read to the same; only the needed chunks must be there."""
        with xr.open_zarr(written, zarr_format=2, decode_times=False) as stored:
            chunked = stored.load().drop_encoding()
        encoding = {"era5": {"chunks": (2, 1, 17, 34)}}
        chunked.to_zarr(tmp_path / "cwa.zarr", zarr_format=2, encoding=encoding, consolidated=True)
        for path in (tmp_path / "cwa.zarr" / "era5").glob("*.5.*.*"):  # z at 700 hPa
            path.unlink()
        samples = CwaDataset.open(str(tmp_path / "cwa.zarr"), SMALL)
        assert len(samples.digest) == 64
        np.testing.assert_array_equal(samples.read(3).inputs, CwaDataset.open(written, SMALL).read(3).inputs)


class TestGeopotential:
    def test_a_height_is_told_by_its_magnitude(self, url, written):
        heights = [1, 9]  # z500 and z850
        change(url, "era5", lambda era5: _scaled(era5, heights, 1 / STANDARD_GRAVITY))
        samples = CwaDataset.open(url, SMALL)
        assert samples.description.endswith("z500 stored as height, z850 stored as height")
        np.testing.assert_allclose(samples.read(0).inputs, CwaDataset.open(written, SMALL).read(0).inputs, rtol=3e-7)

    def test_what_is_neither(self, url):
        change(url, "era5", lambda era5: _scaled(era5, [1], 10))
        with pytest.raises(DatasetError, match=r"z500 has a mean of 5\d+.*, neither geopotential"):
            CwaDataset.open(url, SMALL)

    def test_a_unit_that_changes_on_the_way(self, url):
        def later_as_height(era5):
            era5[3:] = _scaled(era5[3:], [9], 1 / STANDARD_GRAVITY)
            return era5

        change(url, "era5", later_as_height)
        samples = CwaDataset.open(url, SMALL)
        samples.read(0)
        with pytest.raises(DatasetError, match=r"z850 of 20210101T00 is .* like the first time"):
            samples.read(2)


def _scaled(era5, channels, factor):
    era5[:, channels] *= np.float32(factor)
    return era5


class TestMasks:
    def test_both_masks_count_and_only_the_used_channels(self, url):
        change(url, "cwb_valid", lambda valid: np.where(np.arange(6) == 0, 0, valid))
        change(url, "era5_valid", lambda valid: valid & ~((np.arange(6) == 2)[:, None] & (np.arange(20) == 19)))
        change(url, "era5_valid", lambda valid: valid & ~((np.arange(6) == 3)[:, None] & (np.arange(20) == 5)))
        assert CwaDataset.open(url, SMALL).times == tuple(TIMES[3:])

    @pytest.mark.parametrize("name", ["era5", "cwb"])
    def test_a_chunk_that_is_absent_where_the_masks_say_valid(self, url, name):
        Path(url, name, "2.0.0.0").unlink()
        samples = CwaDataset.open(url, SMALL)
        samples.read(0)
        with pytest.raises(DatasetError, match=rf"{name}/2\.0\.0\.0 is absent where the masks say valid"):
            samples.read(1)
        with pytest.raises(DatasetError, match=rf"{name}/2\.0\.0\.0 is absent"):
            _ = samples.digest

    def test_holes_in_a_chunk(self, url):
        def with_holes(cwb):
            cwb[0, 1, 5, 5:8] = np.nan
            return cwb

        change(url, "cwb", with_holes)
        with pytest.raises(DatasetError, match="cwb of 20201231T21: t2m at 3 of 1024 points not finite"):
            CwaDataset.open(url, SMALL).read(0)

    def test_a_damaged_chunk(self, url):
        path = Path(url, "era5/0.0.0.0")
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(DatasetError, match="era5 at row 0 is damaged"):
            CwaDataset.open(url, SMALL)

    def test_nothing_valid(self, url):
        change(url, "cwb_valid", np.zeros_like)
        with pytest.raises(DatasetError, match="of 6 times none is valid"):
            CwaDataset.open(url, SMALL)


class TestStore:
    def test_times_are_decoded_from_their_units(self, url):
        change(url, "time", lambda hours: (hours - hours[0]) * 60)
        change_attribute(url, "time", units="minutes since 2020-12-31 21:00")
        assert CwaDataset.open(url, SMALL).times == (TIMES[0], *TIMES[2:])
        change_attribute(url, "time", units="minutes")
        with pytest.raises(DatasetError, match="no units of a date"):
            CwaDataset.open(url, SMALL)

    def test_a_part_of_the_times_that_is_absent(self, url):
        Path(url, "time/0").unlink()
        with pytest.raises(DatasetError, match="of its 5 valid times some are there twice"):
            CwaDataset.open(url, SMALL)

    def test_another_grid(self, written):
        with pytest.raises(DatasetError, match=r"XLAT, XLONG have \(34, 34\) points, the domain small has \(35, 34\)"):
            CwaDataset.open(written, replace(SMALL, rows=35))
        with pytest.raises(DatasetError, match="lie up to 100 m from small"):
            CwaDataset.open(written, replace(SMALL, x0=SMALL.x0 + 99.6))

    def test_what_is_missing(self, url):
        shutil.rmtree(Path(url, "cwb_pressure"))
        metadata = json.loads(Path(url, ".zmetadata").read_text())
        for name in (".zarray", ".zattrs"):
            del metadata["metadata"][f"cwb_pressure/{name}"]
        Path(url, ".zmetadata").write_text(json.dumps(metadata))
        with pytest.raises(DatasetError, match="lacks the array cwb_pressure"):
            CwaDataset.open(url, SMALL)
        Path(url, ".zmetadata").unlink()
        with pytest.raises(DatasetError, match="is no consolidated Zarr v2"):
            CwaDataset.open(url, SMALL)

    def test_the_digest_tells_other_data_but_not_another_place(self, url, written):
        digest = CwaDataset.open(written, SMALL).digest
        assert CwaDataset.open(url, SMALL).digest == digest
        change(url, "cwb", lambda cwb: cwb + np.float32(0.25))
        assert CwaDataset.open(url, SMALL).digest != digest
        span = CwaDataset.open(written, SMALL).select(TIMES[0], TIMES[-1] - HOUR)
        assert span.digest != digest
