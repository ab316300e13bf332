"""Flow runs on the server that are dead and hold a place, and places that no run holds."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as this_run

from flows.api import LIMITS, POOL
from flows.limits import LEASE_SECONDS

STUCK = "Stuck"  # the state, of type Crashed, of a run that was taken for dead
LATE = timedelta(days=1)
_HEARTBEAT = "prefect.flow-run.heartbeat"
_PAGE = 200


def runs(patience: float) -> list[tuple[FlowRun, str]]:
    """Dead runs of our work pool, and why each is taken for dead; `patience` in minutes."""
    with get_client(sync_client=True) as client:
        now, wait = datetime.now(UTC), timedelta(minutes=patience)
        states = (StateType.PENDING, StateType.CANCELLING, StateType.SCHEDULED, StateType.RUNNING)
        found = [(run, _why(client, run, now, wait)) for run in _in_state(client, states, POOL)]
    return [(run, why) for run, why in found if why is not None]


def put_away(run: FlowRun, why: str) -> None:
    """The run is in a state of type Crashed, in which it holds no place; what it published stays."""
    state: State[None] = State(type=StateType.CRASHED, name=STUCK, message=f"{why}: taken for dead by the janitor")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def held_by_nobody() -> list[tuple[str, int]]:
    """Our limits of which places are held though no run has been at work for longer than a lease; and how many."""
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + LEASE_SECONDS + 30
        while taken := _taken(client):
            if _others_at_work(client):
                return []
            if time.monotonic() > deadline:
                return taken
            time.sleep(5)
    return []


def give_back(limit: str) -> None:
    """All places of the limit are free."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(active_slots=0))


def _why(client: SyncPrefectClient, run: FlowRun, now: datetime, wait: timedelta) -> str | None:
    state = run.state or State[None](type=StateType.SCHEDULED, timestamp=now)
    since = now - state.timestamp
    match state.type:
        case StateType.PENDING | StateType.CANCELLING if since > wait:
            return f"{state.type.value.lower()} for {_minutes(since)}"
        case StateType.SCHEDULED if run.expected_start_time and now - run.expected_start_time > LATE:
            return f"late by {_minutes(now - run.expected_start_time)}"
        case StateType.RUNNING if since > wait and run.id != _own_id():
            heard = _last_heartbeat(client, run.id)
            if heard is not None and now - heard > wait:
                return f"no sign of life for {_minutes(now - heard)}"
    return None


def _in_state(client: SyncPrefectClient, types: Iterable[StateType], pool: str | None) -> list[FlowRun]:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))))
    pools = None if pool is None else WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    found: list[FlowRun] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=pools, limit=_PAGE, offset=len(found)):
        found += page
    return found


def _last_heartbeat(client: SyncPrefectClient, run: UUID) -> datetime | None:
    """None where the run has never had one: it may have been started without."""
    query = {
        "filter": {"event": {"name": [_HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{run}"]}, "order": "DESC"},
        "limit": 1,
    }
    events = client.request("POST", "/events/filter", json=query).json()["events"]
    return datetime.fromisoformat(events[0]["occurred"]) if events else None


def _taken(client: SyncPrefectClient) -> list[tuple[str, int]]:
    found = []
    for name in LIMITS:
        try:
            places = client.read_global_concurrency_limit_by_name(name).active_slots
        except ObjectNotFound:
            continue
        if places:
            found.append((name, places))
    return found


def _others_at_work(client: SyncPrefectClient) -> bool:
    return any(run.id != _own_id() for run in _in_state(client, [StateType.RUNNING, StateType.CANCELLING], None))


def _own_id() -> UUID | None:
    return UUID(this_run.id) if this_run.id else None


def _minutes(span: timedelta) -> str:
    return f"{span / timedelta(minutes=1):.0f} min"
