"""The GFS source on leads that the tests write, whole and damaged in every way that has cost somebody a day."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise

import eccodes
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import ConfigurationError, GridError, SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.sources import SOURCES, open_source
from corrdiff_core.sources.channels import CHANNELS
from corrdiff_core.sources.gfs import GFS, NOAA, layouts, object_name, write_lead
from corrdiff_core.sources.grib import encode
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT, INPUT_NAMES

BOX = TAIWAN.input_box
INIT = datetime(2025, 8, 1)
SLOT = Slot.forecast(INIT, 7 * HOUR)


def fetched(source: GFS, slot: Slot = SLOT) -> Fetched:
    answer = source.fetch(slot, BOX)
    assert isinstance(answer, Fetched), answer
    return answer


def assert_close(inputs: xr.Dataset, weather: xr.Dataset) -> None:
    expected = weather.sel(latitude=inputs.latitude, longitude=inputs.longitude)
    for name in INPUT_NAMES:
        assert abs(inputs[name] - expected[name]).max() <= (0.02 if name.startswith("z") else 0.002), name


def test_fetched_is_what_was_written(lead, weather):
    answer = fetched(lead.source)
    inputs = answer.inputs
    assert_close(inputs, weather)
    assert tuple(inputs.data_vars) == INPUT_NAMES
    assert all(field.dims == ("latitude", "longitude") for field in inputs.values())
    assert all(field.dtype == np.float32 for field in inputs.values())
    assert all(field.attrs == INPUT[str(name)].attrs for name, field in inputs.items())
    np.testing.assert_array_equal(inputs.latitude, np.arange(19.25, 28.25, 0.25))
    np.testing.assert_array_equal(inputs.longitude, np.arange(116.0, 126.0, 0.25))
    assert set(inputs.coords) == {"latitude", "longitude", "init_time", "lead_time", "valid_time"}
    assert inputs.valid_time == np.datetime64("2025-08-01T07")
    assert inputs.init_time + inputs.lead_time == inputs.valid_time


def test_provenance_is_plain_and_says_which_bytes(lead):
    answer = fetched(lead.source)
    told = answer.provenance
    assert json.loads(json.dumps(told)) == told
    assert told["file"]["url"] == str(lead.file)
    assert told["file"]["size"] == lead.file.stat().st_size
    assert told["inventory"]["url"] == str(lead.idx)
    assert (told["init_time"], told["lead_hours"]) == ("2025-08-01T00:00:00", 7)
    assert told["grid"] == {"latitude_step": 0.25, "longitude_step": 0.25}
    assert len(told["ranges"]) == 7
    assert (
        tuple(told["channels"][name]["packing"] for name in INPUT_NAMES) == ("grid_complex_spatial_differencing",) * 12
    )
    assert told["channels"]["t2m"]["range"] == list(lead.span("TMP:2 m above ground"))
    assert told["bytes"] == sum(stop - start for start, stop in told["ranges"])


def test_the_analysis_and_every_packing(tmp_path, weather):
    slot = Slot.forecast(datetime(2025, 8, 1, 18), timedelta(0))
    for packing in ("grid_complex_spatial_differencing", "grid_complex", "grid_simple", "grid_jpeg"):
        write_lead(str(tmp_path), slot, weather, packing)
        answer = fetched(GFS(str(tmp_path)), slot)
        assert_close(answer.inputs, weather)
        assert answer.provenance["channels"]["z500"]["packing"] == packing


@pytest.mark.parametrize("longitude", [np.arange(0.0, 360.0, 2.5), np.arange(-180.0, 180.0, 2.5)])
@pytest.mark.parametrize("latitude", [np.arange(-90.0, 92.5, 2.5), np.arange(90.0, -92.5, -2.5)])
def test_a_globe_of_any_turn_and_direction_comes_back_ascending(tmp_path, make, latitude, longitude):
    weather = make(latitude, longitude)
    write_lead(str(tmp_path), SLOT, weather, "grid_simple")
    answer = fetched(GFS(str(tmp_path)))
    np.testing.assert_array_equal(answer.inputs.latitude, np.arange(17.5, 32.5, 2.5))
    np.testing.assert_array_equal(answer.inputs.longitude, np.arange(115.0, 130.0, 2.5))
    assert_close(answer.inputs, weather)


def test_a_source_that_does_not_cover_the_box_is_refused(tmp_path, weather):
    write_lead(str(tmp_path), SLOT, weather.sel(longitude=slice(117, 127)))
    with pytest.raises(GridError, match="does not cover"):
        GFS(str(tmp_path)).fetch(SLOT, BOX)


def test_two_grids_in_one_file_are_refused(lead, weather, make):
    start, stop = lead.span("PWAT:entire atmosphere (considered as a single layer)")
    coarse = make(np.arange(18.0, 30.0, 1.0), np.arange(115.0, 128.0, 1.0))
    other = encode(coarse["tcwv"], CHANNELS["tcwv"].parameter, INIT, 7 * HOUR, 3)
    data = lead.file.read_bytes()
    assert stop == len(data)
    lead.file.write_bytes(data[:start] + other)
    with pytest.raises(SourceError, match=r"z500.*is on other grid lines \(36, 40\) than tcwv \(10, 11\)"):
        lead.source.fetch(SLOT, BOX)


# Not there yet


@pytest.mark.parametrize("missing", ["file", "idx"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_an_absent_or_empty_object_is_not_there_yet(lead, missing, how):
    path = getattr(lead, missing)
    path.unlink() if how == "absent" else path.write_bytes(b"")
    answer = lead.source.fetch(SLOT, BOX)
    assert isinstance(answer, NotYet)
    assert answer.url == str(path)
    assert "absent or empty" in str(answer)
    assert not lead.source.available(SLOT)


def test_a_lead_that_appears_is_seen_by_the_same_source(lead):
    data = lead.file.read_bytes()
    lead.file.unlink()
    source = lead.source
    assert not source.available(SLOT)
    lead.file.write_bytes(data)
    assert source.available(SLOT)
    fetched(source)


def test_a_file_replaced_while_it_is_read_is_not_there_yet(lead, monkeypatch):
    source = lead.source
    find, calls = source._root.find, []

    def replaced_before_the_last_look(self, name):
        calls.append(name)
        if len(calls) == 3:
            lead.file.write_bytes(lead.file.read_bytes() + b"GRIB")
        return find(name)

    monkeypatch.setattr("corrdiff_core.sources.ranges.Root.find", replaced_before_the_last_look)
    answer = source.fetch(SLOT, BOX)
    assert isinstance(answer, NotYet)
    assert answer.reason == "it was replaced while it was read"


# Stale inventories, told by what is decoded


def test_a_stale_inventory_is_told_by_the_decoded_date(lead, lead_of, weather):
    """The file is yesterday's, under today's name and inventory."""
    yesterday = Slot.forecast(INIT - timedelta(days=1), 7 * HOUR)
    write_lead(str(lead.root), yesterday, weather)
    lead.file.write_bytes(lead_of(yesterday).file.read_bytes())
    with pytest.raises(SourceError, match=r"dataDate 20250731, asked for 20250801.*fetch both again"):
        lead.source.fetch(SLOT, BOX)


def test_a_stale_inventory_is_told_by_the_decoded_step(lead, lead_of, weather):
    other = Slot.forecast(INIT, 8 * HOUR)
    write_lead(str(lead.root), other, weather)
    lead.file.write_bytes(lead_of(other).file.read_bytes())
    with pytest.raises(SourceError, match=r"f007: tcwv at bytes .* step 8, asked for 7"):
        lead.source.fetch(SLOT, BOX)


def test_a_stale_inventory_is_told_by_the_decoded_level(lead):
    """Offsets that frame whole messages, of the wrong level."""
    lead.edit_idx(":TMP:500 mb:", ":TMP:was 500 mb:")
    lead.edit_idx(":TMP:550 mb:", ":TMP:500 mb:")
    with pytest.raises(SourceError, match=r"t500 at bytes .* level 550, asked for 500"):
        lead.source.fetch(SLOT, BOX)


def test_two_millibar_is_not_two_meters(lead):
    """`TMP:2 mb` has the same element and the same number 2 as `TMP:2 m above ground`."""
    assert ":TMP:2 mb:" in lead.idx.read_text()
    fetched(lead.source)
    lead.edit_idx(":TMP:2 m above ground:", ":TMP:3 m above ground:")
    lead.edit_idx(":TMP:2 mb:", ":TMP:2 m above ground:")
    with pytest.raises(SourceError, match=r"t2m at bytes 0.* shortName 't', asked for '2t'"):
        lead.source.fetch(SLOT, BOX)
    lead.edit_idx(":TMP:2 m above ground:", ":TMP:2 mb:")
    with pytest.raises(SourceError, match=r"does not list t2m \(TMP:2 m above ground\)"):
        lead.source.fetch(SLOT, BOX)


def test_wind_components_swapped_in_the_inventory_are_told(lead):
    lead.edit_idx(":UGRD:850 mb:", ":swap:850 mb:")
    lead.edit_idx(":VGRD:850 mb:", ":UGRD:850 mb:")
    lead.edit_idx(":swap:850 mb:", ":VGRD:850 mb:")
    with pytest.raises(SourceError, match=r"u850 at bytes .* shortName 'v', asked for 'u'"):
        lead.source.fetch(SLOT, BOX)


# Wrong inventories


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (":d=2025080100:", ":d=2025073118:", "cycle 20250731T18Z, asked for 20250801T00Z"),
        (":7 hour fcst:", ":6 hour fcst:", r"does not list tcwv .* at \+7 h .*'6 hour fcst'"),
        (":UGRD:20 m above ground:", ":UGRD:10 m above ground:", "u10m is listed 2 times"),
        (":HGT:850 mb:", ":HGT:851 mb:", r"does not list z850 \(HGT:850 mb\)"),
        (":TMP:900 mb:7 hour fcst:", ":TMP:900", " line 10: .* fetch the idx again"),
    ],
)
def test_a_wrong_inventory_is_named(lead, old, new, says):
    lead.edit_idx(old, new)
    with pytest.raises(SourceError, match=f"f007.idx.*{says}"):
        lead.source.fetch(SLOT, BOX)


def test_an_inventory_of_a_multi_field_message_over_single_ones_is_refused(lead):
    start, _ = lead.span("UGRD:500 mb")
    second, _ = lead.span("VGRD:500 mb")
    lead.edit_idx(f"6:{second}:", f"5.2:{start}:")
    lead.edit_idx(f"5:{start}:", f"5.1:{start}:")
    with pytest.raises(SourceError, match=r"u500 at bytes .* says it has .* bytes, the idx gives it"):
        lead.source.fetch(SLOT, BOX)


# Damaged files


@pytest.mark.parametrize("key", ["HGT:500 mb", "TMP:850 mb", "TMP:2 m above ground", "UGRD:10 m above ground"])
def test_the_message_that_lost_bytes_is_named(lead, key):
    """Bytes are gone from the middle of one message: it, not those behind it, is the one to name."""
    name = {"HGT:500 mb": "z500", "TMP:850 mb": "t850", "TMP:2 m above ground": "t2m"}.get(key, "u10m")
    start, stop = lead.span(key)
    data = lead.file.read_bytes()
    lead.file.write_bytes(data[: start + 200] + data[start + 300 :])
    with pytest.raises(SourceError, match=f"f007: {name} at bytes {start}..{stop - 1}.*ends with"):
        lead.source.fetch(SLOT, BOX)


def test_a_file_cut_short_is_named_with_the_message_that_is_cut(lead):
    start, stop = lead.span("TMP:2 m above ground")
    lead.file.write_bytes(lead.file.read_bytes()[: stop - 50])
    with pytest.raises(
        SourceError, match=f"lists t2m at bytes {start}..{stop - 1}.* but the file has {stop - 50} bytes"
    ):
        lead.source.fetch(SLOT, BOX)


def test_a_last_message_cut_short_is_named(lead):
    lead.file.write_bytes(lead.file.read_bytes()[:-50])
    with pytest.raises(SourceError, match=r"tcwv at bytes .* says it has"):
        lead.source.fetch(SLOT, BOX)


def test_a_message_of_zeros_is_named(lead):
    start, stop = lead.span("VGRD:850 mb")
    data = lead.file.read_bytes()
    lead.file.write_bytes(data[:start] + bytes(stop - start) + data[stop:])
    with pytest.raises(SourceError, match=r"v850 at bytes .* not b'GRIB'"):
        lead.source.fetch(SLOT, BOX)


def test_missing_values_around_the_box_are_named(lead):
    start, stop = lead.span("PWAT:entire atmosphere (considered as a single layer)")
    data = lead.file.read_bytes()
    handle = eccodes.codes_new_from_message(data[start:stop])
    values = eccodes.codes_get_values(handle)
    values[values.size // 2] = 9999.0
    eccodes.codes_set(handle, "packingType", "grid_simple")
    eccodes.codes_set(handle, "bitmapPresent", 1)
    eccodes.codes_set(handle, "missingValue", 9999.0)
    eccodes.codes_set_values(handle, values)
    lead.file.write_bytes(data[:start] + eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(SourceError, match=r"tcwv at bytes .*: 1 of 1440 values around .* are missing"):
        lead.source.fetch(SLOT, BOX)


# Cycles, leads, layouts


def test_cycles_reach_back_as_far_as_the_longest_lead():
    cycles = list(GFS().cycles(datetime(2025, 8, 6, 7)))
    assert cycles[0] == datetime(2025, 8, 6, 6)
    assert cycles[-1] == datetime(2025, 8, 1, 12)
    assert {before - after for before, after in pairwise(cycles)} == {6 * HOUR}
    assert list(GFS().cycles(datetime(2025, 8, 6)))[-1] == INIT


def test_plan_keeps_whole_hours_up_to_five_days():
    times = [INIT - HOUR, INIT, INIT + HOUR / 2, INIT + 120 * HOUR, INIT + 121 * HOUR]
    assert [slot.lead_hours for slot in GFS().plan(INIT, times)] == [0, 120]


def test_a_cycle_that_gfs_does_not_run_is_a_wrong_setting():
    with pytest.raises(ConfigurationError, match="no cycle at 2025-08-01T03:00: name one of 00, 06, 12, 18 UTC"):
        GFS().plan(datetime(2025, 8, 1, 3), [])


def test_a_hindcast_slot_is_a_wrong_setting():
    with pytest.raises(ConfigurationError, match="need an init_time"):
        GFS().fetch(Slot(INIT), BOX)


@pytest.mark.parametrize(
    ("init_time", "name"),
    [
        (datetime(2017, 3, 22), "gfs.20170322/00/gfs.t00z.pgrb2.0p25.f000"),
        (datetime(2021, 3, 22, 6), "gfs.20210322/06/gfs.t06z.pgrb2.0p25.f000"),
        (datetime(2021, 3, 22, 12), "gfs.20210322/12/atmos/gfs.t12z.pgrb2.0p25.f000"),
        (datetime(2025, 8, 1, 18), "gfs.20250801/18/atmos/gfs.t18z.pgrb2.0p25.f000"),
    ],
)
def test_paths_follow_the_era(init_time, name):
    assert object_name(layouts(init_time)[0], Slot(init_time, init_time)) == name


def test_the_layout_of_version_17_is_found_where_it_is(tmp_path, weather):
    slot = Slot.forecast(datetime(2026, 11, 22, 6), 12 * HOUR)
    url = write_lead(str(tmp_path), slot, weather)
    new = tmp_path / "gfs.20261122/06/products/atmos/grib2/0p25/gfs.t06z.pres_a.0p25.f012.grib2"
    new.parent.mkdir(parents=True)
    (tmp_path / url).rename(new)
    (tmp_path / f"{url}.idx").rename(f"{new}.idx")
    assert fetched(GFS(str(tmp_path)), slot).provenance["file"]["url"] == str(new)
    new.unlink()
    answer = GFS(str(tmp_path)).fetch(slot, BOX)
    assert isinstance(answer, NotYet)
    assert "pgrb2" in answer.reason
    assert "pres_a" in answer.reason


def test_a_mirror_may_keep_an_old_cycle_below_atmos(tmp_path, weather):
    slot = Slot.forecast(datetime(2017, 3, 22), 3 * HOUR)
    write_lead(str(tmp_path), slot, weather)
    (tmp_path / "gfs.20170322/00").rename(tmp_path / "atmos")
    (tmp_path / "gfs.20170322/00").mkdir()
    (tmp_path / "atmos").rename(tmp_path / "gfs.20170322/00/atmos")
    assert "/atmos/" in fetched(GFS(str(tmp_path)), slot).provenance["file"]["url"]


# Writing


def test_a_written_lead_reads_as_seven_ranges_and_its_inventory_is_noaas(lead):
    lines = lead.idx.read_text().splitlines()
    assert lines[0] == "1:0:d=2025080100:TMP:2 mb:7 hour fcst:"
    assert lines[-1].endswith(":d=2025080100:PWAT:entire atmosphere (considered as a single layer):7 hour fcst:")
    assert fetched(lead.source).provenance["bytes"] < lead.file.stat().st_size
    assert not list(lead.file.parent.glob("*.part"))


def test_writing_twice_is_the_same_bytes(lead, weather):
    before = lead.file.read_bytes(), lead.idx.read_bytes()
    assert write_lead(str(lead.root), SLOT, weather) == str(lead.file)
    assert (lead.file.read_bytes(), lead.idx.read_bytes()) == before


def test_fields_that_are_missing_are_named_and_nothing_is_written(tmp_path, weather):
    with pytest.raises(SourceError, match=r"lack z500, v10m: give all of tcwv"):
        write_lead(str(tmp_path), SLOT, weather.drop_vars(["z500", "v10m"]))
    assert not list(tmp_path.iterdir())


# Use


def test_threads_fetch_at_once_what_one_fetches_alone(tmp_path, make):
    slots = [Slot.forecast(INIT, hour * HOUR) for hour in range(4)]
    for seed, slot in enumerate(slots):
        write_lead(str(tmp_path), slot, make(np.arange(18.0, 29.5, 0.5), np.arange(115.0, 127.5, 0.5), seed))
    source = GFS(str(tmp_path))
    alone = [fetched(source, slot).inputs for slot in slots]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda slot: fetched(source, slot).inputs, slots))
    for one, other in zip(alone, together, strict=True):
        xr.testing.assert_identical(one, other)


def test_a_source_can_be_sent_to_another_process(lead):
    source = lead.source
    source.available(SLOT)
    assert fetched(pickle.loads(pickle.dumps(source))).slot == SLOT  # noqa: S301


def test_sources_by_name(tmp_path):
    assert "gfs" in SOURCES
    assert repr(open_source("gfs")) == f"GFS({NOAA!r})"
    assert repr(open_source("gfs", str(tmp_path))) == f"GFS({str(tmp_path)!r})"
    with pytest.raises(ConfigurationError, match=r"no source is called 'icon': use one of .*gfs"):
        open_source("icon")
    with pytest.raises(ConfigurationError, match="no source is called 'gfs-p01'"):
        open_source("gfs-p01")


def test_only_noaas_bucket_is_read_anonymously():
    assert dict(GFS()._root.options)["anon"] is True
    assert GFS("s3://ours/gfs")._root.options == ()
