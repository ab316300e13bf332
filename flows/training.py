"""`corrdiff train`: both networks, from a dataset to a checkpoint."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from corrdiff_core.cycle import parse_time
from corrdiff_core.errors import ConfigurationError
from flows.datasets import DomainFile, domain_of
from flows.models import Models

if TYPE_CHECKING:
    from corrdiff_core.dataset import Samples

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31)


def train(
    dataset: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Of `corrdiff dataset build`, the CWA dataset, or nature:SEED:START:END:COUNT.",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the training state and DIR/checkpoint.")],
    preset: Annotated[str, typer.Option(help="What to train: demo, mini, taiwan or FILE.toml.")] = "demo",
    domain: DomainFile = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="First time of training [the dataset's].")] = None,
    end: Annotated[
        str, typer.Option(metavar="TIME", help="Training ends before it, validation begins.")
    ] = "2021-01-01T00:00",
    validation_end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Validation ends before it [the dataset's end].")
    ] = None,
    initial: Annotated[
        str | None, typer.Option(metavar="REF", help="Checkpoint to go on from: its weights and statistics [random].")
    ] = None,
    models: Models = None,
    device: Annotated[str | None, typer.Option(help="Torch device [cuda, else cpu].")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read samples; 0: none but this one.")] = 1,
) -> None:
    """Train both networks; goes on where an earlier call stopped. Under torchrun all its processes share the work.

    For eight GPUs: torchrun --nproc-per-node 8 --no-python corrdiff train ...
    """
    from corrdiff_core import train as training
    from corrdiff_core.checkpoint import load_checkpoint
    from flows.settings import Settings
    from flows.slots import open_run

    first = None if initial is None else load_checkpoint(open_run(Settings.of(model=initial, models=models)).model)
    chosen = training.read_preset(preset)
    period = _time(start, _FIRST), _time(end, _LAST), _time(validation_end, _LAST)
    samples, held_out = split(_samples(dataset, domain), dataset, *period)
    checkpoint = training.train(
        chosen, samples, out, held_out, initial=first, device=device, workers=workers, report=typer.echo
    )
    if training.leads():
        typer.echo(f"{checkpoint.manifest.identity}: {out}/checkpoint")


def _samples(dataset: str, file: str | None) -> "Samples":
    """Those at `dataset`, on the domain of a TOML file; ConfigurationError for a dataset that is on another."""
    from corrdiff_core.dataset import open_samples

    domain = domain_of(file)
    samples = open_samples(dataset, domain)
    if file is not None and samples.domain != domain:
        raise ConfigurationError(
            f"{dataset} is on the domain {samples.domain.name} that it was built with, {file} describes another: leave "
            "--domain out, or build a dataset of it"
        )
    return samples


def split(
    samples: "Samples", dataset: str, start: datetime, end: datetime, validation_end: datetime
) -> "tuple[Samples, Samples | None]":
    """Those of start..end, and those of end..validation_end (None where there are none).

    ConfigurationError, which names `dataset`, where there is nothing to train on.
    """
    training = samples.select(start, end)
    if not len(training):
        raise ConfigurationError(
            f"{dataset}: its {len(samples)} samples are of {min(samples.times)} to {max(samples.times)}, none is from "
            f"{start} to {end}: choose another --start or --end"
        )
    held_out = samples.select(end, validation_end) if end < validation_end else None
    return training, held_out if held_out is not None and len(held_out) else None


def _time(text: str | None, default: datetime) -> datetime:
    if text is None:
        return default
    try:
        return parse_time(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
