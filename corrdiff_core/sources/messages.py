"""Forecasts in GRIB2 files that have an index beside them: fetching the twelve messages of a slot and nothing else."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from corrdiff_core.cycle import Slot
from corrdiff_core.grid import Box
from corrdiff_core.regrid import cover
from corrdiff_core.sources import grib
from corrdiff_core.sources.inputs import Delivered, assemble, init_time_of, told_of
from corrdiff_core.sources.ranges import Found, Root, Span, merge
from corrdiff_core.sources.schedule import Scheduled
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT_NAMES


@dataclass(frozen=True)
class Message:
    """One input's message: its line of the index, its bytes, which of its fields it is, and what that must hold."""

    line: str
    span: Span
    parameter: grib.Parameter
    factor: float  # from the parameter's units to ours
    field: int = 1
    fields: int = 1  # that the message holds


class Indexed(Scheduled):
    """A source whose slot is one GRIB2 file and one index below `root`. `member` is demanded of every message."""

    member: int | None = None

    def __init__(self, root: Root) -> None:
        self.url = root.url
        self._root = root

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @abstractmethod
    def names(self, slot: Slot) -> Iterator[tuple[str, str]]:
        """GRIB2 file and index below the root, in the order they are tried."""

    @abstractmethod
    def locate(self, index: str, slot: Slot, size: int, url: str) -> dict[str, Message]:
        """The twelve messages in a file of `size` bytes, in its order, by the text of the index at `url`."""

    def available(self, slot: Slot) -> bool:
        """Whether GRIB2 file and index are both there with some bytes; reads neither. Errors as `fetch`."""
        return not isinstance(self._find(slot), NotYet)

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet:
        """The slot's twelve inputs around `box`, or NotYet while file or index is absent or empty.

        Reads the index and the messages' byte ranges, adjacent ones as one, and nothing else. Raises SourceError
        for whatever is wrong with what is there, GridError where it does not cover the box, ConfigurationError for a
        root that does not exist, ConnectionError where a retry may help.
        """
        found = self._find(slot)
        if isinstance(found, NotYet):
            return found
        file, index = found
        try:
            text = self.read(index, [index.whole])[0].decode("ascii", errors="replace")
            messages = self.locate(text, slot, file.size, index.url)
            spans = merge(message.span for message in messages.values())
            bodies = dict(zip(spans, self.read(file, spans), strict=True))
        except FileNotFoundError:
            return NotYet(slot, file.url, "it went away while it was read")
        if self._root.find(file.name) != file:
            return NotYet(slot, file.url, "it was replaced while it was read")
        delivered = self._decode(_cut_out(messages, bodies, file), messages, slot, box)
        inputs = assemble(delivered, slot, box)
        channels = {
            name: {
                "line": message.line,
                "range": list(message.span),
                "packing": delivered[name].field.attrs["packing"],
            }
            for name, message in messages.items()
        }
        return Fetched(slot, inputs, self._told(file, index) | told_of(inputs) | _told_bytes(spans, channels))

    def read(self, found: Found, spans: list[Span]) -> list[bytes]:
        """The bytes of each span, as `Root.read`."""
        return self._root.read(found, spans)

    def _find(self, slot: Slot) -> tuple[Found, Found] | NotYet:
        """GRIB2 file and index, in the first of the era's layouts that has both."""
        lacking = []
        for name, beside in self.names(slot):
            file, index = self._root.find(name), self._root.find(beside)
            if file is not None and index is not None:
                return file, index
            lacking.append(self._root.url_of(name if file is None else beside))
        return NotYet(slot, lacking[0], f"absent or empty: {', '.join(lacking)}")

    def _decode(
        self, cut: dict[str, tuple[bytes, str]], messages: dict[str, Message], slot: Slot, box: Box
    ) -> dict[str, Delivered]:
        """Each input's part of the globe, so that no more than one globe is in memory."""
        init_time, delivered = init_time_of(slot), {}
        for name in INPUT_NAMES:
            (message, where), wanted = cut[name], messages[name]
            field = grib.decode(message, wanted.parameter, init_time, slot.lead_time, where, self.member)
            delivered[name] = Delivered(cover(field, box), wanted.factor, where)
        return delivered

    def _told(self, file: Found, index: Found) -> dict[str, Any]:
        return {"source": self.name, "file": file.to_dict(), "inventory": index.to_dict()}


def _cut_out(messages: dict[str, Message], bodies: dict[Span, bytes], file: Found) -> dict[str, tuple[bytes, str]]:
    """Each input's checked message of one field, and the words that name it; all are checked before any is decoded."""
    cut = {}
    for name, message in messages.items():
        span = message.span
        where = f"{file.url}: {name} at bytes {span.start}..{span.stop - 1} ({message.line})"
        body = _cut(span, bodies)
        grib.check_frame(body, where)
        cut[name] = grib.single_field(body, message.field, message.fields, where), where
    return cut


def _cut(span: Span, bodies: dict[Span, bytes]) -> bytes:
    """A message's bytes out of the merged span that holds it."""
    (whole,) = [body for body in bodies if body.start <= span.start and span.stop <= body.stop]
    return bodies[whole][span.start - whole.start : span.stop - whole.start]


def _told_bytes(spans: list[Span], channels: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Byte ranges are [start, stop)."""
    return {
        "ranges": [list(span) for span in spans],
        "bytes": sum(span.size for span in spans),
        "channels": channels,
    }
