"""The public CWA dataset as samples, and its truth for inputs from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from corrdiff_core.cycle import compact
from corrdiff_core.dataset.cwa_store import CwaStore
from corrdiff_core.dataset.origins import Field
from corrdiff_core.dataset.samples import Float32, Sample, digest_of, refuse_holes, span
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import TAIWAN, Domain
from corrdiff_core.variables import INPUT, INPUT_NAMES, OUTPUT_NAMES, STANDARD_GRAVITY, Variable

_GEOPOTENTIALS = ("z500", "z850")
_STORED_AS = {"geopotential": 1.0, "height": STANDARD_GRAVITY}


@dataclass(frozen=True, eq=False)
class CwaDataset:
    """The valid times of the CWA dataset, in the order of the store; one chunk of either array is read for a sample.

    A time is valid where `cwb_valid` is set and `era5_valid` is of all twelve inputs; `rows` are where they stand. Both
    arrays are cut by the domain's crop, [1:-1] for Taiwan. Geopotential that is stored as height in gpm is told by its
    magnitude and multiplied by standard gravity; `description` says which it was.
    """

    store: CwaStore
    rows: NDArray[np.intp]
    geopotential: Mapping[str, str]

    @classmethod
    def open(cls, url: str, domain: Domain = TAIWAN) -> "CwaDataset":
        """The dataset at `url` on `domain`, whose crop says what is cut away.

        Raises DatasetError where it lacks a channel, has no valid time or one twice, or lies on another grid, and
        for a domain that has not all variables.
        """
        if (domain.inputs, domain.outputs) != (INPUT_NAMES, OUTPUT_NAMES):
            raise DatasetError(f"{url}: the domain {domain.name} lacks variables that the CWA dataset has: name all")
        store = CwaStore(url, domain)
        store.refuse_another_grid()
        total, rows = len(store.times), np.flatnonzero(store.valid)
        if not len(rows):
            raise DatasetError(f"{url}: of {total} times none is valid in cwb_valid and era5_valid")
        if len(np.unique(store.times[rows])) < len(rows):
            raise DatasetError(f"{url}: of its {len(rows)} valid times some are there twice: download the dataset anew")
        first = store.fields("era5", int(rows[0]))
        return cls(store, rows, {name: _stored_as(url, name, _of(first, name)) for name in _GEOPOTENTIALS})

    @property
    def domain(self) -> Domain:
        return self.store.domain

    @cached_property
    def times(self) -> Sequence[datetime]:
        return tuple(self.store.times[self.rows].tolist())

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Sample:
        time, row = self.times[index], int(self.rows[index])
        inputs = self.store.fields("era5", row)
        refuse_holes(f"{self.store.url}, era5 of {compact(time)}", inputs, INPUT_NAMES)
        for name, stored in self.geopotential.items():
            field = _of(inputs, name)
            field *= np.float32(_STORED_AS[stored])
            self._refuse_another_unit(name, field, time)
        return Sample(time, inputs, self.truth(row))

    def truth(self, row: int) -> Float32:
        """The four outputs at a row of the store, (output, y, x); DatasetError where it has holes."""
        truth = self.store.fields("cwb", row)
        refuse_holes(f"{self.store.url}, cwb of {compact(self.store.times[row].item())}", truth, OUTPUT_NAMES)
        return truth

    def select(self, start: datetime, end: datetime) -> "CwaDataset":
        times = self.store.times[self.rows]
        chosen = (times >= np.datetime64(start)) & (times < np.datetime64(end))
        return CwaDataset(self.store, self.rows[chosen], self.geopotential)

    @cached_property
    def digest(self) -> str:
        """Of the grid, the crop, the channels' statistics, and the time and the stored size of every sample's chunks.

        The chunks themselves, hundreds of GB, are not read: a copy is the same dataset, one compressed anew is another.
        """
        samples = [
            [compact(time), self.store.size("era5", row), self.store.size("cwb", row)]
            for time, row in zip(self.times, self.rows.tolist(), strict=True)
        ]
        statistics = {
            f"{array}_{part}": self.store.values(f"{array}_{part}")[channels].astype(np.float64).tolist()
            for array, channels in self.store.channels.items()
            for part in ("center", "scale")
        }
        return digest_of({"cwa": self.domain.to_dict(), "statistics": statistics, "samples": samples})

    @property
    def description(self) -> str:
        stored = ", ".join(f"{name} stored as {unit}" for name, unit in self.geopotential.items())
        crop = self.domain.crop
        cut = f"cut to [{crop}:-{crop}]" if crop else "not cut"
        return f"CWA dataset: {span(self.times)} of {len(self.store.times)} times, {cut}, {stored}"

    def _refuse_another_unit(self, name: str, field: Float32, time: datetime) -> None:
        variable, low, high = INPUT[name], float(field.min()), float(field.max())
        if not _possible(variable, low, high):
            raise DatasetError(
                f"{self.store.url}: {name} of {compact(time)} is {low:g}..{high:g} {variable.units} if stored as "
                f"{self.geopotential[name]} like the first time, possible are {variable.valid_min:g}.."
                f"{variable.valid_max:g}: leave this time out"
            )


def _stored_as(url: str, name: str, field: Float32) -> str:
    mean = float(field.mean(dtype=np.float64))
    for stored, factor in _STORED_AS.items():
        if _possible(INPUT[name], mean * factor, mean * factor):
            return stored
    raise DatasetError(
        f"{url}: {name} has a mean of {mean:g}, neither geopotential (m2 s-2) nor height (gpm): look at its first time"
    )


def _possible(variable: Variable, low: float, high: float) -> bool:
    return variable.valid_min <= low and high <= variable.valid_max


def _of(inputs: Float32, name: str) -> Float32:
    field: Float32 = inputs[INPUT_NAMES.index(name)]
    return field


@dataclass(frozen=True)
class CwaTruth:
    """The truth of the CWA dataset at every time at which that is valid, for inputs from elsewhere."""

    dataset: CwaDataset

    @property
    def kind(self) -> str:
        return "cwa"

    @property
    def url(self) -> str:
        return self.dataset.store.url

    @cached_property
    def _rows(self) -> dict[datetime, int]:
        store = self.dataset.store
        rows = np.flatnonzero(store.truth_valid)
        return dict(zip(store.times[rows].tolist(), rows.tolist(), strict=True))

    def hours(self, start: datetime, end: datetime) -> list[datetime]:
        return sorted(time for time in self._rows if start <= time < end)

    def read(self, times: Sequence[datetime]) -> dict[datetime, Field]:
        return {time: Field(self.dataset.truth(self._rows[time]), self.url) for time in times}
