"""A file object over exact byte ranges of an object, for libraries that read files where they like (HDF5)."""

import gc
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corrdiff_core.sources.ranges import Found, Root, Span, merge

BLOCK = 64 * 1024  # bytes; what is read around a small piece of metadata, once
_READING = threading.Lock()


class RangedFile(io.RawIOBase):
    """Reads `found` below `root`: small pieces in whole blocks that are kept, larger ones exactly, each by one request.

    `spans` and `travelled` say what was read. Errors are those of `Root.read`, whatever library they pass through.
    """

    mode = "rb"

    def __init__(self, root: Root, found: Found) -> None:
        super().__init__()
        self._root, self._found, self._at = root, found, 0
        self._blocks: dict[int, bytes] = {}
        self._spans: list[Span] = []

    @property
    def spans(self) -> list[Span]:
        """What was read so far, ascending, adjacent spans as one."""
        return merge(self._spans)

    @property
    def travelled(self) -> int:
        """Bytes that were asked for so far; those read twice count twice."""
        return sum(span.size for span in self._spans)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        span = Span(self._at, min(self._at + len(view), self._found.size))
        if span.size <= 0:
            return 0
        view[: span.size] = self._read(span) if span.size >= BLOCK else self._from_blocks(span)
        self._at = span.stop
        return span.size

    def _from_blocks(self, span: Span) -> bytes:
        first, last = span.start // BLOCK, (span.stop - 1) // BLOCK
        for number in range(first, last + 1):
            if number not in self._blocks:
                start = number * BLOCK
                self._blocks[number] = self._read(Span(start, min(start + BLOCK, self._found.size)))
        held = b"".join(self._blocks[number] for number in range(first, last + 1))
        return held[span.start - first * BLOCK : span.stop - first * BLOCK]

    def _read(self, span: Span) -> bytes:
        (body,) = self._root.read(self._found, [span])
        self._spans.append(span)
        return body


@contextmanager
def one_reader() -> Iterator[None]:
    """One thread at a time lets HDF5 read a RangedFile, and no garbage is collected meanwhile.

    h5py holds a lock of its own while it waits for the bytes. The thread that fetches them would wait for that lock,
    forever, if the collector ran there and found an HDF5 object to free.
    """
    with _READING:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()
