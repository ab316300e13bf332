"""`corrdiff nature write-era5`: synthetic weather in the layouts of ERA5's publishers, for CORRDIFF_ERA5_URL."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from corrdiff_core.cycle import parse_time
from corrdiff_core.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime


class Layout(StrEnum):
    """Whose layout."""

    ARCO = "arco"
    NCAR = "ncar"


def add_to_nature(nature: typer.Typer) -> None:
    nature.command("write-era5")(write_era5)


def write_era5(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Root of the data: a directory or fsspec URL.")],
    start: Annotated[str, typer.Option(metavar="TIME", help="First hour.")],
    end: Annotated[str, typer.Option(metavar="TIME", help="The hours end before it.")],
    layout: Annotated[Layout, typer.Option(help="ARCO-ERA5's Zarr, or NCAR's netCDF of whole days.")] = Layout.ARCO,
    extended: Annotated[
        int | None, typer.Option(min=0, metavar="HOURS", help="arco: axis beyond the data, without chunks [48].")
    ] = None,
    era5t_from: Annotated[
        str | None, typer.Option("--era5t-from", metavar="TIME", help="arco: preliminary from here on [none].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weather [that of the demo checkpoint's training].")] = None,
) -> None:
    """Write synthetic weather as ERA5 is published, or let a store that is there grow by further hours."""
    from corrdiff_core.nature import SEED
    from corrdiff_core.nature_era5 import write_arco, write_ncar

    first, last, chosen = _time(start), _time(end), SEED if seed is None else seed
    if layout is Layout.ARCO:
        preliminary = None if era5t_from is None else _time(era5t_from)
        ends = write_arco(directory, first, last, chosen, 48 if extended is None else extended, preliminary)
        typer.echo(f"{directory}: {ends}")
        return
    if extended is not None or era5t_from is not None:
        raise ConfigurationError("--extended and --era5t-from are of --layout arco: NCAR holds whole, final files")
    for url in write_ncar(directory, first, last, chosen):
        typer.echo(url)


def _time(text: str) -> "datetime":
    try:
        return parse_time(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
