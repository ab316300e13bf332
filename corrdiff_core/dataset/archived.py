"""Inputs that the hourly run has archived: what the model is given in operation is what it is trained on."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from corrdiff_core.archive import Archive, Series
from corrdiff_core.archive.layout import KINDS, Kind
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.archive.store import find_series
from corrdiff_core.cycle import Slot
from corrdiff_core.dataset.origins import Field, input_field
from corrdiff_core.errors import DatasetError
from corrdiff_core.variables import INPUT_NAMES

_LONGEST = timedelta(days=31)  # of what a store holds: a month of hindcast; forecasts are shorter


def is_archive(url: str) -> bool:
    """Whether `url` is an archive, or a source in one (`<archive>/forecast/gfs`)."""
    return bool(_inside(url) or set(KINDS) & set(open_objects(url).names("")))


class ArchivedInputs:
    """The inputs of one source in an archive, whichever model they were fetched for: they are the same.

    `url` is the archive's, or `<archive>/forecast/<source>` where there are several sources. Of several forecasts of
    one hour the one with the shortest lead time counts. DatasetError where the archive has no source or several.
    """

    def __init__(self, url: str, names: Sequence[str] = INPUT_NAMES) -> None:
        """`names` are the inputs that are wanted."""
        inside = _inside(url)
        root, kind, source = inside or (url, None, None)
        self._series = find_series(open_objects(root), kind, source)
        found = sorted({f"{series.kind}/{series.source}" for series in self._series})
        if len(found) != 1:
            listed = ", ".join(found) or "none"
            raise DatasetError(
                f"{url} has inputs of {len(found)} sources ({listed}): name one, such as {root}/forecast/gfs"
            )
        self.kind = found[0]
        self.url = f"{root.rstrip('/')}/{self.kind}"
        self._archive = Archive(root)
        self._names = tuple(names)
        self._slots: dict[datetime, tuple[Series, Slot]] = {}

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        slots = [
            (slot.lead_time, series.model, slot, series)
            for series in self._series
            for begin in self._archive.stores(series)
            if start - _LONGEST <= begin < end
            for slot in self._archive.inputs(series, begin)
            if start <= slot.valid_time < end
        ]
        for _, _, slot, series in sorted(slots, key=lambda one: one[:2], reverse=True):
            self._slots[slot.valid_time] = series, slot
        return sorted(time for time in self._slots if start <= time < end)

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        fields = {}
        for time in times:
            series, slot = self._slots[time]
            inputs, _ = self._archive.read_inputs(series, slot)
            fields[time] = input_field(inputs, f"{series.key} {slot}", self._names)
        return fields


def _inside(url: str) -> tuple[str, Kind, str] | None:
    """Archive, kind and source of `<archive>/forecast/<source>`."""
    for kind in KINDS:
        match = re.fullmatch(rf"(.+)/{kind}/([^/]+)/?", url)
        if match:
            return match[1], kind, match[2]
    return None
