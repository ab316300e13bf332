"""Prometheus' rules: they ask for metrics that there are, point into the run-book, and fire when they should."""

import re
import shutil
import subprocess

import pytest
import yaml

from flows.gauges import GAUGES
from tests.flows.flow_cases import REPOSITORY

FOLDER = REPOSITORY / "infra" / "prometheus"
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]


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


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not there: Debian's package prometheus has it"
)
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_agrees(arguments):
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr
