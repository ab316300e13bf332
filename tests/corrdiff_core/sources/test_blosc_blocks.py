"""Parts of Blosc buffers, against what the codec itself decodes."""

from struct import pack_into

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.blosc import BITSHUFFLE, NOSHUFFLE, SHUFFLE, Blosc

from corrdiff_core.errors import SourceError
from corrdiff_core.sources.blosc_blocks import read_parts
from corrdiff_core.sources.ranges import Root, Span

SHAPE = (37, 90, 90)  # 1.2 MB


@pytest.fixture(scope="module")
def buffers(tmp_path_factory):
    """A directory of objects by codec, and what each decodes to."""
    folder = tmp_path_factory.mktemp("blosc")
    generator = np.random.default_rng(3)
    smooth = np.cumsum(generator.normal(size=SHAPE), axis=2).astype("<f4").tobytes()
    noise = generator.bytes(len(smooth))
    decoded = {}
    for codec in ("lz4", "zstd", "blosclz"):
        for shuffle in (NOSHUFFLE, SHUFFLE, BITSHUFFLE):
            for blocksize in (0, 32768):
                name = f"{codec}-{shuffle}-{blocksize}"
                buffer = Blosc(codec, 5, shuffle, blocksize).encode(np.frombuffer(smooth, "<f4"))
                (folder / name).write_bytes(buffer)
                decoded[name] = smooth
    (folder / "noise").write_bytes(Blosc("lz4", 5, SHUFFLE).encode(np.frombuffer(noise, "<f4")))
    (folder / "fine").write_bytes(Blosc("lz4", 5, SHUFFLE, 256).encode(np.frombuffer(smooth, "<f4")))
    (folder / "small").write_bytes(Blosc("lz4", 5, SHUFFLE).encode(np.frombuffer(smooth[:4000], "<f4")))
    return Root(str(folder)), decoded | {"noise": noise, "fine": smooth, "small": smooth[:4000]}


PARTS = st.lists(st.integers(0, 1000), min_size=4, max_size=4, unique=True).map(sorted)


@given(st.integers(0, 20), PARTS)
def test_any_part_of_any_buffer(buffers, number, parts):
    root, decoded = buffers
    name = sorted(decoded)[number]
    size = len(decoded[name])
    borders = [part * size // 1000 for part in parts]
    wanted = [Span(*borders[:2]), Span(*borders[2:])]
    found = root.find(name)
    bodies, traveled = read_parts(root, found, size, wanted)
    assert bodies == [decoded[name][span.start : span.stop] for span in wanted]
    assert 0 < traveled <= found.size + 16384


@pytest.mark.parametrize("name", ["lz4-1-32768", "zstd-2-32768", "noise"])
def test_little_travels_for_little(buffers, name):
    root, decoded = buffers
    found = root.find(name)
    _, traveled = read_parts(root, found, len(decoded[name]), [Span(500_000, 520_000)])
    assert traveled < 0.25 * found.size


def test_a_table_longer_than_the_first_request(buffers):
    root, decoded = buffers
    assert len(decoded["fine"]) / 256 * 4 + 16 > 16384
    bodies, traveled = read_parts(root, root.find("fine"), len(decoded["fine"]), [Span(1_000_000, 1_001_000)])
    assert bodies == [decoded["fine"][1_000_000:1_001_000]]
    assert traveled < 25_000


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda body: body[:-1], "truncated or no such chunk"),
        (lambda body: body[:10], "its 10 bytes are no Blosc buffer"),
        (lambda body: bytes(len(body)), "truncated or no such chunk"),
        (lambda body: body[:16] + bytes(4) + body[20:], "table of blocks makes no sense"),
        (lambda body: body[:400_000] + bytes(100_000) + body[500_000:], "do not decode"),
    ],
)
def test_a_damaged_object_is_named(buffers, tmp_path, damage, words):
    root, decoded = buffers
    body = root.read(root.find("lz4-1-32768"), [root.find("lz4-1-32768").whole])[0]
    (tmp_path / "chunk").write_bytes(damage(body))
    damaged, whole = Root(str(tmp_path)), Span(0, len(decoded["lz4-1-32768"]))
    with pytest.raises(SourceError, match=rf"chunk: .*{words}"):
        read_parts(damaged, damaged.find("chunk"), whole.size, [whole])


def test_another_size_is_named(buffers):
    root, decoded = buffers
    with pytest.raises(SourceError, match=r"decode to \d+, 7 are due"):
        read_parts(root, root.find("noise"), 7, [Span(0, 7)])
    bent = bytearray(root.read(root.find("noise"), [root.find("noise").whole])[0])
    pack_into("<I", bent, 8, 0)  # blocks of 0 bytes
    root.write("bent", bytes(bent))
    with pytest.raises(SourceError, match="truncated or no such chunk"):
        read_parts(root, root.find("bent"), len(decoded["noise"]), [Span(0, 7)])
