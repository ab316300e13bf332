"""Prometheus' rules: they ask for metrics that there are, point into the run-book, and fire when they should."""

import re
import shutil
import subprocess
from inspect import signature

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from flows.gauges import GAUGES, Gauges
from flows.ops import bootstrap
from tests.flows.flow_cases import REPOSITORY

FOLDER = REPOSITORY / "infra" / "prometheus"
PROMTOOL = shutil.which("promtool") or ""
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is not there: Debian's package prometheus has it")


class Constant(Collector):
    """One sample of every metric, always the same."""

    def collect(self):
        gauges = Gauges()
        for name, (labels, _) in GAUGES.items():
            gauges.set(name, 1, *labels)
        return gauges.families()


def promtool(*arguments, **options):
    return subprocess.run([PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, **options)


def test_rules_ask_for_metrics_and_labels_that_there_are():
    for rule in RULES:
        names = set(re.findall(r"corrdiff_\w+", rule["expr"]))
        assert names <= set(GAUGES), rule["alert"]
        labels = {label for name in names for label in GAUGES[name][0]} | {"instance", "job"}
        asked = re.findall(r"(?:by|on) \((\w+)\)", rule["expr"]) + re.findall(r"[{,](\w+)=", rule["expr"])
        assert set(asked) <= labels, rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels, rule["alert"]


def test_rules_have_an_urgency_and_a_place_in_the_run_book():
    text = (REPOSITORY / "infra" / "README.md").read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "day", "note")
        file, anchor = rule["annotations"]["runbook"].split("#")
        assert file == "infra/README.md"
        assert anchor in anchors, rule["alert"]


def test_an_hour_is_late_as_soon_for_prometheus_as_for_the_server():
    late = signature(bootstrap).parameters["late"].default
    (expression,) = [rule["expr"] for rule in RULES if rule["alert"] == "CorrdiffLateHour"]
    assert expression.endswith(f"> {late:g} * 60")


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_agrees_with_the_rules(arguments):
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_has_nothing_to_say_on_the_metrics():
    registry = CollectorRegistry()
    registry.register(Constant())
    text = generate_latest(registry).decode()
    assert all(f"# TYPE {name} gauge" in text for name in GAUGES)
    done = promtool("check", "metrics", input=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
