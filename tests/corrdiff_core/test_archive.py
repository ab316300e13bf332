"""The archive as a writer, a planner and a plain reader see it, on a local directory and on S3."""

import json
import logging
import multiprocessing
import os
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
import xarray as xr
import zarr

from corrdiff_core.archive import Archive, Series
from corrdiff_core.archive.quantize import round_mantissa
from corrdiff_core.archive.template import chunk_side
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ArchiveError
from corrdiff_core.grid import Domain
from corrdiff_core.variables import INPUT_NAMES, INPUTS, OUTPUT_NAMES, OUTPUTS
from tests.archive_cases import FORECAST, HINDCAST, INIT, LAYOUT, SLOT, ensemble, inputs, run, slot


@pytest.fixture(params=["local", "s3"])
def archive(request, tmp_path):
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_url")
    return Archive(f"{root}/archive")


@pytest.fixture
def local(tmp_path):
    return Archive(f"{tmp_path}/archive")


@pytest.fixture
def created(archive):
    archive.create(FORECAST, SLOT, LAYOUT)
    return archive


def rounded(fields, layout=LAYOUT):
    bits = {variable.name: layout.bits(variable) for variable in layout.outputs}
    return fields.map(lambda field: field.copy(data=round_mantissa(field.values, bits[field.name])))


# A plain reader


def test_opens_with_plain_xarray(created):
    created.write(FORECAST, SLOT, ensemble())
    created.publish(FORECAST, SLOT, {})
    opened = xr.open_zarr(created.store_url(FORECAST, SLOT), decode_coords="all")
    assert opened.t2m.dims == ("lead_time", "member", "y", "x")
    assert {"latitude", "longitude", "spatial_ref", "valid_time", "init_time"} <= set(opened.coords)
    for name in OUTPUT_NAMES:
        expected = rounded(ensemble())[name].values
        assert np.array_equal(opened[name].sel(lead_time="2h").values.squeeze(), expected)
        assert np.isnan(opened[name].isel(lead_time=[0, 1, 3, 4]).values).all()
    assert np.isnat(opened.generated_at.values).tolist() == [True, True, False, True, True]
    assert (opened.lead_time.values == np.arange(5) * np.timedelta64(1, "h")).all()
    assert (opened.valid_time.values == np.datetime64(INIT, "ns") + opened.lead_time.values).all()
    assert opened.init_time.values == np.datetime64(INIT, "ns")


def test_inputs_open_with_plain_xarray(created):
    created.write_inputs(FORECAST, SLOT, inputs(), {})
    opened = xr.open_zarr(created.store_url(FORECAST, SLOT), group="inputs", decode_coords="all")
    assert tuple(name for name in opened.data_vars if name != "fetched_at") == INPUT_NAMES
    assert np.array_equal(opened.z500.isel(lead_time=2).values, inputs().z500.values)
    assert np.isnat(opened.fetched_at.values).tolist() == [True, True, False, True, True]
    assert opened.z500.attrs == next(v for v in INPUTS if v.name == "z500").attrs
    assert "valid_time" in opened.coords


def test_cf_metadata(local):
    local.create(FORECAST, SLOT, LAYOUT)
    opened = xr.open_zarr(local.store_url(FORECAST, SLOT), decode_coords="all")
    assert opened.attrs["Conventions"] == "CF-1.12"
    assert opened.attrs["title"]
    standard_names = {
        "y": "projection_y_coordinate",
        "x": "projection_x_coordinate",
        "latitude": "latitude",
        "longitude": "longitude",
        "member": "realization",
        "init_time": "forecast_reference_time",
        "lead_time": "forecast_period",
        "valid_time": "time",
    }
    for name, standard_name in standard_names.items():
        assert opened[name].attrs["standard_name"] == standard_name
    for variable in OUTPUTS:
        assert variable.attrs.items() <= opened[variable.name].attrs.items()
        assert opened[variable.name].encoding["grid_mapping"] == "spatial_ref"
    np.testing.assert_array_equal(opened.latitude.values, LAYOUT.domain.latitude)
    np.testing.assert_array_equal(opened.x.values, LAYOUT.domain.x)
    assert opened.spatial_ref.attrs.items() >= LAYOUT.domain.grid_mapping.items()
    assert opened.spatial_ref.attrs["grid_mapping_name"] == "lambert_conformal_conic"


def test_quantization_is_declared_as_cf_1_12_demands(local):
    """Section 8.4: a container with algorithm and implementation, the explicit mantissa bits on each variable."""
    local.create(FORECAST, SLOT, LAYOUT)
    opened = xr.open_zarr(local.store_url(FORECAST, SLOT))
    for variable in OUTPUTS:
        attributes = opened[variable.name].attrs
        assert attributes["quantization_nsb"] == variable.significant_bits
        container = opened[attributes["quantization"]]
        assert container.attrs["algorithm"] == "bitround"
        assert "corrdiff_core" in container.attrs["implementation"]
    assert not any("quantization" in opened[name].attrs for name in ("latitude", "x", "lead_time"))


def test_lossless_keeps_every_bit_and_declares_nothing(local):
    layout = replace(LAYOUT, lossless=True)
    local.create(FORECAST, SLOT, layout)
    local.write(FORECAST, SLOT, ensemble())
    local.publish(FORECAST, SLOT, {})
    read = local.read(FORECAST, SLOT)
    for name in OUTPUT_NAMES:
        assert np.array_equal(read[name].values, ensemble()[name].values)
        assert "quantization" not in read[name].attrs


def test_shards_chunks_and_codecs(local):
    local.create(FORECAST, SLOT, replace(LAYOUT, domain=replace(LAYOUT.domain, rows=450, columns=130, crop=1)))
    array = zarr.open_group(local.store_url(FORECAST, SLOT), mode="r")["t2m"]
    assert array.shards == (1, 3, 448, 128)
    assert array.chunks == (1, 3, 112, 64)
    assert [type(codec).__name__ for codec in array.compressors] == ["BloscCodec"]
    assert array.filters == ()
    assert np.isnan(array.fill_value)


@pytest.mark.parametrize(
    ("side", "expected"), [(448, 112), (450, 90), (32, 32), (48, 48), (7, 7), (113, 113), (226, 226)]
)
def test_inner_chunks_divide_every_side(side, expected):
    assert chunk_side(side) == expected
    assert side % expected == 0


def test_a_domain_whose_sides_are_no_multiples_of_16(local):
    layout = replace(LAYOUT, domain=replace(LAYOUT.domain, rows=39, columns=115))
    run(local.url, [SLOT], layout)
    expected = rounded(ensemble(layout))
    assert np.array_equal(local.read(FORECAST, SLOT).t2m.values, expected.t2m.values)


def test_zeros_are_data(local):
    local.create(FORECAST, SLOT, LAYOUT)
    zeros = ensemble() * 0
    local.write(FORECAST, SLOT, zeros)
    local.publish(FORECAST, SLOT, {})
    opened = xr.open_zarr(local.store_url(FORECAST, SLOT))
    assert (opened.mrr.isel(lead_time=2).values == 0).all()
    assert (local.read(FORECAST, SLOT).mrr.values == 0).all()


# A writer


def test_round_trip(archive):
    run(archive.url, [SLOT])
    read = archive.read(FORECAST, SLOT)
    assert list(read.data_vars) == list(OUTPUT_NAMES)
    assert read.t2m.dims == ("member", "y", "x")
    assert read.valid_time.values == np.datetime64(SLOT.valid_time, "ns")
    assert read.init_time.values == np.datetime64(INIT, "ns")
    assert read.lead_time.values == np.timedelta64(2, "h")
    assert {"latitude", "longitude", "spatial_ref"} <= set(read.coords)
    for name, field in rounded(ensemble()).items():
        assert np.array_equal(read[name].values, field.values)
    assert archive.provenance(FORECAST, SLOT) == {"seed": 0}


def test_inputs_round_trip_exactly(created):
    provenance = {"url": "s3://bucket/key", "ranges": [[0, 5]], "etag": None}
    assert not created.fetched(FORECAST, SLOT)
    created.write_inputs(FORECAST, SLOT, inputs(), provenance)
    assert created.fetched(FORECAST, SLOT)
    assert not created.fetched(FORECAST, slot(3))
    read, stored = created.read_inputs(FORECAST, SLOT)
    assert stored == provenance
    assert list(read.data_vars) == list(INPUT_NAMES)
    assert read.drop_vars(["valid_time", "init_time", "lead_time"]).equals(inputs())
    assert read.valid_time.values == np.datetime64(SLOT.valid_time, "ns")
    assert read.t2m.dtype == np.float32
    created.write_inputs(FORECAST, SLOT, read, stored)


def test_hindcast_month(archive):
    months = [(Slot(datetime(2024, 2, 29, 23)), 29), (Slot(datetime(2023, 12, 31, 0)), 31)]
    layout = replace(LAYOUT, lead_times=[])
    run(archive.url, [one for one, _ in months], layout, HINDCAST)
    assert archive.store_url(HINDCAST, months[0][0]) == f"{archive.url}/hindcast/era5/demo-1a2b3c4d/202402.zarr"
    for one, days in months:
        opened = xr.open_zarr(archive.store_url(HINDCAST, one), decode_coords="all")
        assert opened.t2m.dims == ("time", "member", "y", "x")
        assert opened.sizes["time"] == days * 24
        assert np.isfinite(opened.t2m.sel(time=one.valid_time).values).all()
        read = archive.read(HINDCAST, one)
        assert read.valid_time.values == np.datetime64(one.valid_time, "ns")
        fetched, _ = archive.read_inputs(HINDCAST, one)
        assert fetched.valid_time.values == np.datetime64(one.valid_time, "ns")
        assert archive.published(HINDCAST, one.valid_time) == {one}
        assert not np.isnat(opened.generated_at.sel(time=one.valid_time).values)
    assert archive.stores(HINDCAST) == [datetime(2023, 12, 1), datetime(2024, 2, 1)]


def test_a_slot_is_there_once_published_and_not_before(created):
    assert created.published(FORECAST, INIT) == set()
    created.write(FORECAST, SLOT, ensemble())
    assert created.published(FORECAST, INIT) == set()
    with pytest.raises(ArchiveError, match=r"20250801T00Z\+002h .* is not published in .*20250801T00\.zarr"):
        created.read(FORECAST, SLOT)
    created.publish(FORECAST, SLOT, {})
    assert created.published(FORECAST, INIT) == {SLOT}


def test_a_partial_slot_cannot_be_published(local):
    local.create(FORECAST, SLOT, LAYOUT)
    with pytest.raises(ArchiveError, match="mrr, t2m, u10m, v10m not written"):
        local.publish(FORECAST, SLOT, {})
    local.write(FORECAST, SLOT, ensemble())
    local._objects.root.joinpath(f"{FORECAST.key}/20250801T00.zarr/u10m/c/2/0/0/0").unlink()
    with pytest.raises(ArchiveError, match="cannot be published: u10m not written"):
        local.publish(FORECAST, SLOT, {})
    assert local.published(FORECAST, INIT) == set()


def test_a_half_written_fetch_is_no_fetch(local):
    local.create(FORECAST, SLOT, LAYOUT)
    local.write_inputs(FORECAST, SLOT, inputs(), {})
    local._objects.root.joinpath(f"{FORECAST.key}/20250801T00.zarr/inputs/fetched_at/c/2").unlink()
    assert not local.fetched(FORECAST, SLOT)
    with pytest.raises(ArchiveError, match="has no inputs for"):
        local.read_inputs(FORECAST, SLOT)


def test_a_lost_object_is_an_error_and_never_nan(local):
    run(local.url, [SLOT])
    local._objects.root.joinpath(f"{FORECAST.key}/20250801T00.zarr/u10m/c/2/0/0/0").unlink()
    with pytest.raises(ArchiveError, match=r"u10m/c/2/0/0/0 is gone though"):
        local.read(FORECAST, SLOT)


def test_without_a_store_nothing_is_there(archive):
    assert archive.published(FORECAST, INIT) == set()
    assert archive.stores(FORECAST) == []
    assert not archive.fetched(FORECAST, SLOT)
    assert archive.latest("gfs") is None
    with pytest.raises(ArchiveError, match=r"there is no store at .*: create it first"):
        archive.write(FORECAST, SLOT, ensemble())


def test_stores_are_listed_in_order(created):
    for hours in (12, 6):
        created.create(FORECAST, slot(0, INIT + timedelta(hours=hours)), LAYOUT)
    assert created.stores(FORECAST) == [INIT, INIT + timedelta(hours=6), INIT + timedelta(hours=12)]


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 4}, "members is 3 in the store but 4 is asked for"),
        ({"lossless": True}, "outputs.mrr.significant_bits is 7 in the store but absent is asked for"),
        (
            {"lead_times": [timedelta(hours=hour) for hour in range(3)]},
            r"lead_hours is 0\.\.4 \(5 values\) in the store but",
        ),
        ({"input_longitude": [100.0, 101.0]}, r"input_longitude is 116\.0\.\.117\.0 \(5 values\) in the store"),
        ({"domain": replace(LAYOUT.domain, x0=0.0)}, r"domain\.x0 is -368973\.703 in the store but 0\.0 is asked for"),
        ({"outputs": OUTPUTS[:3]}, "v10m"),
        ({"inputs": INPUTS[::-1]}, "inputs is"),
    ],
)
def test_another_layout_is_refused_and_both_sides_are_named(created, change, message):
    with pytest.raises(ArchiveError, match=message) as caught:
        created.create(FORECAST, SLOT, replace(LAYOUT, **change))
    assert created.store_url(FORECAST, SLOT) in str(caught.value)
    assert "\n" not in str(caught.value)
    created.create(FORECAST, SLOT, LAYOUT)


def broken_ensembles():
    good = ensemble()
    yield "variables", good.drop_vars("u10m"), r"variables \['mrr', 't2m', 'v10m'\] given but the store holds"
    yield "order", good[["t2m", "mrr", "u10m", "v10m"]], "in this order"
    yield "members", good.isel(member=[0, 1]), r"mrr is \(member 2, y 32, x 48\) but the store holds \(member 3,"
    yield "dimensions", good.transpose("y", "x", "member"), r"mrr is \(y 32, x 48, member 3\)"
    yield "finite", good.where(good.t2m < good.t2m.max()), "mrr has 1 missing or infinite of 4608 values"
    yield "type", good.astype("f8"), "mrr is float64 but the store holds float32"
    yield "member order", good.assign_coords(member=[0, 2, 1]), "member runs 0..1 but the store's 0..2"
    yield "grid", good.assign_coords(x=LAYOUT.domain.x + 2000), "another grid or in another order"
    yield "upside down", good.assign_coords(y=LAYOUT.domain.y[::-1]), "y runs .* but the store's"
    yield "time", good.assign_coords(valid_time=np.datetime64("2025-08-01T03", "ns")), "valid_time of the fields is"
    yield "init", good.assign_coords(init_time=np.datetime64("2025-08-02", "ns")), "init_time of the fields is"


@pytest.mark.parametrize(
    ("what", "broken", "message"), [pytest.param(*case, id=case[0]) for case in broken_ensembles()]
)
def test_fields_that_do_not_fit_are_refused_and_nothing_is_written(local, what, broken, message):
    local.create(FORECAST, SLOT, LAYOUT)
    before = sorted(local._objects.root.rglob("*"))
    with pytest.raises(ArchiveError, match=message) as caught:
        local.write(FORECAST, SLOT, broken)
    assert "\n" not in str(caught.value)
    assert sorted(local._objects.root.rglob("*")) == before


def test_inputs_on_another_grid_are_refused(local):
    local.create(FORECAST, SLOT, LAYOUT)
    descending = inputs().assign_coords(latitude=list(LAYOUT.input_latitude)[::-1])
    with pytest.raises(ArchiveError, match=r"latitude runs 20\.5\.\.19\.25 but the store's 19\.25\.\.20\.5"):
        local.write_inputs(FORECAST, SLOT, descending, {})
    with pytest.raises(ArchiveError, match="tcwv is"):
        local.write_inputs(FORECAST, SLOT, inputs().isel(longitude=[0, 1]), {})
    assert not local.fetched(FORECAST, SLOT)


def test_a_slot_that_the_store_has_no_room_for_is_refused(created):
    for method in (
        lambda one: created.write(FORECAST, one, ensemble()),
        lambda one: created.create(FORECAST, one, LAYOUT),
    ):
        with pytest.raises(ArchiveError, match=r"no room for 20250801T00Z\+007h"):
            method(slot(7))


def test_slots_and_series_of_different_kinds_are_refused(local):
    with pytest.raises(ArchiveError, match="holds hindcast slots"):
        local.store_url(HINDCAST, SLOT)
    with pytest.raises(ArchiveError, match="holds forecast slots"):
        local.store_url(FORECAST, Slot(INIT))


@pytest.mark.parametrize("name", ["", "../gfs", "gfs/x", ".hidden"])
def test_names_that_leave_their_folder_are_refused(name):
    with pytest.raises(ArchiveError, match="cannot name a folder"):
        Series("forecast", name, "demo-1a2b3c4d")


def test_provenance_is_strict_json(local):
    local.create(FORECAST, SLOT, LAYOUT)
    local.write(FORECAST, SLOT, ensemble())
    with pytest.raises(ValueError, match="JSON compliant"):
        local.publish(FORECAST, SLOT, {"spread": float("nan")})
    assert local.published(FORECAST, INIT) == set()


# The newest run


def test_latest_moves_forward_only(archive):
    later = INIT + timedelta(hours=6)
    run(archive.url, [slot(hour) for hour in range(4)] + [slot(hour, later) for hour in range(2)])
    assert archive.update_latest(FORECAST, [slot(0), slot(1), slot(2)])
    latest = archive.latest("gfs")
    assert (latest.init_time, latest.leads, latest.model) == (INIT, (0, 1, 2), "demo-1a2b3c4d")
    assert latest.url == archive.store_url(FORECAST, SLOT)
    assert archive.update_latest(FORECAST, [slot(3), slot(2), slot(1)])
    assert not archive.update_latest(FORECAST, [slot(0), slot(1), slot(2)])
    assert archive.latest("gfs").leads == (1, 2, 3)
    assert archive.update_latest(FORECAST, [slot(0, later)])
    assert not archive.update_latest(FORECAST, [slot(1), slot(2), slot(3)])
    assert archive.latest("gfs").init_time == later
    assert xr.open_zarr(archive.latest("gfs").url).sizes["member"] == 3


def test_a_window_with_a_hole_is_not_the_latest(local):
    run(local.url, [slot(0), slot(2)])
    with pytest.raises(ArchiveError, match=r"cannot be the latest: publish 20250801T00Z\+001h"):
        local.update_latest(FORECAST, [slot(0), slot(1), slot(2)])
    assert local.latest("gfs") is None


def test_only_a_forecast_with_slots_can_be_the_latest(local):
    for series, slots in ((HINDCAST, [Slot(INIT)]), (FORECAST, [])):
        with pytest.raises(ArchiveError, match="only a forecast with at least one slot"):
            local.update_latest(series, slots)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"init_time": "noon"}'])
def test_a_broken_latest_is_named_with_its_cure(local, content):
    local._objects.put("forecast/gfs/latest.json", content)
    with pytest.raises(ArchiveError, match=r"latest\.json is no record of a run .*: delete it"):
        local.latest("gfs")


# Requests


class Requests(logging.Handler):
    """The requests that reach the S3 server, from its access log."""

    def __init__(self):
        super().__init__()
        self.verbs = []

    def emit(self, record):
        self.verbs.append(re.search(r"(PUT|GET|HEAD|POST|DELETE) /", record.getMessage())[1])

    def count(self, act):
        self.verbs.clear()
        act()
        return Counter(self.verbs)


@pytest.fixture
def requests(monkeypatch):
    if "TEST_S3_ENDPOINT" in os.environ:
        pytest.skip("counts in the access log of moto, which runs in this process")
    logger, handler = logging.getLogger("werkzeug"), Requests()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)


def test_a_slot_costs_few_requests(s3_url, requests):
    archive = Archive(f"{s3_url}/archive")
    archive.create(FORECAST, SLOT, LAYOUT)
    assert requests.count(lambda: archive.write_inputs(FORECAST, SLOT, inputs(), {})) == {"PUT": 14}
    assert requests.count(lambda: archive.write(FORECAST, SLOT, ensemble())) == {"PUT": 4}
    assert requests.count(lambda: archive.publish(FORECAST, SLOT, {})) == {"HEAD": 4, "PUT": 2}
    assert requests.count(lambda: archive.published(FORECAST, INIT)) == {"GET": 1}
    assert requests.count(lambda: archive.create(FORECAST, SLOT, LAYOUT)) == {"HEAD": 2, "GET": 3}
    fresh = Archive(archive.url)
    assert requests.count(lambda: fresh.published(FORECAST, INIT)) == {"GET": 3}


def test_new_slots_of_another_process_are_seen_at_once(s3_url):
    ours, theirs = Archive(f"{s3_url}/archive"), Archive(f"{s3_url}/archive")
    ours.create(FORECAST, SLOT, LAYOUT)
    for hour in range(3):
        assert len(ours.published(FORECAST, INIT)) == hour
        run(theirs.url, [slot(hour)])
    assert len(ours.published(FORECAST, INIT)) == 3


def _publish_in_child(archive, hour):
    run(archive.url, [slot(hour)])
    archive.write(FORECAST, slot(hour), ensemble())
    archive.publish(FORECAST, slot(hour), {})


def test_survives_a_fork(created):
    """The child of a process that has an open connection writes through one of its own."""
    created.write(FORECAST, SLOT, ensemble())
    child = multiprocessing.get_context("fork").Process(target=_publish_in_child, args=(created, 3))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert created.published(FORECAST, INIT) == {slot(3)}


def test_layout_json_is_readable(local):
    local.create(FORECAST, SLOT, LAYOUT)
    layout = json.loads(local._objects.get(f"{FORECAST.key}/20250801T00.zarr/layout.json"))
    assert layout["members"] == 3
    assert Domain.from_dict(layout["domain"]) == LAYOUT.domain
