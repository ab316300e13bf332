"""The two sides that a dataset is built of: where coarse inputs come from, and where 2-km truth comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

import numpy as np
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.dataset.nature_run import box_lines
from corrdiff_core.dataset.samples import Float32, refuse_holes
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Box, Domain, Float64
from corrdiff_core.sources.source import Fetched, NotYet
from corrdiff_core.variables import INPUT_NAMES, Variable

NO_ECHO = -60.0  # dBZ; below it there is no radar's noise but a code for a missing value


@dataclass(frozen=True, eq=False)
class Field:
    """One time of one side, (channel, row, column) float32 in the order and units of its variables.

    `lines` are the latitudes and longitudes of inputs, ascending; a truth has none, it is on the domain. `origin` says
    where it came from.
    """

    values: Float32
    origin: str
    lines: tuple[Float64, Float64] | None = None


@runtime_checkable
class Side(Protocol):
    """Inputs or truth by time. It can be pickled, and read by several threads."""

    @property
    def kind(self) -> str:
        """What it is, which one dataset never mixes."""
        ...

    @property
    def url(self) -> str: ...

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        """The hours with start <= hour < end that may be there, ascending."""
        ...

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        """Those of `times`, some of `hours`, that are there. Whatever is there and wrong is a CorrdiffError."""
        ...


def whole_hours_between(start: datetime, end: datetime) -> list[datetime]:
    if end <= start or start.minute or start.second or start.microsecond:
        raise DatasetError(f"{start} to {end} is no period: begin at a whole hour, end later (the end is left out)")
    return hours_from(start, -((start - end) // HOUR))


def stacked(fields: xr.Dataset, names: Sequence[str], where: str) -> Float32:
    """(channel, ...) of the variables `names`; DatasetError where one is missing."""
    missing = [name for name in names if name not in fields.data_vars]
    if missing:
        raise DatasetError(
            f"{where}: {', '.join(missing)} missing among {', '.join(map(str, fields.data_vars))}: rename its variables"
        )
    return np.stack([np.asarray(fields[name].values, np.float32) for name in names])


def check(where: str, values: Float32, variables: Sequence[Variable]) -> None:
    """DatasetError unless every value is finite and physically possible; a radar may report less than 0 dBZ."""
    refuse_holes(where, values, [variable.name for variable in variables])
    for variable, field in zip(variables, values, strict=True):
        least = NO_ECHO if variable.name == "mrr" else variable.valid_min
        low, high = float(field.min()), float(field.max())
        if low < least or high > variable.valid_max:
            raise DatasetError(
                f"{where}: {variable.name} {low:g}..{high:g} is beyond the possible {least:g}..{variable.valid_max:g} "
                f"{variable.units}: check its unit, and what stands for missing values"
            )


class Fetches(Protocol):
    """The part of `sources.source.Source` that a hindcast needs."""

    name: str

    def fetch(self, slot: Slot, box: Box) -> Fetched | NotYet: ...


@dataclass(frozen=True)
class FetchedInputs:
    """Inputs that a source delivers for valid times; what is not there yet is left out."""

    source: Fetches
    box: Box
    names: tuple[str, ...] = INPUT_NAMES

    @property
    def kind(self) -> str:
        return self.source.name

    @property
    def url(self) -> str:
        return self.source.name

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        """Those of the source, where it says which it has."""
        every = whole_hours_between(start, end)
        own = getattr(self.source, "hours", None)
        return every if own is None else list(own(start, end))

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        answers = {time: self.source.fetch(Slot(time), self.box) for time in times}
        return {
            time: input_field(answer.inputs, _origin(answer, self.source.name), self.names)
            for time, answer in answers.items()
            if not isinstance(answer, NotYet)
        }


def _origin(answer: Fetched, name: str) -> str:
    """Source and root, and whether final data will replace these."""
    root = f" at {answer.provenance['url']}" if "url" in answer.provenance else ""
    return f"{name}{root}{' (preliminary)' if answer.preliminary else ''}"


def input_field(inputs: xr.Dataset, origin: str, names: Sequence[str] = INPUT_NAMES) -> Field:
    """Those of inputs (latitude, longitude) of one time that `names` says, in that order."""
    lines = np.asarray(inputs["latitude"], np.float64), np.asarray(inputs["longitude"], np.float64)
    return Field(stacked(inputs, names, origin), origin, lines)


@dataclass(frozen=True)
class NatureInputs:
    """The weather of a nature run at every hour."""

    seed: int
    box: Box
    url: str = "nature"
    names: tuple[str, ...] = INPUT_NAMES

    @property
    def kind(self) -> str:
        return f"nature-{self.seed}"

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        return whole_hours_between(start, end)

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        lines = box_lines(self.box)
        fields = {time: nature.weather(self.seed, time, *lines) for time in times}
        return {time: input_field(field, self.kind, self.names) for time, field in fields.items()}


@dataclass(frozen=True)
class NatureTruth:
    """One draw of a nature run's truth at every hour."""

    seed: int
    domain: Domain
    url: str = "nature"

    @property
    def kind(self) -> str:
        return f"nature-{self.seed}"

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        return whole_hours_between(start, end)

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        lines = box_lines(self.domain.input_box)
        return {
            time: Field(
                stacked(
                    nature.truth(nature.weather(self.seed, time, *lines), self.seed, self.domain),
                    self.domain.outputs,
                    self.kind,
                ),
                self.kind,
            )
            for time in times
        }
