"""What Prefect's server tells Prometheus: flow runs by state, those that wait for long, limits, workers."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flows.api import LIMITS, POOL
from flows.gauges import Gauges

TIMEOUT = 10.0  # s, of one request
_PAGE = 200
_AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def server_gauges(period: timedelta, gauges: Gauges) -> None:
    """Fill in what the server knows; ConnectionError where it does not answer as it should."""
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT}) as client:
            deployments = {one.id: one for one in _deployments(client)}
            names = {key: one.name for key, one in deployments.items()}
            _runs(client, gauges, period, names)
            _waiting(client, gauges, names)
            _limits(client, gauges, deployments.values())
            _workers(client, gauges)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise ConnectionError(f"Prefect's server does not answer as it should: {error!r}") from error


def _runs(client: SyncPrefectClient, gauges: Gauges, period: timedelta, names: dict[UUID, str]) -> None:
    now = datetime.now(UTC)
    lately = FlowRunFilterExpectedStartTime.model_validate({"after_": now - period, "before_": now})
    counts = Counter(
        (_name(names, run), run.state.type.value, run.state.name or "")
        for run in _found(client, FlowRunFilter(expected_start_time=lately))
        if run.state is not None
    )
    for labels, count in sorted(counts.items()):
        gauges.set("corrdiff_flow_runs", count, *labels)


def _waiting(client: SyncPrefectClient, gauges: Gauges, names: dict[UUID, str]) -> None:
    now = datetime.now(UTC)
    overdue = FlowRunFilterExpectedStartTime.model_validate({"before_": now})
    found = _found(client, FlowRunFilter(state=_of_type(StateType.SCHEDULED), expected_start_time=overdue))
    found += _found(client, FlowRunFilter(state=_of_type(*_AT_WORK)))
    oldest: dict[tuple[str, str], timedelta] = {}
    for run in found:
        if run.state is None:
            continue
        late = run.state.type == StateType.SCHEDULED
        since = run.expected_start_time if late and run.expected_start_time else run.state.timestamp
        labels = _name(names, run), "late" if late else run.state.type.value.lower()
        oldest[labels] = max(oldest.get(labels, timedelta(0)), now - since)
    for labels, age in sorted(oldest.items()):
        gauges.set("corrdiff_oldest_flow_run_age_seconds", age, *labels)


def _limits(client: SyncPrefectClient, gauges: Gauges, deployments: Iterable[DeploymentResponse]) -> None:
    """Ours, and those of the deployments, called `deployment:<name>`."""
    for name in LIMITS:
        try:
            there = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            gauges.set("corrdiff_limit_slots", 0, name)
            continue
        gauges.set("corrdiff_limit_slots", there.limit, name)
        gauges.set("corrdiff_limit_slots_taken", there.active_slots, name)
    for deployment in deployments:
        limit = deployment.global_concurrency_limit
        if limit is not None:
            gauges.set("corrdiff_limit_slots", limit.limit, f"deployment:{deployment.name}")
            gauges.set("corrdiff_limit_slots_taken", limit.active_slots, f"deployment:{deployment.name}")


def _workers(client: SyncPrefectClient, gauges: Gauges) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        gauges.set("corrdiff_workers_online", 0)
        return
    workers = client.read_workers_for_work_pool(POOL, offset=0, limit=_PAGE)
    gauges.set("corrdiff_workers_online", sum(worker.status == WorkerStatus.ONLINE for worker in workers))
    heard = [worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time]
    if heard:
        gauges.set("corrdiff_worker_heartbeat_age_seconds", datetime.now(UTC) - max(heard))


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    return client.read_deployments(work_pool_filter=_ours(), limit=_PAGE)


def _found(client: SyncPrefectClient, wanted: FlowRunFilter) -> list[FlowRun]:
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=wanted, work_pool_filter=_ours(), limit=_PAGE, offset=len(found)
    ):
        found += page
        if len(page) < _PAGE:
            break
    return found


def _ours() -> WorkPoolFilter:
    return WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))


def _of_type(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def _name(names: dict[UUID, str], run: FlowRun) -> str:
    """Of the run's deployment; empty where it has none, or none any more."""
    return names.get(run.deployment_id, "") if run.deployment_id else ""
