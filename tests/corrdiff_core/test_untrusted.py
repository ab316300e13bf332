"""Files of others run no code and write nowhere else: each trap here is sprung once to show that it would."""

import io
import json
import pickle
import shutil
import stat
import tarfile
import zipfile
from datetime import datetime
from pathlib import Path

import numcodecs
import pytest
import torch
import zarr

from corrdiff_core.checkpoint import load_checkpoint, save_checkpoint
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import CheckpointError, SourceError
from corrdiff_core.mdlus import import_package, load_network
from corrdiff_core.nature_era5 import write_arco
from corrdiff_core.registry import Registry
from corrdiff_core.sources import open_source
from tests.corrdiff_core.mdlus.mdlus_cases import same_network, small_parts, write_members
from tests.corrdiff_core.mdlus.package_cases import GROUP, write_package, zipped
from tests.corrdiff_core.sources.era5_cases import AREA, BOX
from tests.small_domain import checkpoint

START = datetime(2021, 6, 7, 10)


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    """Where a trap would leave its mark; a pickle of it does."""
    path = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(path)))  # noqa: S301
    assert path.exists()
    path.unlink()
    return path


@pytest.fixture
def inside(tmp_path: Path, monkeypatch) -> Path:
    """The working directory, two folders deep, so that `../../x` would be seen in tmp_path."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


ESCAPING = ("../../escaped", "/tmp/corrdiff-escaped", "a/../../../escaped", "..\\..\\escaped", "C:/escaped")  # noqa: S108


@pytest.mark.parametrize("root", ["corrdiff_inference_package/", ""])
def test_a_package_whose_names_lead_outside_writes_nowhere_but_in_the_checkpoint(tmp_path, inside, root):
    package = zipped(write_package(tmp_path / "package"), tmp_path / "package.zip", root)
    with zipfile.ZipFile(package, "a") as archive:
        for name in ESCAPING:
            archive.writestr(name, b"out")
    before = files(tmp_path)
    import_package(package, inside / "model")
    assert {Path(new).parent.name for new in files(tmp_path) - before} == {"model"}
    assert not Path("/tmp/corrdiff-escaped").exists()  # noqa: S108
    assert load_checkpoint(str(inside / "model")).manifest.name == "taiwan"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_whose_names_lead_outside_writes_nothing(tmp_path, inside, kind):
    parts = small_parts()
    sound = load_network(write_members(tmp_path / "sound", parts, kind))
    path = write_members(tmp_path / "file", {**parts, **dict.fromkeys(ESCAPING, b"out")}, kind)
    before = files(tmp_path)
    assert same_network(load_network(path), sound)
    assert files(tmp_path) == before
    assert not Path("/tmp/corrdiff-escaped").exists()  # noqa: S108


@pytest.mark.parametrize("link", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_out_of_a_tar_are_not_followed(tmp_path, link):
    parts = small_parts()
    (tmp_path / "model.pt").write_bytes(parts["model.pt"])
    with tarfile.open(tmp_path / "file", "w") as archive:
        for name in ("args.json", "metadata.json"):
            member = tarfile.TarInfo(name)
            member.size = len(parts[name])
            archive.addfile(member, io.BytesIO(parts[name]))
        leading = tarfile.TarInfo("model.pt")
        leading.type, leading.linkname = link, str(tmp_path / "model.pt")
        archive.addfile(leading)
    with pytest.raises(CheckpointError, match=r"lacks model\.pt"):
        load_network(tmp_path / "file")


def test_a_link_in_a_zip_is_no_more_than_its_text(tmp_path):
    parts = small_parts()
    (tmp_path / "model.pt").write_bytes(parts["model.pt"])
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for name in ("args.json", "metadata.json"):
            archive.writestr(name, parts[name])
        leading = zipfile.ZipInfo("model.pt")
        leading.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(leading, str(tmp_path / "model.pt"))
    with pytest.raises(CheckpointError, match=r"model\.pt is no PyTorch zip archive"):
        load_network(tmp_path / "file")


@pytest.mark.parametrize("filters", [[{"id": "pickle"}], [{"id": "vlen-utf8"}, {"id": "pickle"}], None])
def test_a_package_whose_dataset_is_a_pickle_runs_nothing(tmp_path, sprung, filters):
    folder = write_package(tmp_path / "package")
    array = folder / GROUP / "era5_center"
    metadata = json.loads((array / ".zarray").read_text())
    compressor = {"id": "pickle"} if filters is None else None
    changed = metadata | {"dtype": "|O", "fill_value": None, "filters": filters, "compressor": compressor}
    for document in (array / ".zarray", folder / GROUP / ".zmetadata"):
        whole = json.loads(document.read_text())
        whole.get("metadata", {})["era5_center/.zarray"] = changed
        document.write_text(json.dumps(whole if "metadata" in whole else changed))
    (array / "0").write_bytes(pickle.dumps([Trap(sprung), "|O", (20,)]))
    for package in (folder, zipped(folder, tmp_path / "package.zip")):
        with pytest.raises(CheckpointError):
            import_package(package, tmp_path / "model")
    assert not sprung.exists()


def test_a_store_that_says_its_chunks_are_pickles_runs_nothing(tmp_path, sprung, monkeypatch):
    """Our own reading of Zarr v2; not even where numcodecs' protection is off."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    write_arco(str(tmp_path / "era5"), START, START + HOUR, area=AREA)
    document = json.loads((tmp_path / "era5" / ".zmetadata").read_text())
    document["metadata"]["time/.zarray"]["compressor"] = {"id": "pickle"}
    (tmp_path / "era5" / ".zmetadata").write_text(json.dumps(document))
    trap = pickle.dumps([Trap(sprung), "|O", (1,)])
    for chunk in (tmp_path / "era5" / "time").glob("[0-9]*"):
        chunk.write_bytes(trap)
    with pytest.raises(SourceError, match=r"compressed by 'pickle', not by one of blosc, bz2, gzip"):
        open_source("era5", str(tmp_path / "era5")).fetch(Slot(START), BOX)
    assert not sprung.exists()
    numcodecs.get_codec({"id": "pickle"}).decode(trap)
    assert sprung.exists()


def test_data_of_ones_own_that_are_pickles_run_nothing(tmp_path, sprung):
    group = zarr.open_group(tmp_path / "own.zarr", mode="w", zarr_format=2)
    group.create_array("t2m", shape=(1, 2, 2), dtype="f4", chunks=(1, 2, 2))
    document = json.loads((tmp_path / "own.zarr/t2m/.zarray").read_text())
    document |= {"dtype": "|O", "fill_value": None, "filters": [{"id": "pickle"}], "compressor": None}
    (tmp_path / "own.zarr/t2m/.zarray").write_text(json.dumps(document))
    (tmp_path / "own.zarr/t2m/0.0.0").write_bytes(pickle.dumps([Trap(sprung), "|O", (1, 2, 2)]))
    with pytest.raises((SourceError, ValueError)):
        open_source(str(tmp_path / "own.zarr")).fetch(Slot(START), BOX)
    assert not sprung.exists()


def test_what_lies_beside_a_checkpoint_s_files_is_not_opened(tmp_path, sprung):
    made = checkpoint()
    save_checkpoint(str(tmp_path / "model"), made.manifest, made.regression, made.diffusion, made.invariants)
    for name in ("pytorch_model.bin", "model.pt", "__init__.py", "sitecustomize.py", "conftest.py"):
        (tmp_path / "model" / name).write_bytes(pickle.dumps(Trap(sprung)))
    (tmp_path / "model" / "run.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    load_checkpoint(str(tmp_path / "model"))
    assert not sprung.exists()


def test_a_manifest_cannot_name_files_elsewhere(tmp_path, sprung):
    made = checkpoint()
    save_checkpoint(str(tmp_path / "model"), made.manifest, made.regression, made.diffusion, made.invariants)
    values = json.loads((tmp_path / "model/manifest.json").read_text())
    torch.save({"weights": Trap(sprung)}, tmp_path / "trap.pt")
    values["files"]["../trap.pt"] = values["files"]["regression.safetensors"]
    (tmp_path / "model/manifest.json").write_text(json.dumps(values))
    load_checkpoint(str(tmp_path / "model"))
    values["files"] = {"../trap.pt": values["files"]["../trap.pt"]}
    (tmp_path / "model/manifest.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="no digest of"):
        load_checkpoint(str(tmp_path / "model"))
    assert not sprung.exists()


@pytest.mark.parametrize("version", ["../../elsewhere", "0001/../../elsewhere", "/elsewhere", 1.5, "1"])
def test_a_registry_s_record_cannot_lead_outside(tmp_path, version):
    made = checkpoint()
    registry = Registry(str(tmp_path / "models"))
    write = lambda path: save_checkpoint(path, made.manifest, made.regression, made.diffusion, made.invariants)  # noqa: E731
    registry.add("small", write)
    shutil.copytree(tmp_path / "models/small/0001", tmp_path / "elsewhere")
    record = json.loads((tmp_path / "models/small/production.json").read_text())
    record["version"] = version
    (tmp_path / "models/small/production.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError):
        registry.resolve("small")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["small"]
