"""Parts of the flow tests: a small checkpoint, GFS files of synthetic weather, `corrdiff` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.checkpoint import load_checkpoint, save_checkpoint
from corrdiff_core.manifest import Sampling, read_manifest
from corrdiff_core.nature import write_gfs
from corrdiff_core.registry import Registry
from flows.report import Event, reporting_to
from tests.flows.flow_cases import INIT, REPOSITORY, Corrdiff, Gfs, writer
from tests.flows.prefect_server import Server, prefect_server, prefect_with_limits
from tests.flows.webhook import Webhook
from tests.small_domain import checkpoint


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks on 32 x 32 points; three members in two steps."""
    path, made = tmp_path_factory.mktemp("models") / "small", checkpoint()
    save_checkpoint(str(path), made.manifest, made.regression, made.diffusion, made.invariants)
    return path


@pytest.fixture
def registry(small_checkpoint: Path, tmp_path: Path) -> Registry:
    """Two versions of "small": that checkpoint, in production, and another."""
    made, found = load_checkpoint(str(small_checkpoint)), Registry(str(tmp_path / "models"))
    found.add("small", writer(made))
    found.add("small", writer(made, defaults=Sampling(members=2, num_steps=5)))
    return found


@pytest.fixture(scope="session")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve leads of one cycle in NOAA's layout; read only."""
    root = tmp_path_factory.mktemp("gfs")
    write_gfs(str(root), INIT, list(range(12)))
    return root


@pytest.fixture
def gfs(tmp_path: Path, weather: Path) -> Gfs:
    """An empty source."""
    (tmp_path / "gfs").mkdir()
    return Gfs(tmp_path / "gfs", weather)


@pytest.fixture
def environment(gfs: Gfs, small_checkpoint: Path, tmp_path: Path) -> dict[str, str]:
    """Of processes: settings that point at this test's source, archive and model, and a Prefect home of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CORRDIFF_", "PREFECT_"))}
    return inherited | {
        "CORRDIFF_GFS_URL": str(gfs.root),
        "CORRDIFF_ARCHIVE": str(tmp_path / "archive"),
        "CORRDIFF_MODEL": str(small_checkpoint),
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


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"))


@pytest.fixture
def series(small_checkpoint: Path) -> Series:
    return Series("forecast", "gfs", read_manifest(str(small_checkpoint)).identity)


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    """For the flows that a module's tests call."""
    with prefect_with_limits():
        yield


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """A Prefect server of this test's own, which knows nothing yet."""
    with prefect_server(environment, tmp_path) as made:
        yield made


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """Where alerts are posted to."""
    made = Webhook()
    yield made
    made.close()


@pytest.fixture
def told() -> Iterator[list[Event]]:
    """What the flows of a test report."""
    events: list[Event] = []
    with reporting_to(events.append):
        yield events
