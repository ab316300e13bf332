"""Byte checks, submessages, strict decoding and encoding of single GRIB2 fields, against plain ecCodes."""

from datetime import datetime

import eccodes
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR
from corrdiff_core.errors import GridError, SourceError
from corrdiff_core.sources.channels import CHANNELS, pressure_level
from corrdiff_core.sources.grib import COMPLEX, check_frame, decode, encode, single_field

INIT = datetime(2025, 8, 1)
LEAD = 7 * HOUR
T500 = CHANNELS["t500"].parameter
PACKINGS = [COMPLEX, "grid_complex", "grid_simple", "grid_jpeg", "grid_ccsds"]

PRODUCT_KEYS = [
    "discipline",
    "parameterCategory",
    "parameterNumber",
    "typeOfFirstFixedSurface",
    "scaleFactorOfFirstFixedSurface",
    "scaledValueOfFirstFixedSurface",
    "typeOfSecondFixedSurface",
    "shortName",
    "typeOfLevel",
    "level",
    "units",
    "centre",
    "subCentre",
    "tablesVersion",
    "productDefinitionTemplateNumber",
    "typeOfGeneratingProcess",
    "generatingProcessIdentifier",
    "significanceOfReferenceTime",
    "productionStatusOfProcessedData",
    "typeOfProcessedData",
    "shapeOfTheEarth",
    "resolutionAndComponentFlags",
    "scanningMode",
    "gridType",
    "packingType",
    "dataDate",
    "dataTime",
    "step",
    "stepType",
]


@pytest.fixture(scope="module")
def t500(weather: xr.Dataset) -> xr.DataArray:
    return weather["t500"].astype(np.float64)


@pytest.fixture(scope="module")
def message(t500: xr.DataArray) -> bytes:
    return encode(t500, T500, INIT, LEAD, 3)


def eccodes_values(message: bytes) -> np.ndarray:
    handle = eccodes.codes_new_from_message(message)
    try:
        shape = eccodes.codes_get(handle, "Nj"), eccodes.codes_get(handle, "Ni")
        return eccodes.codes_get_values(handle).reshape(shape)
    finally:
        eccodes.codes_release(handle)


def eccodes_keys(message: bytes, keys: list[str]) -> dict[str, str]:
    handle = eccodes.codes_new_from_message(message)
    try:
        return {key: eccodes.codes_get(handle, key, str) for key in keys}
    finally:
        eccodes.codes_release(handle)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_survives_the_round_trip(t500, packing):
    message = encode(t500, T500, INIT, LEAD, 3, packing)
    check_frame(message, "t500")
    field = decode(message, T500, INIT, LEAD, "t500")
    assert field.attrs["packing"] == packing
    np.testing.assert_array_equal(field.values, eccodes_values(message).astype(np.float32))
    assert abs(field.sortby("latitude") - t500).max() <= (2e-3 if "complex" in packing else 6e-4)


def test_written_north_to_south_whatever_it_was(t500):
    down = encode(t500.sortby("latitude", ascending=False), T500, INIT, LEAD, 3)
    assert down == encode(t500, T500, INIT, LEAD, 3) == encode(t500.transpose(), T500, INIT, LEAD, 3)
    latitude = decode(down, T500, INIT, LEAD, "t500").latitude
    assert (latitude[0], latitude[-1]) == (29.0, 18.0)


@pytest.mark.parametrize("west", [0.0, -180.0, -10.0, 100.0])
def test_longitudes_of_any_turn(make, west):
    weather = make(np.arange(-90.0, 91.0, 10.0), west + np.arange(0.0, 360.0, 10.0))
    field = decode(encode(weather["t500"], T500, INIT, LEAD, 3), T500, INIT, LEAD, "t500")
    turned = field.assign_coords(longitude=field.longitude % 360).sortby("longitude").sortby("latitude")
    expected = weather["t500"].assign_coords(longitude=weather.longitude % 360).sortby("longitude")
    np.testing.assert_allclose(turned.longitude, expected.longitude)
    np.testing.assert_allclose(turned.values, expected.values, atol=2e-3)


def test_a_constant_field_is_a_sound_message(t500):
    message = encode(xr.full_like(t500, 273.15), T500, INIT, LEAD, 3)
    check_frame(message, "t500")
    assert decode(message, T500, INIT, LEAD, "t500").values == pytest.approx(273.15, abs=1e-3)


@pytest.mark.parametrize("name", CHANNELS)
def test_written_keys_are_those_of_a_real_gfs_file(shared, weather, name):
    """Every coded key of the product and of how it was made, and ecCodes' names of them."""
    channel = CHANNELS[name]
    lines = shared("gfs/gfs.t00z.pgrb2.2p50.f000.idx").read_text().splitlines()
    data = shared("gfs/gfs.t00z.pgrb2.2p50.f000").read_bytes()
    (offset,) = [int(line.split(":")[1]) for line in lines if f":{channel.element}:{channel.level}:" in line]
    real = data[offset : offset + int.from_bytes(data[offset + 8 : offset + 16], "big")]
    ours = encode(weather[name] / channel.factor, channel.parameter, datetime(2017, 3, 22), 0 * HOUR, 3)
    assert eccodes_keys(ours, PRODUCT_KEYS) == eccodes_keys(real, PRODUCT_KEYS)


def test_values_that_are_not_finite_are_not_written(t500):
    with pytest.raises(SourceError, match="t500: holds values that are not finite"):
        encode(t500.where(t500.latitude > 20), T500, INIT, LEAD, 3)


def test_an_irregular_grid_is_not_written(t500):
    with pytest.raises(GridError, match=r"latitude .* is not regular"):
        encode(t500.isel(latitude=[0, 1, 3]), T500, INIT, LEAD, 3)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda m: m[1:], r"starts with b'RIB"),
        (lambda m: b"\0" * len(m), r"starts with b'\\x00"),
        (lambda m: m[:10], r"starts with b'GRIB'"),
        (lambda m: m[:7] + b"\1" + m[8:], "edition 1, not 2"),
        (lambda m: m[:-100], "says it has .* bytes, the idx gives it"),
        (lambda m: m + b"\0", "bytes, the idx gives it"),
        (lambda m: m[:-4] + b"777\0", r"ends with b'777\\x00', not b'7777'"),
    ],
)
def test_a_broken_frame_is_named(message, damage, says):
    with pytest.raises(SourceError, match=f"f007: t500.*{says}.*: (fetch both again|use a GRIB2 file)"):
        check_frame(damage(message), "f007: t500")


@pytest.mark.parametrize(
    ("wanted", "init_time", "lead", "says"),
    [
        (T500, datetime(2025, 7, 31), 31 * HOUR, "dataDate 20250801, asked for 20250731"),
        (T500, datetime(2025, 8, 1, 6), HOUR, "dataTime 0, asked for 600"),
        (T500, INIT, 8 * HOUR, "step 7, asked for 8"),
        (pressure_level("TMP", 550).parameter, INIT, LEAD, "level 500, asked for 550"),
        (CHANNELS["t2m"].parameter, INIT, LEAD, "shortName 't', asked for '2t'"),
        (CHANNELS["u500"].parameter, INIT, LEAD, "shortName 't', asked for 'u'"),
    ],
)
def test_a_message_of_something_else_is_told_by_its_own_header(message, wanted, init_time, lead, says):
    with pytest.raises(SourceError, match=f"f007: t500: the message holds {says}"):
        decode(message, wanted, init_time, lead, "f007: t500")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("jPointsAreConsecutive", 1, "jPointsAreConsecutive 1, asked for 0"),
        ("iScansNegatively", 1, "iScansNegatively 1, asked for 0"),
        ("gridType", "rotated_ll", "gridType 'rotated_ll', asked for 'regular_ll'"),
        ("stepType", "avg", "shortName 'avg_t', asked for 't'"),
    ],
)
def test_other_grids_and_statistics_are_refused_by_name(message, key, value, says):
    handle = eccodes.codes_new_from_message(message)
    eccodes.codes_set(handle, key, value)
    other = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    with pytest.raises(SourceError, match=says):
        decode(other, T500, INIT, LEAD, "t500")


def test_south_to_north_scanning_is_read_as_such(message, t500):
    handle = eccodes.codes_new_from_message(message)
    for key, value in (
        ("jScansPositively", 1),
        ("latitudeOfFirstGridPointInDegrees", 18.0),
        ("latitudeOfLastGridPointInDegrees", 29.0),
    ):
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, t500.values.ravel())
    upward = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    field = decode(upward, T500, INIT, LEAD, "t500").sortby("latitude")
    np.testing.assert_array_equal(field.latitude, t500.latitude)
    assert abs(field - t500).max() < 0.02


def test_a_sound_frame_around_damaged_data_is_named(t500):
    message = encode(t500, T500, INIT, LEAD, 3, "grid_jpeg")
    damaged = message.replace(b"\xff\x4f\xff\x51", b"\0\0\0\0", 1)  # JPEG 2000's start of codestream
    check_frame(damaged, "f007: t500")
    with pytest.raises(SourceError, match=r"f007: t500: cannot be decoded \(.*fetch both again"):
        decode(damaged, T500, INIT, LEAD, "f007: t500")


def combine(first: bytes, second: bytes, same_bitmap: bool = False) -> bytes:
    """Two messages of one field on the same grid as one message of two fields, as GEFS packs U and V."""
    sections = []
    at = 16
    while at < len(second) - 4:
        length = int.from_bytes(second[at : at + 4], "big")
        if second[at + 4] >= 4:
            section = second[at : at + length]
            sections.append(b"\0\0\0\6\6\xfe" if same_bitmap and section[4] == 6 else section)
        at += length
    body = first[16:-4] + b"".join(sections) + b"7777"
    return first[:8] + (16 + len(body)).to_bytes(8, "big") + body


def eccodes_fields(path) -> list[np.ndarray]:
    """What ecCodes' own multi-field support reads."""
    eccodes.codes_grib_multi_support_on()
    fields = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            fields.append(eccodes.codes_get_values(handle))
            eccodes.codes_release(handle)
    eccodes.codes_grib_multi_support_off()
    return fields


@pytest.mark.parametrize("packing", [COMPLEX, "grid_jpeg", "grid_simple"])
def test_submessages_are_cut_apart_as_eccodes_reads_them(weather, tmp_path, packing):
    u, v = CHANNELS["u500"].parameter, CHANNELS["v500"].parameter
    both = combine(
        encode(weather["u500"], u, INIT, LEAD, 3, packing), encode(weather["v500"], v, INIT, LEAD, 3, packing)
    )
    check_frame(both, "u500")
    (tmp_path / "both.grib2").write_bytes(both)
    for field, parameter, expected in zip((1, 2), (u, v), eccodes_fields(tmp_path / "both.grib2"), strict=True):
        message = single_field(both, field, 2, "wind")
        check_frame(message, "wind")
        values = decode(message, parameter, INIT, LEAD, "wind").values
        np.testing.assert_array_equal(values.ravel(), expected.astype(np.float32))


def test_the_second_field_inherits_the_bitmap_of_the_first(weather, tmp_path):
    parts = []
    for name in ("u500", "v500"):
        handle = eccodes.codes_new_from_message(
            encode(weather[name], CHANNELS[name].parameter, INIT, LEAD, 3, "grid_simple")
        )
        values = eccodes.codes_get_values(handle)
        values[5:9] = 9999.0
        eccodes.codes_set(handle, "bitmapPresent", 1)
        eccodes.codes_set(handle, "missingValue", 9999.0)
        eccodes.codes_set_values(handle, values)
        parts.append(eccodes.codes_get_message(handle))
        eccodes.codes_release(handle)
    both = combine(*parts, same_bitmap=True)
    alone = decode(parts[1], CHANNELS["v500"].parameter, INIT, LEAD, "v500")
    assert int(alone.isnull().sum()) == 4
    xr.testing.assert_identical(
        decode(single_field(both, 2, 2, "v500"), CHANNELS["v500"].parameter, INIT, LEAD, "v500"), alone
    )


def test_a_count_of_fields_that_the_inventory_does_not_list_is_named(message):
    with pytest.raises(SourceError, match="t500: the message holds 1 fields, the idx lists 2"):
        single_field(message, 1, 2, "t500")
    with pytest.raises(SourceError, match="t500: the message holds 2 fields, the idx lists 1"):
        single_field(combine(message, message), 1, 1, "t500")


def test_a_section_beyond_its_message_is_named(message):
    broken = message[:16] + (10**6).to_bytes(4, "big") + message[20:]
    with pytest.raises(SourceError, match="t500: section 1 at byte 16 has 1000000 of"):
        single_field(broken, 1, 1, "t500")
