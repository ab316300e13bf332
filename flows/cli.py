"""The command line, `corrdiff`. Every command imports what it needs when it runs, so that --help is quick."""

import sys
from typing import Annotated

import typer

from corrdiff_core.cycle import parse_leads, parse_time
from corrdiff_core.errors import CorrdiffError
from flows import datasets, era5, evaluation, ops, pruning, training, verification
from flows import models as registry
from flows.models import Models
from flows.terminal import run_flow

app = typer.Typer(
    name="corrdiff",
    help="2-km ensembles over Taiwan from global weather. Times are UTC. CORRDIFF_<OPTION> sets an option.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # markup takes [defaults] and :START: out of the help
)
nature = typer.Typer(help="Synthetic weather, whose perfect downscaling is known.", no_args_is_help=True)
app.add_typer(nature, name="nature")
app.add_typer(registry.app, name="models")
app.add_typer(datasets.app, name="dataset")
app.add_typer(pruning.app, name="archive")
app.add_typer(ops.app, name="ops")
datasets.add_to_nature(nature)
era5.add_to_nature(nature)
app.command()(evaluation.evaluate)
app.command()(training.train)
app.command()(verification.verify)

Archive = Annotated[str | None, typer.Option(help="Directory or fsspec URL of the archive [./archive].")]
Model = Annotated[
    str | None,
    typer.Option(metavar="REF", help="Checkpoint: name, name@version, path or URL [the demo checkpoint]."),
]


@app.command()
def hourly(
    source: Annotated[str | None, typer.Option(help="gfs, gefs-p01, ecmwf-ifs, aiwp-four-gfs ... [gfs].")] = None,
    at: Annotated[str, typer.Option(metavar="TIME", help="First valid time; `now` is floored to the hour.")] = "now",
    init: Annotated[str | None, typer.Option(metavar="TIME", help="Force this cycle.")] = None,
    leads: Annotated[str | None, typer.Option(help="With --init: 72, 0-12 or 0,3,6 [0..hours-1].")] = None,
    hours: Annotated[int | None, typer.Option(help="Valid hours in the window [13].")] = None,
    members: Annotated[int | None, typer.Option(help="Ensemble size [the model's].")] = None,
    model: Model = None,
    models: Models = None,
    archive: Archive = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampled noise [0].")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampler steps [the model's].")] = None,
    solver: Annotated[str | None, typer.Option(help="heun or euler [the model's].")] = None,
    wait: Annotated[float | None, typer.Option(metavar="MIN", help="Minutes to wait for a late cycle [0].")] = None,
    fallback: Annotated[
        bool | None, typer.Option(help="Whether an older cycle may stand in for a late one [yes].")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Torch device [cuda, else cpu].")] = None,
    batch: Annotated[int | None, typer.Option(help="Members sampled at once [as many as fit].")] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler [threads].")] = None,
) -> None:
    """Make the hours ahead that are missing in the archive.

    Exit code 0: all are there; 75: some are not there yet, try again later; 1: a failure, named.
    """
    options = locals()
    from flows.settings import Settings
    from flows.slots import open_run

    open_run(Settings.of(**{name: value for name, value in options.items() if name in Settings.model_fields}))
    raise typer.Exit(run_flow("hourly", options).exit_code)


@app.command()
def backfill(
    source: Annotated[str, typer.Option(help="era5, gefs-p01, ... or the URL of your own data.")],
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="First valid time, or cycle [the archive's first].")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Ends before it [after the newest that is there].")
    ] = None,
    every: Annotated[str, typer.Option(help="Distance of the slots, or of the cycles: 1h, 6h, 1d.")] = "1h",
    leads: Annotated[str | None, typer.Option(help="Of forecasts: 72, 0-12 or 0,3,6 [until the next cycle].")] = None,
    members: Annotated[int | None, typer.Option(help="Ensemble size [the model's].")] = None,
    model: Model = None,
    models: Models = None,
    archive: Archive = None,
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="For cut-outs of large files [./cache].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampled noise [0].")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampler steps [the model's].")] = None,
    solver: Annotated[str | None, typer.Option(help="heun or euler [the model's].")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device [cuda, else cpu].")] = None,
    batch: Annotated[int | None, typer.Option(help="Members sampled at once [as many as fit].")] = None,
    ahead: Annotated[int | None, typer.Option(help="Slots that are fetched while one is sampled [4].")] = None,
    dask: Annotated[str | None, typer.Option(help="Dask scheduler whose workers fetch [threads].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    overwrite: Annotated[
        str | None, typer.Option(metavar="REASON", help="Make published slots again; what they were made of is kept.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Of a slot that fails.")] = 3,
) -> None:
    """Make the slots of a period that are missing in the archive. Stopped and called again, it goes on.

    Exit code 0: all are there; 75: some are not there yet, try again later; 1: a failure, named.
    """
    options = locals()
    from flows.settings import Settings
    from flows.slots import open_run

    open_run(Settings.of(**{name: value for name, value in options.items() if name in Settings.model_fields}))
    raise typer.Exit(run_flow("backfill", options).exit_code)


@app.command()
def retrain(
    dataset: Annotated[str | None, typer.Option(metavar="URL", help="Samples [CORRDIFF_DATASET].")] = None,
    name: Annotated[str, typer.Option(help="Of the model.")] = "taiwan",
    preset: Annotated[str, typer.Option(help="What to train: demo, mini, taiwan or FILE.toml.")] = "taiwan",
    models: Models = None,
    runs: Annotated[str | None, typer.Option(metavar="DIR", help="Where trainings are kept [./runs].")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="First time of training [the dataset's].")] = None,
    test_start: Annotated[
        str | None, typer.Option(metavar="TIME", help="First time of the test [--test-days].")
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="The test ends before it [the data's end].")] = None,
    test_days: Annotated[int, typer.Option(help="Length of the test set, without --test-start.")] = 60,
    validation_days: Annotated[
        int, typer.Option(min=0, help="Before the test set; tell how the training goes. 0: none.")
    ] = 14,
    times: Annotated[int | None, typer.Option(help="Of the test set, at most, that are scored.")] = 120,
    members: Annotated[int, typer.Option(help="Ensemble size of the test.")] = 8,
    least_new: Annotated[int, typer.Option(help="New samples without which nothing is trained.")] = 720,
    processes: Annotated[int, typer.Option(min=1, help="Of the training, one for each GPU.")] = 1,
    device: Annotated[str | None, typer.Option(help="Torch device [cuda, else cpu].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train even where little truth is new.")] = False,
) -> None:
    """Train a candidate, judge it beside production on the same held-out truth, promote it only if it is better.

    Training is on what lies before the test set. Stopped and called again, it goes on.
    """
    run_flow("retrain", locals())


@nature.command("write")
def nature_write(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Root of the files: a directory or fsspec URL.")],
    init: Annotated[str, typer.Option(metavar="TIME", help="The cycle: 00, 06, 12 or 18 UTC.")],
    leads: Annotated[str, typer.Option(help="72, 0-12 or 0,3,6.")] = "0-12",
    seed: Annotated[int | None, typer.Option(help="Of the weather [that of the demo checkpoint's training].")] = None,
    domain: datasets.DomainFile = None,
) -> None:
    """Write synthetic weather as GRIB2 with inventories, in NOAA's layout, for CORRDIFF_GFS_URL."""
    from corrdiff_core.cycle import HOUR
    from corrdiff_core.nature import SEED, write_gfs
    from flows.settings import parsed

    chosen, box = SEED if seed is None else seed, datasets.domain_of(domain).input_box
    for lead_time in parsed(parse_leads, leads):
        for url in write_gfs(directory, parsed(parse_time, init), [lead_time // HOUR], chosen, box):
            typer.echo(url)


@app.command()
def show(
    url: Annotated[str, typer.Argument(help="A store (...zarr), or an archive for its newest run.")],
    lead: Annotated[int | None, typer.Option(help="Hours; the first that is published by default.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Valid time, of a hindcast or a forecast.")] = None,
    source: Annotated[str, typer.Option(help="Whose newest run, with an archive.")] = "gfs",
    out: Annotated[str | None, typer.Option(metavar="FILE.png", help="Where to [named after the slot].")] = None,
) -> None:
    """Draw one slot: input, ensemble mean, one member and spread of four variables."""
    from flows.settings import parsed
    from flows.show import draw_store

    typer.echo(draw_store(url, lead, None if at is None else parsed(parse_time, at), source, out))


def main() -> None:
    """Run the command line; a named failure is one line on stderr and exit code 1."""
    try:
        app()
    except (CorrdiffError, OSError) as error:
        kind = "" if isinstance(error, CorrdiffError) else f"{type(error).__name__}: "
        typer.echo(f"corrdiff: {kind}{' '.join(str(error).split())}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
