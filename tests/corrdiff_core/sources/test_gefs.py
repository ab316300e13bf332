"""The GEFS source: its members, eras, steps, and files that the tests write in the layout since v12."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr
from s3fs import S3FileSystem

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.sources import as_forecasts, open_source
from corrdiff_core.sources.channels import CHANNELS
from corrdiff_core.sources.gefs import GEFS, MEMBERS
from corrdiff_core.sources.grib import encode
from corrdiff_core.sources.ncep import object_name
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT_NAMES

BOX = TAIWAN.input_box
INIT = datetime(2025, 8, 1, 6)
SLOT = Slot.forecast(INIT, 240 * HOUR)


def of_member(message: bytes, member: int) -> bytes:
    """The same field as an ensemble's member: product definition template 4.1."""
    handle = eccodes.codes_new_from_message(message)
    keys = {"productDefinitionTemplateNumber": 1, "perturbationNumber": member, "numberOfForecastsInEnsemble": 30}
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    written = bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    return written


def write(root: Path, weather: xr.Dataset, slot: Slot = SLOT, member: int = 7, name: str = "p07") -> Path:
    """One slot of one member with its inventory, where `GEFS(name)` looks for it."""
    lines, body = [], b""
    for number, variable in enumerate(INPUT_NAMES, start=1):
        channel = CHANNELS[variable]
        values = weather[variable].astype(np.float64) / channel.factor
        lines.append(
            f"{number}:{len(body)}:d={slot.init_time:%Y%m%d%H}:{channel.element}:{channel.level}:"
            f"{slot.lead_hours} hour fcst:ENS=+{member}\n"
        )
        body += of_member(encode(values, channel.parameter, slot.init_time, slot.lead_time, 3), member)
    path = root / object_name(GEFS(name).layouts(slot.init_time)[0], slot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    path.with_name(f"{path.name}.idx").write_text("".join(lines))
    return path


def test_fetched_is_what_was_written(tmp_path, weather):
    path = write(tmp_path, weather)
    assert path == tmp_path / "gefs.20250801/06/atmos/pgrb2ap5/gep07.t06z.pgrb2a.0p50.f240"
    source = GEFS("p07", str(tmp_path))
    assert source.available(SLOT)
    answer = source.fetch(SLOT, BOX)
    assert isinstance(answer, Fetched)
    expected = weather.sel(latitude=answer.inputs.latitude, longitude=answer.inputs.longitude)
    for name in INPUT_NAMES:
        assert abs(answer.inputs[name] - expected[name]).max() <= (0.02 if name.startswith("z") else 0.002), name
    told = answer.provenance
    assert json.loads(json.dumps(told)) == told
    assert (told["source"], told["lead_hours"], told["bytes"]) == ("gefs-p07", 240, path.stat().st_size)
    assert told["channels"]["t2m"]["line"].endswith("ENS=+7")


def test_another_member_is_refused_and_an_absent_one_is_not_yet(tmp_path, weather):
    write(tmp_path, weather, member=8)
    with pytest.raises(SourceError, match=r"gep07.* holds perturbationNumber 8, asked for 7"):
        GEFS("p07", str(tmp_path)).fetch(SLOT, BOX)
    answer = GEFS("p08", str(tmp_path)).fetch(SLOT, BOX)
    assert isinstance(answer, NotYet)
    assert answer.url.endswith("gep08.t06z.pgrb2a.0p50.f240")


def test_missing_values_are_refused(tmp_path, weather):
    """A bitmap hides points from the field: ecCodes hands out NaN there."""
    path = write(tmp_path, weather)
    start, stop = GEFS("p07", str(tmp_path)).fetch(SLOT, BOX).provenance["channels"]["v10m"]["range"]
    data = path.read_bytes()
    assert stop == len(data)
    handle = eccodes.codes_new_from_message(data[start:])
    values = eccodes.codes_get_values(handle)
    values[values.size // 2] = 9999.0
    eccodes.codes_set(handle, "packingType", "grid_simple")
    eccodes.codes_set(handle, "missingValue", 9999.0)
    eccodes.codes_set(handle, "bitmapPresent", 1)
    eccodes.codes_set_values(handle, values)
    path.write_bytes(data[:start] + bytes(eccodes.codes_get_message(handle)))
    eccodes.codes_release(handle)
    with pytest.raises(SourceError, match=r"v10m at bytes .* 1 of 1440 values around .* are missing"):
        GEFS("p07", str(tmp_path)).fetch(SLOT, BOX)


@pytest.mark.parametrize(
    ("init_time", "lead", "names"),
    [
        (
            datetime(2009, 6, 5),
            6,
            [
                "gefs.20090605/00/pgrb2a/gec00.t00z.pgrb2af06",
                "gefs.20090605/00/gec00.t00z.pgrb2af006",
                "gefs.20090605/00/pgrb2ap5/gec00.t00z.pgrb2a.0p50.f006",
            ],
        ),
        (
            datetime(2020, 9, 23, 6),
            384,
            [
                "gefs.20200923/06/atmos/pgrb2ap5/gec00.t06z.pgrb2a.0p50.f384",
                "gefs.20200923/06/pgrb2a/gec00.t06z.pgrb2af384",
            ],
        ),
        (datetime(2020, 9, 23, 12), 3, ["gefs.20200923/12/atmos/pgrb2ap5/gec00.t12z.pgrb2a.0p50.f003"]),
    ],
)
def test_layouts_by_era(init_time, lead, names):
    slot = Slot.forecast(init_time, lead * HOUR)
    assert [name for name, _ in GEFS("c00").names(slot)] == names
    assert [index for _, index in GEFS("c00").names(slot)] == [f"{name}.idx" for name in names]


def test_a_later_layout_of_the_era_is_found(tmp_path, weather):
    slot = Slot.forecast(datetime(2018, 1, 1), 12 * HOUR)
    written = write(tmp_path, weather, slot)
    flat = tmp_path / "gefs.20180101/00/gep07.t00z.pgrb2af012"
    written.rename(flat)
    written.with_name(f"{written.name}.idx").rename(f"{flat}.idx")
    assert isinstance(GEFS("p07", str(tmp_path)).fetch(slot, BOX), Fetched)


def test_steps_of_both_eras():
    new, old = GEFS("p01"), datetime(2009, 6, 5)
    assert len(new.lead_times(INIT)) == 81 + 24
    assert {lead % (3 * HOUR) for lead in new.lead_times(INIT)} == {timedelta(0)}
    assert new.lead_times(INIT)[79:83] == (237 * HOUR, 240 * HOUR, 246 * HOUR, 252 * HOUR)
    assert new.lead_times(old) == tuple(hour * HOUR for hour in range(0, 385, 6))
    with pytest.raises(ConfigurationError, match="gefs-p01 has no cycle at 2025-08-01T03:00: name one of 00, 06,"):
        new.plan(datetime(2025, 8, 1, 3), [])


def test_members_by_name():
    assert len(MEMBERS) == 31
    source = as_forecasts(open_source("gefs-p19"))
    assert (source.name, source.kind) == ("gefs-p19", "forecast")
    assert repr(source) == "GEFS('p19', 's3://noaa-gefs-pds')"
    assert open_source("gefs-c00", "memory://x").name == "gefs-c00"
    for name in ("gefs", "gefs-p31", "gefs-p1", "gefs-avg", "gefs-P01"):
        with pytest.raises(ConfigurationError, match=f"no source is called {name!r}: name a member, gefs-c00"):
            open_source(name)


def test_noaas_bucket_is_read_anonymously_where_it_lies(s3_url):
    filesystem, path = GEFS("c00")._root.filesystem_and_path
    assert isinstance(filesystem, S3FileSystem)
    assert (path, filesystem.anon) == ("noaa-gefs-pds", True)
    assert filesystem.endpoint_url == "https://s3.us-east-1.amazonaws.com"
