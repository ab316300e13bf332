"""A degraded model, and what the service does about it by itself: event, retraining, gate, promotion, the next hour."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.cycle import utc_now
from corrdiff_core.registry import Registry
from flows.events import DEGRADED, PROMOTED
from tests.corrdiff_core.dataset.dataset_cases import built
from tests.flows.flow_cases import Gfs, toml, writer
from tests.flows.service import service_of
from tests.flows.webhook import Webhook
from tests.infra.test_stack import needs_postgres
from tests.small_domain import PRESET

INIT, FIRST = datetime(2021, 6, 7, 6), datetime(2021, 6, 7, 10)


@needs_postgres
@pytest.mark.service
@pytest.mark.timeout(3000)
def test_a_degraded_model_is_replaced_and_the_next_hour_uses_the_new_one(
    environment: dict[str, str], gfs: Gfs, small_checkpoint: Path, webhook: Webhook, tmp_path: Path
) -> None:
    models, archive = Registry(str(tmp_path / "models")), Archive(str(tmp_path / "archive"))
    models.add("small", writer(load_checkpoint(str(small_checkpoint))))  # untrained, so worse than interpolation
    built(tmp_path / "truth", datetime(2021, 6, 5), datetime(2021, 6, 8, 12))
    (tmp_path / "small.toml").write_text(toml(PRESET.to_dict()))
    gfs.put(INIT, *range(4, 40))
    begin = utc_now() + timedelta(minutes=1)
    own = {
        "CORRDIFF_CLOCK": f"{FIRST:%Y-%m-%dT%H:%M}@{begin:%Y-%m-%dT%H:%M:%S}x60",
        "CORRDIFF_HOURS": "2",
        "CORRDIFF_MODEL": "small",
        "CORRDIFF_MODELS": models.url,
        "CORRDIFF_TRUTH": "nature",
        "CORRDIFF_DATASET": str(tmp_path / "truth"),
        "CORRDIFF_RUNS": str(tmp_path / "runs"),
        "CORRDIFF_ALERT_URL": webhook.url,
    }
    retraining = {
        "name": "small",
        "preset": str(tmp_path / "small.toml"),
        "test_start": "2021-06-07T12",
        "validation_days": 0,
        "times": 4,
        "members": 2,
        "rules": {"spread_skill": [0.0, 1e9], "days": 2, "margin": 1e9},
    }
    with service_of(environment | own, tmp_path) as service:
        service.stack("start")
        service.run("flows.cli", "ops", "bootstrap")
        service.deploy({"hourly": {}, "verify": {"window": "1h", "degraded": 2, "of": 3}, "retrain": retraining})
        service.until(lambda: service.heard(DEGRADED), 400, "the model is found out")
        service.until(lambda: bool(models.verdicts("small")), 500, "a verdict")
        assert models.production("small").number == 2, models.verdicts("small")
        better = models.production("small")
        series = Series("forecast", "gfs", better.manifest.identity)
        service.until(lambda: bool(archive.stores(series) and archive.published(series, INIT)), 400, "the next hour")
        service.run("prefect", "deployment", "schedule", "pause", "--all")
        assert not service.runs("Failed", "Crashed", "Stuck")
        assert service.heard(PROMOTED)

    (verdict,) = models.verdicts("small")
    assert verdict["reason"]["reasons"], "the retraining knows what asked for it"
    made = archive.provenance(series, min(archive.published(series, INIT)))
    assert made["model"]["digest"] == better.manifest.digest
    assert webhook.said("[day] skill degraded") >= 1
    assert webhook.said("[note] model promoted") == 1
