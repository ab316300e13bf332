"""`corrdiff archive prune`: retention."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

import typer

Kind = Literal["forecast", "hindcast"]

app = typer.Typer(help="What the archive holds, and for how long.", no_args_is_help=True)


@app.callback()
def _archive() -> None:
    """What the archive holds, and for how long."""


@app.command()
def prune(
    keep: Annotated[str, typer.Option(metavar="TIME", help="Age up to which stores stay: 12h, 30d or 8w.")],
    archive: Annotated[str | None, typer.Option(help="Directory or fsspec URL of the archive [./archive].")] = None,
    source: Annotated[str | None, typer.Option(help="Of this source only [all].")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model only, such as demo-1a2b3c4d [all].")] = None,
    kind: Annotated[Kind, typer.Option(help="Hindcasts go by valid time too, so all of them are old.")] = "forecast",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
) -> None:
    """Remove whole stores whose newest slot was valid longer ago than --keep.

    Their inputs go with them. The store that latest.json names stays. A call that was stopped is finished by the next.
    """
    from flows.settings import Settings

    settings = Settings.of(archive=archive)
    for line in prune_series(settings.archive, keep, settings.time.now(), kind, source, model, dry_run):
        typer.echo(line)


def prune_series(
    url: str,
    keep: str,
    now: datetime,
    kind: Kind = "forecast",
    source: str | None = None,
    model: str | None = None,
    dry_run: bool = False,
) -> Iterator[str]:
    """A line for each store that goes, and one that sums up."""
    from corrdiff_core.archive.retention import expired, parse_keep, remove
    from corrdiff_core.cycle import compact

    before = now - parse_keep(keep)
    stores = objects = size = 0
    for store in expired(url, before, kind, source, model):
        if not dry_run:
            remove(url, store)
        stores, objects, size = stores + 1, objects + store.objects, size + store.bytes
        age = "removal was begun" if store.begun else f"newest slot {compact(store.newest)}Z"
        yield f"{store.key}  {age}  {store.objects} objects  {_megabytes(store.bytes)}"
    done = "would be removed" if dry_run else "removed"
    yield (
        f"{stores} {kind} stores without a slot since {before:%Y-%m-%dT%H:%M}Z {done}:"
        f" {objects} objects, {_megabytes(size)}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
