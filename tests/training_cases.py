"""Samples without weather, which cost nothing to read, and a training of a few seconds on them."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np

from corrdiff_core.dataset import Sample
from corrdiff_core.grid import Domain
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from tests.small_domain import PRESET, SMALL

START = datetime(2019, 6, 1)
QUICK = replace(PRESET, name="quick", bfloat16="never", validation_times=3)


@dataclass(frozen=True)
class FixedSamples:
    """Noise that is smooth enough to be learned from: the truth is a mixture of the inputs and a third of new noise.

    `huge` is an index whose truth is finite and beyond what float32 can square.
    """

    domain: Domain = SMALL
    count: int = 24
    start: datetime = START
    seed: int = 0
    huge: int | None = None

    @cached_property
    def times(self):
        return tuple(self.start + index * timedelta(hours=1) for index in range(self.count))

    def __len__(self):
        return self.count

    def read(self, index):
        time = self.times[index]
        rng = np.random.default_rng([self.seed, int((time - datetime(2000, 1, 1)).total_seconds())])
        inputs = rng.standard_normal((12, *self.domain.shape))
        truth = (2 * inputs[:4] + inputs[4:8] + rng.standard_normal((4, *self.domain.shape))) / 3
        if index == self.huge:
            truth[0] = 1e30
        return Sample(time, physical(inputs, CWA_INPUT_STATISTICS), physical(truth, CWA_OUTPUT_STATISTICS))

    def select(self, start, end):
        chosen = [time for time in self.times if start <= time < end]
        return replace(self, start=min(chosen, default=start), count=len(chosen))

    @property
    def digest(self):
        return hashlib.sha256(repr((self.domain, self.count, self.start, self.seed, self.huge)).encode()).hexdigest()

    @property
    def description(self):
        return f"{self.count} fixed samples"


def physical(fields, statistics):
    center, scale = (np.array(column)[:, None, None] for column in (statistics.center, statistics.scale))
    return (fields * scale + center).astype(np.float32)


SAMPLES = FixedSamples()
HELD_OUT = FixedSamples(count=6, start=datetime(2020, 6, 1))


def read_curve(folder, stage, name):
    """(samples seen, value) of a curve, as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "curves" / stage)).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]
