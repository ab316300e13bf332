"""The census of an archive, against what plain xarray and boto3 find there."""

import os
from datetime import timedelta

import boto3
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.archive import Archive, Series, census
from corrdiff_core.archive.census import Census
from corrdiff_core.cycle import HOUR, Slot, utc_now
from tests.archive_cases import FORECAST, HINDCAST, INIT, LAYOUT, run, slot

OTHER = Series("forecast", "gfs", "demo-99999999")
ELSEWHERE = Series("forecast", "gefs-p01", "demo-1a2b3c4d")
LATER = INIT + 6 * HOUR
FOREVER = INIT + 1000 * HOUR


def published(url, series, init):
    """(slot, when) as xarray reads them."""
    store = xr.open_zarr(f"{url}/{series.store_key(init)}", decode_coords="all", chunks=None)
    times = store.generated_at.values
    return {
        (Slot.forecast(init, timedelta(hours=int(lead))), time.astype("datetime64[s]").item())
        for lead, time in zip(store.lead_time.values.astype("timedelta64[h]").astype(int), times, strict=True)
        if not np.isnat(time)
    }


@pytest.fixture
def archive(tmp_path):
    url = str(tmp_path / "archive")
    run(url, [slot(0), slot(2), slot(3)])
    run(url, [slot(1, LATER)], series=OTHER)
    run(url, [slot(1)], series=ELSEWHERE)
    run(url, [Slot(INIT)], series=HINDCAST)
    return Archive(url)


def test_it_finds_the_slots_of_a_source_whatever_their_model(archive):
    looked = Census(archive.url).lately("gfs", INIT + HOUR, FOREVER)
    expected = published(archive.url, FORECAST, INIT) | published(archive.url, OTHER, LATER)
    expected = {(one, when) for one, when in expected if one != slot(0)}
    assert {(one.slot, one.published) for one in looked.made} == expected
    assert [one.slot for one in looked.made] == [slot(2), slot(3), slot(1, LATER)]
    assert [one.series for one in looked.made] == [FORECAST, FORECAST, OTHER]
    assert [one.provenance["seed"] for one in looked.made] == [1, 2, 0]
    assert looked.first == INIT
    until = Census(archive.url).lately("gfs", INIT, INIT + 3 * HOUR)
    assert [one.slot for one in until.made] == [slot(0), slot(2)]


def test_a_service_that_stands_still_is_still_seen(archive):
    archive.create(OTHER, slot(0, LATER + 6 * HOUR), LAYOUT)  # a store without a slot
    looked = Census(archive.url).lately("gfs", INIT + 60 * 24 * HOUR, INIT + 61 * 24 * HOUR)
    assert [one.slot for one in looked.made] == [slot(1, LATER)]
    assert looked.first == INIT
    nothing = Census(archive.url).lately("ecmwf-ifs", INIT, FOREVER)
    assert (nothing.made, nothing.first) == ([], None)


def test_what_is_made_again_is_seen_within_the_hour(archive, monkeypatch):
    counted, hour = Census(archive.url), utc_now()
    before = counted.lately("gfs", INIT, FOREVER)
    archive.retract(FORECAST, slot(2), "for the test")
    gone = counted.lately("gfs", INIT, FOREVER)
    assert {one.slot for one in before.made} - {one.slot for one in gone.made} == {slot(2)}
    archive.publish(FORECAST, slot(2), {"seed": 7})
    again = {one.slot: one.provenance["seed"] for one in counted.lately("gfs", INIT, FOREVER).made}
    assert again[slot(2)] == 1  # as remembered
    monkeypatch.setattr(census, "utc_now", lambda: hour + HOUR)
    again = {one.slot: one.provenance["seed"] for one in counted.lately("gfs", INIT, FOREVER).made}
    assert again[slot(2)] == 7


def test_a_slot_that_is_broken_is_named(archive):
    (archive._objects.root / FORECAST.store_key(INIT) / "provenance" / "20250801T02.json").unlink()
    with pytest.raises(census.ArchiveError, match=r"provenance/20250801T02\.json is gone"):
        Census(archive.url).lately("gfs", INIT, FOREVER)


def test_sizes_are_those_of_the_files(archive):
    sizes = Census(archive.url).sizes()
    assert set(sizes) == {FORECAST, OTHER, ELSEWHERE, HINDCAST}
    for series, told in sizes.items():
        files = [
            os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118
            for folder, _, names in os.walk(f"{archive.url}/{series.key}")
            for name in names
        ]
        assert told == (len(files), sum(files))


def test_free_space_is_of_the_disk_that_the_archive_is_to_lie_on(tmp_path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    told = Census(str(tmp_path / "not" / "there" / "yet")).free_bytes()
    assert told == pytest.approx(free, rel=0.05)


@pytest.mark.service
def test_requests_to_object_storage_are_few(faulty, s3_url, monkeypatch):
    monkeypatch.setattr("corrdiff_core.retries.READ_TIMEOUT", 30.0)  # moto lists slowly
    stores, made = 4, 4
    run(s3_url, [slot(lead, INIT + 6 * HOUR * step) for step in range(stores) for lead in (1, 2)])
    counted, asked, draw = Census(s3_url), [], faulty.faults.draw

    def count(verb, path, conditional):
        asked.append(verb)
        return draw(verb, path, conditional)

    faulty.faults.draw = count
    since = INIT + 12 * HOUR
    first = counted.lately("gfs", since, FOREVER)
    assert len(first.made) == made
    assert len(asked) == 2 + 3 * stores + 2 * made, asked
    asked.clear()
    assert counted.lately("gfs", since, FOREVER) == first
    assert asked == ["GET"] * (2 + stores)
    objects = boto3.client("s3").list_objects_v2(Bucket=s3_url.removeprefix("s3://"))["Contents"]
    assert counted.sizes() == {FORECAST: (len(objects), sum(one["Size"] for one in objects))}
    assert counted.free_bytes() is None
