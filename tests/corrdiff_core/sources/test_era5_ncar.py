"""ERA5 from NCAR's layout: the same fields as from ARCO's, few bytes, and all that can be wrong with a file."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import SourceError
from corrdiff_core.nature_era5 import write_ncar
from corrdiff_core.sources.era5 import ERA5
from corrdiff_core.sources.era5_ncar import KINDS, object_name
from corrdiff_core.sources.source import NotYet
from tests.corrdiff_core.sources.era5_cases import HOURS, SLOT, START, assert_weather, lines_of
from tests.small_domain import SMALL

DAY = START.replace(hour=0)
BOX = SMALL.input_box  # a month at the surface takes its time
LINES = (np.arange(21.0, 26.01, 0.25), np.arange(118.5, 123.51, 0.25))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """One day on levels, its month at the surface; read-only."""
    path = tmp_path_factory.mktemp("ncar") / "files"
    write_ncar(str(path), DAY, DAY + HOUR, area=LINES)
    return path


@pytest.fixture
def files(written, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "files"))


def file_of(files: Path, variable: str) -> Path:
    (kind,) = [kind for kind in KINDS if kind.variable == variable]
    return files / object_name(kind, SLOT.valid_time)


def test_bit_for_bit_and_fewer_bytes_for_the_next_hour(written):
    source = ERA5(str(written))
    answers = [source.fetch(Slot(time), BOX) for time in HOURS]
    for time, answer in zip(HOURS, answers, strict=True):
        assert_weather(answer, time, BOX)
        assert not answer.preliminary
        json.dumps(answer.provenance)
    first, second = (answer.provenance for answer in answers[:2])
    assert (first["layout"], first["stream"]) == ("ncar", "final")
    assert first["objects"]["Z"]["url"].endswith("128_129_z.ll025sc.2021060700_2021060723.nc")
    assert first["bytes"] < 0.2 * sum(described["size"] for described in first["objects"].values())
    assert second["bytes"] < 0.5 * first["bytes"]


def test_xarray_opens_what_was_written(written):
    with xr.open_dataset(file_of(written, "T"), engine="h5netcdf") as levels:
        assert levels["T"].dims == ("time", "level", "latitude", "longitude")
        assert levels["time"].dt.strftime("%dT%H").values[[0, -1]].tolist() == ["07T00", "07T23"]
        assert levels["latitude"].values[0] > levels["latitude"].values[-1]
    with xr.open_dataset(file_of(written, "VAR_2T"), engine="h5netcdf") as surface:
        assert surface.sizes["time"] == 720


def test_s3(written, s3_url):
    fsspec.filesystem("s3").put(str(written), f"{s3_url}/era5", recursive=True)
    answer = ERA5(f"{s3_url}/era5").fetch(SLOT, BOX)
    assert_weather(answer, SLOT.valid_time, BOX)
    assert all(described["etag"] for described in answer.provenance["objects"].values())


def test_a_file_that_is_absent_is_not_yet(files):
    source = ERA5(str(files))
    tomorrow = Slot(SLOT.valid_time + timedelta(days=1))
    answer = source.fetch(tomorrow, BOX)
    assert isinstance(answer, NotYet)
    assert answer.url.endswith("e5.oper.an.pl.128_129_z.ll025sc.2021060800_2021060823.nc")
    assert not source.available(tomorrow)
    assert source.available(SLOT)
    file_of(files, "VAR_10V").unlink()
    assert isinstance(source.fetch(SLOT, BOX), NotYet)


def test_a_file_that_was_replaced_is_read_anew(files):
    source, path = ERA5(str(files)), file_of(files, "T")
    assert_weather(source.fetch(SLOT, BOX), SLOT.valid_time, BOX)
    change(path, lambda fields: fields.assign(T=(fields["T"] + np.float32(1)).assign_attrs(fields["T"].attrs)))
    warmer = source.fetch(SLOT, BOX).inputs["t500"] - source.fetch(Slot(SLOT.valid_time), BOX).inputs["t500"]
    assert float(abs(warmer).max()) == 0
    assert float((source.fetch(SLOT, BOX).inputs["t500"] - expected_t500()).mean()) == pytest.approx(1, abs=1e-3)


def expected_t500():
    return nature.weather(nature.SEED, SLOT.valid_time, *lines_of(BOX))["t500"]


def change(path: Path, edit) -> None:
    """Write the file anew, edited, in its place."""
    with xr.open_dataset(path, engine="h5netcdf") as fields:
        edited = edit(fields.load()).drop_encoding()
    edited.to_netcdf(path.with_suffix(".new"), engine="h5netcdf")
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize(
    ("variable", "edit", "words"),
    [
        ("Z", lambda fields: fields.rename(Z="H"), r"Z is absent, \('time', 'level'"),
        ("Z", lambda fields: fields.isel(level=0), r"Z is \('time', 'latitude', 'longitude'\)"),
        ("T", lambda fields: fields.sel(level=[500.0, 700.0]), "850 hPa is 0 times among its levels"),
        ("VAR_2T", lambda fields: fields.isel(time=slice(24)), "20210607T22Z is 0 times on its axis"),
        ("U", lambda fields: fields.assign_coords(longitude=fields["longitude"] + 0.1), "on different grid lines"),
        ("V", lambda fields: fields.where(fields["latitude"] < 24), r"v500 is NaN at \d+ of 225"),
        ("TCWV", lambda fields: fields.assign(TCWV=fields["TCWV"].assign_attrs(units="mm")), "tcwv is in 'mm'"),
    ],
)
def test_a_wrong_file_is_named(files, variable, edit, words):
    path = file_of(files, variable)
    change(path, edit)
    with pytest.raises(SourceError, match=words) as caught:
        ERA5(str(files)).fetch(SLOT, BOX)
    assert path.name in str(caught.value) or "different grid lines" in str(caught.value)


def test_a_truncated_file_and_one_that_is_none(files):
    path = file_of(files, "U")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(SourceError, match=r"128_131_u.* cannot be read as netCDF 4"):
        ERA5(str(files)).fetch(SLOT, BOX)
    path.write_bytes(b"no netCDF")
    with pytest.raises(SourceError, match=r"128_131_u.* cannot be read as netCDF 4"):
        ERA5(str(files)).fetch(SLOT, BOX)


def test_a_failure_to_reach_a_file_stays_one(files, monkeypatch):
    source = ERA5(str(files))
    source.fetch(SLOT, BOX)
    path, read = file_of(files, "T"), type(source._root).read

    def failing(root, found, spans):
        if found.url.endswith(path.name):
            raise ConnectionError("the line is down")
        return read(root, found, spans)

    monkeypatch.setattr(type(source._root), "read", failing)
    with pytest.raises(ConnectionError, match="the line is down"):
        ERA5(str(files)).fetch(SLOT, BOX)
