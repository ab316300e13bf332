"""Archives with ensembles made to order, the truth beside them, and the process that verifies and is killed."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import xarray as xr

from corrdiff_core.archive import Archive, Layout, Series
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.grid import TAIWAN, Box
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from corrdiff_core.verify.work import Done, Job, plan, work

# 24 x 20 points at 4 km inside a box of 0.25 degrees
DOMAIN = replace(
    TAIWAN, name="little", x0=-30000.0, y0=-40000.0, step=4000.0, rows=26, columns=22,
    input_box=Box(south=23.0, north=24.25, west=119.5, east=120.75),
)  # fmt: skip
LINES = np.arange(23.0, 24.26, 0.25), np.arange(119.5, 120.76, 0.25)
INIT = datetime(2025, 7, 31, 18)  # the seventh lead is in the next month
NOW = datetime(2026, 1, 1)
MODEL = "little-1a2b3c4d"
FORECAST, HINDCAST = Series("forecast", "gfs", MODEL), Series("hindcast", "era5", MODEL)
MEMBERS = 5


def layout(members: int = MEMBERS, leads: int = 9) -> Layout:
    return Layout(DOMAIN, members, [hour * HOUR for hour in range(leads)], *LINES)


def slots(count: int = 3, init: datetime = INIT) -> list[Slot]:
    return [Slot.forecast(init, lead * HOUR) for lead in range(count)]


def hours(count: int = 3, start: datetime = INIT) -> list[Slot]:
    return [Slot(start + hour * HOUR) for hour in range(count)]


def inputs(slot: Slot, z: float = 0.0) -> xr.Dataset:
    """Weather at the statistics' centers, its box means `z` scales away; keyed by the slot."""
    rng = np.random.default_rng(int(slot.valid_time.timestamp()) + 7 * slot.lead_hours)
    shape = len(LINES[0]), len(LINES[1])
    fields = {}
    for name, center, scale in zip(INPUT_NAMES, CWA_INPUT_STATISTICS.center, CWA_INPUT_STATISTICS.scale, strict=True):
        noise = rng.normal(size=shape)
        values = center + scale * (z + 0.1 * (noise - noise.mean()))
        fields[name] = (("latitude", "longitude"), values.astype("f4"))
    return xr.Dataset(fields, {"latitude": LINES[0], "longitude": LINES[1]})


def truth(time: datetime) -> np.ndarray:
    """(output, y, x) float32, keyed by the time: one more draw of what the members are drawn from."""
    return _drawn(np.random.default_rng(int(time.timestamp())), 1, 1.0, 0.0)[0]


def members(slot: Slot, spread: float = 1.0, bias: float = 0.0, count: int = MEMBERS) -> np.ndarray:
    """(member, output, y, x): white noise about the center of each output, `spread` times as wide as the truth's."""
    rng = np.random.default_rng(int(slot.valid_time.timestamp()) + 1 + slot.lead_hours)
    return _drawn(rng, count, spread, bias)


def _drawn(rng: np.random.Generator, count: int, spread: float, bias: float) -> np.ndarray:
    center = np.array(CWA_OUTPUT_STATISTICS.center)[:, None, None]
    drawn = center + bias + spread * rng.normal(size=(count, len(OUTPUT_NAMES), *DOMAIN.shape))
    drawn[:, 0] = np.maximum(12 * (drawn[:, 0] - center[0]), 0)  # half of the points have no echo
    return drawn.astype(np.float32)


def ensemble(values: np.ndarray) -> xr.Dataset:
    return xr.Dataset({n: (("member", "y", "x"), values[:, i]) for i, n in enumerate(OUTPUT_NAMES)})


def publish(
    url: str,
    made: Iterable[Slot],
    series: Series = FORECAST,
    spread: float = 1.0,
    bias: float = 0.0,
    z: float = 0.0,
    shape: Layout | None = None,
) -> None:
    """What an hourly run does with the archive, with ensembles made to order."""
    archive, shape = Archive(url), shape or layout()
    for slot in made:
        archive.create(series, slot, shape)
        archive.write_inputs(series, slot, inputs(slot, z), {"url": "s3://somewhere"})
        archive.write(series, slot, ensemble(members(slot, spread, bias, shape.members)))
        archive.publish(series, slot, {"model": {"name": "little"}})


def truth_store(path: Path, times: Iterable[datetime], lacking: Iterable[datetime] = ()) -> str:
    """A Zarr of truth; of the times in `lacking` nothing but NaN."""
    times, lacking = list(times), set(lacking)
    values = np.stack([truth(time) if time not in lacking else np.full_like(truth(time), np.nan) for time in times])
    fields = {name: (("time", "y", "x"), values[:, index]) for index, name in enumerate(OUTPUT_NAMES)}
    stored = xr.Dataset(fields, {"time": np.array(times, "datetime64[ns]"), "y": DOMAIN.y, "x": DOMAIN.x})
    stored.to_zarr(path, zarr_format=3, mode="w", consolidated=False)
    return str(path)


def job(url: str, series: Series = FORECAST, **changes: object) -> Job:
    return replace(Job(url, series, NOW, statistics=CWA_INPUT_STATISTICS), **changes)


def verified(given: Job) -> Done:
    """A whole run."""
    done = Done()
    for todo in plan(given):
        done += work(given, todo)
    return done


def days(count: int) -> list[datetime]:
    return [datetime(2025, 7, 1) + timedelta(days=day) for day in range(count)]


def contents(url: str) -> dict[str, bytes]:
    """Of the verification: every object but what tells when."""
    root = Path(url) / "verification"
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    told = ("checked_at/c/", "scored_at/c/", "analyzed_at/c/")
    return {name: path.read_bytes() for name, path in files.items() if not any(part in name for part in told)}
