"""A file over byte ranges, against a plain file of the same bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import SourceError
from corrdiff_core.sources.ranged_file import BLOCK, RangedFile
from corrdiff_core.sources.ranges import Root, Span

DATA = np.random.default_rng(0).bytes(5 * BLOCK + 123)
PLACES = st.integers(0, len(DATA) + 10)
SIZES = st.one_of(st.integers(0, 600), st.integers(BLOCK - 2, BLOCK + 2), st.integers(0, 3 * BLOCK))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranged")
    (path / "data").write_bytes(DATA)
    return path


def opened(root: Path) -> RangedFile:
    place = Root(str(root))
    found = place.find("data")
    assert found is not None
    return RangedFile(place, found)


@given(st.lists(st.tuples(st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]), PLACES, SIZES), max_size=8))
def test_it_reads_as_a_plain_file_does(root: Path, steps: list[tuple[int, int, int]]) -> None:
    ranged, plain = opened(root), io.BytesIO(DATA)
    for whence, place, size in steps:
        offset = place if whence == io.SEEK_SET else place - (plain.tell() if whence == io.SEEK_CUR else len(DATA))
        assert ranged.seek(offset, whence) == plain.seek(offset, whence) == ranged.tell()
        assert ranged.read(size) == plain.read(size)
        assert ranged.tell() == plain.tell()
    assert sum(span.size for span in ranged.spans) <= ranged.travelled


def test_small_pieces_travel_once_in_blocks_and_large_ones_exactly(root: Path) -> None:
    file = opened(root)
    for place in (10, 500, BLOCK - 5):
        file.seek(place)
        assert file.read(20) == DATA[place : place + 20]
    assert file.spans == [Span(0, 2 * BLOCK)]
    file.seek(3 * BLOCK + 7)
    assert len(file.read(BLOCK + 1)) == BLOCK + 1
    assert file.spans[1:] == [Span(3 * BLOCK + 7, 4 * BLOCK + 8)]
    file.seek(-3, io.SEEK_END)
    assert file.read() == DATA[-3:]
    assert file.spans[-1] == Span(5 * BLOCK, len(DATA))
    assert file.travelled == 3 * BLOCK + 1 + 123


def test_a_server_that_cuts_is_named(root: Path, serve) -> None:
    place = Root(serve(root, "cuts")[0])
    found = place.find("data")
    assert found is not None
    file = RangedFile(place, found)
    with pytest.raises(SourceError, match=r"asked for the 65536 bytes 0\.\.65535, got 32768"):
        file.read(4)
