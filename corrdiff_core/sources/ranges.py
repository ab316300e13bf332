"""Bytes by URL: whether an object is there, how large it is, and exact ranges of it, on any fsspec filesystem."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import fsspec
from botocore.exceptions import ClientError, NoCredentialsError  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem

from corrdiff_core.errors import ConfigurationError, SourceError
from corrdiff_core.retries import FAILURES, in_words, passing, patiently, storage_options, without_own_retries

ABSENT = frozenset({404, 410})  # every other HTTP status is a refusal or a failure, never "not there"


class Span(NamedTuple):
    """Bytes [start, stop) of an object."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def merge(spans: Iterable[Span]) -> list[Span]:
    """Touching or overlapping spans joined, ascending; a gap is never bridged.

    >>> merge([Span(4, 9), Span(0, 4), Span(10, 12)])
    [Span(start=0, stop=9), Span(start=10, stop=12)]
    """
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return merged


@dataclass(frozen=True)
class Found:
    """An object that is there and not empty. Equal to a later one if nothing replaced it in between."""

    name: str
    url: str
    size: int  # bytes
    etag: str | None
    modified: str | None

    @property
    def whole(self) -> Span:
        return Span(0, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for provenance; tags the filesystem does not tell are left out."""
        tags = {"etag": self.etag, "modified": self.modified}
        return {"url": self.url, "size": self.size} | {key: tag for key, tag in tags.items() if tag}


@dataclass(frozen=True)
class Root:
    """An fsspec URL (`s3://`, `http(s)://`, `memory://`, a local directory) below which objects are read and written.

    Objects are named relative to it. No listing is cached, so an object that has just appeared is seen. `options` are
    those of the filesystem; what they leave open comes from fsspec's own configuration and the environment. Failures
    that pass are tried again (`retries.patiently`), a range of bytes for itself.
    """

    url: str
    options: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def filesystem_and_path(self) -> tuple[Any, str]:
        try:
            options = {**storage_options(self.url), **dict(self.options)}
            filesystem, path = fsspec.core.url_to_fs(  # type: ignore[no-untyped-call]
                self.url, use_listings_cache=False, skip_instance_cache=True, **options
            )
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"{self.url} cannot be opened ({error}): give a local directory or an s3:// or https:// URL"
            ) from error
        return without_own_retries(filesystem), path.rstrip("/")

    def url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def find(self, name: str) -> Found | None:
        """The object, None where it is absent or has no bytes. One metadata request.

        Raises SourceError for a refusal (HTTP 403, S3 AccessDenied: also S3's answer for a missing key to a caller who
        may not list), ConfigurationError for a bucket or directory that does not exist, and ConnectionError for any
        other failure to reach it.
        """
        filesystem, root = self.filesystem_and_path
        url = self.url_of(name)
        try:
            with reaching(url):
                info = patiently(lambda: filesystem.info(f"{root}/{name}"))
        except FileNotFoundError as error:
            self._refuse_hidden_failure(url, error)
            return None
        return None if info["type"] == "directory" or info["size"] == 0 else _found(name, url, info)

    def has_folder(self, name: str) -> bool:
        """Whether anything lies below `name`. Raises SourceError and ConnectionError as `find`."""
        filesystem, root = self.filesystem_and_path
        url = self.url_of(name)
        try:
            with reaching(url):
                return bool(patiently(lambda: filesystem.info(f"{root}/{name}/")))
        except FileNotFoundError as error:
            self._refuse_hidden_failure(url, error)
            return False

    def read(self, found: Found, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, requested concurrently; every body has exactly its span's length.

        The smallest goes first, alone: a server that ignores Range is told before it sends the whole object many
        times. Raises SourceError for a body of another length, FileNotFoundError where the object is gone, and
        SourceError or ConnectionError as `find`.
        """
        bodies: dict[Span, bytes] = {}
        smallest = min(spans, key=lambda span: span.size)
        for group in ([smallest], [span for span in spans if span != smallest]):
            with reaching(found.url):
                try:
                    patiently(partial(self._read_rest, found, group, bodies))
                except IncompleteRead as error:
                    raise SourceError(
                        f"{found.url}: {in_words(error)}: the object was cut, or the server cuts its answers: use"
                        " another mirror"
                    ) from error
        return [bodies[span] for span in spans]

    def write(self, name: str, data: bytes) -> None:
        """The object, whole or not at all: renamed into place on a local disk, one upload elsewhere."""
        filesystem, root = self.filesystem_and_path
        path = f"{root}/{name}"
        with reaching(self.url_of(name)):
            if not isinstance(filesystem, LocalFileSystem):
                patiently(lambda: filesystem.pipe_file(path, data))
                return
            partial = Path(f"{path}.{uuid4().hex}.part")
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(data)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """The object is gone, if it was there."""
        filesystem, root = self.filesystem_and_path
        with suppress(FileNotFoundError), reaching(self.url_of(name)):
            patiently(lambda: filesystem.rm_file(f"{root}/{name}"))

    def _read_rest(self, found: Found, spans: Sequence[Span], bodies: dict[Span, bytes]) -> None:
        """Add to `bodies` those of `spans` that it lacks; the first failure is raised, one that lasts before others."""
        filesystem, root = self.filesystem_and_path
        rest = [span for span in spans if span not in bodies]
        paths = [f"{root}/{found.name}"] * len(rest)
        starts, stops = [span.start for span in rest], [span.stop for span in rest]
        failures: list[BaseException] = []
        for span, body in zip(rest, filesystem.cat_ranges(paths, starts, stops, on_error="return"), strict=True):
            if isinstance(body, BaseException):
                failures.append(body)
                continue
            sides = f"asked for the {span.size} bytes {span.start}..{span.stop - 1}, got {len(body)}"
            if len(body) > span.size:
                raise SourceError(f"{found.url}: {sides}: the server ignores Range requests; use another mirror")
            if len(body) < span.size:
                failures.append(IncompleteRead(body, span.size - len(body)))
                failures[-1].add_note(sides)
            else:
                bodies[span] = body
        if failures:
            raise min(failures, key=passing)

    def _refuse_hidden_failure(self, url: str, error: FileNotFoundError) -> None:
        """fsspec reports some failures as FileNotFoundError; only a true absence may pass for one."""
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientResponseError):
            _refuse_status(url, cause.status, error)
        elif isinstance(cause, ClientError):
            if cause.response["Error"]["Code"] == "NoSuchBucket":
                raise ConfigurationError(f"{self.url}: no such bucket: create it or correct the URL") from error
        elif isinstance(cause, aiohttp.ClientError | TimeoutError | ConnectionError):
            raise ConnectionError(f"{url} could not be reached: {cause!r}{_notes(error)}") from error
        filesystem, root = self.filesystem_and_path
        if isinstance(filesystem, LocalFileSystem) and not Path(root).is_dir():
            raise ConfigurationError(f"{root}: no such directory: create it or correct the URL") from error


def _notes(error: BaseException) -> str:
    """What `patiently` noted on an error, for the end of a message."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", []))


def _refuse_status(url: str, status: int, error: BaseException) -> None:
    if status in {401, 403}:
        raise SourceError(
            f"{url}: HTTP {status}: the server refuses it, it is not merely absent: use a mirror that still has it"
        )
    if status not in ABSENT:
        raise ConnectionError(f"{url}: HTTP {status}: the server failed, try again later{_notes(error)}")


def _found(name: str, url: str, info: dict[str, Any]) -> Found:
    if info["size"] is None:
        raise SourceError(f"{url}: the server does not tell its size: use a mirror that sends Content-Length")
    modified = next((info[key] for key in ("LastModified", "Last-Modified", "mtime", "created") if info.get(key)), None)
    if isinstance(modified, float):
        modified = datetime.fromtimestamp(modified, UTC)
    if isinstance(modified, datetime):
        modified = modified.isoformat()
    return Found(name, url, int(info["size"]), info.get("ETag") or info.get("etag"), modified)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Names `url` in the failures of a filesystem: a refusal is a SourceError, the rest a ConnectionError.

    FileNotFoundError passes through; ConnectionError (an OSError) is worth a retry, SourceError is not.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (PermissionError, NoCredentialsError) as error:
        raise SourceError(
            f"{url}: access denied ({in_words(error)}): check the credentials; on S3 allow ListBucket too, without it "
            "a missing object cannot be told from a forbidden one"
        ) from error
    except aiohttp.ClientResponseError as error:
        _refuse_status(url, error.status, error)
        raise ConnectionError(f"{url} could not be read: HTTP {error.status}") from error
    except FAILURES as error:
        raise ConnectionError(f"{url} could not be read: {in_words(error)}") from error
