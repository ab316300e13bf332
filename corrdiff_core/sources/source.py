"""What a source of weather is: it says which slots could exist, and hands out one slot on its native grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import xarray as xr

from corrdiff_core.cycle import Slot
from corrdiff_core.grid import Box

Kind = Literal["forecast", "hindcast"]


@dataclass(frozen=True)
class NotYet:
    """The answer of a source whose slot is not there yet. Not an error: the flow waits, falls back, or leaves it."""

    slot: Slot
    url: str
    reason: str

    def __str__(self) -> str:
        return f"{self.slot} is not there yet: {self.reason} ({self.url})"


@dataclass(frozen=True)
class Fetched:
    """One slot as its source delivered it, after every byte and decode check.

    `inputs` holds the twelve variables of `variables.INPUTS` in that order, float32, in their units, CF attributes,
    dims (latitude, longitude), both ascending, on the source's native grid cut to the smallest set of grid lines that
    covers the box; scalar coordinates `valid_time`, and `init_time` and `lead_time` for a forecast.
    `provenance` says which bytes they came from: plain JSON values; `bytes`, how many travelled, is always among them.
    `preliminary` inputs will be replaced by final ones at their source (ERA5T), and the slot is to be made again then.
    """

    slot: Slot
    inputs: xr.Dataset
    provenance: dict[str, Any]
    preliminary: bool = False


class Source(Protocol):
    """What every source promises, whatever its slots are."""

    @property
    def name(self) -> str:
        """The source's folder in the archive, its member included where it has one (`gfs`, `gefs-p19`)."""
        ...

    @property
    def kind(self) -> Kind: ...

    def available(self, slot: Slot) -> bool:
        """Whether the slot's objects are there and not empty; a probe without data."""
        ...

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet:
        """The slot, checked, or NotYet. SourceError names anything wrong with what is there."""
        ...


class ForecastSource(Source, Protocol):
    """A source of forecasts: slots are a cycle and a lead time."""

    cycle_step: timedelta
    publication_delay: timedelta  # after which a cycle counts as late; probing, never this, decides what is used

    def cycles(self, at: datetime) -> Iterator[datetime]:
        """Candidate cycles at or before `at`, newest first, as far back as the longest lead time reaches."""
        ...

    def plan(self, init_time: datetime, valid_times: Sequence[datetime]) -> list[Slot]:
        """The slots of one cycle at those of `valid_times` that are steps of this source."""
        ...


class HindcastSource(Source, Protocol):
    """A source of analyses: a slot is a valid time."""

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        """The valid times with start <= time < end that are steps of this source, ascending, there already or to come.

        Beyond what is there now they go on at the usual step: `fetch` answers NotYet for them and names the end.
        """
        ...

    def final(self, slot: Slot) -> bool:
        """Whether what the source has of the slot will not be replaced; False where it has nothing of it yet."""
        ...
