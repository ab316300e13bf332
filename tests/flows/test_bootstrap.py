"""`corrdiff ops bootstrap` on a real Prefect server: what it makes, and that alerts arrive and end."""

import json
from pathlib import Path

import pytest

from flows.alerts import ALERTS
from flows.dead import STUCK
from flows.events import PUBLISHED, REJECTED
from tests.flows.flow_cases import REPOSITORY, Corrdiff
from tests.flows.prefect_server import Server, until
from tests.flows.test_janitor import Runs
from tests.flows.webhook import Webhook


@pytest.mark.service
@pytest.mark.timeout(300)
def test_it_makes_what_lacks_and_a_late_hour_is_told_and_ended(
    server: Server, webhook: Webhook, tmp_path: Path
) -> None:
    times = ("--late", "0.2", "--pending", "0.2")
    first = server.bootstrap(*times, CORRDIFF_ALERT_URL=webhook.url)
    assert {line.rpartition(": ")[2] for line in first if not line.startswith(("alerts", "warning"))} == {"made"}
    again = server.bootstrap(*times)
    assert all(line.endswith("already there") for line in again if not line.startswith("warning")), again
    assert any("LEASE_STORAGE" in line for line in again)
    assert "a-secret" not in "".join(first + again)
    documents = server.call("block_documents/filter", {})
    assert "a-secret" not in json.dumps(documents)

    log = tmp_path / "server.log"
    until(lambda: webhook.said("[page] late hour") >= 1, 60, log)
    assert webhook.said("[note] late hour: over") == 0
    slot = {"corrdiff.slot": "20210607T06Z+001h (valid 20210607T07Z)", "corrdiff.fallback": "true"}
    server.emit(PUBLISHED, "corrdiff.slot.gfs", {}, slot)
    until(lambda: webhook.said("[note] late hour: over") == 1 and webhook.said("[note] fallback") == 1, 60, log)
    assert any("20210607T06Z+001h" in text for text in webhook.texts)

    runs = Runs(server)
    pending = runs.make("PENDING")
    queue = {"prefect.resource.name": "operations"}
    server.emit("prefect.work-queue.not-ready", "prefect.work-queue.1", {}, queue)
    server.emit(REJECTED, "corrdiff.model.taiwan", {"reasons": ["no better"]})
    until(lambda: webhook.said("[page] worker gone") == 1 and webhook.said("[note] model rejected") == 1, 60, log)
    assert any("no better" in text for text in webhook.texts)
    assert webhook.said("[note] worker gone: over") == 0
    server.emit("prefect.work-queue.ready", "prefect.work-queue.2", {}, {"prefect.resource.name": "backfill"})
    server.emit("prefect.work-queue.ready", "prefect.work-queue.1", {}, queue)
    until(lambda: webhook.said("[note] worker gone: over") == 1 and webhook.said("[day] pending run") == 1, 90, log)
    assert runs.state(pending) == STUCK
    assert all("infra/README.md#" in text for text in webhook.texts)


def test_every_alert_has_a_heading_on_the_card_that_says_what_to_do() -> None:
    headings = [line for line in (REPOSITORY / "infra/README.md").read_text().splitlines() if line.startswith("#")]
    anchors = {heading.lstrip("# ").lower().replace(" ", "-") for heading in headings}
    assert {alert.anchor for alert in ALERTS} <= anchors
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


def test_without_a_server_it_says_which_setting_names_one(corrdiff: Corrdiff) -> None:
    done = corrdiff("ops", "bootstrap")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "PREFECT_API_URL" in done.stderr
