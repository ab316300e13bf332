"""The forecasts of one sample: ensemble, regression mean, interpolated input; on the nature run the perfect one too."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core import nature
from corrdiff_core.checkpoint import Checkpoint
from corrdiff_core.dataset import NatureRun, box_lines
from corrdiff_core.dataset.samples import Sample, Samples
from corrdiff_core.evaluate.one_time import Forecasts
from corrdiff_core.generate import generate_prepared, regression_mean_prepared
from corrdiff_core.grid import Domain
from corrdiff_core.manifest import Sampling
from corrdiff_core.nature import Conditional
from corrdiff_core.quality import check_magnitudes
from corrdiff_core.variables import OUTPUT_NAMES

Float32 = NDArray[np.float32]


def forecast(checkpoint: Checkpoint, samples: Samples, index: int, sampling: Sampling, seed: int) -> Forecasts:
    """All forecasts of the sample at `index`, with `sampling`'s members, steps and solver.

    Raises DatasetError for a sample that cannot be read, QualityError for inputs of another unit.
    """
    sample = samples.read(index)
    names = checkpoint.manifest.output_statistics.names
    prepared = prepare_sample(checkpoint, sample)
    ensemble = generate_prepared(
        checkpoint, prepared, sampling.members, num_steps=sampling.num_steps, solver=sampling.solver, seed=seed
    )
    mean = regression_mean_prepared(checkpoint, prepared)
    return Forecasts(
        time=sample.time,
        domain=samples.domain,
        variables=names,
        truth=sample.truth[[samples.domain.outputs.index(name) for name in names]],
        singles={
            "bilinear": np.stack([_interpolated(sample, samples.domain, name) for name in names]),
            "regression": np.stack([mean[name].values for name in names]),
        },
        members=np.stack([ensemble[name].values for name in names], axis=1),
        perfect=_perfect(samples, sample, names),
    )


def prepare_sample(checkpoint: Checkpoint, sample: Sample) -> xr.DataArray:
    """A sample's inputs as the networks take them: normalized, (channel, y, x), with valid_time and the grid."""
    domain, statistics = checkpoint.manifest.domain, checkpoint.manifest.input_statistics
    fields = xr.Dataset(
        {name: (("y", "x"), field) for name, field in zip(domain.inputs, sample.inputs, strict=True)},
        coords={
            "y": domain.y,
            "x": domain.x,
            "latitude": (("y", "x"), domain.latitude),
            "longitude": (("y", "x"), domain.longitude),
            "valid_time": np.datetime64(sample.time, "ns"),
        },
    )
    check_magnitudes(fields, checkpoint.manifest.inputs)
    return statistics.normalize(fields).to_dataarray("channel", name="inputs")


def _interpolated(sample: Sample, domain: Domain, name: str) -> Float32:
    """The input on the domain; 0 where no input is called so: nothing is known of reflectivity."""
    if name not in domain.inputs:
        return np.zeros(sample.truth.shape[1:], np.float32)
    field: Float32 = sample.inputs[domain.inputs.index(name)]
    return field


def _perfect(samples: Samples, sample: Sample, names: tuple[str, ...]) -> Conditional | None:
    """The distribution that the truth was drawn from, in the order of `names`; known on the nature run only."""
    if not isinstance(samples, NatureRun):
        return None
    weather = nature.weather(samples.seed, sample.time, *box_lines(samples.domain.input_box))
    given = nature.conditional(weather, samples.domain)
    order = [OUTPUT_NAMES.index(name) for name in names]
    return Conditional(given.mean[order], given.spread[order])
