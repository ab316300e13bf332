"""`corrdiff verify`: what the archive was worth, and whether the model in use still is."""

from typing import Annotated

import typer

from flows.models import Models
from flows.terminal import run_flow


def verify(
    archive: Annotated[str | None, typer.Option(help="Directory or fsspec URL of the archive [./archive].")] = None,
    source: Annotated[str | None, typer.Option(help="Whose slots: gfs, era5, ... [gfs].")] = None,
    model: Annotated[
        str | None, typer.Option(help="Of this model only, such as demo-1a2b3c4d, or a REF [all].")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="URL", help="2-km truth: CWA's dataset, Zarr, NetCDF, nature; or era5 [none]."),
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="First valid time [the archive's first].")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Ends before it [all there is].")] = None,
    window: Annotated[str, typer.Option(help="Of valid time that is judged at once: 6h, 1d, 7d.")] = "1d",
    degraded: Annotated[int, typer.Option(help="Windows with a broken bound that make a model degraded ...")] = 3,
    of: Annotated[int, typer.Option(help="... of this many newest ones.")] = 5,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="The picture [beside the scores in the archive].")
    ] = None,
    models: Models = None,
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="For cut-outs of era5 [./cache].")] = None,
    fail_on_degraded: Annotated[
        bool, typer.Option("--fail-on-degraded", help="Exit code 1 where the model in use is degraded.")
    ] = False,
) -> None:
    """Score the archive's slots beside truth, each once, as truth arrives; without truth watch inputs and spread.

    Exit code 0, also where truth is late or the model degraded; 75: nothing is archived yet; 1: a failure, named.
    """
    options = {name: value for name, value in locals().items() if name != "fail_on_degraded"}
    result = run_flow("verify", options)
    for row in result.windows:
        told = [f"{name} {value}" for name, value in row.items() if value]
        typer.echo("  ".join(told))
    raise typer.Exit(1 if fail_on_degraded and result.degraded else result.exit_code)
