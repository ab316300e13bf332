"""Packages that are damaged, cut, or none: a named error, and never a checkpoint of something else."""

import shutil
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core.errors import CheckpointError
from corrdiff_core.mdlus import read_package
from tests.corrdiff_core.mdlus.mdlus_cases import same_network
from tests.corrdiff_core.mdlus.package_cases import GROUP, write_package, zipped


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A zip, and what was read from it."""
    folder = tmp_path_factory.mktemp("package")
    path = zipped(write_package(folder / "package"), folder / "package.zip")
    return path, read_package(path)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return tmp_path_factory.mktemp("other") / "package.zip"


def assert_refused_or_the_same(package, content, other):
    other.write_bytes(content)
    try:
        found = read_package(other)
    except CheckpointError as error:
        assert str(error).startswith(str(other))  # noqa: PT017 (nothing need be raised)
        return
    assert found.manifest == package[1].manifest
    assert same_network(found.regression, package[1].regression)
    assert same_network(found.diffusion, package[1].diffusion)


class TestZip:
    @settings(max_examples=40)
    @given(st.data())
    def test_cut_off_anywhere(self, package, other, data):
        content = package[0].read_bytes()
        assert_refused_or_the_same(package, content[: data.draw(st.integers(0, len(content) - 1))], other)

    @pytest.mark.service
    @settings(max_examples=60)
    @given(st.data())
    def test_another_byte_anywhere(self, package, other, data):
        content = bytearray(package[0].read_bytes())
        with zipfile.ZipFile(package[0]) as archive:
            starts = [entry.header_offset for entry in archive.infolist()] + [archive.start_dir]
        near = st.builds(lambda start, distance: start + distance, st.sampled_from(starts), st.integers(0, 150))
        place = data.draw(st.integers(0, len(content) - 1) | near)
        content[min(place, len(content) - 1)] ^= data.draw(st.integers(1, 255))
        assert_refused_or_the_same(package, bytes(content), other)

    @pytest.mark.parametrize(
        ("member", "message"),
        [
            ("checkpoints/diffusion.mdlus", r"checkpoints/diffusion\.mdlus is damaged \(Bad CRC-32"),
            (f"{GROUP}/XLAT/0.0", r"XLAT of its dataset is damaged \(Bad CRC-32"),
            (f"{GROUP}/era5_scale/0", r"era5_scale of its dataset is damaged \(Bad CRC-32"),
            (f"{GROUP}/.zmetadata", r"its dataset is no Zarr v2 group \(Bad CRC-32"),
        ],
    )
    def test_a_flipped_bit_in_a_member(self, not_imported, package, other, member, message):
        content = bytearray(package[0].read_bytes())
        with zipfile.ZipFile(package[0]) as archive:
            entry = archive.getinfo(f"corrdiff_inference_package/{member}")
        content[entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2] ^= 1
        other.write_bytes(content)
        not_imported(other, message)

    @pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
    def test_no_zip(self, not_imported, tmp_path, content):
        path = tmp_path / "package.zip"
        path.write_bytes(content)
        not_imported(path, r"package\.zip: no readable zip \(.*\); download the package anew")

    def test_nothing_there(self, not_imported, tmp_path):
        not_imported(tmp_path / "none.zip", r"none\.zip: no such file or folder; name NVIDIA's inference package")

    def test_another_zip(self, not_imported, tmp_path):
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
            archive.writestr("README.md", "no package")
        not_imported(tmp_path / "other.zip", r"checkpoints/regression\.mdlus is there 0 times, not once; name NVIDIA's")

    def test_two_packages_in_one(self, not_imported, package, tmp_path):
        with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
            for root in ("first/", "second/"):
                archive.writestr(f"{root}checkpoints/regression.mdlus", b"")
        not_imported(tmp_path / "two.zip", r"checkpoints/regression\.mdlus is there 2 times, not once")


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
class TestMissing:
    @pytest.fixture
    def refused(self, not_imported, tmp_path, packed):
        """Writes a package, changes its folder, and checks that it is refused in words that match."""

        def check(change, message):
            folder = write_package(tmp_path / "package")
            change(folder)
            not_imported(zipped(folder, tmp_path / "package.zip") if packed else folder, message)

        return check

    def test_the_regression(self, refused):
        refused(lambda folder: (folder / "checkpoints/regression.mdlus").unlink(), "is there 0 times, not once")

    def test_the_diffusion(self, refused, packed):
        message = "lacks .*; download the package anew" if packed else "No such file or directory; unpack the whole"
        refused(lambda folder: (folder / "checkpoints/diffusion.mdlus").unlink(), message)

    def test_the_dataset(self, refused):
        refused(lambda folder: shutil.rmtree(folder / "dataset"), "0 Zarr groups under dataset, 1 is due")

    def test_two_datasets(self, refused):
        message = "2 Zarr groups under dataset, 1 is due"
        refused(lambda folder: shutil.copytree(folder / GROUP, folder / "dataset/other.zarr"), message)

    def test_the_group(self, refused):
        def change(folder):
            (folder / GROUP / ".zgroup").unlink()
            (folder / GROUP / ".zmetadata").unlink()

        refused(change, "its dataset is no Zarr v2 group")

    def test_consolidated_metadata_are_not_needed(self, packed, tmp_path):
        folder = write_package(tmp_path / "package")
        expected = read_package(folder).manifest
        (folder / GROUP / ".zmetadata").unlink()
        package = zipped(folder, tmp_path / "package.zip") if packed else folder
        assert read_package(package).manifest == expected
