"""The server's automations: what raises each alert, what ends it, and what becomes of a run that is dead."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows import alerts
from flows.alerts import Alert
from flows.api import POOL
from flows.dead import STUCK
from flows.events import DEGRADED, PROMOTED, PUBLISHED, REJECTED

Match = dict[str, str | list[str]]  # the labels of a resource, or of one that is related to it

LONGEST = timedelta(days=365)  # that an alert may last for its end to be told
ONCE_IN = timedelta(hours=6)  # that one cycle stands in for a later one is told once
_MODEL = "{{ event.resource.id }}"
_ALIVE, _RUNNING, _PENDING = (f"prefect.flow-run.{event}" for event in ("heartbeat", "Running", "Pending"))
_RUN = "{{ flow.name }}/{{ deployment.name }}, run {{ flow_run.name }}"
_OURS: Match = {"prefect.resource.role": "work-pool", "prefect.resource.name": POOL}
_RUNS: Match = {"prefect.resource.id": "prefect.flow-run.*"}
_SLOTS: Match = {"prefect.resource.id": "corrdiff.slot.*"}
_MODELS: Match = {"prefect.resource.id": "corrdiff.model.*"}
_OPERATIONS: Match = {"prefect.resource.id": "prefect.work-queue.*", "prefect.resource.name": "operations"}


@dataclass(frozen=True)
class Timing:
    """How long without a new slot an hour is late, a run may be pending, and a run without a sign of life is alive."""

    late: timedelta
    pending: timedelta
    silent: timedelta


def automations(block: UUID | None, timing: Timing) -> list[AutomationCore]:
    """All but `endings`; alerts are sent by the notification block `block`, or to nobody."""

    def raised(alert: Alert, trigger: EventTrigger, text: str, actions: Iterable[ActionTypes] = ()) -> AutomationCore:
        return AutomationCore(
            name=_name(alert),
            description=f"{alert.urgency}: {alert.meaning} ({alert.runbook})",
            tags=["corrdiff"],
            trigger=trigger,
            actions=[*actions, _say(block, f"[{alert.urgency}] {alert.name}", f"{text}\n{alert.meaning}", alert)],
        )

    silent, pending = f"no sign of life for {timing.silent}", f"pending for {timing.pending}"
    return [
        raised(alerts.LATE_HOUR, _absent(PUBLISHED, _SLOTS, timing.late), f"No new slot for {timing.late}."),
        raised(alerts.STUCK_RUN, _silence({_ALIVE, _RUNNING}, timing.silent), f"{_RUN}: {silent}.", [_crash(silent)]),
        raised(alerts.PENDING_RUN, _silence({_PENDING}, timing.pending), f"{_RUN}: {pending}.", [_crash(pending)]),
        raised(
            alerts.FAILED_RUN,
            _seen({f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}, _RUNS, related=_OURS),
            f"{_RUN}: {{{{ flow_run.state.name }}}}: {{{{ flow_run.state.message }}}}",
        ),
        raised(
            alerts.WORKER_GONE, _seen({"prefect.work-queue.not-ready"}, _OPERATIONS), "No worker asks for hourly runs."
        ),
        raised(
            alerts.FALLBACK,
            _seen({PUBLISHED}, _SLOTS | {"corrdiff.fallback": "true"}, within=ONCE_IN),
            "{{ event.resource['corrdiff.slot'] }} is of an older cycle.",
        ),
        raised(alerts.SKILL_DEGRADED, _seen({DEGRADED}, _MODELS), f"{_MODEL}: {{{{ event.payload }}}}"),
        raised(alerts.MODEL_PROMOTED, _seen({PROMOTED}, _MODELS), f"{_MODEL}: {{{{ event.payload.reasons }}}}"),
        raised(alerts.MODEL_REJECTED, _seen({REJECTED}, _MODELS), f"{_MODEL}: {{{{ event.payload.reasons }}}}"),
    ]


def endings(block: UUID | None, raised: dict[str, UUID]) -> list[AutomationCore]:
    """What tells that a late hour, or a worker that was gone, is over; `raised` are the automations that are there."""
    ends = ((alerts.LATE_HOUR, PUBLISHED, _SLOTS), (alerts.WORKER_GONE, "prefect.work-queue.ready", _OPERATIONS))
    return [
        AutomationCore(
            name=f"{_name(alert)}, over",
            description=f"note: ends the alert {alert.name} ({alert.runbook})",
            tags=["corrdiff"],
            trigger=_after(alert, raised[_name(alert)], event, resource),
            actions=[_say(block, f"[note] {alert.name}: over", "{{ event.event }} at {{ event.occurred }}", alert)],
        )
        for alert, event, resource in ends
    ]


def _name(alert: Alert) -> str:
    return f"corrdiff: {alert.name}"


def _say(block: UUID | None, subject: str, text: str, alert: Alert) -> ActionTypes:
    if block is None:
        return DoNothing()
    return SendNotification(block_document_id=block, subject=subject, body=f"{text}\n{alert.runbook}")


def _crash(why: str) -> ActionTypes:
    message = f"{why}: taken for dead. What it has published stays; the next run goes on from there"
    return ChangeFlowRunState(state=StateType.CRASHED, name=STUCK, message=message, force=True)


# Triggers


def _seen(
    events: set[str],
    match: Match,
    within: timedelta = timedelta(0),
    related: Match | None = None,
) -> EventTrigger:
    """On one of these events, and not again `within` that time."""
    return EventTrigger(
        match=match, match_related=related or {}, expect=events, within=within, posture=Posture.Reactive
    )


def _absent(event: str, match: Match, within: timedelta) -> EventTrigger:
    """When there was no such event `within` that time, and again as long after."""
    return EventTrigger(match=match, expect={event}, within=within, posture=Posture.Proactive)


def _silence(after: set[str], within: timedelta) -> EventTrigger:
    """When a run has said nothing `within` that time since one of `after`; whatever it says is a sign of life."""
    return EventTrigger(
        match=_RUNS,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        after=after,
        expect={"prefect.flow-run.*"},
        within=within,
        posture=Posture.Proactive,
    )


def _after(alert: Alert, automation: UUID, event: str, match: Match) -> EventTrigger:
    """On the first such event after that automation was triggered."""
    own = {"prefect.resource.id": f"prefect.automation.{automation}", "prefect.resource.name": _name(alert)}
    return EventTrigger(
        match={label: [str(value), own[label]] for label, value in match.items()},
        after={"prefect.automation.triggered"},
        expect={event},
        within=LONGEST,
        posture=Posture.Reactive,
    )
