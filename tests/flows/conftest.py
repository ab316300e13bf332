"""Parts of the flow tests: a tiny checkpoint, GFS files of synthetic weather, `corrdiff` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

from corrdiff_core.checkpoint import build_denoiser, build_regression, save_checkpoint
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.dataset import INVARIANTS, terrain_invariants
from corrdiff_core.grid import TAIWAN
from corrdiff_core.manifest import Manifest, Sampling
from corrdiff_core.nature import write_gfs
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from corrdiff_core.sources.gfs import layouts, object_name
from corrdiff_core.train import DEMO, networks

REPOSITORY = Path(__file__).resolve().parents[2]
INIT = datetime(2025, 8, 1, 6)
TINY = replace(TAIWAN, name="tiny", step=26000.0, rows=34, columns=34)  # Taiwan's box at 26 km, 32 x 32 points


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks of 4 channels on 32 x 32 points; two members in two steps."""
    torch.manual_seed(1)
    regression, diffusion = networks(replace(DEMO, model_channels=4), TINY)
    manifest = Manifest(
        name="tiny",
        domain=TINY,
        input_statistics=CWA_INPUT_STATISTICS,
        output_statistics=CWA_OUTPUT_STATISTICS,
        invariants=INVARIANTS,
        regression=regression,
        diffusion=diffusion,
        preconditioning="EDMPrecondSuperResolution",
        defaults=Sampling(members=2, num_steps=2, solver="euler"),
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(
        str(path), manifest, build_regression(regression), build_denoiser(manifest), terrain_invariants(TINY)
    )
    return path


@pytest.fixture(scope="session")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve leads of one cycle in NOAA's layout; read only."""
    root = tmp_path_factory.mktemp("gfs")
    write_gfs(str(root), INIT, list(range(12)))
    return root


@dataclass(frozen=True)
class Gfs:
    """A directory of GFS files that a test fills lead by lead."""

    root: Path
    stock: Path

    def put(self, init_time: datetime, *leads: int) -> None:
        """Write those leads; of `INIT` they are linked from the stock."""
        for lead in leads:
            name = object_name(layouts(init_time)[0], Slot.forecast(init_time, lead * HOUR))
            if init_time != INIT or not (self.stock / name).exists():
                write_gfs(str(self.root), init_time, [lead])
                continue
            for part in (name, f"{name}.idx"):
                (self.root / part).parent.mkdir(parents=True, exist_ok=True)
                (self.root / part).hardlink_to(self.stock / part)

    def file(self, init_time: datetime, lead: int) -> Path:
        return self.root / object_name(layouts(init_time)[0], Slot.forecast(init_time, lead * HOUR))


@pytest.fixture
def gfs(tmp_path: Path, weather: Path) -> Gfs:
    """An empty source."""
    (tmp_path / "gfs").mkdir()
    return Gfs(tmp_path / "gfs", weather)


Corrdiff = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(gfs: Gfs, tiny_checkpoint: Path, tmp_path: Path) -> dict[str, str]:
    """Of processes: settings that point at this test's source, archive and model, and a Prefect home of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CORRDIFF_", "PREFECT_"))}
    return inherited | {
        "CORRDIFF_GFS_URL": str(gfs.root),
        "CORRDIFF_ARCHIVE": str(tmp_path / "archive"),
        "CORRDIFF_MODEL": str(tiny_checkpoint),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def corrdiff(environment: dict[str, str], tmp_path: Path) -> Corrdiff:
    """The command line in a process of its own, started in an empty directory."""

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(
            command, env=environment | extra, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )

    return run
