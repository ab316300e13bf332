"""`corrdiff dataset` and `corrdiff nature write-training | write-cwa`: what models are trained on and judged by."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from corrdiff_core.cycle import parse_time
from corrdiff_core.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from corrdiff_core.dataset import StoredSamples
    from corrdiff_core.grid import Domain

app = typer.Typer(help="Training data: coarse inputs beside 2-km truth.", no_args_is_help=True)

Url = Annotated[str, typer.Argument(metavar="DATASET", help="Directory or fsspec URL of the dataset.")]
Start = Annotated[str, typer.Option(metavar="TIME", help="First hour.")]
End = Annotated[str, typer.Option(metavar="TIME", help="The hours end before it.")]
SkipHoles = Annotated[
    bool, typer.Option("--skip-holes", help="Leave out hours with missing or impossible values, and say so.")
]
Cache = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where hours of a source such as era5 are kept [nowhere].")
]
Dask = Annotated[str | None, typer.Option(help="Address of a Dask scheduler [threads].")]
DomainFile = Annotated[str | None, typer.Option("--domain", metavar="FILE.toml", help="Another region [Taiwan].")]
Seed = Annotated[int | None, typer.Option(help="Of the weather [that of the demo checkpoint's training].")]


@app.command()
def build(
    dataset: Url,
    source: Annotated[
        str, typer.Option(metavar="SOURCE", help="Inputs: era5, an archive, or Zarr, NetCDF or GRIB of yours.")
    ],
    truth: Annotated[
        str, typer.Option(metavar="URL", help="A Zarr or NetCDF with the domain's outputs, or the CWA dataset.")
    ],
    start: Start,
    end: End,
    domain: DomainFile = None,
    skip_holes: SkipHoles = False,
    cache: Cache = None,
    dask: Dask = None,
) -> None:
    """Build a dataset, or go on where an earlier call stopped."""
    from corrdiff_core.dataset import build as build_dataset
    from corrdiff_core.prepare import workers

    with workers(dask):
        period, inputs = (_time(start), _time(end)), _source(source, cache)
        _say(build_dataset(dataset, inputs, truth, *period, domain_of(domain), skip_holes, typer.echo))


@app.command()
def extend(
    dataset: Url,
    end: End,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="First hour [the month of the newest sample].")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Inputs [from where those of the dataset came].")
    ] = None,
    truth: Annotated[str | None, typer.Option(metavar="URL", help="[From where that of the dataset came.]")] = None,
    skip_holes: SkipHoles = False,
    cache: Cache = None,
    dask: Dask = None,
) -> None:
    """Add the hours that have come since."""
    from corrdiff_core.dataset import StoredSamples
    from corrdiff_core.dataset import extend as extend_dataset
    from corrdiff_core.prepare import workers

    last, first = _time(end), None if start is None else _time(start)
    inputs = _source(source or StoredSamples.open(dataset).about.inputs.url, cache)
    with workers(dask):
        _say(extend_dataset(dataset, last, inputs, truth, first, skip_holes, typer.echo))


def add_to_nature(nature: typer.Typer) -> None:
    nature.command("write-training")(write_training)
    nature.command("write-cwa")(write_cwa)


def write_training(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A directory or fsspec URL.")],
    start: Start,
    end: End,
    seed: Seed = None,
    domain: DomainFile = None,
) -> None:
    """Write every hour of synthetic weather and its 2-km truth as a dataset for training."""
    from corrdiff_core.dataset import build as build_dataset
    from corrdiff_core.dataset.origins import NatureInputs, NatureTruth
    from corrdiff_core.nature import SEED
    from corrdiff_core.prepare import workers

    chosen, region = SEED if seed is None else seed, domain_of(domain)
    sides = NatureInputs(chosen, region.input_box, names=region.inputs), NatureTruth(chosen, region)
    with workers():
        _say(build_dataset(directory, *sides, _time(start), _time(end), region, report=typer.echo))


def write_cwa(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A new local directory, such as cwa_dataset.zarr.")],
    start: Start,
    end: End,
    seed: Seed = None,
) -> None:
    """Write every hour of synthetic weather and its 2-km truth in the layout of the public CWA dataset."""
    from corrdiff_core.dataset.cwa_fixture import write_cwa as write
    from corrdiff_core.dataset.origins import whole_hours_between
    from corrdiff_core.nature import SEED

    times = whole_hours_between(_time(start), _time(end))
    write(directory, times, seed=SEED if seed is None else seed)
    typer.echo(f"{directory}: {len(times)} hours")


def domain_of(file: str | None) -> "Domain":
    """The domain of a TOML file, Taiwan where none is named."""
    from corrdiff_core.domain_file import read_domain
    from corrdiff_core.grid import TAIWAN

    return TAIWAN if file is None else read_domain(file)


def _source(source: str, cache: str | None) -> Any:
    """A source by its name, anything else as a URL."""
    from corrdiff_core.sources import is_place, open_source
    from flows.settings import Settings

    return source if is_place(source) else open_source(source, Settings.of(source=source).source_url, cache)


def _say(samples: "StoredSamples") -> None:
    """What the dataset now is, and its statistics."""
    from corrdiff_core.dataset import sample_statistics
    from corrdiff_core.variables import INPUT, OUTPUT

    typer.echo(f"{samples.store.url}: {samples.description}\ndigest {samples.digest}")
    if not len(samples):
        return
    sides = zip(("inputs", "truth"), sample_statistics(samples), (INPUT, OUTPUT), strict=True)
    for title, statistics, variables in sides:
        for name, center, scale in zip(statistics.names, statistics.center, statistics.scale, strict=True):
            typer.echo(f"{title:<6} {name:<5} mean {center:12.5f}  std {scale:11.5f} {variables[name].units}")


def _time(text: str) -> "datetime":
    try:
        return parse_time(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
