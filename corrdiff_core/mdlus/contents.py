"""What lies in an inference package, whether it is still a zip or already a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile

import zarr
from zarr.storage import LocalStore, ZipStore

from corrdiff_core.errors import CheckpointError
from corrdiff_core.mdlus.file import BROKEN

REGRESSION, DIFFUSION = "checkpoints/regression.mdlus", "checkpoints/diffusion.mdlus"


class Contents(Protocol):
    """Files by name, relative to the folder that holds `checkpoints` and `dataset`."""

    name: str

    def read(self, member: str) -> bytes:
        """A file; CheckpointError where it is missing or damaged."""
        ...

    def dataset(self) -> zarr.Group:
        """The one Zarr v2 group under `dataset`; CheckpointError where there is none, or more."""
        ...


@contextmanager
def open_package(path: str | os.PathLike[str]) -> Iterator[Contents]:
    """The package at `path`, a zip or a folder; CheckpointError where it is neither."""
    place = Path(path)
    if place.is_dir():
        yield _Folder(place)
        return
    try:
        archive = ZipFile(place)
    except FileNotFoundError:
        raise CheckpointError(f"{place}: no such file or folder; name NVIDIA's inference package") from None
    except BROKEN as error:
        raise CheckpointError(f"{place}: no readable zip ({error}); download the package anew") from error
    with archive:
        yield _Zip(archive, place)


class _Folder:
    def __init__(self, path: Path) -> None:
        self.name = str(path)
        files = [str(file.relative_to(path)) for file in path.rglob("regression.mdlus")]
        self._root = path / _root(self.name, files)

    def read(self, member: str) -> bytes:
        try:
            return (self._root / member).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self._root / member}: {error.strerror}; unpack the whole package") from error

    def dataset(self) -> zarr.Group:
        groups = [str(path.relative_to(self._root)) for path in (self._root / "dataset").glob("*.zarr")]
        return _group(LocalStore(self._root / _one(groups, self.name), read_only=True), "", self.name)


class _Zip:
    def __init__(self, archive: ZipFile, path: Path) -> None:
        self.name, self._archive, self._path = str(path), archive, path
        self._root = _root(self.name, archive.namelist())

    def read(self, member: str) -> bytes:
        try:
            return self._archive.read(f"{self._root}{member}")
        except KeyError:
            raise CheckpointError(f"{self.name}: lacks {self._root}{member}; download the package anew") from None
        except BROKEN as error:
            raise CheckpointError(f"{self.name}: {member} is damaged ({error}); download the package anew") from error

    def dataset(self) -> zarr.Group:
        folder = f"{self._root}dataset/"
        below = {name.removeprefix(folder) for name in self._archive.namelist() if name.startswith(folder)}
        groups = sorted({name.partition("/")[0] for name in below if ".zarr/" in name})
        return _group(ZipStore(self._path, mode="r"), folder + _one(groups, self.name), self.name)


def _root(name: str, files: list[str]) -> str:
    """What stands before `checkpoints/regression.mdlus` in the package's names, "" or with a slash behind it."""
    roots = [file.removesuffix(REGRESSION) for file in files if f"/{file}".endswith(f"/{REGRESSION}")]
    if len(roots) != 1:
        raise CheckpointError(
            f"{name}: {REGRESSION} is there {len(roots)} times, not once; name NVIDIA's Taiwan package"
        )
    return roots[0]


def _one(groups: list[str], name: str) -> str:
    if len(groups) != 1:
        raise CheckpointError(f"{name}: {len(groups)} Zarr groups under dataset, 1 is due; download the package anew")
    return groups[0]


def _group(store: LocalStore | ZipStore, path: str, name: str) -> zarr.Group:
    try:
        return zarr.open_group(store, path=path, mode="r", zarr_format=2)
    except BROKEN as error:
        raise CheckpointError(f"{name}: its dataset is no Zarr v2 group ({error}); download it anew") from error
