"""The GFS and GEFS sources on real NCEP files of ../shared, against plain ecCodes and the means in their README."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import eccodes
import numpy as np
import pytest

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import SourceError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.regrid import cover
from corrdiff_core.sources.channels import CHANNELS
from corrdiff_core.sources.gefs import GEFS
from corrdiff_core.sources.gfs import GFS
from corrdiff_core.sources.grib import check_frame, decode
from corrdiff_core.sources.ncep import NCEP, object_name
from corrdiff_core.sources.source import Fetched
from corrdiff_core.variables import INPUT, INPUT_NAMES, STANDARD_GRAVITY

ANALYSIS = Slot(datetime(2017, 3, 22), datetime(2017, 3, 22))
MEMBER = Slot.forecast(datetime(2009, 6, 5), 180 * HOUR)
FILES = {ANALYSIS: "gfs/gfs.t00z.pgrb2.2p50.f000", MEMBER: "gefs/gep19.t00z.pgrb2af180"}
# Means over 19.25-28 N, 116-126 E from the README of ../shared/data, heights in gpm.
MEANS = {
    ANALYSIS: (39.0, 5829.7, 265.2, 19.3, 6.3, 1514.1, 285.1, -1.2, 5.1, 292.5, -5.9, -1.5),
    MEMBER: (53.95, 5833.5, 269.3, 13.5, 0.5, 1457.9, 291.1, 3.4, 2.7, 298.8, 0.7, 1.8),
}


def source_of(slot: Slot, root: Path) -> NCEP:
    return GFS(str(root)) if slot == ANALYSIS else GEFS("p19", str(root))


@pytest.fixture
def place(shared, tmp_path):
    """Copies a slot's real file and its inventory to where NOAA would have it; returns that path."""

    def copy(slot: Slot) -> Path:
        assert slot.init_time is not None
        path = tmp_path / object_name(source_of(slot, tmp_path).layouts(slot.init_time)[0], slot)
        path.parent.mkdir(parents=True)
        shutil.copy(shared(FILES[slot]), path)
        shutil.copy(shared(f"{FILES[slot]}.idx"), f"{path}.idx")
        path.chmod(0o644)
        return path

    return copy


@pytest.fixture(params=[ANALYSIS, MEMBER], ids=["gfs-2p50-complex", "gefs-1p00-jpeg2000-submessages"])
def real(request, place, tmp_path) -> tuple[Fetched, Path]:
    slot = request.param
    path = place(slot)
    answer = source_of(slot, tmp_path).fetch(slot, TAIWAN.input_box)
    assert isinstance(answer, Fetched)
    return answer, path


def every_field(path: Path) -> dict[tuple[str, str, int], np.ndarray]:
    """(shortName, typeOfLevel, level) -> values (latitude descending, longitude), as ecCodes alone reads the file."""
    fields = {}
    eccodes.codes_grib_multi_support_on()
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            key = tuple(eccodes.codes_get(handle, name) for name in ("shortName", "typeOfLevel", "level"))
            shape = eccodes.codes_get(handle, "Nj"), eccodes.codes_get(handle, "Ni")
            fields[key] = eccodes.codes_get_values(handle).reshape(shape)
            eccodes.codes_release(handle)
    eccodes.codes_grib_multi_support_off()
    return fields


def test_values_are_exactly_those_of_eccodes(real):
    answer, path = real
    fields = every_field(path)
    inputs = answer.inputs
    step = answer.provenance["grid"]["latitude_step"]
    rows = np.round((90 - inputs.latitude.values) / step).astype(int)
    columns = np.round(inputs.longitude.values / step).astype(int)
    for name, channel in CHANNELS.items():
        what = channel.parameter
        expected = fields[what.short_name, what.type_of_level, what.level][np.ix_(rows, columns)]
        single = expected.astype(np.float32).astype(np.float64) * channel.factor
        np.testing.assert_array_equal(inputs[name].values, single.astype(np.float32), err_msg=name)


def test_box_means_are_those_of_the_readme(real):
    answer, _ = real
    box = answer.inputs.sel(latitude=slice(19.25, 28.0), longitude=slice(116.0, 126.0))
    assert box.sizes == (
        {"latitude": 4, "longitude": 4} if answer.slot == ANALYSIS else {"latitude": 9, "longitude": 11}
    )
    for name, mean in zip(INPUT_NAMES, MEANS[answer.slot], strict=True):
        factor = STANDARD_GRAVITY if name.startswith("z") else 1.0
        assert float(box[name].mean()) / factor == pytest.approx(mean, abs=0.06), name


def test_grid_packing_and_ranges(real):
    answer, _ = real
    told, gfs = answer.provenance, answer.slot == ANALYSIS
    assert set(told["grid"].values()) == {2.5 if gfs else 1.0}
    assert {channel["packing"] for channel in told["channels"].values()} == {
        "grid_complex_spatial_differencing" if gfs else "grid_jpeg"
    }
    assert len(told["ranges"]) <= 8


def test_the_member_lies_where_ncep_had_it(place, tmp_path):
    assert place(MEMBER) == tmp_path / "gefs.20090605/00/pgrb2a/gep19.t00z.pgrb2af180"


def test_another_member_under_this_name_is_refused(place, tmp_path):
    """Only the message itself tells the members of an ensemble apart."""
    path = place(MEMBER)
    for part in ("", ".idx"):
        shutil.copy(f"{path}{part}", f"{path}{part}".replace("gep19", "gep18"))
    with pytest.raises(SourceError, match=r"gep18.*: tcwv at bytes .* holds perturbationNumber 19, asked for 18"):
        GEFS("p18", str(tmp_path)).fetch(MEMBER, TAIWAN.input_box)


def test_what_is_no_ensemble_is_no_member(place, tmp_path):
    path = place(ANALYSIS)
    member = tmp_path / "gefs.20170322/00/pgrb2a/gec00.t00z.pgrb2af00"
    member.parent.mkdir(parents=True)
    for part in ("", ".idx"):
        shutil.copy(f"{path}{part}", f"{member}{part}")
    with pytest.raises(SourceError, match=r"gec00.*: tcwv at bytes .* holds perturbationNumber None, asked for 0"):
        GEFS("c00", str(tmp_path)).fetch(ANALYSIS, TAIWAN.input_box)


def test_a_submessage_that_lost_bytes_is_named(place, tmp_path):
    path = place(MEMBER)
    data, (start, stop) = path.read_bytes(), (377317, 473374)
    path.write_bytes(data[: stop - 500] + data[stop:])
    with pytest.raises(SourceError, match=rf"f180: [uv]500 at bytes {start}..{stop - 1} .*: fetch both again"):
        GEFS("p19", str(tmp_path)).fetch(MEMBER, TAIWAN.input_box)


@pytest.mark.parametrize(("name", "component"), [("u500", "UGRD"), ("v500", "VGRD")])
def test_an_inventory_that_lost_a_submessage_is_refused(place, tmp_path, name, component):
    index = Path(f"{place(MEMBER)}.idx")
    lines = index.read_text().splitlines(keepends=True)
    index.chmod(0o644)
    index.write_text("".join(line for line in lines if f":{component}:500 mb:" not in line))
    with pytest.raises(SourceError, match=rf"does not list {name} \({component}:500 mb\) at \+180 h"):
        GEFS("p19", str(tmp_path)).fetch(MEMBER, TAIWAN.input_box)


@pytest.mark.parametrize("name", ["z500", "v850", "t2m", "tcwv"])
def test_a_truncated_message_of_the_real_file_is_named(place, tmp_path, name):
    path = place(ANALYSIS)
    whole = GFS(str(tmp_path)).fetch(ANALYSIS, TAIWAN.input_box)
    assert isinstance(whole, Fetched)
    start, stop = whole.provenance["channels"][name]["range"]
    data = path.read_bytes()
    path.write_bytes(data[: stop - 500] + data[stop:])
    with pytest.raises(SourceError, match=f"f000: {name} at bytes {start}..{stop - 1} .*: fetch both again"):
        GFS(str(tmp_path)).fetch(ANALYSIS, TAIWAN.input_box)
    path.write_bytes(data[: stop - 500])
    with pytest.raises(SourceError, match=f"lists {name} at bytes {start}..{stop - 1} .* but the file has"):
        GFS(str(tmp_path)).fetch(ANALYSIS, TAIWAN.input_box)


@pytest.mark.parametrize(("name", "file"), [("tcwv", "pwat"), ("t2m", "tmp"), ("u10m", "wind"), ("v10m", "wind")])
def test_quarter_degree_messages(shared, name, file):
    data = shared(f"gfs/gfs_0p25_{file}_2020061500.grib2").read_bytes()
    first = int.from_bytes(data[8:16], "big")
    message = data[first:] if name == "v10m" else data[:first]
    check_frame(message, name)
    parameter = CHANNELS[name].parameter
    field = decode(message, parameter, datetime(2020, 6, 15), timedelta(0), name)
    assert field.shape == (721, 1440)
    assert (float(field.latitude[0]), float(field.longitude[-1])) == (90.0, 359.75)
    handle = eccodes.codes_new_from_message(message)
    expected = eccodes.codes_get_values(handle).reshape(721, 1440)
    eccodes.codes_release(handle)
    np.testing.assert_array_equal(field.values, expected.astype(np.float32))
    assert cover(field, TAIWAN.input_box).shape == (36, 40)
    assert INPUT[name].valid_min <= float(field.min()) < float(field.max()) <= INPUT[name].valid_max
    with pytest.raises(SourceError, match="dataDate 20200615, asked for 20200616"):
        decode(message, parameter, datetime(2020, 6, 16), timedelta(0), name)
