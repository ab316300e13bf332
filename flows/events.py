"""The events that this package tells Prefect's server, by which automations are triggered. Their names' one home."""

from typing import Any

from prefect.events import emit_event

from corrdiff_core.cycle import Slot
from flows.slots import Run

PUBLISHED = "corrdiff.slot.published"
PROMOTED, REJECTED = "corrdiff.model.promoted", "corrdiff.model.rejected"
DEGRADED = "corrdiff.skill.degraded"


def slot_published(run: Run, slot: Slot, provenance: dict[str, Any]) -> None:
    """An operational run has published a slot; its resource is `corrdiff.slot.<source>`."""
    emit_event(
        event=PUBLISHED,
        resource={
            "prefect.resource.id": f"corrdiff.slot.{run.series.source}",
            "corrdiff.slot": str(slot),
            "corrdiff.fallback": str(provenance["fallback"]).lower(),
        },
        payload={
            "series": run.series.key,
            "init_time": provenance["init_time"],
            "valid_time": provenance["valid_time"],
            "members": provenance["members"],
            "fallback": provenance["fallback"],
            "seconds": provenance["seconds"],
        },
    )


def model_judged(name: str, version: str, identity: str, promoted: bool, reasons: list[str]) -> None:
    """A candidate was put into production, or was not; its resource is `corrdiff.model.<name>`."""
    emit_event(
        event=PROMOTED if promoted else REJECTED,
        resource={"prefect.resource.id": f"corrdiff.model.{name}", "corrdiff.version": version},
        payload={"version": version, "identity": identity, "reasons": reasons},
    )


def skill_degraded(name: str, payload: dict[str, Any]) -> None:
    """The model `name` in production does worse than it did or should: what the deployment `retrain` waits for."""
    emit_event(event=DEGRADED, resource={"prefect.resource.id": f"corrdiff.model.{name}"}, payload=payload)
