"""Rows of slots: each once, again where it was made again, later where truth is late; kills; a real S3 server."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from corrdiff_core.archive import Archive
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.retention import expired
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.dataset.archived import is_archive
from corrdiff_core.errors import ArchiveError, ConfigurationError
from corrdiff_core.nature_era5 import write_arco
from corrdiff_core.verify.layout import ANALYZED, CHECKED, SCORED
from corrdiff_core.verify.measures import Archived, checked, scored
from corrdiff_core.verify.panel import Shown, draw
from corrdiff_core.verify.store import Rows
from corrdiff_core.verify.truth import is_analysis
from corrdiff_core.verify.verdict import Rules, judge
from corrdiff_core.verify.windows import by_window, history
from corrdiff_core.verify.work import Done, plan
from tests.verify_cases import (
    DOMAIN,
    FORECAST,
    HINDCAST,
    INIT,
    LINES,
    contents,
    hours,
    inputs,
    job,
    layout,
    publish,
    slots,
    truth,
    truth_store,
    verified,
)

AREA = (np.arange(22.5, 24.76, 0.25), np.arange(119.0, 121.26, 0.25))


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "archive")


def months(url, series=FORECAST):
    return [f"{url}/verification/{series.key}/{month:%Y%m}.zarr" for month in Rows(url, series).months()]


def test_every_slot_has_its_row_and_plain_xarray_opens_it(url, tmp_path):
    made = slots(3) + slots(2, INIT + 12 * HOUR)
    publish(url, made)
    given = job(url, truth=truth_store(tmp_path / "truth", {slot.valid_time for slot in made}))
    assert verified(given) == Done(checked=5, compared=5)
    july, august = (xr.open_zarr(store) for store in months(url))
    assert (july.sizes["init_time"], august.sizes["init_time"], july.sizes["lead_time"]) == (124, 124, 9)
    archive = Archive(url)
    for slot in made:
        month = july if slot.init_time.month == 7 else august
        row = month.sel(init_time=slot.init_time, lead_time=slot.lead_time).load()
        assert row.valid_time.values == np.datetime64(slot.valid_time)
        ensemble, given_inputs = archive.read(FORECAST, slot), archive.read_inputs(FORECAST, slot)[0]
        looked = Archived.of(slot, DOMAIN, ("mrr", "t2m", "u10m", "v10m"), ensemble, given_inputs)
        for name, values in (checked(looked) | scored(looked, truth(slot.valid_time))).items():
            np.testing.assert_array_equal(row[name].values, values, err_msg=name)
        assert not np.isnat(row[CHECKED].values)
        assert not np.isnat(row[SCORED].values)
        assert np.isnat(row[ANALYZED].values)
    assert int((~np.isnat(july[CHECKED])).sum()) == 3
    assert july.crps.sel(variable="t2m").attrs["long_name"] == "fair CRPS of the ensemble"
    assert str(july.variable_units.sel(variable="t2m").values) == "K"
    assert july.input_center.sel(channel="t2m").values == pytest.approx(296.68073)
    assert all("units" in july[name].attrs for name in july.data_vars if not name.endswith("_at"))


def test_a_second_run_does_nothing_and_new_slots_alone_are_new(url):
    publish(url, slots(2))
    assert verified(job(url)) == Done(checked=2)
    before = {path: path.stat().st_mtime_ns for path in Path(url).rglob("verification/**/*")}
    assert plan(job(url)) == []
    assert verified(job(url)) == Done()
    assert {path: path.stat().st_mtime_ns for path in Path(url).rglob("verification/**/*")} == before
    publish(url, slots(3)[2:])
    assert verified(job(url)) == Done(checked=1)


def test_a_hindcast_goes_by_its_hours(url, tmp_path):
    made = hours(9)
    publish(url, made, HINDCAST)
    given = job(url, HINDCAST, truth=truth_store(tmp_path / "truth", [slot.valid_time for slot in made[:8]]))
    assert verified(given) == Done(checked=9, compared=8, waiting=1)
    july, august = (xr.open_zarr(store) for store in months(url, HINDCAST))
    assert (july.sizes["time"], august.sizes["time"]) == (744, 744)
    assert int((~np.isnat(july[SCORED])).sum()) == 6
    assert np.isfinite(august.crps.sel(time="2025-08-01T01:00").values).all()


def test_truth_that_comes_later_is_waited_for(url, tmp_path):
    publish(url, slots(4))
    times = [slot.valid_time for slot in slots(4)]
    given = job(url, truth=truth_store(tmp_path / "truth", times[:3], lacking=times[1:2]))
    assert verified(given) == Done(checked=4, compared=2, waiting=2), "a place that is kept for it is still empty"
    assert verified(given) == Done(waiting=2)
    truth_store(tmp_path / "truth", times)
    assert verified(given) == Done(compared=2)
    assert verified(given) == Done()


def test_what_is_not_yet_valid_has_no_truth_yet(url):
    publish(url, slots(3))
    given = job(url, truth="nature:1", now=INIT + HOUR)
    todo = plan(given)
    assert [(len(one.check), len(one.compare), one.waiting) for one in todo] == [(3, 2, 1)]


def test_holes_in_the_truth_are_left_out_with_a_word_and_scored_once_they_are_mended(url, tmp_path):
    publish(url, slots(2))
    times = [slot.valid_time for slot in slots(2)]
    where = truth_store(tmp_path / "truth", times)
    broken = xr.open_zarr(where, consolidated=False).load()
    broken["t2m"][0, 3, 4] = np.nan
    broken.to_zarr(where, mode="w", zarr_format=3, consolidated=False)
    done = verified(job(url, truth=where))
    assert (done.checked, done.compared, done.waiting) == (2, 1, 0)
    assert "t2m at 1 of 480 points not finite" in done.left_out[0]
    truth_store(tmp_path / "truth", times)
    assert verified(job(url, truth=where)) == Done(compared=1)


def test_truth_of_another_grid_is_refused_and_the_rest_is_done(url, tmp_path):
    publish(url, slots(2))
    where = truth_store(tmp_path / "truth", [slot.valid_time for slot in slots(2)])
    moved = xr.open_zarr(where, consolidated=False).load()
    moved.assign_coords(x=moved.x + 2000).to_zarr(where, mode="w", zarr_format=3, consolidated=False)
    done = verified(job(url, truth=where))
    assert (done.checked, done.compared) == (2, 0)
    assert [slot for slot, _ in done.failed] == slots(2)
    assert "its points lie up to 2000 m from those of the domain little" in done.failed[0][1]


def test_a_slot_that_was_made_again_is_measured_again(url, tmp_path):
    publish(url, slots(2))
    given = job(url, truth=truth_store(tmp_path / "truth", [slot.valid_time for slot in slots(2)]))
    verified(given)
    before = Rows(url, FORECAST).read({SCORED: slots(2), CHECKED: slots(2)})
    Archive(url).retract(FORECAST, slots(2)[1], "final inputs")
    assert verified(given) == Done(), "there is nothing to measure in its place yet"
    publish(url, slots(2)[1:], bias=3.0)
    assert verified(given) == Done(checked=1, compared=1)
    after = Rows(url, FORECAST).read({SCORED: slots(2), CHECKED: slots(2)})
    assert after.bias.sel(variable="t2m").values - before.bias.sel(variable="t2m").values == pytest.approx(
        [0, 3], abs=0.01
    )


def test_a_period(url):
    publish(url, slots(9))
    given = job(url, start=INIT + 2 * HOUR, end=INIT + 5 * HOUR)
    assert verified(given) == Done(checked=3)
    rows = Rows(url, FORECAST)
    assert rows.marked(CHECKED, INIT) == rows.all_marked(CHECKED, datetime(2025, 7, 1)) == set(slots(9)[2:5])


def test_one_member_is_watched_and_never_scored(url):
    publish(url, slots(1), shape=layout(members=1))
    done = verified(job(url, truth="nature:1"))
    assert done.checked == 1
    assert done.failed[0][1].endswith("has 1 member, a fair CRPS needs 2: leave out --truth")


def test_beside_an_analysis_that_is_not_whole_yet(url, tmp_path):
    """A real ERA5 store of the nature run: its hours end before the forecast's."""
    publish(url, slots(3))
    era5 = str(tmp_path / "era5")
    write_arco(era5, INIT, INIT + 2 * HOUR, area=AREA)
    given = job(url, truth="era5", truth_url=era5)
    assert verified(given) == Done(checked=3, compared=2, waiting=1)
    row = Rows(url, FORECAST).read({ANALYZED: slots(2)}).isel(slot=1)
    stored = xr.open_zarr(era5).sel(time=INIT + HOUR)
    analysis = stored["2m_temperature"].sel(latitude=LINES[0], longitude=LINES[1]).values.astype(float)
    off = inputs(slots(2)[1])["t2m"].values - analysis
    assert row.input_bias.sel(channel="t2m").item() == pytest.approx(off.mean(), abs=1e-3)
    assert row.input_squared_error.sel(channel="t2m").item() == pytest.approx((off**2).mean(), rel=1e-4)
    write_arco(era5, INIT + 2 * HOUR, INIT + 3 * HOUR, area=AREA)
    assert verified(given) == Done(compared=1)
    rows = history(given.rows, HOUR, 5, 60)
    windows = by_window(rows, HOUR, given.statistics)
    assert windows.input_rmse.sel(channel="t2m").values[1] == pytest.approx(
        np.sqrt((off**2).mean()) / 5.273516, rel=1e-4
    )
    assert draw(Shown(FORECAST, rows, windows, HOUR, Rules(), judge(windows))).startswith(b"\x89PNG")


def test_the_statistics_are_kept_once_the_manifest_is_at_hand(url):
    publish(url, slots(2))
    verified(job(url, statistics=None, end=INIT + HOUR))
    [store] = months(url)
    assert np.isnan(xr.open_zarr(store).input_scale.values).all()
    verified(job(url))
    assert xr.open_zarr(store).input_scale.sel(channel="t2m").values == pytest.approx(5.273516)


def test_a_month_of_another_layout_is_refused_with_both_sides(url):
    publish(url, slots(1))
    verified(job(url))
    other = Rows(url, FORECAST)
    with pytest.raises(ArchiveError, match=r"members is 5 in the store but 7 is asked for: delete it"):
        other.create(datetime(2025, 7, 1), replace(other.layout(datetime(2025, 7, 1)), members=7))


def test_cycles_of_odd_hours_get_rows_too(url):
    made = slots(1, INIT + HOUR) + slots(1)
    publish(url, made)
    assert verified(job(url)).checked == 2
    [store] = months(url)
    assert xr.open_zarr(store).sizes["init_time"] == 744


def test_the_folder_is_no_series_and_survives_a_prune(url):
    publish(url, slots(2))
    verified(job(url))
    assert Archive(url).series() == [FORECAST]
    assert is_archive(url)
    keys = [store.key for store in expired(url, INIT + timedelta(days=40))]
    assert keys == [FORECAST.store_key(INIT)]
    Archive(url)._objects.remove_below(FORECAST.store_key(INIT))
    assert len(Rows(url, FORECAST).all_marked(CHECKED, datetime(2025, 7, 1))) == 2


@pytest.mark.service
def test_on_a_real_s3_server(s3_url, tmp_path):
    url = f"{s3_url}/archive"
    publish(url, slots(2))
    given = job(url, truth=truth_store(tmp_path / "truth", [slot.valid_time for slot in slots(1)]))
    assert verified(given) == Done(checked=2, compared=1, waiting=1)
    assert verified(given) == Done(waiting=1)
    opened = xr.open_zarr(f"{url}/verification/{FORECAST.key}/202507.zarr")
    assert np.isfinite(opened.crps.sel(init_time=INIT, lead_time=timedelta(0)).values).all()
    local = str(tmp_path / "archive")
    publish(local, slots(2))
    verified(replace(given, archive=local))
    objects = open_objects(url)
    here = {f"verification/{name}": data for name, data in contents(local).items()}
    assert {name: objects.get(name) for name in here} == here


@pytest.mark.parametrize(
    ("text", "analysis"), [("nature", False), ("nature:3", False), ("./truth.zarr", False), ("era5", True)]
)
def test_what_a_truth_is(text, analysis):
    assert is_analysis(text) == analysis


def test_a_truth_that_is_nothing_is_named():
    with pytest.raises(ConfigurationError, match="truth 'era6': no such place, and no source is called so"):
        is_analysis("era6")


KILLER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import corrdiff_core.dataset.builder
os.fsync = lambda file: None
from tests.verify_cases import job, verified

def run(url, truth, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in ("os.rename", "os.link", "os.remove") and "/verification/" in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    verified(job(url, truth=truth))
    return count

for line in sys.stdin:
    url, truth, last = line.split()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(run(url, truth, int(last))).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), os.read(reading, 20).decode() or "-", flush=True)
"""


@pytest.mark.service
def test_killed_at_any_step_and_run_again_ends_in_the_same_bytes(tmp_path):
    publish(str(tmp_path / "made"), slots(2))
    where = truth_store(tmp_path / "truth", [slot.valid_time for slot in slots(2)])
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(Path(__file__).parents[3])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:

        def killed(url, last):
            shutil.copytree(tmp_path / "made", url)
            killer.stdin.write(f"{url} {where} {last}\n")
            killer.stdin.flush()
            code, steps = killer.stdout.readline().split()
            return int(code), steps

        code, steps = killed(tmp_path / "whole", 0)
        assert code == 0
        whole = contents(str(tmp_path / "whole"))
        assert int(steps) > 60
        assert len(whole) > 60
        for last in (30, int(steps) - 12, int(steps) - 1):
            url = tmp_path / f"killed{last}"
            assert killed(url, last) == (-signal.SIGKILL, "-")
            rows = Rows(str(url), FORECAST)
            there = rows.marked(SCORED, INIT)
            if there:  # what is marked is whole
                assert np.isfinite(rows.read({SCORED: there}).crps.values).all()
            verified(job(str(url), truth=where))
            assert contents(str(url)) == whole
        killer.stdin.close()


def test_rows_say_beside_what_they_were_scored(url, tmp_path):
    publish(url, slots(1))
    where = truth_store(tmp_path / "truth", [INIT])
    verified(job(url, truth=where))
    [told] = Path(url).glob("verification/**/provenance/scored/*.json")
    assert told.name == "20250731T18+000.json"
    assert json.loads(told.read_text())["truth"] == where


def test_a_chunk_that_is_gone_is_named(url):
    publish(url, slots(1))
    verified(job(url))
    [chunk] = Path(url).glob("verification/**/variance/c/*/0/0")
    chunk.unlink()
    with pytest.raises(ArchiveError, match=r"variance/c/123/0/0 is gone though its row is marked"):
        Rows(url, FORECAST).read({CHECKED: [Slot.forecast(INIT, timedelta(0))]})
