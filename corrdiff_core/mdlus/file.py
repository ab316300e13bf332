"""The `.mdlus` file: args.json, metadata.json and model.pt in a tar (modulus 0.x, physicsnemo 1.x) or a zip (2.x).

args.json is `{"__name__": class, "__module__": ..., "__args__": options}`, where options may nest under `model_kwargs`
and hold the bare token Infinity; metadata.json names the package that wrote the file. Source: physicsnemo's
documentation of `Module.save` and files written by modulus 0.5.0 to 0.9.0 and physicsnemo 1.0.1 to 2.2.2.
"""

import hashlib
import io
import json
import lzma
import os
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corrdiff_core.errors import CheckpointError

MEMBERS = ("args.json", "metadata.json", "model.pt")
FORMATS = ("0.1.0", "0.2.0")
_ZIP, _TAR, _TAR_AT = b"PK\x03\x04", b"ustar", 257
_CURE = "copy it anew from its publisher"
# What the readers of the standard library, of torch and of Zarr raise on bytes that are not what they expect.
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, pickle.UnpicklingError, EOFError,
    ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RuntimeError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class MdlusFile:
    """What a `.mdlus` file says: a class, its options (flat, by the names of its constructor), and its state dict."""

    name: str
    class_name: str
    package: str  # "modulus" or "physicsnemo"
    version: tuple[int, int]
    options: dict[str, Any]
    state: dict[str, Tensor]
    sha256: str

    @property
    def written_by(self) -> str:
        return f"{self.package} {self.version[0]}.{self.version[1]}"


def read_mdlus(path: str | os.PathLike[str]) -> MdlusFile:
    """The file at `path`; CheckpointError where it is missing, damaged, or holds more than tensors and JSON."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error.strerror}; name a .mdlus file") from error
    return parse_mdlus(content, os.fspath(path))


def parse_mdlus(content: bytes, name: str) -> MdlusFile:
    """`read_mdlus` of bytes; `name` is what errors call the file."""
    members = _members(content, name)
    missing = [member for member in MEMBERS if member not in members]
    if missing:
        raise CheckpointError(f"{name}: lacks {', '.join(missing)}, has {', '.join(sorted(members))}; {_CURE}")
    described, metadata = (_json(members[member], f"{name}: {member}") for member in ("args.json", "metadata.json"))
    options = described.get("__args__")
    if not isinstance(options, dict) or not isinstance(described.get("__name__"), str):
        raise CheckpointError(f"{name}: args.json names no class with options; {_CURE}")
    package, version = _writer(metadata, name)
    return MdlusFile(
        name=name,
        class_name=described["__name__"],
        package=package,
        version=version,
        options=_flat(options, name),
        state=_tensors(members["model.pt"], name),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _members(content: bytes, name: str) -> dict[str, bytes]:
    """The archive's files by the last part of their names."""
    try:
        if content.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return {Path(member).name: archive.read(member) for member in archive.namelist()}
        if content[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
                files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
                return {Path(member).name: file.read() for member, file in files.items() if file is not None}
    except BROKEN as error:
        raise CheckpointError(f"{name}: damaged ({error}); {_CURE}") from error
    raise CheckpointError(f"{name}: neither a tar nor a zip, so no .mdlus file, or cut off at its start; {_CURE}")


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        values = json.loads(content)  # takes the bare Infinity, which JSON does not have
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON ({error}); {_CURE}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{name} holds a JSON {type(values).__name__} where an object is due; {_CURE}")
    return values


def _writer(metadata: Mapping[str, Any], name: str) -> tuple[str, tuple[int, int]]:
    """Package and version that wrote the file: they decide what its network computes."""
    if metadata.get("mdlus_file_version") not in FORMATS:
        raise CheckpointError(
            f"{name}: file version {metadata.get('mdlus_file_version')!r}, this package reads {', '.join(FORMATS)}:"
            " upgrade it"
        )
    for package in ("modulus", "physicsnemo"):
        version = re.match(r"(\d+)\.(\d+)", str(metadata.get(f"{package}_version", "")))
        if version is not None:
            return package, (int(version[1]), int(version[2]))
    raise CheckpointError(
        f"{name}: metadata.json has neither modulus_version nor physicsnemo_version, only {sorted(metadata)}; {_CURE}"
    )


def _flat(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`options` with those under `model_kwargs` beside the others."""
    flat = {key: value for key, value in options.items() if key != "model_kwargs"}
    nested = options.get("model_kwargs", {})
    if not isinstance(nested, dict):
        raise CheckpointError(f"{name}: model_kwargs is {nested!r} where an object is due; {_CURE}")
    twice = [key for key, value in nested.items() if key in flat and flat[key] != value]
    if twice:
        raise CheckpointError(f"{name}: {', '.join(twice)} stand twice in args.json, with different values; {_CURE}")
    return flat | (_flat(nested, name) if nested else {})


def _tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The state dict in model.pt, every checksum tested; nothing but tensors is ever unpickled."""
    if not content.startswith(_ZIP):
        raise CheckpointError(
            f"{name}: model.pt is no PyTorch zip archive; a bare pickle could run code and is not opened; {_CURE}"
        )
    try:
        state = torch.load(_verified(content, name), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name}: model.pt holds more than tensors and could run code, so it is not loaded"
            f" ({_reason(error)}); {_CURE}"
        ) from error
    except BROKEN as error:
        raise CheckpointError(f"{name}: model.pt is damaged ({_reason(error)}); {_CURE}") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{name}: model.pt holds no state dict of tensors; {_CURE}")
    return dict(state)


def _verified(content: bytes, name: str) -> io.BytesIO:
    """The archive `content` written anew from files whose checksums were tested.

    torch tests none, and where one bit of the archive's directory is wrong it takes a file for a folder and what memory
    holds for weights.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(copy, "w") as written:
        for file in dict.fromkeys(archive.namelist()):
            if file.partition("/")[2] == "constants.pkl":
                raise CheckpointError(f"{name}: model.pt is a TorchScript program, which is not loaded; {_CURE}")
            written.writestr(zipfile.ZipInfo(file), archive.read(file))
    copy.seek(0)
    return copy


def _reason(error: Exception) -> str:
    """What torch complains of, without its advice to switch the protection off."""
    text = str(error)
    found = re.search(r"WeightsUnpickler error: ([^\n]*)", text)
    return (found[1] if found else text.partition("\n")[0]).strip() or type(error).__name__
