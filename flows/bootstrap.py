"""What a Prefect server needs before `prefect deploy --all`: a work pool, queues, limits, automations, their block."""

from collections.abc import Iterator
from typing import cast
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr

from flows.api import LIMITS, POOL
from flows.automations import Timing, automations, endings

# Of each queue a worker takes runs in this order; a lower number goes first. The hourly run waits for nobody.
QUEUES = {"operations": 1, "watch": 10, "training": 50, "backfill": 100}
ALERTS = "corrdiff-alerts"
LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def bootstrap(alert_url: SecretStr | None, timing: Timing) -> Iterator[str]:
    """Make what is missing and mend what differs, and say so, line by line; a second call changes nothing.

    Without `alert_url` an `ALERTS` block that is there stays, and where none is, alerts are events that nobody is sent.
    A work pool that is there keeps its type, so that Kubernetes or Docker pools may be made beforehand.
    """
    with get_client(sync_client=True) as client:
        yield _pool(client)
        for name, priority in QUEUES.items():
            yield f"work queue {name} of priority {priority}: {_queue(client, name, priority)}"
        for name, limit in LIMITS.items():
            yield f"limit {name} of {limit}: {_limit(client, name, limit)}"
        block, said = _block(alert_url)
        yield f"alerts: {said}"
        raised = {}
        for wanted in automations(block, timing):
            raised[wanted.name], said = _automation(client, wanted)
            yield f"automation {wanted.name}: {said}"
        for wanted in endings(block, raised):
            yield f"automation {wanted.name}: {_automation(client, wanted)[1]}"
        yield from _warnings(client)


def _pool(client: SyncPrefectClient) -> str:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
        return f"work pool {POOL} of type {ProcessWorker.type}: made"
    return f"work pool {POOL} of type {pool.type}: already there"


def _queue(client: SyncPrefectClient, name: str, priority: int) -> str:
    try:
        queue = client.read_work_queue_by_name(name, POOL)
    except ObjectNotFound:
        client.create_work_queue(name, priority=priority, work_pool_name=POOL)
        return "made"
    if queue.priority == priority:
        return "already there"
    client.update_work_queue(queue.id, priority=priority)
    return f"was of priority {queue.priority}, changed"


def _limit(client: SyncPrefectClient, name: str, limit: int) -> str:
    """An operator may have raised the limit of the GPU, on a machine with several: one that is there stays."""
    try:
        there = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.upsert_global_concurrency_limit_by_name(name, limit)
        return "made"
    return "already there" if there.limit == limit else f"stays at {there.limit}"


def _block(alert_url: SecretStr | None) -> tuple[UUID | None, str]:
    """The notification block, None where there is none, and what became of it."""
    try:
        there = cast("CustomWebhookNotificationBlock | None", CustomWebhookNotificationBlock.load(ALERTS))
    except ValueError:  # Prefect's word for none
        there = None
    if alert_url is None:
        if there is None:
            return None, "sent nowhere; CORRDIFF_ALERT_URL names a webhook"
        return there._block_document_id, f"by block {ALERTS}, already there"
    secrets = {"url": alert_url.get_secret_value()}
    if there is not None and there.secrets.get_secret_value() == secrets:
        return there._block_document_id, f"by block {ALERTS}, already there"
    block = CustomWebhookNotificationBlock(
        name=ALERTS,
        url="{{url}}",  # a secret of the block, which the server shows to nobody
        json_data={"text": "{{subject}}\n{{body}}"},  # what Slack, Mattermost and Teams take
        headers=None,
        cookies=None,
        secrets=SecretDict(secrets),
    )
    saved = cast(UUID, block.save(ALERTS, overwrite=True))  # nothing awaits here
    return saved, f"by block {ALERTS}, {'made' if there is None else 'changed'}"


def _automation(client: SyncPrefectClient, wanted: AutomationCore) -> tuple[UUID, str]:
    """The automation of that name, and what became of it."""
    there = next(iter(client.read_automations_by_name(wanted.name)), None)
    if there is None:
        return client.create_automation(wanted), "made"
    if AutomationCore.model_validate(there.model_dump()) == wanted:
        return there.id, "already there"
    client.update_automation(there.id, wanted)
    return there.id, "changed"


def _warnings(client: SyncPrefectClient) -> Iterator[str]:
    """What the server's own settings would do to operations one day."""
    settings = client.request("GET", "/admin/settings").json()["server"]
    if settings["concurrency"]["lease_storage"].endswith(".memory"):
        yield (
            "warning: the server keeps the leases of its limits in memory: restarted while a run holds the GPU, it"
            f" never gives that place back. Start it with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={LEASES}"
        )
