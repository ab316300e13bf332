"""Parts of a Blosc-compressed object by URL: only the blocks that hold them travel.

A Blosc 1 buffer (c-blosc's README_CHUNK_FORMAT) is a header of 16 bytes, a table of where each block starts, and blocks
that are compressed each on its own. A 154-MB chunk of ERA5 has 293; a box on two levels lies in two to four of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

import numpy as np
from numcodecs.blosc import decompress
from numpy.typing import NDArray

from corrdiff_core.errors import SourceError
from corrdiff_core.sources.ranges import Found, Root, Span, merge

_HEADER = Struct("<BBBBIII")  # version, codec version, flags, item size, bytes, bytes of a block, compressed bytes
_STORED = 0x2  # flag: not compressed, the bytes follow the header
_FIRST = 16384  # bytes of the first request: header and table of 4092 blocks
_WHOLE = 131072  # an object of so few bytes comes in one request


def read_parts(root: Root, found: Found, size: int, wanted: Sequence[Span]) -> tuple[list[bytes], int]:
    """Each of the `wanted` spans of the `size` decoded bytes of an object, and how many bytes traveled.

    Raises SourceError where the object is no Blosc buffer of that size, is cut short, or does not decode; else as
    `Root.read`.
    """
    head = root.read(found, [Span(0, found.size if found.size <= _WHOLE else _FIRST)])[0]
    buffer = _parse(head, found, size)
    traveled = len(head)
    if buffer.stored:
        places = [Span(_HEADER.size + span.start, _HEADER.size + span.stop) for span in wanted]
        there = _read(root, found, places, head)
        return [there[place] for place in places], traveled + _rest(there, head)
    if buffer.table.stop > len(head):
        rest = Span(len(head), buffer.table.stop)
        head += root.read(found, [rest])[0]
        traveled += rest.size
    extents = buffer.extents(head, found.url)
    needed = {span: range(span.start // buffer.block, (span.stop - 1) // buffer.block + 1) for span in wanted}
    spans = merge(extents[number] for numbers in needed.values() for number in numbers)
    blocks = _read(root, found, spans, head)
    traveled += _rest(blocks, head)
    return [_cut(buffer, needed[span], extents, blocks, span, found.url) for span in wanted], traveled


def _read(root: Root, found: Found, spans: Sequence[Span], head: bytes) -> dict[Span, bytes]:
    """The bytes of each span, of which those in `head` are there already."""
    missing = {span: Span(max(span.start, len(head)), span.stop) for span in spans if span.stop > len(head)}
    rests = root.read(found, list(missing.values())) if missing else []
    bodies = {span: head[span.start : span.stop] for span in spans}
    return bodies | {span: bodies[span] + rest for span, rest in zip(missing, rests, strict=True)}


def _rest(bodies: Mapping[Span, bytes], head: bytes) -> int:
    """How many bytes came beside `head`."""
    return sum(min(span.size, span.stop - len(head)) for span in bodies if span.stop > len(head))


@dataclass(frozen=True)
class _Buffer:
    """What a header says."""

    version: int
    codec: int
    flags: int
    item: int
    size: int  # decoded
    block: int  # decoded
    compressed: int

    @property
    def stored(self) -> bool:
        return bool(self.flags & _STORED)

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block)

    @property
    def table(self) -> Span:
        return Span(_HEADER.size, _HEADER.size + 4 * self.blocks)

    def extents(self, head: bytes, url: str) -> list[Span]:
        """Where each block lies; blocks may come in any order, since several threads compress."""
        starts: NDArray[np.int64] = np.frombuffer(head, "<u4", self.blocks, self.table.start).astype(np.int64)
        borders = np.append(np.sort(starts), self.compressed)
        if borders[0] < self.table.stop or not (np.diff(borders) > 0).all():
            raise SourceError(f"{url}: its Blosc table of blocks makes no sense: use another mirror")
        stops = borders[np.searchsorted(borders, starts, side="right")]
        return [Span(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]

    def of(self, numbers: range, bodies: Sequence[bytes]) -> bytes:
        """A Blosc buffer of these neighboring blocks alone."""
        size = min(numbers.stop * self.block, self.size) - numbers.start * self.block
        first = _HEADER.size + 4 * len(bodies)
        starts = first + np.cumsum([0, *map(len, bodies)])
        header = _HEADER.pack(self.version, self.codec, self.flags, self.item, size, self.block, int(starts[-1]))
        return header + starts[:-1].astype("<u4").tobytes() + b"".join(bodies)


def _parse(head: bytes, found: Found, size: int) -> _Buffer:
    if len(head) < _HEADER.size:
        raise SourceError(f"{found.url}: its {len(head)} bytes are no Blosc buffer: use another mirror")
    buffer = _Buffer(*_HEADER.unpack_from(head))
    if buffer.compressed != found.size or buffer.size != size or buffer.block < 1:
        raise SourceError(
            f"{found.url}: {found.size} bytes, its Blosc header speaks of {buffer.compressed} that decode to "
            f"{buffer.size}, {size} are due: it is truncated or no such chunk; use another mirror"
        )
    return buffer


def _cut(
    buffer: _Buffer, numbers: range, extents: Sequence[Span], bodies: dict[Span, bytes], span: Span, url: str
) -> bytes:
    """The decoded `span`, which the blocks `numbers` hold."""
    parts = []
    for number in numbers:
        start, stop = extents[number]
        (whole,) = [body for body in bodies if body.start <= start and stop <= body.stop]
        parts.append(bodies[whole][start - whole.start : stop - whole.start])
    try:
        decoded = bytes(decompress(buffer.of(numbers, parts)))
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"{url}: its blocks {numbers} do not decode ({error}): use another mirror") from error
    before = span.start - numbers.start * buffer.block
    return decoded[before : before + span.size]
