"""A remote object as a file, against the bytes themselves and HDF5."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import SourceError
from corrdiff_core.sources import ranged_file
from corrdiff_core.sources.ranged_file import BLOCK, RangedFile
from corrdiff_core.sources.ranges import Root, Span

BODY = np.random.default_rng(5).bytes(5 * BLOCK + 1234)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Root:
    folder = tmp_path_factory.mktemp("ranged")
    (folder / "body").write_bytes(BODY)
    return Root(str(folder))


def opened(root: Root, name: str = "body") -> RangedFile:
    return RangedFile(root, root.find(name))


@given(st.lists(st.tuples(st.integers(0, len(BODY) + 9), st.integers(0, 3 * BLOCK)), max_size=8), st.integers(1, 4))
def test_it_reads_as_the_bytes_do(root, reads, kept):
    file, plain = opened(root), io.BytesIO(BODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranged_file, "KEPT", kept)
        for at, count in reads:
            assert file.seek(at) == plain.seek(at)
            assert file.read(count) == plain.read(count)
            assert file.tell() == plain.tell()


def test_touched_blocks_travel_once(root):
    file = opened(root)
    file.seek(BLOCK + 10)
    file.read(20)
    assert file.traveled == BLOCK
    file.seek(BLOCK + 500)
    file.read(20)
    assert file.traveled == BLOCK
    file.seek(-1, io.SEEK_END)
    assert file.read(5) == BODY[-1:]
    assert file.traveled == BLOCK + 1234
    assert file.spans == [Span(BLOCK, 2 * BLOCK), Span(5 * BLOCK, len(BODY))]


def test_hdf5_reads_a_chunk_and_not_the_file(root):
    values = np.random.default_rng(6).normal(size=(50, 100, 100)).astype("f4")
    file = io.BytesIO()
    with h5py.File(file, "w") as written:
        written.create_dataset("values", data=values, chunks=(1, 100, 100), compression="gzip")
    root.write("file.h5", file.getvalue())
    ranged = opened(root, "file.h5")
    with h5py.File(ranged, "r") as read:
        np.testing.assert_array_equal(read["values"][17], values[17])
    assert ranged.traveled < 0.25 * ranged.found.size


def test_a_server_that_cuts_is_named(root, serve):
    place = Root(serve(Path(root.url), "cuts")[0])
    file = opened(place)
    with pytest.raises(SourceError, match=r"asked for the 65536 bytes 0\.\.65535, got 32768"):
        file.read(4)
