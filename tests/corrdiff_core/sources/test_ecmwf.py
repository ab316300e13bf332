"""ECMWF's open data on files that the tests write: read as cfgrib reads them, refused when damaged in any way."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import cfgrib
import eccodes
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import ConfigurationError, GridError, SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.nature import weather as nature_weather
from corrdiff_core.sources import as_forecasts, open_source
from corrdiff_core.sources.ecmwf import ECMWF, FIELDS, PORTAL, WANTED
from corrdiff_core.sources.ranges import Root
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT, INPUT_NAMES, STANDARD_GRAVITY
from tests.corrdiff_core.sources.ecmwf_cases import AIFS, TCWV, Written, write

BOX = TAIWAN.input_box
INIT = datetime(2026, 6, 1)
SLOT = Slot.forecast(INIT, 27 * HOUR)
SIX_HOURLY = Slot.forecast(INIT, 24 * HOUR)
NAMES = {"2t": "t2m", "10u": "u10m", "10v": "v10m"}


@pytest.fixture(scope="module")
def nature() -> xr.Dataset:
    return nature_weather(5, SLOT.valid_time, np.arange(18.0, 29.25, 0.25), np.arange(115.0, 127.25, 0.25))


@pytest.fixture
def ifs(tmp_path, nature) -> Written:
    return write(tmp_path, "ifs", SLOT, nature)


def fetched(written: Written) -> Fetched:
    answer = written.source.fetch(written.slot, BOX)
    assert isinstance(answer, Fetched), answer
    return answer


def refused(written: Written, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        written.source.fetch(written.slot, BOX)


def by_cfgrib(written: Written) -> dict[str, xr.DataArray]:
    """Every field of the file under our names, as cfgrib alone reads it; heights times standard gravity."""
    fields = {}
    for dataset in cfgrib.open_datasets(str(written.file), indexpath="", errors="raise"):
        for field in dataset.data_vars.values():
            param = field.attrs["GRIB_shortName"]
            levels = field.isobaricInhPa.values if "isobaricInhPa" in field.coords else None
            for level in np.atleast_1d(levels):
                one = field if levels is None or levels.ndim == 0 else field.sel(isobaricInhPa=level)
                name = NAMES.get(param, param) if level is None else f"{param}{int(level)}"
                fields[name.replace("gh", "z")] = one.load() * (STANDARD_GRAVITY if param == "gh" else 1.0)
    return fields


def test_fetched_is_what_cfgrib_reads_and_what_was_written(ifs, nature):
    answer, fields = fetched(ifs), by_cfgrib(ifs)
    inputs = answer.inputs
    assert tuple(inputs.data_vars) == INPUT_NAMES
    for name in INPUT_NAMES:
        expected = fields[name].sel(latitude=inputs.latitude, longitude=inputs.longitude)
        np.testing.assert_allclose(inputs[name].values, expected.values, rtol=1e-6, err_msg=name)
        written = nature[name].sel(latitude=inputs.latitude, longitude=inputs.longitude)
        assert abs(inputs[name] - written).max() <= (0.01 if name.startswith("z") else 1e-3), name
        assert inputs[name].attrs == INPUT[name].attrs
    np.testing.assert_array_equal(inputs.latitude, np.arange(19.25, 28.25, 0.25))
    assert inputs.valid_time == np.datetime64("2026-06-02T03")


def test_provenance_says_which_bytes(ifs):
    told = fetched(ifs).provenance
    assert json.loads(json.dumps(told)) == told
    assert (told["source"], told["lead_hours"]) == ("ecmwf-ifs", 27)
    assert told["file"] | {"modified": ""} == {"url": str(ifs.file), "size": ifs.file.stat().st_size, "modified": ""}
    assert told["inventory"]["url"] == str(ifs.index)
    assert {channel["packing"] for channel in told["channels"].values()} == {"grid_ccsds"}
    assert told["channels"]["z500"]["range"] == list(ifs.span("gh", 500))
    start, stop = ifs.span("t", 700)
    assert (
        told["bytes"] == sum(stop - start for start, stop in told["ranges"]) == ifs.file.stat().st_size - stop + start
    )


def test_longitudes_from_180_degrees_west_on(tmp_path):
    weather = nature_weather(5, SLOT.valid_time, np.arange(17.0, 32.0), np.arange(113.0, 130.0))
    inputs = fetched(write(tmp_path, "ifs", SLOT, weather.assign_coords(longitude=weather.longitude - 360))).inputs
    np.testing.assert_array_equal(inputs.longitude, np.arange(116.0, 127.0))
    expected = weather.t2m.sel(latitude=inputs.latitude, longitude=inputs.longitude)
    assert abs(inputs.t2m - expected).max() < 1e-3


# Products


def test_aifs_is_refused_by_what_it_lacks(tmp_path, nature):
    written = write(tmp_path, "aifs", SIX_HOURLY, nature, AIFS)
    refused(written, r"aifs-single/.*24h-oper-fc.index: does not list tcwv \(tcwv\) at \+24 h .* such as ecmwf-ifs")
    without = write(
        tmp_path, "aifs", SIX_HOURLY, nature, tuple(row for row in AIFS if row[0] not in ("10u", "z", "gh"))
    )
    refused(without, r"does not list tcwv .*z500 \(z at 500 hPa or gh at 500 hPa\), z850 .*u10m \(10u\)")


def test_geopotential_is_taken_as_it_is(tmp_path, nature):
    """An AIFS that had the column water vapour would be a source like any other."""
    written = write(tmp_path, "aifs", SIX_HOURLY, nature, (*AIFS, TCWV))
    answer = fetched(written)
    assert '"param": "z"' in answer.provenance["channels"]["z500"]["line"]
    expected = nature.sel(latitude=answer.inputs.latitude, longitude=answer.inputs.longitude)
    for name in INPUT_NAMES:
        assert abs(answer.inputs[name] - expected[name]).max() <= 0.01, name


def test_members_are_told_apart(tmp_path, nature):
    rows = (*AIFS[:2], *AIFS[4:], TCWV)
    written = write(tmp_path, "aifsens-p07", SIX_HOURLY, nature, rows, members=(6, 7, 8))
    answer = fetched(written)
    expected = nature.sel(latitude=answer.inputs.latitude, longitude=answer.inputs.longitude)
    assert abs(answer.inputs.t2m - expected.t2m - 7).max() < 1e-3
    answer = ECMWF("aifsens-p08", str(tmp_path)).fetch(SIX_HOURLY, BOX)
    assert isinstance(answer, Fetched)
    assert abs(answer.inputs.t2m - expected.t2m - 8).max() < 1e-3
    written.rewrite(line | {"number": {"6": "7", "7": "6"}.get(line["number"], "8")} for line in written.lines())
    refused(written, "perturbationNumber 6, asked for 7")
    written.rewrite(line for line in written.lines() if line["number"] != "7")
    refused(written, r"does not list tcwv .*, only .* as type pf, number 6, step 24")


def test_the_control_is_member_0(tmp_path, nature):
    rows = (*AIFS[:2], *AIFS[4:], TCWV)
    assert (
        fetched(write(tmp_path, "aifsens-cf", SIX_HOURLY, nature, rows, members=(0,))).provenance["source"]
        == "ecmwf-aifsens-cf"
    )
    refused(write(tmp_path, "aifsens-cf", SIX_HOURLY, nature, rows), "perturbationNumber None, asked for 0")


# Not there yet


@pytest.mark.parametrize("missing", ["file", "index"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_an_absent_or_empty_object_is_not_there_yet(ifs, missing, how):
    path = getattr(ifs, missing)
    path.unlink() if how == "absent" else path.write_bytes(b"")
    answer = ifs.source.fetch(SLOT, BOX)
    assert isinstance(answer, NotYet)
    assert answer.url == str(path)
    assert not ifs.source.available(SLOT)


def test_a_file_replaced_while_it_is_read_is_not_there_yet(ifs, monkeypatch):
    read = ifs.source._root.read

    def replaced_after_it_was_read(self, found, spans):
        bodies = read(found, spans)
        if found.name.endswith(".grib2"):
            ifs.file.write_bytes(ifs.file.read_bytes() + b"GRIB")
        return bodies

    monkeypatch.setattr("corrdiff_core.sources.ranges.Root.read", replaced_after_it_was_read)
    answer = ifs.source.fetch(SLOT, BOX)
    assert isinstance(answer, NotYet)
    assert answer.reason == "it was replaced while it was read"


# Wrong bytes


def test_a_stale_index_is_told_by_the_decoded_step(ifs, tmp_path, nature):
    other = write(tmp_path / "other", "ifs", Slot.forecast(INIT, 24 * HOUR), nature)
    ifs.file.write_bytes(other.file.read_bytes())
    ifs.rewrite(line | {"step": "27"} for line in other.lines())
    refused(ifs, r"27h-oper-fc.grib2: tcwv at bytes .* step 24, asked for 27")


def test_a_stale_index_is_told_by_the_decoded_date(ifs, tmp_path, nature):
    other = write(tmp_path / "other", "ifs", Slot.forecast(INIT - timedelta(days=1), 27 * HOUR), nature)
    ifs.file.write_bytes(other.file.read_bytes())
    ifs.rewrite(line | {"date": "20260601"} for line in other.lines())
    refused(ifs, "dataDate 20260531, asked for 20260601")


def test_a_stale_index_is_told_by_the_decoded_level_and_parameter(ifs):
    lines, levels = ifs.lines(), {"500": "700", "700": "500", "850": "850"}
    ifs.rewrite(line | {"levelist": levels[line["levelist"]]} if line["param"] == "t" else line for line in lines)
    refused(ifs, "t500 at bytes .* level 700, asked for 500")
    swapped = {"10u": "10v", "10v": "10u"}
    ifs.rewrite(line | {"param": swapped.get(line["param"], line["param"])} for line in lines)
    refused(ifs, "u10m at bytes .* shortName '10v', asked for '10u'")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"date": "20260531"}, "cycle 20260531T00Z, asked for 20260601T00Z"),
        ({"time": "1200"}, "cycle 20260601T12Z, asked for 20260601T00Z"),
        ({"step": "24"}, r"does not list tcwv .* at \+27 h .* only .* step 24"),
        ({"type": "cf"}, r"does not list tcwv .* only .* as type cf"),
        ({"_length": 0}, "line 1: .* fetch the index again"),
        ({"_offset": "here"}, "line 1: .* fetch the index again"),
        ({"param": None, "levtype": None}, "does not list tcwv"),
    ],
)
def test_a_wrong_index_is_named(ifs, change, says):
    ifs.rewrite(line | change for line in ifs.lines())
    refused(ifs, f"27h-oper-fc.index.*{says}")


def test_a_line_that_is_no_json_or_comes_twice_is_named(ifs):
    text = ifs.index.read_text()
    ifs.index.write_text(text[:-40])
    refused(ifs, "index line 13: .* fetch the index again")
    ifs.index.write_text(text + text.splitlines()[-1])
    refused(ifs, "tcwv is listed 2 times")


def test_a_truncated_file_and_lost_bytes_are_named(ifs):
    data, (start, stop) = ifs.file.read_bytes(), ifs.span("u", 850)
    ifs.file.write_bytes(data[: start + 200] + data[start + 300 :] + bytes(100))
    refused(ifs, f"u850 at bytes {start}..{stop - 1} .* ends with")
    ifs.file.write_bytes(data[: stop - 10])
    refused(ifs, f"lists u850 at bytes {start}..{stop - 1} but the file has {stop - 10} bytes")


def test_missing_values_are_refused(ifs):
    data, (start, stop) = ifs.file.read_bytes(), ifs.span("tcwv")
    handle = eccodes.codes_new_from_message(data[start:stop])
    values = eccodes.codes_get_values(handle)
    values[values.size // 2] = 9999.0
    eccodes.codes_set(handle, "missingValue", 9999.0)
    eccodes.codes_set(handle, "bitmapPresent", 1)
    eccodes.codes_set_values(handle, values)
    hidden = bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    ifs.file.write_bytes(data[:start] + hidden)
    ifs.rewrite(line | ({"_length": len(hidden)} if line["param"] == "tcwv" else {}) for line in ifs.lines())
    refused(ifs, "tcwv at bytes .* 1 of 1440 values around .* are missing")


def test_a_smaller_area_is_refused(tmp_path, nature):
    with pytest.raises(GridError, match="does not cover"):
        write(tmp_path, "ifs", SLOT, nature.sel(longitude=slice(117, 127))).source.fetch(SLOT, BOX)


# Servers


@pytest.fixture
def most_at_once(monkeypatch) -> list[int]:
    """How many ranges were under way whenever some were asked for; each batch is held open a little while."""
    read, lock, under_way, seen = Root._read_rest, threading.Lock(), [0], []

    def counted(self, found, spans, bodies):
        with lock:
            under_way[0] += len(spans)
            seen.append(under_way[0])
        threading.Event().wait(0.05)
        read(self, found, spans, bodies)
        with lock:
            under_way[0] -= len(spans)

    monkeypatch.setattr(Root, "_read_rest", counted)
    return seen


def test_http_in_at_most_eight_requests_at_once_however_many_slots(ifs, serve, most_at_once):
    url, _ = serve(ifs.root)
    ifs.file.write_bytes(b"".join(part + b"\0" for part in _messages(ifs)))  # no two adjacent: twelve ranges
    ifs.rewrite(line | {"_offset": line["_offset"] + number} for number, line in enumerate(ifs.lines()))
    source = ECMWF("ifs", url)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: source.fetch(SLOT, BOX), range(3)))
    assert 4 < max(most_at_once) <= 8
    for answer in answers:
        assert isinstance(answer, Fetched)
        assert len(answer.provenance["ranges"]) == 12
        xr.testing.assert_identical(answer.inputs, fetched(ifs).inputs)


def _messages(written: Written) -> list[bytes]:
    data = written.file.read_bytes()
    return [data[line["_offset"] : line["_offset"] + line["_length"]] for line in written.lines()]


def test_slow_down_is_worth_a_retry(ifs, serve):
    with pytest.raises(ConnectionError):
        ECMWF("ifs", serve(ifs.root, "503")[0]).fetch(SLOT, BOX)


def test_s3_gives_the_same_fields(ifs, s3_url):
    source = ECMWF("ifs", s3_url)
    assert isinstance(source.fetch(SLOT, BOX), NotYet)
    for path in (ifs.file, ifs.index):
        source._root.write(str(path.relative_to(ifs.root)), path.read_bytes())
    answer = source.fetch(SLOT, BOX)
    assert isinstance(answer, Fetched)
    assert answer.provenance["file"]["etag"]
    xr.testing.assert_identical(answer.inputs, fetched(ifs).inputs)


# Names, paths, steps


@pytest.mark.parametrize(
    ("variant", "init_time", "lead", "paths"),
    [
        ("ifs", datetime(2026, 6, 1, 18), 3, ["20260601/18z/ifs/0p25/oper/20260601180000-3h-oper-fc"]),
        ("ifs", datetime(2026, 5, 11, 18), 3, ["20260511/18z/ifs/0p25/scda/20260511180000-3h-scda-fc"]),
        ("ifs", datetime(2025, 6, 1), 360, ["20250601/00z/ifs/0p25/oper/20250601000000-360h-oper-fc"]),
        (
            "ifs",
            datetime(2024, 2, 15),
            0,
            [
                "20240215/00z/ifs/0p25/oper/20240215000000-0h-oper-fc",
                "20240215/00z/0p25/oper/20240215000000-0h-oper-fc",
            ],
        ),
        ("ifs", datetime(2023, 3, 10), 0, ["20230310/00z/0p4-beta/oper/20230310000000-0h-oper-fc"]),
        ("aifs", datetime(2025, 3, 1, 12), 360, ["20250301/12z/aifs-single/0p25/oper/20250301120000-360h-oper-fc"]),
        ("aifs", datetime(2024, 6, 1), 6, ["20240601/00z/aifs/0p25/oper/20240601000000-6h-oper-fc"]),
        ("aifsens-cf", datetime(2026, 7, 30), 24, ["20260730/00z/aifs-ens/0p25/enfo/20260730000000-24h-enfo-cf"]),
        ("aifsens-p50", datetime(2026, 7, 30), 24, ["20260730/00z/aifs-ens/0p25/enfo/20260730000000-24h-enfo-pf"]),
    ],
)
def test_paths_by_era(variant, init_time, lead, paths):
    names = list(ECMWF(variant).names(Slot.forecast(init_time, lead * HOUR)))
    assert names == [(f"{path}.grib2", f"{path}.index") for path in paths]


@pytest.mark.parametrize(
    ("variant", "init_time", "steps", "last"),
    [
        ("ifs", datetime(2026, 6, 1, 12), 49 + 36, 360),
        ("ifs", datetime(2026, 6, 1, 6), 49, 144),
        ("ifs", datetime(2024, 11, 12, 0), 49 + 16, 240),
        ("ifs", datetime(2024, 11, 11, 18), 31, 90),
        ("aifs", datetime(2026, 6, 1, 18), 61, 360),
        ("aifsens-p01", datetime(2026, 6, 1, 6), 61, 360),
    ],
)
def test_steps_by_era(variant, init_time, steps, last):
    lead_times = ECMWF(variant).lead_times(init_time)
    assert (len(lead_times), lead_times[-1]) == (steps, last * HOUR)


def test_products_by_name():
    source = as_forecasts(open_source("ecmwf-ifs"))
    assert (source.name, source.kind) == ("ecmwf-ifs", "forecast")
    assert repr(source) == f"ECMWF('ifs', {PORTAL!r})"
    assert repr(as_forecasts(open_source("ecmwf-aifsens-p07", "memory://x"))) == "ECMWF('aifsens-p07', 'memory://x')"
    for name in ("ecmwf", "ecmwf-aifsens", "ecmwf-aifsens-p00", "ecmwf-aifsens-p51", "ecmwf-aifsens-p7"):
        with pytest.raises(ConfigurationError, match=f"no source is called '{name}'?.*use ecmwf-ifs, ecmwf-aifs"):
            as_forecasts(open_source(name))


def test_the_table_has_every_input_and_every_field_a_code():
    assert tuple(WANTED) == INPUT_NAMES
    assert {field for fields in WANTED.values() for field in fields} == set(FIELDS)


def test_the_mirror_is_read_anonymously_where_it_lies(s3_url):
    filesystem, _ = ECMWF("ifs", "s3://ecmwf-forecasts")._root.filesystem_and_path
    assert filesystem.anon
    assert filesystem.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
