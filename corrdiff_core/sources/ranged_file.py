"""A remote object as a seekable file, for libraries that read files: only touched blocks travel, and are counted."""

import gc
import io
import threading
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from corrdiff_core.sources.ranges import Found, Root, Span, merge

BLOCK = 65536  # bytes
KEPT = 160  # blocks of a file kept in memory, 10 MB: a few compressed chunks of ERA5's monthly files
_READING = threading.RLock()


class RangedFile(io.RawIOBase):
    """`found` below `root`, read-only. Blocks that were read lately are not read again; one thread at a time.

    `spans` and `traveled` say what came from the filesystem. Reading raises as `Root.read`, and keeps the `failure`.
    """

    mode = "rb"

    def __init__(self, root: Root, found: Found) -> None:
        self._root = root
        self.found = found
        self._spans: list[Span] = []
        self.failure: Exception | None = None  # a library that reads files may hide it behind one of its own
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @property
    def spans(self) -> list[Span]:
        """What was read so far, ascending, adjacent spans as one."""
        return merge(self._spans)

    @property
    def traveled(self) -> int:
        """Bytes that were asked for so far; those read twice count twice."""
        return sum(span.size for span in self._spans)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.found.size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        stop = min(self._at + len(buffer), self.found.size)
        if stop <= self._at:
            return 0
        body = self._bytes(Span(self._at, stop))
        buffer[: len(body)] = body
        self._at = stop
        return len(body)

    def _bytes(self, span: Span) -> bytes:
        numbers = range(span.start // BLOCK, (span.stop - 1) // BLOCK + 1)
        have = {number: self._blocks[number] for number in numbers if number in self._blocks}
        have |= self._read([number for number in numbers if number not in have])
        for number, block in have.items():
            self._blocks[number] = block
            self._blocks.move_to_end(number)
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        joined = b"".join(have[number] for number in numbers)
        start = span.start - numbers.start * BLOCK
        return joined[start : start + span.size]

    def _read(self, numbers: list[int]) -> dict[int, bytes]:
        """The blocks, neighbors in one request."""
        if not numbers:
            return {}
        spans = merge(Span(number * BLOCK, min((number + 1) * BLOCK, self.found.size)) for number in numbers)
        blocks = {}
        try:
            bodies = self._root.read(self.found, spans)
        except Exception as error:
            self.failure = error
            raise
        for span, body in zip(spans, bodies, strict=True):
            self._spans.append(span)
            for start in range(0, span.size, BLOCK):
                blocks[(span.start + start) // BLOCK] = body[start : start + BLOCK]
        return blocks


def open_ranged(url: str) -> RangedFile:
    """The file at `url`. FileNotFoundError where there is none, or an empty one; otherwise raises as `Root.find`."""
    parent, _, name = url.rpartition("/")
    root = Root(f"{parent}/" if parent.endswith(":/") else parent)
    found = root.find(name)
    if found is None:
        raise FileNotFoundError(f"{url}: absent or empty")
    return RangedFile(root, found)


@contextmanager
def one_reader() -> Iterator[None]:
    """One thread at a time lets HDF5 read a RangedFile, and no garbage is collected meanwhile; may be nested.

    h5py holds a lock of its own while it waits for the bytes. The thread that fetches them would wait for that lock,
    forever, if the collector ran there and found an HDF5 object to free.
    """
    with _READING:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        except Exception as error:
            _release_frames(error)
            raise
        finally:
            if collecting:
                gc.enable()


def _release_frames(error: BaseException | None) -> None:
    """Drop what the frames of a failed read still hold, the open file above all.

    h5py never lets go of a failure of ours that came while another was on its way; HDF5 would close the file that its
    frames hold after Python has gone, and crash.
    """
    seen: set[int] = set()  # `raise failure from error` makes a circle where the failure led to that error
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class ReaderLock:
    """`one_reader` as the `lock` that xarray takes around every read of a file, now or later."""

    def __init__(self) -> None:
        self._entered: list[AbstractContextManager[None]] = []  # only touched by the one who reads

    def __enter__(self) -> None:
        reader = one_reader()
        reader.__enter__()
        self._entered.append(reader)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, frames)
