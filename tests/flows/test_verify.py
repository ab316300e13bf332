"""`corrdiff verify` and its flow, against a real Prefect server of the tests' own."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from prefect.client.orchestration import get_client
from typer.testing import CliRunner

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.dataset.origins import NatureTruth
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.metrics import crps_ensemble
from corrdiff_core.nature import SEED
from flows.cli import app
from flows.events import DEGRADED
from flows.hourly import hourly
from flows.outcome import SlotError
from flows.report import Event, Said
from flows.verify import verify
from flows.verifying import Verified
from tests.flows.flow_cases import INIT, Gfs
from tests.small_domain import SMALL
from tests.verify_cases import FORECAST, MODEL, publish, slots, truth_store
from tests.verify_cases import INIT as MADE

pytestmark = [pytest.mark.usefixtures("api"), pytest.mark.service]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture
def run(tmp_path: Path, told: list[Event]) -> Any:
    def call(**options: Any) -> Verified:
        given = {"archive": str(tmp_path / "archive"), "models": str(tmp_path / "models"), "source": "gfs"} | options
        state = verify(**given, return_state=True)
        result = state.result()
        assert isinstance(result, Verified)
        assert state.name == ("NotYet" if result.exit_code else "Degraded" if result.degraded else "Completed")
        return result

    return call


def words(told: list[Event]) -> str:
    return "\n".join(event.text for event in told if isinstance(event, Said))


def events_of(name: str) -> list[dict[str, Any]]:
    with get_client(sync_client=True) as client:
        answer = client._client.post("/events/filter", json={"filter": {"event": {"name": [name]}}})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
        return found


def test_an_hour_of_operations_is_scored_beside_the_nature_run(
    run: Any, told: list[Event], gfs: Gfs, small_checkpoint: Path, archive: Archive, series: Series, monkeypatch: Any
) -> None:
    gfs.put(INIT, 0, 1, 2)
    monkeypatch.setenv("CORRDIFF_MODEL", str(small_checkpoint))
    hourly(archive=archive.url, source_url=str(gfs.root), init="2025-08-01T06:00", leads="1-2", device="cpu")
    result = run(truth="nature")
    assert (result.done.checked, result.done.compared, result.exit_code) == (2, 2, 0)
    rows = xr.open_zarr(f"{archive.url}/verification/{series.key}/202508.zarr")
    slot = Slot.forecast(INIT, 2 * HOUR)
    members = archive.read(series, slot).t2m.values
    truth = NatureTruth(SEED, SMALL).read([slot.valid_time])[slot.valid_time].values[1]
    found = rows.crps.sel(variable="t2m", init_time=INIT, lead_time=timedelta(hours=2)).values
    assert found == pytest.approx(crps_ensemble(members, truth).mean(), rel=1e-6)
    assert float(rows.input_scale.sel(channel="t2m")) == pytest.approx(5.273516), "the manifest is at hand"
    assert open_objects(archive.url).exists(f"verification/{series.key}/verification.png")
    assert run(truth="nature").done.compared == 0
    assert archive.series() == [series]


def test_a_degraded_model_is_named_in_an_event(
    run: Any, told: list[Event], small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five days its ensembles are five times as wide."""
    made = [slots(1, MADE + day * timedelta(days=1))[0] for day in range(9)]
    url = str(tmp_path / "archive")
    publish(url, made[:5])
    truth = truth_store(tmp_path / "truth", [slot.valid_time for slot in made])
    fine = run(truth=truth)
    assert (fine.done.compared, fine.degraded) == (5, False)
    publish(url, made[5:], spread=5.0)
    result = run(truth=truth, out=str(tmp_path / "here.png"), rules={"growth": 1.1})
    assert result.degraded
    assert "t2m: a spread of 0.5 to 2 times the reference's is asked, but 5." in words(told)
    assert "its manifest is not at hand" in words(told)
    assert (tmp_path / "here.png").read_bytes()[:4] == b"\x89PNG"
    deadline = time.monotonic() + 60
    while not events_of(DEGRADED) and time.monotonic() < deadline:
        time.sleep(0.5)
    [newest] = events_of(DEGRADED)
    assert newest["resource"]["prefect.resource.id"] == "corrdiff.model.little"
    assert newest["payload"]["model"] == MODEL
    assert newest["payload"]["reasons"] == result.verdict.reasons

    monkeypatch.setenv("CORRDIFF_MODEL", str(small_checkpoint))  # promoted since
    assert run(truth=truth, rules={"growth": 1.1}).degraded
    assert f"{MODEL} is replaced by small-" in words(told)
    time.sleep(2)
    assert events_of(DEGRADED) == [newest]


def test_nothing_archived_yet_and_names_that_are_wrong(run: Any, told: list[Event], tmp_path: Path) -> None:
    assert run().exit_code == 75
    assert "no published slot yet; try again later" in words(told)
    publish(str(tmp_path / "archive"), slots(1))
    with pytest.raises(ConfigurationError, match=f"nothing of source gefs-p01, model any; it has gfs {MODEL}"):
        run(source="gefs-p01")
    with pytest.raises(ConfigurationError, match="there are degraded, of, reference"):
        run(rules={"drft": 2})
    with pytest.raises(ConfigurationError, match="is no period"):
        run(start="2025-08-02T00", end="2025-08-01T00")


def test_a_slot_that_cannot_be_read_is_named_at_the_end(run: Any, told: list[Event], tmp_path: Path) -> None:
    url = str(tmp_path / "archive")
    publish(url, slots(2))
    (Path(Archive(url).store_url(FORECAST, slots(2)[1])) / "t2m/c/1/0/0/0").unlink()
    with pytest.raises(SlotError, match=r"1 slots checked, 1 failed.*is gone though"):
        run()
    rows = xr.open_zarr(f"{url}/verification/{FORECAST.key}/202507.zarr")
    assert int(np.isfinite(rows.variance.sel(variable="t2m")).sum()) == 1
    assert (Path(url) / "verification" / FORECAST.key / "verification.png").exists()


def test_the_command(tmp_path: Path) -> None:
    """Late truth is no failure; a degraded model is one only where that is asked for."""
    url = str(tmp_path / "archive")
    publish(url, [slots(1, MADE + day * timedelta(days=1))[0] for day in range(3)], bias=5.0)
    truth = truth_store(tmp_path / "truth", [MADE])
    arguments = ["verify", "--archive", url, "--truth", truth, "--degraded", "1", "--of", "2"]
    done = CliRunner().invoke(app, [*arguments, "--models", str(tmp_path / "models")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "3 slots checked, 1 compared with truth, 2 wait for truth" in done.output
    again = CliRunner().invoke(app, [*arguments, "--fail-on-degraded"], catch_exceptions=False)
    assert again.exit_code == 1
    assert "window 2025-08-02T00Z  slots 1" in again.output
