"""The inventory's parser and selection, against real NCEP inventories and invented bad ones."""

from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import SourceError
from corrdiff_core.sources.channels import CHANNELS
from corrdiff_core.sources.grib import check_frame
from corrdiff_core.sources.inventory import locate, parse
from corrdiff_core.sources.ranges import Span, merge
from corrdiff_core.variables import INPUT_NAMES

WANTED = {name: (channel.element, channel.level) for name, channel in CHANNELS.items()}
INIT = datetime(2025, 8, 1)
ANALYSIS = Slot.forecast(INIT, timedelta(0))
TWO_METER = {"t2m": WANTED["t2m"]}
LINE = "1:0:d=2025080100:TMP:2 m above ground:anl:\n"


def test_the_table_is_the_contract_in_its_order():
    assert tuple(CHANNELS) == INPUT_NAMES
    assert WANTED["tcwv"] == ("PWAT", "entire atmosphere (considered as a single layer)")
    assert WANTED["z500"] == ("HGT", "500 mb")
    assert WANTED["v10m"] == ("VGRD", "10 m above ground")


@pytest.mark.parametrize(
    ("lead", "records", "total"),
    [
        (0, ["349", "350", "356", "357", "461", "462", "468", "469", "580", "585", "586", "604"], 10_060_000),
        (7, ["349", "350", "356", "357", "461", "462", "468", "469", "581", "588", "589", "626"], 10_033_152),
    ],
)
def test_a_real_quarter_degree_inventory_makes_seven_ranges_of_nothing_but_the_twelve(shared, lead, records, total):
    text = shared(f"idx/gfs.20250801.t00z.pgrb2.0p25.f{lead:03d}.idx").read_text()
    entries = parse(text, "idx")
    located = locate(entries, WANTED, Slot.forecast(INIT, lead * HOUR), entries[-1].offset + 1, "idx")
    assert [place.entry.line.split(":")[0] for place in located.values()] == records
    spans = merge(place.span for place in located.values())
    assert len(spans) == 7
    fetched = sum(span.size for span in spans)
    assert fetched == sum(place.span.size for place in located.values())
    assert fetched == pytest.approx(total, rel=1e-3)


def test_sizes_follow_from_the_next_offset(shared):
    entries = parse(shared("idx/gfs.20250801.t00z.pgrb2.0p25.f007.idx").read_text(), "idx")
    located = locate(entries, WANTED, Slot.forecast(INIT, 7 * HOUR), 541_000_000, "idx")
    assert located["tcwv"].span.size == 1_232_204
    assert located["t2m"].span.size == 523_421


def test_offsets_of_a_real_pair_frame_its_messages(shared):
    data = shared("idx/gfswave.t18z.atlocn.0p16.f001.grib2").read_bytes()
    entries = parse(shared("idx/gfswave.t18z.atlocn.0p16.f001.grib2.idx").read_text(), "idx")
    stops = [entry.offset for entry in entries[1:]] + [len(data)]
    for entry, stop in zip(entries, stops, strict=True):
        check_frame(data[entry.offset : stop], entry.line)
    assert {entry.init_time for entry in entries} == {datetime(2023, 8, 23, 18)}
    assert {entry.lead_time for entry in entries} == {HOUR}
    wanted = {"wind": ("WIND", "surface"), "swell": ("SWELL", "3 in sequence")}
    located = locate(entries, wanted, Slot.forecast(datetime(2023, 8, 23, 18), HOUR), len(data), "idx")
    assert located["wind"].span == Span(0, 41723)


def test_submessages_share_their_bytes(shared):
    entries = parse(shared("gefs/gep19.t00z.pgrb2af180.idx").read_text(), "idx")
    slot = Slot.forecast(datetime(2009, 6, 5), 180 * HOUR)
    located = locate(entries, WANTED, slot, 1_757_834, "idx")
    assert located["u500"].span == located["v500"].span
    assert [(located[name].entry.field, located[name].fields) for name in ("u500", "v500", "t500")] == [
        (1, 2),
        (2, 2),
        (1, 1),
    ]


@pytest.mark.parametrize(
    ("window", "hours"),
    [("anl", 0), ("7 hour fcst", 7), ("1 day fcst", 24), ("0-6 hour acc fcst", None), ("6-7 hour ave fcst", None)],
)
def test_windows(window, hours):
    (entry,) = parse(f"1:0:d=2025080100:TMP:2 m above ground:{window}:\n", "idx")
    assert entry.lead_time == (None if hours is None else hours * HOUR)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "<html>",
        "1:0:d=2025080100:TMP:2 m above ground",
        "1:x:d=2025080100:TMP:2 m above ground:anl:",
        "1:0:d=2025130100:TMP:2 m above ground:anl:",
        "1:0:2025080100:TMP:2 m above ground:anl:",
        "1.0:0:d=2025080100:TMP:2 m above ground:anl:",
    ],
)
def test_a_malformed_line_is_named(line):
    with pytest.raises(SourceError, match=r"a\.idx line 2: .*fetch the idx again"):
        parse(f"{LINE}{line}\n{LINE}", "a.idx")


def test_selection_is_exact_and_anchored():
    text = (
        "1:0:d=2025080100:TMP:2 mb:anl:\n"
        "2:10:d=2025080100:APTMP:2 m above ground:anl:\n"
        "3:20:d=2025080100:TMP:2 m above ground:0-6 hour ave fcst:\n"
        "4:30:d=2025080100:TMP:2 m above ground:anl:\n"
        "5:40:d=2025080100:TMP:12 m above ground:anl:\n"
    )
    located = locate(parse(text, "idx"), TWO_METER, ANALYSIS, 50, "idx")
    assert located["t2m"].span == Span(30, 40)


def test_all_missing_messages_are_named():
    with pytest.raises(SourceError, match=r"tcwv \(PWAT:.*v10m \(VGRD:10 m above ground\).*among its 1 fields"):
        locate(parse(LINE, "idx"), WANTED, ANALYSIS, 50, "idx")


def test_a_message_of_another_step_is_named_with_both_steps():
    with pytest.raises(SourceError, match=r"t2m .* at \+7 h .*as 'anl'"):
        locate(parse(LINE, "idx"), TWO_METER, Slot.forecast(INIT, 7 * HOUR), 50, "idx")


def test_an_inventory_of_another_cycle_is_refused():
    slot = Slot.forecast(datetime(2025, 8, 1, 6), timedelta(0))
    with pytest.raises(SourceError, match=r"cycle 20250801T00Z, asked for 20250801T06Z\+000h"):
        locate(parse(LINE, "idx"), TWO_METER, slot, 50, "idx")


def test_a_duplicate_is_refused():
    text = LINE + "2:20:d=2025080100:TMP:2 m above ground:anl:\n"
    with pytest.raises(SourceError, match="t2m is listed 2 times"):
        locate(parse(text, "idx"), TWO_METER, ANALYSIS, 50, "idx")


@pytest.mark.parametrize("size", [5, 19, 20])
def test_an_inventory_past_the_end_of_the_file_is_refused(size):
    text = LINE + "2:20:d=2025080100:DPT:2 m above ground:anl:\n"
    with pytest.raises(SourceError, match=f"but the file has {size} bytes"):
        locate(parse(text, "idx"), TWO_METER, ANALYSIS, size, "idx")


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.data())
def test_spans_tile_the_file_and_merging_keeps_exactly_the_chosen_bytes(sizes, data):
    offsets = [sum(sizes[:index]) for index in range(len(sizes))]
    text = "".join(f"{n}:{offset}:d=2025080100:TMP:{n} mb:anl:\n" for n, offset in enumerate(offsets, start=1))
    chosen = data.draw(st.sets(st.integers(1, len(sizes)), min_size=1))
    wanted = {str(n): ("TMP", f"{n} mb") for n in chosen}
    located = locate(parse(text, "idx"), wanted, ANALYSIS, sum(sizes), "idx")
    assert {int(name): place.span.size for name, place in located.items()} == {n: sizes[n - 1] for n in chosen}
    bytes_wanted = {byte for place in located.values() for byte in range(*place.span)}
    spans = merge(place.span for place in located.values())
    assert [byte for span in spans for byte in range(*span)] == sorted(bytes_wanted)
    assert all(before.stop < after.start for before, after in pairwise(spans))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_parsed_whole_or_refused(text):
    with suppress(SourceError):
        assert len(parse(text, "a.idx")) == len(text.splitlines())
