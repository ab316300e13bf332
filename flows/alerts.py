"""The alerts: how urgent each is, what it means, and where infra/README.md says what to do. Their one home."""

from dataclasses import dataclass
from typing import Literal

Urgency = Literal["page", "day", "note"]  # somebody gets up; somebody looks today; nothing to do


@dataclass(frozen=True)
class Alert:
    """`anchor` is a heading of infra/README.md."""

    name: str
    urgency: Urgency
    meaning: str
    anchor: str

    @property
    def runbook(self) -> str:
        return f"infra/README.md#{self.anchor}"


LATE_HOUR = Alert(
    "late hour", "page", "No new slot was published in time: readers are running out of hours.", "late-hour"
)
WORKER_GONE = Alert(
    "worker gone", "page", "Nobody takes hourly runs: the worker, or its way to the server, is down.", "worker-gone"
)
FAILED_RUN = Alert(
    "failed run", "day", "A run ended in a failure, which it names. The next hourly run tries again.", "failed-run"
)
STUCK_RUN = Alert(
    "stuck run", "day", "A run's process is gone. It was put away, so that it holds no place.", "stuck-run"
)
PENDING_RUN = Alert("pending run", "day", "A run was taken up and did not start. It was put away.", "pending-run")
SKILL_DEGRADED = Alert(
    "skill degraded", "day", "The model does worse than it did or should. A retraining begins.", "skill-degraded"
)
FALLBACK = Alert("fallback", "note", "A cycle was late, and the one before it stands in for it.", "fallback")
MODEL_PROMOTED = Alert(
    "model promoted", "note", "A better model is in production from the next hourly run on.", "model-promoted"
)
MODEL_REJECTED = Alert(
    "model rejected", "note", "A candidate was no better: production is unchanged.", "model-rejected"
)

_RUNS = (LATE_HOUR, WORKER_GONE, FAILED_RUN, STUCK_RUN, PENDING_RUN, FALLBACK)
ALERTS = (*_RUNS, SKILL_DEGRADED, MODEL_PROMOTED, MODEL_REJECTED)
