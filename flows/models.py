"""`corrdiff models`: what is in the registry, and what comes into it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from corrdiff_core.grid import Domain
    from corrdiff_core.manifest import Manifest
    from corrdiff_core.normalization import Statistics
    from corrdiff_core.registry import Registry, Version

Row = tuple[str, ...]

Models = Annotated[
    str | None, typer.Option(metavar="URL", help="Directory or fsspec URL of the model registry [./models].")
]

app = typer.Typer(help="Checkpoints by name and version; which of them is in production.", no_args_is_help=True)


@app.command("import")
def import_package(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="NVIDIA's inference package for Taiwan.")],
    name: Annotated[str, typer.Option(help="What to call the model.")] = "taiwan",
    models: Models = None,
    diffusion_conditioning: Annotated[
        Literal["mean,input", "input,grid"],
        typer.Option(
            metavar="PARTS", help="What the diffusion network was trained to see: mean,input or input,grid; both fit."
        ),
    ] = "mean,input",
    weights: Annotated[
        Literal["float16", "float32"],
        typer.Option(metavar="TYPE", help="float16 rounds them as earth2studio does; float32 keeps them."),
    ] = "float16",
) -> None:
    """Import a package of NVIDIA's as the next version of a name; the first goes into production."""
    from corrdiff_core.mdlus import read_package

    registry = _registry(models)
    contents = read_package(package, name, diffusion_conditioning.split(","), weights)
    version = registry.add(name, contents.save)
    _warn_of_assumptions(version)
    rows = [
        ("version", version.ref),
        ("identity", version.manifest.identity),
        ("folder", version.url),
        ("diffusion conditioning", ", ".join(version.manifest.diffusion.conditioning)),
        ("in production", _whether_in_production(registry, version)),
        (
            "next",
            f"corrdiff hourly --model {_shortest_ref(registry, version)}{f' --models {models}' if models else ''}",
        ),
    ]
    _echo(_aligned(rows))


@app.command()
def add(
    checkpoint: Annotated[str, typer.Argument(metavar="FOLDER", help="A checkpoint: a path or URL.")],
    name: Annotated[str, typer.Option(help="What to call the model.")],
    models: Models = None,
) -> None:
    """Copy a checkpoint into the registry as the next version of a name; the first goes into production."""
    from corrdiff_core.checkpoint import copy_checkpoint
    from corrdiff_core.manifest import read_manifest

    read_manifest(checkpoint)  # before a number is claimed
    registry = _registry(models)
    version = registry.add(name, lambda folder: copy_checkpoint(checkpoint, folder, name))
    rows = [
        ("version", version.ref),
        ("identity", version.manifest.identity),
        ("folder", version.url),
        ("in production", _whether_in_production(registry, version)),
    ]
    _echo(_aligned(rows))


@app.command("list")
def list_versions(models: Models = None) -> None:
    """List every version of every model, and which is in production."""
    registry = _registry(models)
    head = ("name", "version", "identity", "production", "created", "members", "steps", "solver")
    rows = [_listed(registry, version) for name in registry.names() for version in registry.versions(name)]
    if rows:
        _echo(_aligned([head, *rows]))
    else:
        typer.echo(f"no model is in {registry.url} yet: corrdiff models import PACKAGE --name NAME", err=True)


@app.command()
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="name, name@version, path or URL.")], models: Models = None
) -> None:
    """Say everything that a checkpoint's manifest says, and how its name came to what is in production."""
    from corrdiff_core.manifest import read_manifest
    from corrdiff_core.registry import is_reference

    if not is_reference(ref):
        _echo(_described(read_manifest(ref), [("folder", ref)]))
        return
    registry = _registry(models)
    version = registry.find(ref)
    found = [
        ("version", version.ref),
        ("folder", version.url),
        ("in production", _whether_in_production(registry, version)),
    ]
    _echo(_described(version.manifest, found))
    verdicts = [found for found in registry.verdicts(version.name) if found["version"] == version.number]
    _echo(_section("verdict", [row for found in verdicts for row in _judged(found)]))
    _echo(_section("history", [_changed(change) for change in registry.history(version.name)]))


@app.command()
def promote(
    ref: Annotated[str, typer.Argument(metavar="REF", help="The candidate: name@version.")],
    scores: Annotated[
        str | None, typer.Option(metavar="FILE.json", help="Its scores, as `corrdiff evaluate --out` writes them.")
    ] = None,
    production: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help="Scores of the version in production, on the same samples and times."),
    ] = None,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promote whatever the gate says; the reason is kept.")
    ] = None,
    models: Models = None,
) -> None:
    """Put a version into production if its scores pass the gate; exit code 1 and no change where they do not.

    Better overall, not worse in any variable, calibrated: the decision and its numbers stay in the model's history.
    """
    from flows.promotion import admit

    registry = _registry(models)
    version = registry.find(ref)
    if registry.production_number(version.name) == version.number:
        typer.echo(f"{version.ref} is in production already: nothing to do")
        return
    reason = admit(registry, version, scores, production, force)
    registry.promote(version.name, version.number, reason)
    typer.echo(f"{version.ref} is in production: {reason['why']}")


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model whose version in production is taken back.")],
    reason: Annotated[str, typer.Option(help="Why, for the model's history.")] = "not said",
    models: Models = None,
) -> None:
    """Put the version back that was in production before."""
    registry = _registry(models)
    number = registry.production_number(name)
    version = registry.rollback(name, {"why": reason})
    typer.echo(f"{version.ref} is in production again, {name}@{number} no more")


def _registry(models: str | None) -> "Registry":
    from corrdiff_core.registry import Registry
    from flows.settings import Settings

    return Registry(Settings.of(models=models).models)


def _warn_of_assumptions(version: "Version") -> None:
    assumptions = version.manifest.training.get("assumptions", [])
    if assumptions:
        typer.echo(f"warning: the package does not say all; {version.ref} assumes", err=True)
        for assumption in assumptions:
            typer.echo(f"  {assumption}", err=True)


def _whether_in_production(registry: "Registry", version: "Version") -> str:
    number = registry.production_number(version.name)
    if number == version.number:
        return "yes"
    return "no" if number is None else f"no, {version.name}@{number} is"


def _shortest_ref(registry: "Registry", version: "Version") -> str:
    return version.name if registry.production_number(version.name) == version.number else version.ref


def _listed(registry: "Registry", version: "Version") -> Row:
    defaults = version.manifest.defaults
    return (
        version.name,
        str(version.number),
        version.manifest.identity,
        "yes" if registry.production_number(version.name) == version.number else "",
        registry.claimed(version) or "",
        str(defaults.members),
        str(defaults.num_steps),
        defaults.solver,
    )


def _described(manifest: "Manifest", found: Sequence[Row]) -> Iterator[str]:
    """The lines of a manifest, after where it was found: a section for each thing."""
    yield from _aligned([*found, ("identity", manifest.identity), ("digest", manifest.digest)])
    yield from _section("domain", _domain_rows(manifest.domain))
    yield from _section("inputs", _variable_rows(manifest.input_statistics, manifest.to_dict()["units"]))
    yield from _section("outputs", _variable_rows(manifest.output_statistics, manifest.to_dict()["units"]))
    yield from _section("invariants", [(name,) for name in manifest.invariants])
    yield from _section("networks", _network_rows(manifest))
    yield from _section("sampler defaults", _flat(manifest.to_dict()["defaults"]))
    training = {name: value for name, value in manifest.training.items() if name != "assumptions"}
    yield from _section("training", _flat(training))
    yield from _section("assumptions", [(str(text),) for text in manifest.training.get("assumptions", [])])
    yield from _section("scores", _flat(manifest.scores))


def _domain_rows(domain: "Domain") -> list[Row]:
    (rows, columns), latitude, longitude, box = domain.shape, domain.latitude, domain.longitude, domain.input_box
    return [
        ("name", domain.name),
        ("points", f"{rows} x {columns}, every {domain.spacing / 1000:.4g} km"),
        ("latitude", f"{latitude.min():.4f}..{latitude.max():.4f} N"),
        ("longitude", f"{longitude.min():.4f}..{longitude.max():.4f} E"),
        ("input box", f"{box.south:g}..{box.north:g} N, {box.west:g}..{box.east:g} E"),
        ("projection", domain.projection),
    ]


def _variable_rows(statistics: "Statistics", units: dict[str, str]) -> list[Row]:
    columns = zip(statistics.names, statistics.center, statistics.scale, strict=True)
    head = ("variable", "center", "scale", "unit")
    return [head, *((name, f"{center:.6g}", f"{scale:.6g}", units[name]) for name, center, scale in columns)]


def _network_rows(manifest: "Manifest") -> list[Row]:
    networks = (manifest.regression, manifest.diffusion)
    options = sorted({name for network in networks for name in network.unet})
    return [
        ("", "regression", "diffusion"),
        ("conditioning", *(", ".join(network.conditioning) for network in networks)),
        ("preconditioning", "", manifest.preconditioning),
        ("sigma_data", "", f"{manifest.sigma_data:g}"),
        ("parameters", *(f"{count:,}" for count in _parameters(manifest))),
        *((name, *(_plain(network.unet.get(name, "")) for network in networks)) for name in options),
    ]


def _parameters(manifest: "Manifest") -> list[int]:
    """Weights of the regression and of the diffusion network, counted without making them."""
    import torch

    from corrdiff_core.checkpoint import build_denoiser, build_regression

    with torch.device("meta"):
        networks = (build_regression(manifest.regression), build_denoiser(manifest))
    return [sum(weights.numel() for weights in network.parameters()) for network in networks]


def _judged(verdict: dict[str, Any]) -> Iterator[Row]:
    decision = verdict["decision"]
    yield verdict["at"], "promote" if decision["promote"] else "reject"
    yield from (("", reason) for reason in decision["reasons"])


def _changed(change: dict[str, Any]) -> Row:
    previous = "" if change["previous"] is None else f"after {change['previous']}"
    reason = change["reason"]
    return change["at"], change["action"], str(change["version"]), previous, str(reason.get("why", json.dumps(reason)))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[Row]:
    """A row for each plain value, called by the dotted way to it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _section(title: str, rows: Iterable[Row]) -> Iterator[str]:
    """A heading and indented rows; nothing where there are no rows."""
    lines = _aligned(list(rows), indent="  ")
    if lines:
        yield from ("", title, *lines)


def _aligned(rows: Sequence[Row], indent: str = "") -> list[str]:
    """Rows as lines whose columns stand below each other."""
    count = max((len(row) for row in rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(count)]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=False)] for row in rows]
    return [f"{indent}{'  '.join(row)}".rstrip() for row in cells]


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
