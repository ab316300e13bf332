"""A degraded model, and what the service does about it by itself: event, retraining, gate, promotion, the next hour."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.cycle import utc_now
from corrdiff_core.registry import Registry
from flows.events import DEGRADED, PROMOTED
from tests.corrdiff_core.dataset.dataset_cases import built
from tests.flows.flow_cases import REPOSITORY, Gfs, toml, writer
from tests.flows.prefect_server import PREFECT, Server, running, until
from tests.flows.webhook import Webhook
from tests.small_domain import PRESET

INIT, FIRST = datetime(2021, 6, 7, 6), datetime(2021, 6, 7, 10)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_degraded_model_is_replaced_and_the_next_hour_uses_the_new_one(
    server: Server, gfs: Gfs, small_checkpoint: Path, webhook: Webhook, tmp_path: Path
) -> None:
    models = Registry(str(tmp_path / "models"))
    models.add("small", writer(load_checkpoint(str(small_checkpoint))))  # untrained, so worse than interpolation
    built(tmp_path / "truth", datetime(2021, 1, 29), datetime(2021, 2, 1))
    (tmp_path / "small.toml").write_text(toml(PRESET.to_dict()))
    gfs.put(INIT, *range(4, 40))
    _deploy(server, tmp_path, webhook)

    begin = utc_now() + timedelta(seconds=20)
    environment = server.environment | {
        "CORRDIFF_HOME": str(REPOSITORY),
        "CORRDIFF_CLOCK": f"{FIRST:%Y-%m-%dT%H:%M}@{begin:%Y-%m-%dT%H:%M:%S}x60",
        "CORRDIFF_HOURS": "2",
        "CORRDIFF_MODEL": "small",
        "CORRDIFF_MODELS": models.url,
        "CORRDIFF_TRUTH": "nature",
        "CORRDIFF_DATASET": str(tmp_path / "truth"),
        "CORRDIFF_RUNS": str(tmp_path / "runs"),
    }
    archive, log = Archive(str(tmp_path / "archive")), tmp_path / "worker.log"
    with running([*PREFECT, "worker", "start", "--pool", "corrdiff"], environment, log):
        until(lambda: server.heard(DEGRADED), 400, log)
        until(lambda: models.production("small").number == 2 or bool(server.runs("FAILED")), 500, log)
        assert not server.runs("FAILED"), log.read_text()[-6000:]
        better = models.production("small")
        series = Series("forecast", "gfs", better.manifest.identity)
        until(lambda: bool(archive.stores(series)) and bool(archive.published(series, INIT)), 300, log)
        server.prefect("deployment", "schedule", "pause", "--all")

    (verdict,) = models.verdicts("small")
    assert verdict["decision"]["promote"]
    assert verdict["reason"]["reasons"], "the retraining knows what asked for it"
    made = archive.provenance(series, min(archive.published(series, INIT)))
    assert made["model"]["digest"] == better.manifest.digest
    assert server.heard(PROMOTED)
    assert webhook.said("[day] skill degraded") >= 1
    assert webhook.said("[note] model promoted") == 1


def _deploy(server: Server, folder: Path, webhook: Webhook) -> None:
    """hourly every minute, verify with it, retrain on the event; everything else of prefect.yaml as it is."""
    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    parameters = {
        "hourly": {},
        "verify": {"window": "1h", "degraded": 2, "of": 3},
        "retrain": {
            "name": "small",
            "preset": str(folder / "small.toml"),
            "test_start": "2021-01-30T00",
            "times": 4,
            "members": 2,
            "rules": {"spread_skill": [0.0, 1e9], "days": 2, "margin": 1e9},
        },
    }
    document["deployments"] = [one for one in document["deployments"] if one["name"] in parameters]
    for deployment in document["deployments"]:
        deployment["parameters"] = parameters[deployment["name"]]
        if deployment["name"] != "retrain":
            deployment["schedules"][0]["cron"] = "* * * * *"
    (folder / "prefect.yaml").write_text(yaml.safe_dump(document))
    server.bootstrap(CORRDIFF_ALERT_URL=webhook.url)
    server.prefect("deploy", "--all", "--prefect-file", str(folder / "prefect.yaml"))
