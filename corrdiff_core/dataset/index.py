"""The index of a month: which samples there are, what they are, and their moments."""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np

from corrdiff_core.cycle import compact, parse_time
from corrdiff_core.dataset.samples import Float32
from corrdiff_core.dataset.statistics import Moments, Pair
from corrdiff_core.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Entry:
    """One sample: SHA-256 of its stored arrays, where either side came from, and what its fields amount to.

    `mean` and `std` are those of the inputs on the domain and then of the truth, in the order of the variables.
    """

    sha256: str
    source: str
    truth: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, inputs: Float32, truth: Float32, source: str, truth_from: str, moments: Pair) -> "Entry":
        """`inputs` and `truth` as they are stored, `moments` those of either side on the domain."""
        mean = np.concatenate([side.mean for side in moments])
        std = np.concatenate([np.sqrt(side.squares / side.count) for side in moments])
        return cls(content_digest(inputs, truth), source, truth_from, tuple(mean.tolist()), tuple(std.tolist()))

    def moments(self, points: int, inputs: int) -> Pair:
        """Those of the first `inputs` channels and of the others, of fields of `points` points."""
        mean, squares = np.array(self.mean), points * np.square(self.std)
        return Moments(points, mean[:inputs], squares[:inputs]), Moments(points, mean[inputs:], squares[inputs:])


Index = dict[datetime, Entry]


def content_digest(inputs: Float32, truth: Float32) -> str:
    """SHA-256 of the values of both, as little-endian float32, row by row."""
    digest = sha256()
    for values in (inputs, truth):
        digest.update(np.ascontiguousarray(values, "<f4").data)
    return digest.hexdigest()


def index_to_json(index: Index) -> bytes:
    """A line for each sample, in the order of time."""
    lines = [f"{json.dumps(compact(time))}: {json.dumps(vars(index[time]))}" for time in sorted(index)]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def index_from_json(data: bytes, where: str) -> Index:
    """DatasetError, calling the index `where`, for what `index_to_json` has not written."""
    try:
        values: dict[str, dict[str, Any]] = json.loads(data)
        return {parse_time(time): _entry(**entry) for time, entry in values.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where} is no index of samples ({error}): delete it and build the month anew") from error


def _entry(mean: list[float], std: list[float], **others: str) -> Entry:
    return Entry(mean=tuple(mean), std=tuple(std), **others)
