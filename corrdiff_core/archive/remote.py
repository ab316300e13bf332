"""Whole objects on object storage, S3 above all: patient with what passes, never in doubt about who created what."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from fsspec.core import url_to_fs

from corrdiff_core.errors import ArchiveError
from corrdiff_core.retries import (
    FAILURES,
    absent,
    in_words,
    passing,
    patiently,
    status_of,
    storage_options,
    without_own_retries,
)

_WRITER = "writer"  # the metadata of a created object that tells whose it is
_AT_ONCE = 8  # requests, where S3 has none for many objects

Answer = TypeVar("Answer")


class RemoteObjects:
    """`archive.objects.Objects` on any fsspec filesystem but the local one.

    Failures that pass are tried again (`retries.patiently`). Make it in the process that owns it: s3fs does not survive
    a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # fsspec keeps one filesystem per process and thread; listings are never cached.
        options = {"use_listings_cache": False, **storage_options(self.url)}
        filesystem, root = url_to_fs(self.url, **options)  # type: ignore[no-untyped-call]
        self._filesystem, self._root = without_own_retries(filesystem), root.rstrip("/")

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        with self._named(key):
            try:
                # With a start, s3fs does not ask the size first. A body that ends early raises and is read again.
                return bytes(patiently(lambda: self._filesystem.cat_file(path, start=0)))
            except FAILURES as error:
                if status_of(error) == 416:  # an empty object has no byte 0
                    return b""
                _raise_unless_absent(error)
                return None

    def put(self, key: str, data: bytes) -> None:
        with self._named(key):
            patiently(lambda: self._filesystem.pipe_file(self._path(key), data))

    def create(self, key: str, data: bytes) -> bool:
        """As in `Objects`: of many creators exactly one is told True, also where the storage's answers are lost.

        A try whose answer was lost may have written the object; on S3 it then bears our name. On other storage only
        equal bytes tell, so that two creators of the same bytes may both be told True after such a failure.
        """
        if self.exists(key):
            return False
        lost: list[BaseException] = []

        def write() -> None:
            try:
                self._filesystem.pipe_file(self._path(key), data, mode="create", **marked)
            except FAILURES as error:
                if passing(error):
                    lost.append(error)
                raise

        writer = uuid.uuid4().hex
        marked = {"Metadata": {_WRITER: writer}} if self._on_s3 else {}
        with self._named(key):
            try:
                patiently(write)
            except FAILURES as error:
                # Refused since an object is there, which some storage names otherwise than FileExistsError.
                if passing(error) or not self.exists(key):
                    raise
                return self._writer(key) == writer if self._on_s3 else bool(lost) and self.get(key) == data
            return True

    def remove(self, key: str) -> None:
        with self._named(key), suppress(FileNotFoundError):
            patiently(lambda: self._filesystem.rm_file(self._path(key)))

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._named(key):
            return self._unless_absent(lambda: self._filesystem.info(path), None) is not None

    def names(self, key: str) -> list[str]:
        path = self._path(key)
        with self._named(key):
            paths = self._unless_absent(lambda: self._filesystem.ls(path, detail=False, refresh=True), list[str]())
        return sorted(found.rstrip("/").rpartition("/")[2] for found in paths)

    def sizes(self, key: str) -> dict[str, int]:
        path, root = self._path(key), f"{self._root}/"
        with self._named(key):
            found = self._unless_absent(lambda: self._filesystem.find(path, detail=True), dict[str, Any]())
        return {name.removeprefix(root): info["size"] for name, info in found.items() if name.startswith(f"{path}/")}

    def remove_below(self, key: str) -> None:
        """As in `Objects`; on S3 a thousand at a time, and listed again, since it tells nothing of those it kept.

        For many at once Ceph's gateway (16.2) asks for the right to delete in the whole bucket: who has it for some
        names only removes one by one.
        """
        names = list(self.sizes(key))
        if not names:
            return
        paths = [self._path(name) for name in names]
        with self._named(key):
            try:
                patiently(lambda: self._filesystem.rm(paths))
            except PermissionError:
                self.remove(names[0])  # where this is refused too, the others are not asked for
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(self.remove, names[1:]))
        kept = self.sizes(key)
        if kept:
            raise ArchiveError(
                f"{self.url}/{key}: {len(kept)} of {len(names)} objects are still there after their removal, such as"
                f" {min(kept)}: check that you may delete there, and that nobody writes"
            )

    @property
    def _on_s3(self) -> bool:
        return "s3" in self._filesystem.protocol

    def _writer(self, key: str) -> str | None:
        answer: dict[str, str] = patiently(lambda: self._filesystem.metadata(self._path(key)))
        return answer.get(_WRITER)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _unless_absent(self, request: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            return patiently(request)
        except FAILURES as error:
            _raise_unless_absent(error)
            return otherwise

    @contextmanager
    def _named(self, key: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise ArchiveError(
                f"{self.url}/{key}: {in_words(error)}; check that its place is there and that you may use it"
            ) from error


def _raise_unless_absent(error: BaseException) -> None:
    if not absent(error):
        raise error
