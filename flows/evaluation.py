"""`corrdiff evaluate`: the scores of a model on weather that it has not seen, beside another's where one is named."""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flows.models import Models

if TYPE_CHECKING:
    from corrdiff_core.dataset.samples import Samples
    from corrdiff_core.grid import Domain


def evaluate(
    model: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Checkpoint: name, name@version, path or URL [the demo checkpoint]."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Samples: nature:SEED:START:END:COUNT, a path or URL [nature's 2021]."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for scores.json, report.md, panel.png.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="REF", help="Score this model on the same times too, and decide by the gate.")
    ] = None,
    times: Annotated[int, typer.Option(help="How many, spread evenly over the dataset.")] = 24,
    members: Annotated[int, typer.Option(help="Ensemble size.")] = 8,
    steps: Annotated[int | None, typer.Option(help="Sampler steps [the model's].")] = None,
    solver: Annotated[str | None, typer.Option(help="heun or euler [the model's].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampled noise [0].")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device [cuda, else cpu].")] = None,
    models: Models = None,
) -> None:
    """Score a model on held-out weather, beside what it must beat and, on synthetic weather, the perfect forecast."""
    from corrdiff_core.checkpoint import load_checkpoint
    from corrdiff_core.evaluate import evaluate as scoring
    from corrdiff_core.evaluate.panel import Example
    from corrdiff_core.evaluate.report import markdown, write_report
    from corrdiff_core.gate import decide
    from corrdiff_core.generate import best_device
    from flows.settings import Settings
    from flows.slots import open_run

    settings = Settings.of(model=model, models=models, steps=steps, solver=solver, seed=seed, device=device)
    place = settings.device or best_device()
    other = None if against is None else open_run(Settings.of(model=against, models=models)).model
    checkpoint = load_checkpoint(open_run(settings).model, place)
    samples, example = _samples(dataset, checkpoint.manifest.domain, times), Example()
    score = partial(
        scoring.evaluate,
        samples=samples,
        members=members,
        num_steps=settings.steps,
        solver=settings.solver,
        seed=settings.seed,
        times=times,
        report=partial(typer.echo, err=True),
    )
    scores = score(checkpoint, look=example)
    compared = None if other is None else score(load_checkpoint(other, place))
    if out is not None:
        write_report(out, scores, example.forecasts, compared)
    typer.echo(markdown(scores, compared))
    if compared is not None:
        decision = decide(scores, compared)
        if out is not None:
            from corrdiff_core.archive.objects import open_objects

            open_objects(out).put("decision.json", f"{json.dumps(decision.to_dict(), indent=1)}\n".encode())
        typer.echo(f"\n{decision}")


def _samples(dataset: str | None, domain: "Domain", times: int) -> "Samples":
    """The samples that were named, else `times` hours of synthetic weather on the model's own domain."""
    from corrdiff_core.dataset import open_samples
    from corrdiff_core.evaluate.evaluate import held_out

    return held_out(domain, times) if dataset is None else open_samples(dataset, domain)
