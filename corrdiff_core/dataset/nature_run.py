"""The nature run as samples: synthetic weather by index, of which the perfect downscaling is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, compact
from corrdiff_core.dataset.samples import Sample, digest_of, span
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import Box, Domain, Float64
from corrdiff_core.regrid import regridder

RECIPE = 1  # raise when `nature` makes other weather or another truth from the same seed, time and number
_STEP = 0.25  # degrees, of the coarse inputs


def box_lines(box: Box) -> tuple[Float64, Float64]:
    """Latitude and longitude lines of a 0.25-degree grid over `box`, edges included."""
    return (
        np.arange(box.south, box.north + _STEP / 2, _STEP),
        np.arange(box.west, box.east + _STEP / 2, _STEP),
    )


@dataclass(frozen=True)
class NatureRun:
    """Synthetic weather by number: sample n is a random hour of [start, end), chosen by (seed, n), with its own noise.

    There are `count` samples, by default as many as the period has hours; `chosen` are their numbers where they are
    not 0..count-1. DatasetError where the period holds no hour.
    """

    domain: Domain
    seed: int
    start: datetime
    end: datetime
    count: int | None = None
    chosen: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self._hours < 1 or (self.count is not None and self.count < 1):
            raise DatasetError(
                f"nature run: {self.count} samples of {self.start} to {self.end}: name a period of one hour or more, "
                "and one sample or more"
            )

    @property
    def _hours(self) -> int:
        return (self.end - self.start) // timedelta(hours=1)

    @property
    def numbers(self) -> Sequence[int]:
        """The number of every sample, in the order of the index."""
        return range(self._hours if self.count is None else self.count) if self.chosen is None else self.chosen

    def _number(self, index: int) -> int:
        return index if self.chosen is None else self.chosen[index]

    def time(self, index: int) -> datetime:
        """The hour of the sample at `index`; unless some were chosen, of any index from 0 on."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, self._number(index)]))
        return self.start + int(rng.integers(self._hours)) * HOUR

    def pair(self, index: int) -> tuple[xr.Dataset, xr.Dataset]:
        """Coarse inputs (latitude, longitude) and the 2-km truth (y, x), physical units; of any index as `time`."""
        inputs = nature.weather(self.seed, self.time(index), *box_lines(self.domain.input_box))
        return inputs, nature.truth(inputs, self.seed, self.domain, sample=self._number(index))

    @cached_property
    def times(self) -> Sequence[datetime]:
        return tuple(self.time(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> Sample:
        self.numbers[index]  # refuses an index beyond the last
        inputs, truth = self.pair(index)
        onto_domain = regridder(inputs["latitude"].values, inputs["longitude"].values, self.domain)
        return Sample(
            time=self.time(index),
            inputs=onto_domain(np.stack([inputs[name].values for name in self.domain.inputs])),
            truth=np.stack([truth[name].values for name in self.domain.outputs]),
        )

    def select(self, start: datetime, end: datetime) -> "NatureRun":
        chosen = (number for number, time in zip(self.numbers, self.times, strict=True) if start <= time < end)
        return replace(self, chosen=tuple(chosen))

    @cached_property
    def digest(self) -> str:
        """Of what makes the samples: the recipe, the seed, the domain, and every hour and number."""
        samples = [[compact(time), number] for time, number in zip(self.times, self.numbers, strict=True)]
        return digest_of({"nature run": RECIPE, "seed": self.seed, "domain": self.domain.to_dict(), "samples": samples})

    @property
    def description(self) -> str:
        return f"nature run {self.seed}: synthetic weather, no forecast; {span(self.times)} on {self.domain.name}"
