"""Sources on object storage that fails now and then: the same fields as from one that never does."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.grid import Box
from corrdiff_core.nature import write_gfs
from corrdiff_core.nature_era5 import write_ncar
from corrdiff_core.retries import TRIES
from corrdiff_core.sources.aiwp import AIWP
from corrdiff_core.sources.ecmwf import ECMWF
from corrdiff_core.sources.era5 import ERA5
from corrdiff_core.sources.gefs import GEFS
from corrdiff_core.sources.own import OwnData, _opened
from corrdiff_core.sources.source import Fetched, Source
from tests.corrdiff_core.sources.aiwp_cases import write as write_aiwp
from tests.corrdiff_core.sources.ecmwf_cases import write as write_ecmwf
from tests.corrdiff_core.sources.test_gefs import write as write_gefs
from tests.faults import AFTER, BEFORE, CUT, FaultyServer

pytestmark = pytest.mark.service

BOX = Box(south=22.0, north=24.5, west=119.5, east=122.5)
LINES = np.arange(21.0, 26.01, 0.5), np.arange(118.0, 124.01, 0.5)
INIT = datetime(2026, 6, 1, 12)
FORECAST, ANALYSIS = Slot.forecast(INIT, 6 * HOUR), Slot(INIT + HOUR)
Opened = tuple[Callable[[str], Source], Slot]


def weather(time: datetime = FORECAST.valid_time) -> xr.Dataset:
    return nature.weather(5, time, *LINES)


def series() -> xr.Dataset:
    """Three hours of one's own."""
    return xr.concat([weather(time) for time in hours_from(INIT, 3)], "valid_time").rename(valid_time="time")


def gefs(root: Path) -> Opened:
    write_gefs(root, weather(), FORECAST)
    return partial(GEFS, "p07"), FORECAST


def ecmwf(root: Path) -> Opened:
    write_ecmwf(root, "ifs", FORECAST, weather())
    return partial(ECMWF, "ifs"), FORECAST


def aiwp(root: Path) -> Opened:
    write_aiwp(root, "four-gfs", INIT, weather, steps=2)
    return partial(AIWP, "four-gfs"), FORECAST


def ncar(root: Path) -> Opened:
    write_ncar(str(root), INIT, INIT + HOUR, area=LINES)
    return ERA5, ANALYSIS


def own(name: str, root: Path) -> Opened:
    root.mkdir()
    fields = series()
    if name.endswith(".nc"):
        fields.to_netcdf(root / name, engine="scipy" if name == "three.nc" else "h5netcdf")
    else:
        shards = {"shards": (3, 12, 13)} if name == "shards.zarr" else {}
        encoding = {each: {"chunks": (1, 6, 13), **shards} for each in fields.data_vars}
        fields.to_zarr(root / name, zarr_format=3 if shards else 2, consolidated=not shards, encoding=encoding)
    return lambda url: OwnData(f"{url}/{name}"), ANALYSIS


def own_glob(root: Path) -> Opened:
    root.mkdir()
    for at in range(2):
        series().isel(time=[at]).to_netcdf(root / f"file_{at}.nc", engine="h5netcdf")
    return lambda url: OwnData(f"{url}/file_?.nc"), ANALYSIS


def own_grib(root: Path) -> Opened:
    root.mkdir()
    paths = write_gfs(str(root / "gfs"), INIT, [0, 1])
    (root / "mine.grib2").write_bytes(b"".join(Path(path).read_bytes() for path in paths))
    return lambda url: OwnData(f"{url}/mine.grib2"), ANALYSIS


OWN = {name: partial(own, name) for name in ("three.nc", "two.zarr", "shards.zarr")}
SOURCES = {"gefs": gefs, "ecmwf": ecmwf, "aiwp": aiwp, "ncar": ncar, "glob.nc": own_glob, "grib2": own_grib, **OWN}


@pytest.mark.parametrize("name", [*SOURCES])
def test_the_same_fields_through_failures(name: str, faulty: FaultyServer, s3_url: str, tmp_path: Path):
    opened, slot = SOURCES[name](tmp_path / "files")
    local = opened(str(tmp_path / "files")).fetch(slot, BOX)
    fsspec.filesystem("s3").put(str(tmp_path / "files"), f"{s3_url}/files", recursive=True)
    assert isinstance(local, Fetched)
    faulty.faults.rate, faulty.faults.kinds = 0.2, (*BEFORE, *AFTER, CUT)
    while faulty.faults.happened.total() < 2:
        _opened.cache_clear()  # of files of one's own, which else stay open
        answer = opened(f"{s3_url}/files").fetch(slot, BOX)
        assert isinstance(answer, Fetched), answer
        xr.testing.assert_identical(answer.inputs, local.inputs)
        assert answer.provenance["bytes"] > 0


def published(url: str, name: str) -> str:
    """A file or store in a bucket for everybody, over HTTP, whose client has no patience of its own."""
    bucket = url.removeprefix("s3://")
    client = boto3.client("s3")
    client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    for item in client.list_objects_v2(Bucket=bucket)["Contents"]:
        client.put_object_acl(Bucket=bucket, Key=item["Key"], ACL="public-read")
    return f"{client.meta.endpoint_url}/{bucket}/{name}"


@pytest.mark.parametrize("name", ["four.nc", "two.zarr"])
def test_a_web_server_that_fails_now_and_then(name: str, faulty: FaultyServer, s3_url: str, tmp_path: Path):
    opened, slot = own(name, tmp_path / "files")
    fsspec.filesystem("s3").put(str(tmp_path / "files"), f"{s3_url}/files", recursive=True)
    local, url = opened(str(tmp_path / "files")).fetch(slot, BOX), published(s3_url, "files")
    assert isinstance(local, Fetched)
    faulty.faults.rate, faulty.faults.kinds = 0.2, (*BEFORE, *AFTER, CUT)
    while faulty.faults.happened.total() < 2:
        _opened.cache_clear()
        answer = opened(url).fetch(slot, BOX)
        assert isinstance(answer, Fetched), answer
        xr.testing.assert_identical(answer.inputs, local.inputs)


@pytest.mark.parametrize("name", ["four.nc", "two.zarr"])
def test_patience_with_ones_own_ends_in_an_error_worth_another_run(
    name: str, faulty: FaultyServer, s3_url: str, tmp_path: Path
):
    opened, slot = own(name, tmp_path / "files")
    fsspec.filesystem("s3").put(str(tmp_path / "files"), f"{s3_url}/files", recursive=True)
    source = opened(f"{s3_url}/files")
    faulty.faults.kinds, faulty.faults.rate = (CUT,), 1.0
    with pytest.raises(ConnectionError, match=rf"{name}.*tried {TRIES} times"):
        source.fetch(slot, BOX)
    faulty.faults.rate = 0.0
    assert isinstance(source.fetch(slot, BOX), Fetched)


def test_a_listing_that_fails_hides_no_file(faulty: FaultyServer, s3_url: str, tmp_path: Path):
    opened, slot = own_glob(tmp_path / "files")
    fsspec.filesystem("s3").put(str(tmp_path / "files"), f"{s3_url}/files", recursive=True)
    source = opened(f"{s3_url}/files")
    faulty.faults.kinds, faulty.faults.rate = ("slow down",), 1.0
    with pytest.raises(ConnectionError, match=rf"file_\?.nc could not be read: .*tried {TRIES} times"):
        source.available(slot)
