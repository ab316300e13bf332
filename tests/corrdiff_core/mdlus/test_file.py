"""`.mdlus` files that are damaged, dangerous or of another kind: each is a named error, none a wrong network."""

import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corrdiff_core.errors import CheckpointError
from corrdiff_core.mdlus import load_network
from corrdiff_core.mdlus.file import parse_mdlus
from corrdiff_core.mdlus.network import build_network
from tests.corrdiff_core.mdlus.mdlus_cases import (
    small_parts,
    state_of,
    with_state,
    write_members,
)

CONV = "model.enc.16x16_conv.weight"
METADATA = {"physicsnemo_version": "2.2.2", "mdlus_file_version": "0.1.0"}
PARTS = small_parts()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network as the bytes of a tar and of a zip, and the network itself."""
    folder = tmp_path_factory.mktemp("files")
    paths = {kind: write_members(folder / f"file.{kind}", PARTS, kind) for kind in ("zip", "tar")}
    return {kind: path.read_bytes() for kind, path in paths.items()}, load_network(paths["zip"])


def assert_refused_or_unchanged(content, network):
    """Options may change unnoticed, as a tar has no checksum of args.json; weights may not."""
    try:
        found = build_network(parse_mdlus(content, "file.mdlus"))
    except CheckpointError:
        return
    ours, theirs = found.state_dict(), network.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class TestDamage:
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    @settings(max_examples=200)
    @given(st.data())
    def test_cut_off_anywhere(self, files, kind, data):
        content = files[0][kind]
        assert_refused_or_unchanged(content[: data.draw(st.integers(0, len(content) - 1))], files[1])

    @pytest.mark.service
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    @settings(max_examples=250)
    @given(st.data())
    def test_another_byte_anywhere(self, files, kind, data):
        content = bytearray(files[0][kind])
        marks = [found.start() for found in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|ustar|__args__", content)]
        near = st.builds(lambda mark, distance: mark + distance, st.sampled_from(marks), st.integers(0, 60))
        place = data.draw(st.integers(0, len(content) - 1) | near)
        content[min(place, len(content) - 1)] ^= data.draw(st.integers(1, 255))
        assert_refused_or_unchanged(bytes(content), files[1])

    @pytest.mark.service
    def test_every_byte_of_an_entry_in_the_weights_directory(self, files):
        """One of them says that a file is a folder: torch.load then returns what memory holds for its weights."""
        content = files[0]["tar"]
        first = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/60"))
        for place in range(first + 4, first + 46):
            for bit in (0x01, 0x10):
                changed = bytearray(content)
                changed[place] ^= bit
                assert_refused_or_unchanged(bytes(changed), files[1])

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_every_compression_fails_in_a_way_of_its_own(self, files, method):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, part in PARTS.items():
                archive.writestr(name, part)
        content = buffer.getvalue()
        assert_refused_or_unchanged(content, files[1])
        for place in (*range(30, 60), *range(60, len(content), 3000)):
            changed = bytearray(content)
            changed[place] ^= 0xFF
            assert_refused_or_unchanged(bytes(changed), files[1])

    @pytest.mark.parametrize("content", [b"", b"PK", b"weights to follow\n", b"\0" * 2000])
    def test_something_else(self, tmp_path, content):
        (tmp_path / "file.mdlus").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"file\.mdlus: neither a tar nor a zip, so no \.mdlus file"):
            load_network(tmp_path / "file.mdlus")

    def test_no_file(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"none\.mdlus: No such file or directory; name a \.mdlus file"):
            load_network(tmp_path / "none.mdlus")
        with pytest.raises(CheckpointError, match="Is a directory"):
            load_network(str(tmp_path))

    @pytest.mark.parametrize("kind", ["zip", "tar"])
    @pytest.mark.parametrize("member", sorted(PARTS))
    def test_a_missing_member(self, refused, kind, member):
        rest = {name: content for name, content in PARTS.items() if name != member}
        refused(rest, f"lacks {member}, has {', '.join(sorted(rest))}", kind)


class TestDescription:
    @pytest.mark.parametrize("content", [b"", b"{", b"\xff{}", b"[" * 100_000])
    def test_not_json(self, refused, content):
        refused(PARTS | {"args.json": content}, r"args\.json is not JSON")
        refused(PARTS | {"metadata.json": content}, r"metadata\.json is not JSON")

    @pytest.mark.parametrize("values", [[], "UNet", 1, None])
    def test_not_an_object(self, refused, values):
        refused(
            PARTS | {"args.json": json.dumps(values).encode()}, r"args\.json holds a JSON \w+ where an object is due"
        )

    @pytest.mark.parametrize("described", [{}, {"__name__": "UNet"}, {"__args__": {}}, {"__name__": 3, "__args__": {}}])
    def test_no_class(self, refused, described):
        refused(PARTS | {"args.json": json.dumps(described).encode()}, r"args\.json names no class with options")

    def test_an_unknown_class(self, refused):
        described = json.loads(PARTS["args.json"]) | {"__name__": "EDMPrecondSDA"}
        refused(
            PARTS | {"args.json": json.dumps(described).encode()},
            "class 'EDMPrecondSDA' is unknown; this package reads UNet, CorrDiffRegressionUNet, EDMPrecondSR, ",
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mdlus_file_version": None}, r"file version None, this package reads 0\.1\.0, 0\.2\.0: upgrade it"),
            ({"mdlus_file_version": "0.3.0"}, r"file version '0\.3\.0', this package reads 0\.1\.0, 0\.2\.0"),
            ({"physicsnemo_version": "new"}, "neither modulus_version nor physicsnemo_version"),
        ],
    )
    def test_an_unknown_version(self, refused, changes, message):
        refused(PARTS | {"metadata.json": json.dumps(METADATA | changes).encode()}, message)

    def test_no_version(self, refused):
        bare = {"mdlus_file_version": "0.1.0"}
        refused(PARTS | {"metadata.json": json.dumps(bare).encode()}, r"only \['mdlus_file_version'\]")


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestCode:
    def test_a_bare_pickle_is_not_opened(self, refused, tmp_path):
        sprung = tmp_path / "sprung"
        content = pickle.dumps({CONV: Trap(sprung)})
        refused(PARTS | {"model.pt": content}, r"model\.pt is no PyTorch zip archive; a bare pickle could run code")
        assert not sprung.exists()
        pickle.loads(content)  # noqa: S301 (shows that the trap works)
        assert sprung.exists()

    def test_a_bare_pickle_of_torch_is_not_opened(self, refused, tmp_path):
        buffer = io.BytesIO()
        torch.save({CONV: Trap(tmp_path / "sprung")}, buffer, _use_new_zipfile_serialization=False)
        refused(PARTS | {"model.pt": buffer.getvalue()}, "a bare pickle could run code and is not opened")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_code_in_an_archive_of_torch_does_not_run(self, refused, tmp_path, kind):
        sprung = tmp_path / "sprung"
        parts = with_state(PARTS, state_of(PARTS) | {"trap": Trap(sprung)})
        refused(parts, r"model\.pt holds more than tensors and could run code, so it is not loaded \(", kind)
        assert not sprung.exists()
        torch.load(io.BytesIO(parts["model.pt"]), weights_only=False)
        assert sprung.exists()

    def test_no_advice_to_switch_the_protection_off(self, load, tmp_path):
        with pytest.raises(CheckpointError) as error:
            load(with_state(PARTS, {"trap": Trap(tmp_path / "sprung")}))
        assert "weights_only" not in str(error.value)

    def test_a_torchscript_program(self, refused):
        buffer = io.BytesIO(PARTS["model.pt"])
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("archive/constants.pkl", pickle.dumps(()))
        refused(PARTS | {"model.pt": buffer.getvalue()}, r"model\.pt is a TorchScript program, which is not loaded")


@pytest.mark.parametrize("state", [[torch.ones(1)], {"a": 1}, {1: torch.ones(1)}, torch.ones(1), {"a": {}}])
def test_no_state_dict(refused, state):
    refused(with_state(PARTS, state), r"model\.pt holds no state dict of tensors")
