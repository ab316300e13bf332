"""What names a store, and what fixes its shape."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from corrdiff_core.cycle import HOUR, Slot, compact, hours_from, whole_hours
from corrdiff_core.errors import ArchiveError
from corrdiff_core.grid import Domain, Float64
from corrdiff_core.variables import INPUTS, OUTPUTS, Variable

LAYOUT_FORMAT = 1  # raise when the template of a store changes in a way that old readers or writers cannot follow
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a source, a model: what every storage takes for a folder


Kind = Literal["forecast", "hindcast"]
KINDS: tuple[Kind, ...] = ("forecast", "hindcast")


@dataclass(frozen=True)
class Series:
    """The stores of one source and one model: forecasts, one store per init_time, or a hindcast, one per month.

    `source` includes the member where it has one (`gefs-p19`); `model` is a checkpoint's identity (`demo-1a2b3c4d`).
    A store is found by its start: the init_time, or the first hour of the month.
    """

    kind: Kind
    source: str
    model: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArchiveError(f"series kind {self.kind!r} is neither 'forecast' nor 'hindcast'")
        for name in (self.source, self.model):
            if not NAME.fullmatch(name):
                raise ArchiveError(f"{name!r} cannot name a folder: use letters, digits, '.', '_' and '-' only")

    @property
    def slot_dimension(self) -> str:
        return "lead_time" if self.kind == "forecast" else "time"

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.source}/{self.model}"

    def start(self, slot: Slot) -> datetime:
        """The start of the store that holds `slot`; ArchiveError for a slot of the other kind."""
        if (slot.init_time is not None) != (self.kind == "forecast"):
            raise ArchiveError(f"{self.key} holds {self.kind} slots; {slot} is of the other kind")
        return self.store_start(slot.valid_time if slot.init_time is None else slot.init_time)

    def store_start(self, time: datetime) -> datetime:
        """The start of the store for an init_time, or for any time in a month of hindcast."""
        return time if self.kind == "forecast" else time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    def store_key(self, start: datetime) -> str:
        name = compact(start) if self.kind == "forecast" else f"{start:%Y%m}"
        return f"{self.key}/{name}.zarr"

    def parse_store(self, name: str) -> datetime | None:
        """The start of the store called `name`, None where that is no store of this series."""
        digits = r"\d{8}T\d{2}\.zarr" if self.kind == "forecast" else r"\d{6}\.zarr"
        if not re.fullmatch(digits, name):
            return None
        try:
            return datetime.strptime(name, "%Y%m%dT%H.zarr" if self.kind == "forecast" else "%Y%m.zarr")
        except ValueError:  # there is no such day
            return None

    def slots(self, start: datetime, lead_times: Sequence[timedelta]) -> tuple[Slot, ...]:
        """Every slot that a store has room for, in the order of its slot dimension."""
        if self.kind == "forecast":
            return tuple(Slot.forecast(start, lead_time) for lead_time in lead_times)
        next_month = (start + timedelta(days=31)).replace(day=1)
        return tuple(Slot(valid_time) for valid_time in hours_from(start, (next_month - start) // HOUR))


@dataclass(frozen=True)
class Layout:
    """Everything that fixes the shape of a store; the first to create it decides, another layout is refused.

    `lead_times` are the source's steps (a forecast's; empty for a hindcast); `input_latitude` and `input_longitude` the
    native grid of its cut-out inputs in degrees, ascending. `lossless` stores outputs unrounded.
    """

    domain: Domain
    members: int
    lead_times: Sequence[timedelta]
    input_latitude: Sequence[float] | Float64
    input_longitude: Sequence[float] | Float64
    outputs: tuple[Variable, ...] = OUTPUTS
    inputs: tuple[Variable, ...] = INPUTS
    lossless: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "lead_times", tuple(self.lead_times))
        object.__setattr__(self, "input_latitude", tuple(float(degrees) for degrees in self.input_latitude))
        object.__setattr__(self, "input_longitude", tuple(float(degrees) for degrees in self.input_longitude))
        if self.members < 1:
            raise ArchiveError(f"{self.members} members: a store needs at least one")

    def bits(self, variable: Variable) -> int | None:
        """Mantissa bits that are kept of an output, None for all."""
        return None if self.lossless else variable.significant_bits

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, equal if and only if the stores are interchangeable."""
        return {
            "format": LAYOUT_FORMAT,
            "domain": self.domain.to_dict(),
            "members": self.members,
            "lead_hours": [whole_hours(lead_time) for lead_time in self.lead_times],
            "input_latitude": [*self.input_latitude],
            "input_longitude": [*self.input_longitude],
            "outputs": {v.name: {"units": v.units, "significant_bits": self.bits(v)} for v in self.outputs},
            "inputs": {v.name: {"units": v.units} for v in self.inputs},
        }


def differences(
    stored: dict[str, Any], asked: dict[str, Any], words: str = "{} is {} in the store but {} is asked for"
) -> list[str]:
    """Both sides of every disagreement between two `Layout.to_dict`, in words: what, on the left, on the right."""
    left, right = dict(_flatten(stored)), dict(_flatten(asked))
    return [
        words.format(name, brief(left.get(name)), brief(right.get(name)))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{prefix}{name}", list(value)
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def brief(value: Any) -> str:
    """A value of a layout for a one-line message.

    >>> brief([0, 1, 2, 3, 4, 5]), brief(None), brief([0, 3])
    ('0..5 (6 values)', 'absent', '[0, 3]')
    """
    if isinstance(value, list) and len(value) > 4:
        return f"{value[0]}..{value[-1]} ({len(value)} values)"
    return "absent" if value is None else str(value)
