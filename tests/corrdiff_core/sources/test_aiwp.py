"""The AIWP source on netCDF-4 files that the tests write: read as xarray does, and no more than needed."""

import gc
import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import boto3
import h5py
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import ConfigurationError, GridError, SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.nature import weather as nature_weather
from corrdiff_core.sources import as_forecasts, open_source
from corrdiff_core.sources.aiwp import AIWP, FOLDERS, VARIABLES
from corrdiff_core.sources.ranged_file import BLOCK, RangedFile
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT, INPUT_NAMES, STANDARD_GRAVITY
from tests.corrdiff_core.sources.aiwp_cases import write

GONE = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from corrdiff_core.cycle import Slot
from corrdiff_core.grid import TAIWAN
from corrdiff_core.sources.aiwp import AIWP
from corrdiff_core.sources.ranged_file import RangedFile

read, reads = RangedFile._read, []

def gone(self, numbers):
    reads.append(numbers)
    if len(reads) == 3:
        Path(sys.argv[1]).unlink()
    return read(self, numbers)

RangedFile._read = gone
slot = Slot.forecast(datetime(2026, 6, 1, 12), timedelta(hours=6))
print(AIWP("four-gfs", sys.argv[2]).fetch(slot, TAIWAN.input_box).reason)
"""
BOX = TAIWAN.input_box
# h5netcdf complains while it lets go of a file that it could not open to the end.
half_open = pytest.mark.filterwarnings("ignore:.*function File.close:pytest.PytestUnraisableExceptionWarning")
INIT = datetime(2026, 6, 1, 12)
SLOT = Slot.forecast(INIT, 6 * HOUR)
LATITUDE, LONGITUDE = np.arange(18.0, 29.25, 0.25), np.arange(115.0, 127.25, 0.25)


@lru_cache
def weather(time: datetime) -> xr.Dataset:
    return nature_weather(5, time, LATITUDE, LONGITUDE)


def globe(time: datetime) -> xr.Dataset:
    """1 degree, with noise in the last bits as real fields have, around Taiwan's weather."""
    noise, near = (
        np.random.default_rng(time.hour),
        nature_weather(5, time, np.arange(18.0, 30.0), np.arange(115.0, 128.0)),
    )
    lines = {"latitude": np.arange(-90.0, 91.0), "longitude": np.arange(0.0, 360.0)}
    far = {name: float(near[name].mean()) + noise.normal(0.0, 1.0, (181, 360)) for name in INPUT_NAMES}
    whole = xr.Dataset({name: (("latitude", "longitude"), values) for name, values in far.items()}, lines)
    return near.combine_first(whole)


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("aiwp"), "four-gfs", INIT, weather, steps=2)


@pytest.fixture
def file(stock, tmp_path) -> Path:
    path = tmp_path / AIWP("four-gfs").object_name(INIT)
    path.parent.mkdir(parents=True)
    shutil.copy(stock, path)
    return path


@pytest.fixture
def source(tmp_path) -> AIWP:
    return AIWP("four-gfs", str(tmp_path))


def fetched(source: AIWP, slot: Slot = SLOT) -> Fetched:
    answer = source.fetch(slot, BOX)
    assert isinstance(answer, Fetched), answer
    return answer


def by_xarray(path: Path, slot: Slot = SLOT) -> dict[str, np.ndarray]:
    """The twelve around Taiwan at 0.25 degrees, as xarray alone reads the file."""
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        area = dataset.sel(time=slot.valid_time, latitude=slice(28.0, 19.25), longitude=slice(116.0, 125.75)).sortby(
            "latitude"
        )
        return {
            name: (area[wanted.name] if wanted.level is None else area[wanted.name].sel(level=wanted.level)).values
            for name, wanted in VARIABLES.items()
        }


def test_fetched_is_what_xarray_reads_and_what_was_written(file, source):
    for slot in (SLOT, Slot.forecast(INIT, timedelta(0))):
        inputs, fields = fetched(source, slot).inputs, by_xarray(file, slot)
        assert tuple(inputs.data_vars) == INPUT_NAMES
        expected = weather(slot.valid_time).sel(latitude=inputs.latitude, longitude=inputs.longitude)
        for name in INPUT_NAMES:
            np.testing.assert_array_equal(inputs[name].values, fields[name], err_msg=name)
            np.testing.assert_allclose(inputs[name].values, expected[name].values, rtol=1e-6)
            assert inputs[name].attrs == INPUT[name].attrs
        assert set(inputs.coords) == {"latitude", "longitude", "init_time", "lead_time", "valid_time"}
        assert inputs.valid_time == np.datetime64(slot.valid_time)
        np.testing.assert_array_equal(inputs.latitude, np.arange(19.25, 28.25, 0.25))


def test_provenance_is_plain_and_says_which_model_and_bytes(file, source):
    told = fetched(source).provenance
    assert json.loads(json.dumps(told)) == told
    assert (told["source"], told["lead_hours"]) == ("aiwp-four-gfs", 6)
    assert (told["file"]["url"], told["file"]["size"]) == (str(file), file.stat().st_size)
    assert told["model"]["version"] == "3_2025-02-20"
    assert told["channels"]["z500"] == {"variable": "z", "level": 500, "units": "m2 s-2"}
    assert told["bytes"] == sum(stop - start for start, stop in told["ranges"])


# What travels


@pytest.fixture(scope="module")
def whole_globe(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("globe")
    return root, write(root, "four-gfs", INIT, globe, steps=2)


def chunks_of(path: Path) -> int:
    """Bytes of the twelve chunks of the slot, as HDF5's own index tells them."""
    total = 0
    with h5py.File(path) as file:
        levels = list(file["level"][:])
        for wanted in VARIABLES.values():
            at = (1, 0, 0) if wanted.level is None else (1, levels.index(wanted.level), 0, 0)
            total += file[wanted.name].id.get_chunk_info_by_coord(at).size
    return total


def test_only_the_chunks_of_one_step_travel_over_http(whole_globe, serve):
    root, path = whole_globe
    url, requests = serve(root)
    answer = fetched(AIWP("four-gfs", url))
    asked = [line.removeprefix("GET bytes=").split("-") for line in requests.lines if line.startswith("GET")]
    sizes = [int(stop) - int(start) + 1 for start, stop in asked]
    assert sum(sizes) == answer.provenance["bytes"]
    chunks, size = chunks_of(path), path.stat().st_size
    assert min(chunks / 12, size / 12) > BLOCK  # or the figures below would mean nothing
    assert chunks <= sum(sizes) <= chunks + 40 * BLOCK
    assert sum(sizes) < size / 2
    assert len(sizes) <= 12 + 40
    expected = globe(SLOT.valid_time).sel(latitude=answer.inputs.latitude, longitude=answer.inputs.longitude)
    for name in INPUT_NAMES:
        np.testing.assert_allclose(answer.inputs[name].values, expected[name].values, rtol=1e-6)


def test_s3_reads_the_same_bytes_and_tells_the_etag(whole_globe, s3_url):
    root, path = whole_globe
    source, local = AIWP("four-gfs", s3_url), fetched(AIWP("four-gfs", str(root)))
    missing = source.fetch(SLOT, BOX)
    assert isinstance(missing, NotYet)
    assert missing.url == f"{s3_url}/FOUR_v200_GFS/2026/0601/FOUR_v200_GFS_2026060112_f000_f240_06.nc"
    boto3.client("s3").upload_file(str(path), s3_url.removeprefix("s3://"), source.object_name(INIT))
    assert source.available(SLOT)
    answer = fetched(source)
    xr.testing.assert_identical(answer.inputs, local.inputs)
    assert answer.provenance["ranges"] == local.provenance["ranges"]
    assert answer.provenance["file"]["etag"]


@pytest.mark.parametrize(
    ("mode", "error"), [("ignores-range", SourceError), ("cuts", SourceError), ("503", ConnectionError)]
)
def test_servers_that_fail_are_named(file, tmp_path, serve, mode, error):
    with pytest.raises(error, match="FOUR_v200_GFS_2026060112"):
        AIWP("four-gfs", serve(tmp_path, mode)[0]).fetch(SLOT, BOX)


def test_a_server_that_goes_away_is_worth_a_retry(whole_globe, serve, monkeypatch):
    """After the metadata: HDF5 must hand the failure on as it is."""
    read = RangedFile._bytes

    def gone(self, span):
        if span.size > BLOCK:
            raise ConnectionError("gone")
        return read(self, span)

    monkeypatch.setattr(RangedFile, "_bytes", gone)
    with pytest.raises(ConnectionError, match="gone"):
        AIWP("four-gfs", str(whole_globe[0])).fetch(SLOT, BOX)


def test_no_garbage_is_collected_while_hdf5_waits(file, source, monkeypatch):
    read, collecting = RangedFile._read, []
    monkeypatch.setattr(RangedFile, "_read", lambda self, span: collecting.append(gc.isenabled()) or read(self, span))
    fetched(source)
    assert set(collecting) == {False}
    assert gc.isenabled()
    file.write_bytes(b"no file")
    with pytest.raises(SourceError):
        source.fetch(SLOT, BOX)
    assert gc.isenabled()


# Not there yet


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_an_absent_or_empty_file_is_not_there_yet(file, source, how):
    file.unlink() if how == "absent" else file.write_bytes(b"")
    assert isinstance(source.fetch(SLOT, BOX), NotYet)
    assert not source.available(SLOT)


LATE = 60  # reads, of some 88: the file is open by then


@pytest.mark.parametrize("into", ["another whole file", "nonsense"])
def test_a_file_replaced_while_it_is_read_is_not_there_yet(file, source, monkeypatch, into):
    read, reads = RangedFile._read, []

    def replaced(self, numbers):
        reads.append(numbers)
        if len(reads) == LATE:
            file.write_bytes(
                file.read_bytes() + b"\0" if into == "another whole file" else bytes(file.stat().st_size + 1)
            )
        return read(self, numbers)

    monkeypatch.setattr(RangedFile, "_read", replaced)
    answer = source.fetch(SLOT, BOX)
    assert isinstance(answer, NotYet)
    assert answer.reason == "it was replaced while it was read"


@half_open
def test_a_file_that_goes_away_is_not_there_yet(file, source, monkeypatch):
    read, reads = RangedFile._read, []

    def gone(self, span):
        reads.append(span)
        if len(reads) == 3:
            file.unlink()
        return read(self, span)

    monkeypatch.setattr(RangedFile, "_read", gone)
    assert isinstance(source.fetch(SLOT, BOX), NotYet)


def test_a_process_that_met_one_ends_well(file, source):
    """HDF5 that closes a file after Python has gone crashes, and the exit code is lost."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GONE, str(file), source.url], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (0, "it went away while it was read\n"), process.stderr


# Wrong files


def refused(source: AIWP, says: str, slot: Slot = SLOT) -> None:
    with pytest.raises(SourceError, match=rf"FOUR_v200_GFS_2026060112_f000_f240_06.nc: {says}"):
        source.fetch(slot, BOX)


@pytest.mark.parametrize("variant", ["pang-gfs", "grap-ifs", "auro-ifs"])
def test_a_model_without_column_water_is_refused_by_what_it_lacks(tmp_path, variant):
    write(tmp_path, variant, INIT, weather, steps=2, without=("tcwv", "r", "sp"))
    with pytest.raises(
        SourceError, match=rf"{FOLDERS[variant]}_.*: lacks tcwv \(tcwv\) among .* such as aiwp-four-gfs"
    ):
        AIWP(variant, str(tmp_path)).fetch(SLOT, BOX)


def test_everything_that_is_missing_is_listed(tmp_path, source):
    write(tmp_path, "four-gfs", INIT, weather, steps=2, without=("tcwv", "z", "u10"))
    refused(source, r"lacks tcwv \(tcwv\), z500 \(z at 500 hPa\), z850 \(z at 850 hPa\), u10m \(u10\) among")


@pytest.mark.parametrize(
    ("variable", "units", "says"),
    [
        ("z", "m", "z at 500 hPa: is in 'm', known are m2 s-2, .* its meaning is not certain"),
        ("z", None, "z at 500 hPa: is in 'None'"),
        ("t2", "degC", "t2: is in 'degC', known are K"),
        ("tcwv", "mm", "tcwv: is in 'mm'"),
        ("u", "knots", "u at 500 hPa: is in 'knots'"),
        ("level", "Pa", "level is in 'Pa', known are hPa"),
        ("level", None, "level is in None, known are hPa"),
    ],
)
def test_units_that_are_not_certain_are_refused(file, source, variable, units, says):
    with h5py.File(file, "r+") as opened:
        del opened[variable].attrs["units"]
        if units is not None:
            opened[variable].attrs["units"] = units
    refused(source, says)


def test_heights_in_geopotential_meters_are_converted(file, source):
    expected = fetched(source).inputs
    with h5py.File(file, "r+") as opened:
        opened["z"].attrs["units"] = "gpm"
        for step, level in ((1, 2), (1, 5)):
            opened["z"][step, level] /= STANDARD_GRAVITY
    np.testing.assert_allclose(fetched(source).inputs.z500, expected.z500, rtol=1e-6)


def change(path: Path, variable: str, values: np.ndarray) -> None:
    with h5py.File(path, "r+") as opened:
        opened[variable][:] = values


def test_coordinates_are_read_and_checked(file, source):
    with h5py.File(file) as opened:
        time, level = opened["time"][:], opened["level"][:]
    change(file, "time", time - 43200)
    refused(source, "begins at 2026-06-01T00, asked for 20260601T12Z.006h .*: the file is of another cycle")
    change(file, "time", np.where(np.arange(41) == 1, time[2], time))
    refused(source, "has time 2026-06-01T18 0 times among 2026-06-01T12, 2026-06-02T00")
    refused(source, "has time 2026-06-02T00 2 times", Slot.forecast(INIT, 12 * HOUR))
    change(file, "time", time)
    change(file, "level", np.where(level == 500, 501, level))
    refused(source, "has level 500 hPa 0 times among 1000, 925")
    change(file, "level", level)
    with h5py.File(file, "r+") as opened:
        opened["time"].attrs["units"] = "steps"
    refused(source, "time is int32 in .*, no CF time")


def test_missing_values_and_steps_that_were_never_written_are_refused(file, source):
    with h5py.File(file, "r+") as opened:
        opened["v10"][1, 20, 20] = np.nan
    refused(source, "v10: 1 of 1440 values around .* are missing")
    refused(source, "tcwv: 1440 of 1440 values around .* are missing", Slot.forecast(INIT, 12 * HOUR))


def test_a_truncated_file_and_damaged_chunks_are_named(file, source):
    data = file.read_bytes()
    with h5py.File(file) as opened:
        chunk = opened["t2"].id.get_chunk_info_by_coord((1, 0, 0))
    middle = chunk.byte_offset + chunk.size // 2
    file.write_bytes(data[:middle] + bytes(100) + data[middle + 100 :])
    refused(source, r"cannot be read as netCDF-4 \(.*\): it is damaged or still being copied; fetch it again")
    file.write_bytes(data[:-1000])
    refused(source, r"cannot be read as netCDF-4 \(.*truncated file")
    file.write_bytes(b"<html>not here</html>")
    refused(source, "cannot be read as netCDF-4")


def test_another_layout_and_a_smaller_area_are_refused(tmp_path, source):
    write(tmp_path, "four-gfs", INIT, lambda time: weather(time).sel(longitude=slice(117, 127)), steps=2)
    with pytest.raises(GridError, match="does not cover"):
        source.fetch(SLOT, BOX)


# Names, cycles, steps


def test_models_by_name():
    source = as_forecasts(open_source("aiwp-four-gfs"))
    assert (source.name, source.kind) == ("aiwp-four-gfs", "forecast")
    assert repr(source) == "AIWP('four-gfs', 's3://noaa-oar-mlwp-data')"
    assert FOLDERS["auro-ifs"] == "AURO_v100_IFS"
    assert len(FOLDERS) == 8
    for name in ("aiwp", "aiwp-four", "aiwp-fcn-gfs"):
        with pytest.raises(ConfigurationError, match=r"no source is called 'aiwp-.*': use one of aiwp-four-gfs,"):
            as_forecasts(open_source(name))
    filesystem, path = AIWP("pang-gfs")._root.filesystem_and_path
    assert (path, filesystem.anon) == ("noaa-oar-mlwp-data", True)


def test_cycles_and_steps_by_era():
    source = AIWP("four-gfs")
    assert source.lead_times(INIT) == tuple(hour * HOUR for hour in range(0, 241, 6))
    assert source.lead_times(datetime(2024, 1, 1, 6)) == ()
    assert source.lead_times(datetime(2023, 12, 31, 18))
    with pytest.raises(ConfigurationError, match="has no cycle at 2026-06-01T06:00: name one of 00, 12 UTC"):
        source.plan(datetime(2026, 6, 1, 6), [])
