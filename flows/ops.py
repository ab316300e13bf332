"""`corrdiff ops`: what the person on duty needs beside the flows; infra/README.md is the card."""

from typing import Annotated

import typer

from flows.models import Models
from flows.terminal import run_flow

app = typer.Typer(help="Operations: see infra/README.md.", no_args_is_help=True)


@app.command()
def bootstrap(
    late: Annotated[
        float, typer.Option(metavar="MIN", min=0.17, help="Minutes without a new slot after which an hour is late.")
    ] = 95.0,
    pending: Annotated[float, typer.Option(metavar="MIN", min=0.17, help="A run may be pending for so long.")] = 15.0,
    silent: Annotated[
        float, typer.Option(metavar="MIN", min=0.17, help="Without a heartbeat for so long, a run is dead.")
    ] = 10.0,
) -> None:
    """Make on the Prefect server what the deployments need; called again, it changes nothing.

    A work pool with its queues, limits, automations, and, where CORRDIFF_ALERT_URL names a webhook, where alerts go.
    """
    from flows.api import quieten

    quieten()
    from datetime import timedelta

    from prefect.settings import get_current_settings

    from corrdiff_core.errors import ConfigurationError
    from flows.automations import Timing
    from flows.bootstrap import bootstrap as bootstrap_server
    from flows.settings import Settings

    if not get_current_settings().api.url:
        raise ConfigurationError("no Prefect server is named: set PREFECT_API_URL, such as http://127.0.0.1:4200/api")
    timing = Timing(*(timedelta(minutes=minutes) for minutes in (late, pending, silent)))
    for line in bootstrap_server(Settings.of().alert_url, timing):
        typer.echo(line)


@app.command()
def janitor(
    archive: Annotated[str | None, typer.Option(help="Directory or fsspec URL of the archive [./archive].")] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="TIME", help="Forecasts stay so long, as 30d [CORRDIFF_KEEP, else all].")
    ] = None,
    patience: Annotated[float, typer.Option(metavar="MIN", min=0.1, help="After which a silent run is dead.")] = 15.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Remove old forecasts, put away runs that are dead, free limits that nobody holds."""
    run_flow("janitor", {"archive": archive, "keep": keep, "patience": patience, "dry_run": dry_run})


@app.command()
def metrics(
    archive: Annotated[str | None, typer.Option(help="Directory or fsspec URL of the archive [./archive].")] = None,
    source: Annotated[str | None, typer.Option(help="Whose forecasts are operations [gfs].")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="REF", help="What hourly runs use [the demo checkpoint].")
    ] = None,
    models: Models = None,
    textfile: Annotated[
        str | None, typer.Option(metavar="FILE.prom", help="Write once, for the node exporter's textfile collector.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Answer Prometheus there, until stopped.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    hours: Annotated[int, typer.Option(min=1, help="Of the past that are looked at.")] = 24,
    sizes: Annotated[bool, typer.Option("--sizes", help="Also what all series take; lists every object.")] = False,
) -> None:
    """Tell Prometheus what is there, missing and late: from the archive, and from Prefect's server where one is set."""
    from flows.api import quieten

    quieten()
    from datetime import timedelta

    from prefect.settings import get_current_settings

    from corrdiff_core.errors import ConfigurationError
    from flows.metrics import Watch, serve_metrics, write_metrics
    from flows.server_metrics import server_gauges
    from flows.settings import Settings

    if (textfile is None) == (port is None):
        raise ConfigurationError("metrics for whom? give either --textfile FILE.prom or --port, such as 9464")
    settings = Settings.of(archive=archive, source=source, model=model, models=models)
    server = server_gauges if get_current_settings().api.url else None
    watch = Watch(settings, timedelta(hours=hours), sizes, server)
    if textfile is not None:
        write_metrics(watch, textfile)
    elif port is not None:
        serve_metrics(watch, host, port, typer.echo)
