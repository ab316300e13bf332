"""Many stores as one dataset: what plain xarray reads, on a local directory and on S3, lazily and in few requests."""

import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta

import dask
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.archive import Archive, Series, open_forecasts, open_hindcast
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ArchiveError
from tests.archive_cases import FORECAST, HINDCAST, INIT, LAYOUT, ensemble, slot

LATER = INIT + timedelta(hours=6)
MONTHS = replace(LAYOUT, lead_times=[])


def publish(url, slots, layout=LAYOUT, series=FORECAST):
    archive = Archive(url)
    for number, one in enumerate(slots):
        archive.create(series, one, layout)
        archive.write(series, one, ensemble(layout, seed=number))
        archive.publish(series, one, {})
    return archive


@pytest.fixture(params=["local", "s3"])
def url(request, tmp_path):
    return f"{tmp_path if request.param == 'local' else request.getfixturevalue('s3_url')}/archive"


def plain(archive, series, one):
    """A store as plain xarray opens it."""
    return xr.open_zarr(archive.store_url(series, one), decode_coords="all")


def test_forecasts_are_what_plain_xarray_reads_from_their_stores(url):
    archive = publish(url, [slot(1), slot(2), slot(1, LATER), slot(2, LATER)])
    opened = open_forecasts(url)
    assert opened.t2m.dims == ("init_time", "lead_time", "member", "y", "x")
    assert opened.t2m.chunks == ((1, 1), (1, 1), (3,), (32,), (48,))
    assert "published" not in opened.coords
    for init in (INIT, LATER):
        expected = plain(archive, FORECAST, slot(1, init)).isel(lead_time=[1, 2])
        found = opened.sel(init_time=init)
        for name in opened.data_vars:
            xr.testing.assert_identical(found[name].compute(), expected[name].compute())
    assert opened.valid_time.values[1, 0] == np.datetime64(LATER + timedelta(hours=1), "ns")
    assert bool(opened.notnull().all().to_array().all())


def test_metadata_follow_cf_and_survive_a_round_trip_through_netcdf(url, tmp_path):
    archive = publish(url, [slot(1), slot(1, LATER)])
    opened = open_forecasts(url)
    reference = plain(archive, FORECAST, slot(1))
    for name in ("init_time", "lead_time", "valid_time", "member", "y", "x", "latitude", "spatial_ref", "t2m", "mrr"):
        assert opened[name].attrs == reference[name].attrs, name
    assert {"latitude", "longitude", "spatial_ref", "valid_time"} <= set(opened.coords)
    assert opened.attrs["Conventions"] == "CF-1.12"
    opened.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf", decode_coords="all", decode_timedelta=True) as copy:
        xr.testing.assert_equal(copy.load(), opened.compute())


def test_hindcast_is_what_plain_xarray_reads_across_months(url):
    hours = [datetime(2024, 2, 29, 22), datetime(2024, 2, 29, 23), datetime(2024, 3, 1, 0), datetime(2024, 3, 1, 5)]
    archive = publish(url, [Slot(hour) for hour in hours], MONTHS, HINDCAST)
    opened = open_hindcast(url, "2024-02-29T23", datetime(2024, 3, 1, 5))
    assert opened.t2m.dims == ("time", "member", "y", "x")
    assert list(opened.time.values) == [np.datetime64(hour, "ns") for hour in hours[1:3]]
    for hour in hours[1:3]:
        expected = plain(archive, HINDCAST, Slot(hour)).sel(time=hour)
        for name in opened.data_vars:
            xr.testing.assert_identical(opened[name].sel(time=hour).compute(), expected[name].compute())
    assert len(open_hindcast(url, "2024-01-01", "2025-01-01").time) == 4


def test_slots_that_are_not_published_are_left_out(tmp_path):
    archive = publish(str(tmp_path), [slot(1), slot(2)])
    archive.write(FORECAST, slot(3), ensemble())
    archive.create(FORECAST, slot(1, LATER), LAYOUT)
    opened = open_forecasts(str(tmp_path))
    assert list(opened.lead_time.values) == [np.timedelta64(1, "h"), np.timedelta64(2, "h")]
    assert list(opened.init_time.values) == [np.datetime64(INIT, "ns")]


def test_holes_are_refused_with_the_leads_that_all_have_and_marked_when_asked_for(tmp_path):
    publish(str(tmp_path), [slot(1), slot(2), slot(2, LATER), slot(3, LATER)])
    hole = r"2 of 2 init_times x 3 leads are not published, the first 20250801T00Z\+003h .*: choose .* \(\[2\]\)"
    with pytest.raises(ArchiveError, match=hole):
        open_forecasts(str(tmp_path))
    with pytest.raises(ArchiveError, match="1 of 1 init_times x 2 leads"):
        open_forecasts(str(tmp_path), end=LATER, leads="2-3")
    assert open_forecasts(str(tmp_path), leads=[2]).sizes["init_time"] == 2
    ragged = open_forecasts(str(tmp_path), ragged=True)
    assert ragged.published.values.tolist() == [[True, True, False], [False, True, True]]
    assert (ragged.t2m.notnull().all(("member", "y", "x")) == ragged.published).all()
    assert ragged.t2m.isnull().all(("member", "y", "x")).sum() == 2


def test_start_is_in_and_end_is_out(tmp_path):
    publish(str(tmp_path), [slot(1), slot(1, LATER)])
    for options, expected in (
        ({"start": LATER}, [LATER]),
        ({"end": "2025-08-01T06:00"}, [INIT]),
        ({"start": "2025-08-01T08:00+08:00", "end": "20250801T07"}, [INIT, LATER]),
    ):
        opened = open_forecasts(str(tmp_path), **options)
        assert list(opened.init_time.values) == [np.datetime64(time, "ns") for time in expected]
    with pytest.raises(ArchiveError, match="published nothing of what is asked for, in 0 stores"):
        open_forecasts(str(tmp_path), start="2026-01-01")
    with pytest.raises(ArchiveError, match="published nothing of what is asked for, in 2 stores"):
        open_forecasts(str(tmp_path), leads="4")


def test_the_only_series_is_found_and_of_several_the_choices_are_named(tmp_path):
    with pytest.raises(ArchiveError, match=r"holds 0 forecast series$"):
        open_forecasts(str(tmp_path))
    others = [Series("forecast", "gfs", "other-00000000"), Series("forecast", "gefs-p19", "demo-1a2b3c4d")]
    for series in (FORECAST, *others):
        publish(str(tmp_path), [slot(1)], series=series)
    Archive(str(tmp_path)).update_latest(FORECAST, [slot(1)])
    choices = (
        "holds 3 forecast series: choose one of source='gefs-p19', model='demo-1a2b3c4d';"
        " source='gfs', model='demo-1a2b3c4d'; source='gfs', model='other-00000000'"
    )
    with pytest.raises(ArchiveError, match=choices):
        open_forecasts(str(tmp_path))
    with pytest.raises(ArchiveError, match="holds 2 forecast series, source='gfs': choose"):
        open_forecasts(str(tmp_path), source="gfs")
    assert open_forecasts(str(tmp_path), source="gefs-p19").sizes["init_time"] == 1
    assert open_forecasts(str(tmp_path), model="other-00000000").sizes["init_time"] == 1
    with pytest.raises(ArchiveError, match="holds 0 hindcast series"):
        open_hindcast(str(tmp_path), "2024-01-01", "2025-01-01")


def test_stores_that_do_not_fit_together_are_refused_and_named(tmp_path):
    publish(str(tmp_path), [slot(1)])
    publish(str(tmp_path), [slot(1, LATER)], replace(LAYOUT, members=2))
    with pytest.raises(
        ArchiveError, match=r"T00\.zarr and .*T06\.zarr cannot be one dataset: members is 3 and 2; open"
    ):
        open_forecasts(str(tmp_path))
    assert open_forecasts(str(tmp_path), start=LATER).sizes["member"] == 2
    moved = replace(LAYOUT, members=2, domain=replace(LAYOUT.domain, x0=0.0))
    publish(str(tmp_path), [slot(1, LATER + timedelta(hours=6))], moved)
    with pytest.raises(ArchiveError, match=r"domain\.x0 is -368973\.703 and 0\.0"):
        open_forecasts(str(tmp_path), start=LATER)


def test_stores_with_other_leads_fit_together(tmp_path):
    publish(str(tmp_path), [slot(1)])
    publish(str(tmp_path), [slot(1, LATER)], replace(LAYOUT, lead_times=LAYOUT.lead_times[1:3]))
    opened = open_forecasts(str(tmp_path))
    assert np.array_equal(opened.t2m.values[0], opened.t2m.values[1])


def test_an_object_that_is_lost_is_an_error_when_it_is_read_and_never_nan(tmp_path):
    publish(str(tmp_path), [slot(1), slot(2)])
    (tmp_path / FORECAST.key / "20250801T00.zarr/u10m/c/2/0/0/0").unlink()
    opened = open_forecasts(str(tmp_path))
    opened.t2m.load()
    opened.u10m.isel(lead_time=0).load()
    with pytest.raises(ArchiveError, match=r"u10m/c/2/0/0/0 is gone though its slot is published"):
        opened.u10m.load()


def test_a_year_opens_in_few_requests_and_reads_only_what_is_used(s3_url, faulty, tmp_path):
    publish(str(tmp_path), [Slot(datetime(2024, month, 1)) for month in range(1, 13)], MONTHS, HINDCAST)
    here, there = open_objects(str(tmp_path)), open_objects(s3_url)
    for key in here.sizes(HINDCAST.key):
        if re.search("01.zarr/[^/]+/c|m/c/0|generated_at/c|zarr/[^/]*json", key):  # what is read of the stores
            there.put(key, here.get(key))
    requests = faulty.faults.requests
    requests.clear()
    opened = open_hindcast(s3_url, "2024-01-01", "2025-01-01")
    assert opened.sizes["time"] == 12
    metadata = [request for request in requests if request.endswith(("zarr.json", "layout.json"))]
    assert len(metadata) == len(set(metadata)) == 24
    listings = [request for request in requests if request.count("/") == 1 or request.endswith("/")]
    assert len(listings) == 1 + 1 + 1 + 12  # sources, models, stores, slots
    assert len(requests) == 24 + len(listings) + 8  # and the coordinates of one store
    requests.clear()
    opened.t2m.isel(time=[2, 7]).mean("member").load()
    assert sorted(request.partition(HINDCAST.model)[2] for request in requests) == [
        "/202403.zarr/t2m/c/0/0/0/0",
        "/202408.zarr/t2m/c/0/0/0/0",
    ]


def test_reading_goes_to_processes(tmp_path):
    publish(str(tmp_path), [slot(1), slot(2)])
    opened = open_forecasts(str(tmp_path))
    with dask.config.set(scheduler="processes", num_workers=1):
        means = opened.t2m.mean(("member", "y", "x")).values
    assert np.isfinite(means).all()


def test_readers_import_neither_torch_nor_prefect():
    code = "import sys, corrdiff_core.archive; print({'torch', 'prefect', 'dask.array'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
