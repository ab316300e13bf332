"""The orchestrated flows: the only place that knows Prefect."""
