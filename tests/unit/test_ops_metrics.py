"""Alerts, dashboard and docs speak of metrics that exist, by labels that they have."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from promptmill.metrics import METRICS

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
DASHBOARD = OPS / "grafana" / "dashboards" / "promptmill.json"
ALERTS = OPS / "prometheus" / "alerts.yml"
LABELS = {metric.name: set(metric.labels) for metric in METRICS}
OF_PROMETHEUS = {"job", "instance"}

_SELECTED = re.compile(r"(promptmill_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*[!=]~?\"")


def rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(ALERTS)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    for name, selected in _SELECTED.findall(expression):
        assert name in LABELS
        assert set(_LABEL.findall(selected)) <= LABELS[name] | OF_PROMETHEUS


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_legend_names_labels_that_the_series_have(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= set().union(*(LABELS[name] for name, _ in _SELECTED.findall(target["expr"])))


def test_every_alert_has_a_paragraph_on_what_to_do() -> None:
    headings = re.findall(r"^### (Promptmill\w+)$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)

    assert [rule["alert"] for rule in rules()] == headings
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"


def test_every_metric_is_in_the_docs_with_its_labels() -> None:
    docs = (ROOT / "docs" / "metrics.md").read_text() + (ROOT / "docs" / "limits.md").read_text()

    for metric in METRICS:
        assert f"`{metric.name}" in docs, metric.name


@pytest.mark.parametrize(
    "words",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
    ids=["check", "test"],
)
def test_promtool_accepts_the_alerts_and_their_tests(words: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")

    done = subprocess.run([promtool, *words], cwd=ALERTS.parent, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
