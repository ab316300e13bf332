"""What lies at a path, URL or glob of somebody's files: asked with patience, and never less than is there."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from corrdiff_core.errors import SourceError
from corrdiff_core.retries import FAILURES, absent, in_words, passing, patiently, storage_options, without_own_retries
from corrdiff_core.sources.ranged_file import open_ranged

_ZARR = ("zarr.json", ".zmetadata", ".zgroup")
_WILD = "*?["
_WEB = ("http://", "https://")


def is_glob(name: str) -> bool:
    """Whether `name` has a wildcard; in the URL of a web server `?` is none, a query begins there.

    >>> is_glob("mine_?.nc"), is_glob("https://here/mine.nc?version=2")
    (True, False)
    """
    return any(letter in name for letter in (_WILD if not name.startswith(_WEB) else "*["))


def filesystem_of(url: str) -> tuple[Any, str]:
    """The filesystem of `url`, to be asked `patiently`, and the path there; it caches no listing."""
    filesystem, path = url_to_fs(url, use_listings_cache=False, **storage_options(url))  # type: ignore[no-untyped-call]
    return without_own_retries(filesystem), path.rstrip("/")


def is_local(url: str) -> bool:
    return isinstance(filesystem_of(url)[0], LocalFileSystem)


def there(filesystem: Any, path: str) -> bool:
    """Whether an object is there; False where the storage refuses to tell, as public buckets do of what is absent.

    ConnectionError where it cannot be reached.
    """
    try:
        return bool(patiently(lambda: filesystem.info(path)))
    except FAILURES as error:
        if passing(error):
            raise ConnectionError(f"{path} could not be read: {in_words(error)}") from error
        return False


def matching(filesystem: Any, path: str) -> list[str]:
    """The paths that a glob matches, ascending, `**` being directories at any depth; one listing for each directory.

    fsspec's own glob leaves out what it fails to list.
    """
    parts = path.split("/")
    first = next(at for at, part in enumerate(parts) if is_glob(part))
    found = ["/".join(parts[:first]) or "/"]
    for part in parts[first:]:
        if part == "**":
            found = [below for parent in found for below in (parent, *_directories(filesystem, parent))]
        else:
            found = [name for parent in found for name, _ in _listed(filesystem, parent) if _last(name, part)]
    return sorted(set(found))


def _last(path: str, pattern: str) -> bool:
    return fnmatchcase(path.rpartition("/")[2], pattern)


def _directories(filesystem: Any, parent: str) -> Iterator[str]:
    for name, kind in _listed(filesystem, parent):
        if kind == "directory":
            yield name
            yield from _directories(filesystem, name)


def _listed(filesystem: Any, parent: str) -> list[tuple[str, str]]:
    """Path and type of what lies directly in a directory; nothing where it is none."""
    try:
        listed = patiently(lambda: filesystem.ls(parent, detail=True))
    except FAILURES as error:
        if not absent(error) and not isinstance(error, NotADirectoryError):
            raise
        return []
    named = [(info["name"].rstrip("/"), info["type"]) for info in listed]
    return [(name, kind) for name, kind in named if name.startswith(f"{parent.rstrip('/')}/")]


def is_zarr(url: str) -> bool:
    filesystem, path = filesystem_of(url)
    return any(there(filesystem, f"{path}/{name}") for name in _ZARR)


def first_bytes(url: str) -> bytes:
    """The first four bytes of the file at `url`; SourceError where there is none, ConnectionError as `Root.find`."""
    try:
        with Path(filesystem_of(url)[1]).open("rb") if is_local(url) else open_ranged(url) as file:
            magic: bytes = file.read(4)
            return magic
    except ConnectionError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{url} cannot be opened ({error}): name a Zarr store or a file that is there") from error
