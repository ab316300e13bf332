"""Hours of ERA5 around a box, kept: a folder a day, an object an hour, each with its checksum.

    <cache>/era5/<layout>-<digest of the root>/<box>/<YYYYMMDD>/<HH>

One object an hour, since two processes that write one day then never undo each other.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from corrdiff_core.archive.objects import Objects, open_objects
from corrdiff_core.cycle import Slot, compact
from corrdiff_core.grid import Box
from corrdiff_core.sources.era5_hour import Hour, LayoutName
from corrdiff_core.variables import INPUT_NAMES

_DIGITS = 64  # of the checksum, which is the first line


class DamagedError(Exception):
    """An entry that is not what was written; its message says how."""


@dataclass(frozen=True)
class HourCache:
    """The hours kept under a directory or fsspec URL, of the ERA5 at `root`. ArchiveError for what the storage refuses.

    A reader sees an entry whole or not at all, and whoever writes the same hour writes the same values.
    """

    url: str
    root: str

    def read(self, layout: LayoutName, slot: Slot, box: Box) -> Hour | None:
        """The hour, None where it is not kept. DamagedError where the entry is not what was written."""
        body = self._objects.get(self._key(layout, slot, box))
        return None if body is None else _decoded(body, _about(layout, slot, box))

    def write(self, layout: LayoutName, slot: Slot, box: Box, hour: Hour) -> None:
        self._objects.put(self._key(layout, slot, box), _encoded(hour, _about(layout, slot, box)))

    def remove(self, layout: LayoutName, slot: Slot, box: Box) -> None:
        self._objects.remove(self._key(layout, slot, box))

    def url_of(self, layout: LayoutName, slot: Slot, box: Box) -> str:
        return f"{self._objects.url}/{self._key(layout, slot, box)}"

    @property
    def _objects(self) -> Objects:
        return open_objects(self.url)

    def _key(self, layout: LayoutName, slot: Slot, box: Box) -> str:
        place = sha256(self._place.encode()).hexdigest()[:12]
        area = f"{box.south:g}N-{box.north:g}N-{box.west:g}E-{box.east:g}E"
        return f"era5/{layout}-{place}/{area}/{slot.valid_time:%Y%m%d/%H}"

    @property
    def _place(self) -> str:
        """The root, however it is spelled."""
        url = self.root.rstrip("/")
        return url if "://" in url else str(Path(url).absolute())


def _about(layout: LayoutName, slot: Slot, box: Box) -> dict[str, Any]:
    """What an entry is of; another's entry in its place is no better than a damaged one."""
    sides = [box.south, box.north, box.west, box.east]
    return {"format": 1, "layout": layout, "valid_time": compact(slot.valid_time), "box": sides}


def _encoded(hour: Hour, about: dict[str, Any]) -> bytes:
    header = about | {
        "latitude": hour.latitude.tolist(),
        "longitude": hour.longitude.tolist(),
        "preliminary": hour.preliminary,
        "provenance": hour.provenance,
    }
    values = np.stack([hour.values[name] for name in INPUT_NAMES]).astype("<f4")
    body = json.dumps(header).encode() + b"\n" + values.tobytes()
    return sha256(body).hexdigest().encode() + b"\n" + body


def _decoded(entry: bytes, about: dict[str, Any]) -> Hour:
    checksum, body = entry[:_DIGITS], entry[_DIGITS + 1 :]
    if sha256(body).hexdigest().encode() != checksum:
        raise DamagedError(f"its {len(entry)} bytes do not match its checksum")
    text, _, payload = body.partition(b"\n")
    header = json.loads(text)
    have = {key: header.get(key) for key in about}
    if have != about:
        raise DamagedError(f"it is of {have}, {about} is due")
    latitude, longitude = (np.array(header[name], np.float64) for name in ("latitude", "longitude"))
    values = np.frombuffer(payload, "<f4").reshape(len(INPUT_NAMES), latitude.size, longitude.size)
    fields = dict(zip(INPUT_NAMES, values.astype(np.float32), strict=True))
    return Hour(latitude, longitude, fields, header["provenance"], header["preliminary"])
