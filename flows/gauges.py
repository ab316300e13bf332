"""The metrics that Prometheus is told: names, labels, meanings, their one home; and the samples of one look."""

from collections.abc import Iterator
from datetime import timedelta

from prometheus_client.core import GaugeMetricFamily, Metric

_SERIES = ("source", "model")
# Name, labels, meaning. Where nothing is known of a thing there is no sample of it, never a zero.
GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "corrdiff_census_timestamp_seconds": ((), "When these metrics were computed, by the wall clock."),
    "corrdiff_archive_up": ((), "Whether the archive could be read."),
    "corrdiff_model_up": ((), "Whether the model that the settings name could be read."),
    "corrdiff_server_up": ((), "Whether Prefect's server answered. Absent where PREFECT_API_URL is not set."),
    "corrdiff_slots_published": (_SERIES, "Slots published within the period (24 h by default)."),
    "corrdiff_slots_fallback": (_SERIES, "Of the slots published within the period, those of a stand-in cycle."),
    "corrdiff_valid_times_due": (
        ("source",),
        "Valid hours, from the period's begin (or the first slot) to the window's end, due since an hour.",
    ),
    "corrdiff_valid_times_missing": (("source",), "Of the valid hours due, those that no model has a slot of."),
    "corrdiff_newest_slot_age_seconds": (_SERIES, "Since the newest publication of a slot."),
    "corrdiff_newest_valid_ahead_seconds": (_SERIES, "From now to the newest valid time; negative once it is past."),
    "corrdiff_newest_slot_lateness_seconds": (_SERIES, "From when the newest slot was due to when any model had it."),
    "corrdiff_worst_slot_lateness_seconds": (
        _SERIES,
        "The longest such lateness of slots that fell due in the period.",
    ),
    "corrdiff_stage_seconds": ((*_SERIES, "stage"), "Mean time of a stage, of the newest slots (a window's number)."),
    "corrdiff_sampled_members_per_second": (_SERIES, "Members sampled in a second, of the newest slots."),
    "corrdiff_slot_stored_bytes": (_SERIES, "Mean size of a slot's outputs as stored, of the newest slots."),
    "corrdiff_latest_age_seconds": (("source",), "Since latest.json was written."),
    "corrdiff_latest_init_age_seconds": (("source",), "Since the init_time that latest.json names."),
    "corrdiff_archive_free_bytes": ((), "Left on the disk of a local archive."),
    "corrdiff_series_stored_bytes": (("kind", *_SERIES), "All objects of a series. Only with --sizes."),
    "corrdiff_series_objects": (("kind", *_SERIES), "How many objects a series has. Only with --sizes."),
    "corrdiff_model_info": (("name", "identity", "ref"), "The model that an hourly run would use now; always 1."),
    "corrdiff_flow_runs": (("deployment", "type", "state"), "Flow runs expected to start within the period."),
    "corrdiff_oldest_flow_run_age_seconds": (
        ("deployment", "state"),
        "Of the oldest flow run that is late (since it was to start), pending, running or cancelling (in that state).",
    ),
    "corrdiff_limit_slots": (("limit",), "Places of a concurrency limit, or of a deployment; 0 where it is absent."),
    "corrdiff_limit_slots_taken": (("limit",), "Places that are taken."),
    "corrdiff_workers_online": ((), "Workers of the work pool that are alive."),
    "corrdiff_worker_heartbeat_age_seconds": ((), "Since the newest sign of life of any worker of the pool."),
}


class Gauges:
    """Samples of the metrics above."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}

    def set(self, name: str, value: float | timedelta, *labels: str) -> None:
        """ValueError where the metric has other labels."""
        if len(labels) != len(GAUGES[name][0]):
            raise ValueError(f"{name} has the labels {GAUGES[name][0]}, but {labels} are given")
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        self._samples.setdefault(name, []).append((labels, float(seconds)))

    def add(self, other: "Gauges") -> None:
        self._samples |= other._samples

    def families(self) -> Iterator[Metric]:
        for name, (labels, meaning) in GAUGES.items():
            family = GaugeMetricFamily(name, meaning, labels=labels)
            for values, value in self._samples.get(name, ()):
                family.add_metric(values, value)
            if family.samples:
                yield family
