"""Globs at any filesystem, against those of fsspec and Python."""

import glob
from pathlib import Path

import fsspec
import pytest

from corrdiff_core.sources.places import filesystem_of, matching

FILES = ("a/one_1.nc", "a/one_2.nc", "a/b/one_3.nc", "c/two.zarr/zarr.json", "one_4.nc", ".one_5.nc")
PATTERNS = ("*.nc", "one_?.nc", "*/one_[!2].nc", "a/*", "c/*.zarr", "*/*.zarr/*", "**/one_*.nc", "none/*.nc", "*/*/*/*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("places")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root


@pytest.mark.parametrize("pattern", PATTERNS)
def test_local_as_python_matches(folder: Path, pattern: str):
    found = matching(*filesystem_of(f"{folder}/{pattern}"))
    assert found == sorted(glob.glob(f"{folder}/{pattern}", recursive=True, include_hidden=True))  # noqa: PTH207


def test_object_storage_as_fsspec_matches(folder: Path, s3_url: str):
    filesystem = fsspec.filesystem("s3")
    filesystem.put(str(folder), f"{s3_url}/files", recursive=True)
    for pattern in PATTERNS:
        found = matching(*filesystem_of(f"{s3_url}/files/{pattern}"))
        assert found == sorted(filesystem.glob(f"{s3_url}/files/{pattern}")), pattern


def test_memory(folder: Path):
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/globbed_1.nc", b"1")
    assert matching(*filesystem_of("memory://globbed_*.nc")) == ["/globbed_1.nc"]
