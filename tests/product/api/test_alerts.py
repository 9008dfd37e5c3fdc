"""Alerts, dashboard and runbooks name what the service really has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.product.commands import manage
from tests.product.people import account, register
from tests.under_test import Lab
from tristore.stores.stores import Stores
from tristore.testing.mail import LetterBox
from tristore.testing.outbox import query

PROJECT = Path(__file__).parents[3]
PROMETHEUS = PROJECT / "deploy" / "prometheus"
RUNBOOKS = PROJECT / "docs" / "runbooks"
RULES = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
PANELS = json.loads((PROJECT / "deploy" / "grafana" / "dashboard.json").read_text())["panels"]
QUERIES = {
    **{rule.get("alert") or rule["record"]: rule["expr"] for rule in RULES},
    **{f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]},
}
NAME = re.compile(r"[a-zA-Z_:][\w:]*")
WORDS = {
    *"sum rate min max count topk absent by on ignoring and or vector histogram_quantile".split(),
    *"le http_request_method http_route http_response_status_code store event state instance".split(),
}
"""Of PromQL, and labels to group by."""


def metrics_in(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each metric, with the labels that are asked for by `=`."""
    for found in re.finditer(r"([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})?", re.sub(r"\[[^\]]*\]", "", expression)):
        if found[1] not in WORDS:
            yield found[1], dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))


def labels_in(expression: str) -> set[str]:
    matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    grouped = re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", expression)
    return {*matched, *(name.strip() for names in grouped for name in names.split(","))}


@pytest.fixture
async def seen(mailed: httpx.AsyncClient, box: LetterBox) -> dict[str, list[dict[str, str]]]:
    """The labels of each sample of a run, by its name."""
    client, body = mailed, account()
    headers = await register(client, **body)
    await client.post("/auth/token", data={"username": headers["X-User-Id"], "password": "not this one"})
    await client.get("/users/me", headers=headers)
    await box.to(body["email"])
    samples: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        suffix = "_total" if family.type == "counter" else ""
        samples.setdefault(family.name + suffix, [])  # nothing may have happened yet
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample.labels)
    return samples


@pytest.mark.parametrize("of", ["alerts", "dashboard"])
async def test_each_metric_and_label_is_one_that_a_run_shows(of: str, seen: dict[str, list[dict[str, str]]]) -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    titles = {f"{panel['title']} {target['refId']}" for panel in PANELS for target in panel["targets"]}
    chosen = {title: query for title, query in QUERIES.items() if (title in titles) == (of == "dashboard")}
    assert chosen
    for title, expression in chosen.items():
        metrics = list(metrics_in(expression))
        assert metrics, title
        known: set[str] = set()
        for name, labels in metrics:
            assert name in recorded or name in seen, f"{title}: {name}"
            known |= {label for sample in seen.get(name, []) for label in sample}
            if labels:
                assert any(labels.items() <= sample.items() for sample in seen[name]), f"{title}: {name} {labels}"
        events = {"event"} if all(not seen.get(name) for name, _ in metrics) else set()  # none has happened
        assert labels_in(expression) <= known | events, title


def test_what_is_no_metric_would_be_noticed() -> None:
    asked = 'max by (stor) (store_upp{store="redis"}) > 0 and rate(x_total{event=~"a.*"}[5m])'
    assert list(metrics_in(asked)) == [("stor", {}), ("store_upp", {"store": "redis"}), ("x_total", {})]
    assert labels_in(asked) == {"stor", "store", "event"}


def test_the_operator_gets_the_same_rules() -> None:
    folder = PROJECT / "deploy" / "kubernetes" / "overlays" / "production"
    rule = yaml.safe_load((folder / "alerts.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())


def test_each_alert_fires_and_is_silent_when_it_should() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    asked = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in asked if case.get("exp_alerts")} == ALERTS.keys()
    quiet = next(test for test in tests if test["name"] == "quiet")
    assert {case["alertname"] for case in quiet["alert_rule_test"]} == ALERTS.keys()
    if shutil.which("promtool") is None:
        pytest.skip("NOT RUN for want of promtool, which Debian has in its package prometheus")
    command = ["promtool", "test", "rules", str(PROMETHEUS / "alerts_test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    named = {rule["annotations"]["runbook"] for rule in ALERTS.values()}
    assert named == {str(path.relative_to(PROJECT)) for path in RUNBOOKS.glob("*.md")}
    for alert, rule in ALERTS.items():
        heading = (PROJECT / rule["annotations"]["runbook"]).read_text().splitlines()[0]
        assert alert in heading.removeprefix("# ").split(", ")
        assert rule["labels"]["severity"] in {"page", "ticket"}


def _blocks(language: str) -> list[Any]:
    return [
        pytest.param(block.strip(), id=f"{path.stem}-{number}")
        for path in sorted(RUNBOOKS.glob("*.md"))
        for number, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
        )
    ]


COMMANDS = sorted(
    {
        found[1]
        for block in _blocks("sh")
        for found in re.finditer(r"-- python manage\.py (.*)$", block.values[0], re.MULTILINE)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_commands_of_runbooks_are_taken(command: str, lab: Lab) -> None:
    code, printed = await manage(lab, *command.split())
    assert code == 0, printed


async def test_the_other_commands_that_runbooks_name_exist(lab: Lab) -> None:
    text = "".join(path.read_text() for path in RUNBOOKS.glob("*.md"))
    for group, verb in sorted(set(re.findall(r"`manage\.py (\w+) (\w+)`", text))):
        code, printed = await manage(lab, group, verb, "--help")
        assert (code, "Usage" in printed) == (0, True)


@pytest.mark.parametrize("statement", _blocks("sql"))
async def test_the_statements_of_runbooks_are_taken(statement: str, stores: Stores) -> None:
    await query(stores, statement)


async def test_the_queries_of_runbooks_name_what_is_shown(seen: dict[str, list[dict[str, str]]]) -> None:
    for block in _blocks("promql"):
        for name, _ in metrics_in(block.values[0]):
            assert name in seen, block.id
