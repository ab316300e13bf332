"""Sample a checkpoint on held-out weather and score it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import numpy as np
import xarray as xr

from corrdiff_core import __version__, nature
from corrdiff_core.checkpoint import Checkpoint
from corrdiff_core.dataset import NatureRun
from corrdiff_core.dataset.samples import Samples
from corrdiff_core.errors import CheckpointError, ConfigurationError
from corrdiff_core.evaluate.forecasts import forecast
from corrdiff_core.evaluate.one_time import Forecasts, score
from corrdiff_core.evaluate.scores import Evaluation, Scores
from corrdiff_core.grid import Domain
from corrdiff_core.manifest import Sampling
from corrdiff_core.model.sampler import Solver


def held_out(domain: Domain, count: int) -> NatureRun:
    """`count` hours of the nature run's 2021, which no training preset touches."""
    return NatureRun(domain, nature.SEED, datetime(2021, 1, 1), datetime(2022, 1, 1), count)


def evaluate(
    checkpoint: Checkpoint,
    samples: Samples,
    members: int,
    num_steps: int | None = None,
    solver: Solver | None = None,
    seed: int = 0,
    times: int | None = None,
    report: Callable[[str], None] = lambda line: None,
    look: Callable[[Forecasts], None] = lambda forecasts: None,
) -> Scores:
    """Score `members` members at each of `samples`, or at `times` of them that are spread evenly over the index.

    Steps and solver are the manifest's when None. `report` is told of each time; `look` is shown its fields, which are
    then forgotten. The same arguments give the same scores: noise is keyed by (seed, valid_time, member), and whatever
    models are given the same samples, members, seed and times can be compared.

    Raises ConfigurationError for no times, more times than samples, fewer than 2 members (which have no spread), or
    samples of another domain than the checkpoint's; what a sample or a network raises.
    """
    sampling = _sampling(checkpoint, members, num_steps, solver)
    _refuse_other_domain(checkpoint, samples)
    chosen = spread_evenly(len(samples), times)
    scored, at = [], []
    for done, index in enumerate(chosen, start=1):
        forecasts = forecast(checkpoint, samples, index, sampling, seed)
        look(forecasts)
        scored.append(score(forecasts, seed))
        at.append(forecasts.time)
        report(f"scored {done}/{len(chosen)} ({forecasts.time:%Y-%m-%dT%H})")
    evaluation = Evaluation(
        samples=samples.digest,
        data=samples.description,
        times=tuple(at),
        members=members,
        num_steps=sampling.num_steps,
        solver=sampling.solver,
        seed=seed,
        model=checkpoint.manifest.identity,
        digest=checkpoint.manifest.digest,
        version=__version__,
    )
    return Scores(evaluation, xr.concat(scored, xr.Variable("time", np.array(at, "datetime64[s]")), join="exact"))


def spread_evenly(count: int, times: int | None) -> list[int]:
    """`times` of the indices 0..count-1, from the first on at even distances; all where None.

    >>> spread_evenly(10, 4)
    [0, 2, 5, 7]
    """
    if times is None:
        times = count
    if not 1 <= times <= count:
        raise ConfigurationError(f"{times} times of {count} samples cannot be scored: choose 1..{count}")
    return [index * count // times for index in range(times)]


def _sampling(checkpoint: Checkpoint, members: int, num_steps: int | None, solver: Solver | None) -> Sampling:
    if members < 2:
        raise ConfigurationError(f"{members} members have no spread to score: at least 2 are needed")
    defaults = checkpoint.manifest.defaults
    try:
        return replace(
            defaults,
            members=members,
            num_steps=defaults.num_steps if num_steps is None else num_steps,
            solver=defaults.solver if solver is None else solver,
        )
    except CheckpointError as error:
        raise ConfigurationError(str(error)) from error


def _refuse_other_domain(checkpoint: Checkpoint, samples: Samples) -> None:
    manifest = checkpoint.manifest
    if samples.domain != manifest.domain:
        raise ConfigurationError(
            f"samples on {samples.domain.name} {samples.domain.shape}, {manifest.identity} is of {manifest.domain.name}"
            f" {manifest.domain.shape}: name samples of the model's domain"
        )
