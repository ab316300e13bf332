"""Whole objects, written atomically, under any fsspec URL: a local directory, `s3://`, an S3-compatible endpoint."""

import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from corrdiff_core.errors import ArchiveError

_PROCESS = uuid.uuid4().hex[:8]  # tells this process from a dead one of the same number
_DAY = 86400.0  # s


class Objects(Protocol):
    """Objects by key (relative, slash-separated). A reader sees an object whole or not at all.

    What the storage refuses (no such bucket, no permission, no space) is an ArchiveError that names the object.
    """

    url: str

    def get(self, key: str) -> bytes | None:
        """The object, None where there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write the object unless there is one; False where there is."""
        ...

    def remove(self, key: str) -> None:
        """The object is gone, if it was there."""
        ...

    def exists(self, key: str) -> bool: ...

    def names(self, key: str) -> list[str]:
        """Last parts of what lies directly under `key`, listed afresh, ascending; empty where nothing does."""
        ...

    def sizes(self, key: str) -> dict[str, int]:
        """The key and the bytes of every object below `key`, however deep, listed afresh; empty where there is none."""
        ...

    def remove_below(self, key: str) -> None:
        """Every object below `key` is gone, in no certain order, if any was there."""
        ...


def open_objects(url: str) -> Objects:
    """The objects under `url`; a URL without a scheme is a local directory."""
    scheme, separator, path = url.partition("://")
    if not separator:
        return LocalObjects(url)
    if scheme in ("file", "local"):
        return LocalObjects(path)
    from corrdiff_core.archive.remote import RemoteObjects  # what it needs takes a second to import

    return RemoteObjects(url)


@contextmanager
def _named(url: str, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"{url}/{key}: {error}; check that its place is there and that you may use it") from error


class LocalObjects:
    """A local directory. Objects are written beside their place under a name of the writer's own, then renamed."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)

    def get(self, key: str) -> bytes | None:
        with _named(self.url, key):
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        with _named(self.url, key), _written_beside(path, data) as partial:
            partial.replace(path)

    def create(self, key: str, data: bytes) -> bool:
        path = self.root / key
        with _named(self.url, key), _written_beside(path, data) as partial:
            try:
                path.hardlink_to(partial)  # unlike a rename, refuses to replace
            except FileExistsError:
                return False
            return True

    def remove(self, key: str) -> None:
        with _named(self.url, key):
            (self.root / key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def names(self, key: str) -> list[str]:
        try:
            return sorted(path.name for path in (self.root / key).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self, key: str) -> dict[str, int]:
        sizes = {}
        with _named(self.url, key):
            for path in (self.root / key).rglob("*"):
                with suppress(FileNotFoundError):  # somebody else's partial file, just renamed
                    if path.is_file():
                        sizes[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return sizes

    def remove_below(self, key: str) -> None:
        with _named(self.url, key), suppress(FileNotFoundError):
            shutil.rmtree(self.root / key)


def _partial(path: Path) -> Path:
    """The name under which this thread writes `path`; leftovers of killed writers of `path` are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        if _abandoned(leftover):
            leftover.unlink(missing_ok=True)
    writer = f"{os.getpid()}.{_PROCESS}.{threading.get_ident()}.{socket.gethostname()}"
    return path.with_name(f".{path.name}.{writer}.partial")


def _abandoned(partial: Path) -> bool:
    """Whether nobody can still be writing `partial`: its process is gone or, on another host, it is a day old."""
    writer = re.search(r"\.(\d+)\.([0-9a-f]{8})\.\d+\.(.+)\.partial$", partial.name)
    if writer is None:
        return False
    pid, process, host = writer.groups()
    if host != socket.gethostname():
        try:
            return time.time() - partial.stat().st_mtime > _DAY
        except FileNotFoundError:
            return False
    if int(pid) == os.getpid():
        return process != _PROCESS
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, and another user's
    return False


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A file of this writer's own beside `path` that holds `data`, on disk; gone afterwards."""
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)
