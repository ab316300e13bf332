"""One slot from its source to the archive, in two stages that meet there: fetch, generate. Plain functions."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import xarray as xr

from corrdiff_core import __version__
from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Layout, Series
from corrdiff_core.cycle import Slot, compact, hours_from
from corrdiff_core.errors import CheckpointError
from corrdiff_core.manifest import Manifest, Sampling, read_manifest
from corrdiff_core.quality import check_ensemble, check_inputs
from corrdiff_core.registry import Registry, is_reference
from corrdiff_core.sources import as_forecasts, open_source
from corrdiff_core.sources.source import ForecastSource, NotYet, Source
from flows.planning import FINAL
from flows.settings import Settings

if TYPE_CHECKING:
    from corrdiff_core.checkpoint import Checkpoint

DEMO = str(files("corrdiff_core") / "demo")
DEMO_WARNING = "is trained on synthetic weather: its output is no forecast"
LONGEST = 384  # h; longer than any source's last lead
_PACKAGES = ("torch", "numpy", "xarray", "zarr", "eccodes", "cfgrib", "prefect")
# One thread samples, one slot at a time, while the slot before it is written: torch keeps memory and helpers of its own
# for every thread that it is called from.
_sampler = ThreadPoolExecutor(1, thread_name_prefix="sampler")


@dataclass(frozen=True)
class Run:
    """What all slots of a run share: its settings and its model's manifest. Plain values; passed between tasks."""

    settings: Settings
    model: str  # the checkpoint's folder
    manifest: Manifest

    @cached_property
    def series(self) -> Series:
        source = self.source()
        return Series(source.kind, source.name, self.manifest.identity)

    @cached_property
    def sampling(self) -> Sampling:
        """Members, steps and solver: the settings', else the manifest's."""
        default, settings = self.manifest.defaults, self.settings
        return Sampling(
            members=settings.members or default.members,
            num_steps=settings.steps or default.num_steps,
            solver=settings.solver or default.solver,
            sigma_min=default.sigma_min,
            sigma_max=default.sigma_max,
            rho=default.rho,
        )

    def source(self) -> Source:
        """The same one every time; threads may share it."""
        inputs = tuple(variable.name for variable in self.manifest.inputs)
        return _source(self.settings.source, self.settings.source_url, self.settings.cache, inputs)

    def forecasts(self) -> ForecastSource:
        """The source of a run that needs cycles; ConfigurationError where it has none."""
        return as_forecasts(self.source())

    def archive(self) -> Archive:
        return Archive(self.settings.archive)

    def store_url(self, slot: Slot) -> str:
        return self.archive().store_url(self.series, slot)


def open_run(settings: Settings) -> Run:
    """The run that `settings` describe; CheckpointError where there is no such model."""
    model = settings.model or DEMO
    if is_reference(model):
        model = Registry(settings.models).resolve(model)
    return Run(settings, model, read_manifest(model))


@lru_cache(maxsize=4)
def _source(name: str, url: str | None, cache: str, inputs: tuple[str, ...]) -> Source:
    return open_source(name, url, cache, inputs)


@dataclass(frozen=True)
class There:
    """The answer of a slot that need not be made: it is published, and stays."""

    detail: str = ""


def fetch_slot(run: Run, slot: Slot, redo: str | None = None) -> NotYet | There | None:
    """Bring the slot's inputs into the archive, unless they are there; NotYet where the source does not have them.

    There where another run has published the slot since this one was planned.

    `redo` says why a published slot is to be made again: its inputs are replaced once new ones have passed. Every check
    is done before the first write. Raises the SourceError, QualityError or GridError of what is wrong.
    """
    archive, series = run.archive(), run.series
    if _made_meanwhile(archive, series, slot, redo):
        return There()
    if redo is None and archive.fetched(series, slot):
        return None
    started, source = time.monotonic(), run.source()
    fetched = source.fetch(slot, run.manifest.domain.input_box)
    if isinstance(fetched, NotYet):
        return fetched if redo is None else There(f"not made again: {fetched.reason}")
    if redo == FINAL and fetched.preliminary:
        return There("not made again: its final data are not there yet")
    inputs = fetched.inputs[[variable.name for variable in run.manifest.inputs]]
    warnings = check_inputs(inputs, slot, run.manifest.input_statistics, run.manifest.inputs)
    archive.create(series, slot, _layout(run, source, slot, inputs))
    if redo is not None:
        archive.withdraw_inputs(series, slot)
    told = {
        "preliminary": fetched.preliminary,
        "warnings": [*fetched.provenance.get("warnings", ()), *warnings],
        "seconds": _seconds(started),
    }
    provenance = fetched.provenance | told
    archive.write_inputs(series, slot, inputs, provenance)
    return None


def _made_meanwhile(archive: Archive, series: Series, slot: Slot, redo: str | None) -> bool:
    """Whether what a plan wanted of the slot is done."""
    if not archive.is_published(series, slot):
        return False
    if redo is None:
        return True
    return not archive.is_preliminary(series, slot) if redo == FINAL else archive.is_remade(series, slot, redo)


def generate_slot(
    run: Run,
    slot: Slot,
    fallback: str | None = None,
    on_member: Callable[[int, int], None] | None = None,
    redo: str | None = None,
) -> dict[str, Any]:
    """Sample the slot from its inputs in the archive, check it, write it, publish it; returns its provenance.

    `fallback` says which late cycle the slot's own stands in for; `on_member(done, all)` is told of progress. A
    published slot is retracted for the reason `redo` once there is something to put in its place.
    """
    archive, series, clock = run.archive(), run.series, {}
    inputs, fetched = archive.read_inputs(series, slot)

    def sample() -> tuple[xr.Dataset, str]:
        started = time.monotonic()
        checkpoint = _checkpoint(run.model, run.manifest.digest, run.settings.device)
        clock["load"], started = _seconds(started), time.monotonic()
        if on_member is not None:
            on_member(0, run.sampling.members)
        ensemble = _sample(run, checkpoint, inputs, on_member)
        clock["sample"] = _seconds(started)
        return ensemble, str(checkpoint.device)

    ensemble, device = _sampler.submit(sample).result()
    outputs = check_ensemble(ensemble, slot, run.manifest.outputs)
    started = time.monotonic()
    if redo is not None and archive.is_published(series, slot):
        archive.retract(series, slot, redo)
    stored = archive.write(series, slot, ensemble)
    clock["write"] = _seconds(started)
    provenance = _provenance(run, slot, fallback) | {
        "inputs": fetched,
        "outputs": outputs,
        "stored_bytes": stored,
        "device": device,
        "seconds": {"fetch": fetched["seconds"], **clock},
    }
    archive.publish(series, slot, provenance, preliminary=fetched.get("preliminary", False))
    return provenance


def draw_slot(archive: Archive, series: Series, slot: Slot, url: str | None = None) -> str:
    """Draw a published slot into the PNG at `url`, beside the archive's stores by default; returns where it is."""
    from corrdiff_core.quicklook import quicklook

    url = url or f"{archive.url}/quicklook/{series.source}/{series.model}/{compact(series.start(slot))}.png"
    inputs, _ = archive.read_inputs(series, slot)
    ensemble, made = archive.read(series, slot), archive.provenance(series, slot)
    trained_on, late = made["model"]["trained_on"], made["fallback_reason"]
    notes = [f"trained on {trained_on}" if trained_on else "", f"older cycle, since {late}" if late else ""]
    quicklook(inputs, ensemble, url, f"{series.source} · {series.model}", "; ".join(filter(None, notes)))
    return url


def _layout(run: Run, source: Source, slot: Slot, inputs: xr.Dataset) -> Layout:
    steps: list[Slot] = []
    if slot.init_time is not None:
        steps = as_forecasts(source).plan(slot.init_time, hours_from(slot.init_time, LONGEST + 1))
    return Layout(
        domain=run.manifest.domain,
        members=run.sampling.members,
        lead_times=[step.lead_time for step in steps],
        input_latitude=inputs.latitude.values,
        input_longitude=inputs.longitude.values,
        outputs=run.manifest.outputs,
        inputs=run.manifest.inputs,
    )


def _sample(
    run: Run, checkpoint: "Checkpoint", inputs: xr.Dataset, on_member: Callable[[int, int], None] | None
) -> xr.Dataset:
    from corrdiff_core.generate import generate
    from corrdiff_core.prepare import workers

    sampling = run.sampling
    with workers(run.settings.dask):
        return generate(
            checkpoint,
            inputs if run.settings.dask is None else inputs.chunk(),
            members=sampling.members,
            num_steps=sampling.num_steps,
            solver=sampling.solver,
            seed=run.settings.seed,
            batch=run.settings.batch,
            on_member=on_member,
        )


@lru_cache(maxsize=1)
def _checkpoint(path: str, digest: str, device: str | None) -> "Checkpoint":
    """The loaded networks, kept for the whole run."""
    from corrdiff_core.checkpoint import load_checkpoint
    from corrdiff_core.generate import best_device

    checkpoint = load_checkpoint(path, device or best_device())
    if checkpoint.manifest.digest != digest:
        raise CheckpointError(f"{path} was replaced since the run began ({digest[:8]}): start the run again")
    return checkpoint


def _provenance(run: Run, slot: Slot, fallback: str | None) -> dict[str, Any]:
    sampling = run.sampling
    return {
        "init_time": None if slot.init_time is None else f"{slot.init_time.isoformat()}Z",
        "lead_hours": slot.lead_hours,
        "valid_time": f"{slot.valid_time.isoformat()}Z",
        "fallback": fallback is not None,
        "fallback_reason": fallback,
        "model": {
            "name": run.manifest.name,
            "identity": run.manifest.identity,
            "digest": run.manifest.digest,
            "trained_on": run.manifest.training.get("data"),
        },
        "seed": run.settings.seed,
        "members": sampling.members,
        "steps": sampling.num_steps,
        "solver": sampling.solver,
        "versions": {"corrdiff-taiwan": __version__} | {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _seconds(started: float) -> float:
    return round(time.monotonic() - started, 3)
