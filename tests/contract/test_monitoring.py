"""Dashboards, rules and the scrape configuration: what is committed is what the code builds, and asks only for what is exported."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.dashboards import DASHBOARDS, FOLDER, dashboard_text
from featurestore.board.metrics import board_metrics, group_metrics, process_registry
from featurestore.board.watching import Standing
from featurestore.freshness.document import freshness_documents
from featurestore.serving.metrics import Metrics
from tests.scale import require_programs
from tests.unit.test_freshness import judged

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
REMEDY = "on Debian: apt-get install --no-install-recommends prometheus"
STANDS_FOR = {"$__rate_interval": "5m"}
"""What Grafana puts into a query itself; what a reader chooses stands within strings."""


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Every query of every dashboard, with the panel that asks it."""
    return [
        (f"{name}: {panel['title']}", target["expr"])
        for name in DASHBOARDS
        for panel in DASHBOARDS[name]()["panels"]
        for target in panel["targets"]
    ]


def metrics_of(query: str) -> set[str]:
    """The metrics that a query reads, by Prometheus's own grammar."""
    for variable, value in STANDS_FOR.items():
        query = query.replace(variable, value)
    found: set[str] = set()

    def visit(expression: Any) -> bool:
        if isinstance(expression, promql_parser.VectorSelector):
            found.add(expression.name)
        if isinstance(expression, promql_parser.MatrixSelector):
            found.add(expression.vector_selector.name)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def exported() -> set[str]:
    """Every name that the board and the feature server export."""
    documents = freshness_documents([judged()], {}, judged().at)
    texts = [group_metrics(documents), board_metrics(Standing(), 30.0, process_registry()), Metrics().text()]
    names = {"up"}
    for family in (family for text in texts for family in text_string_to_metric_families(text.decode())):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {f"{family.name}{ending}" for ending in endings}
    return names


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_committed_dashboard_is_what_the_code_builds(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert text == dashboard_text(name), "python -m deploy.grafana.dashboards writes them"
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_query_of_a_dashboard_reads_what_is_exported_or_recorded() -> None:
    known = exported() | {rule["record"] for rule in rules() if "record" in rule}
    asked = {name: metrics_of(query) for name, query in queries()}
    assert len(asked) > 25
    assert all(asked.values())
    assert {name: metrics - known for name, metrics in asked.items() if metrics - known} == {}


def test_every_variable_of_a_dashboard_is_a_label_of_the_groups() -> None:
    for build in DASHBOARDS.values():
        document = build()
        named = [one["name"] for one in document["templating"]["list"]]
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(document))) - {"__rate_interval", "__all"}
        assert used <= set(named)
        assert set(named) - {"datasource"} <= {"store", "group", "owner", "tier"}


def test_every_rule_reads_what_is_exported_or_recorded_before_it() -> None:
    known = exported()
    for rule in rules():
        assert metrics_of(rule["expr"]) <= known, rule
        known |= {rule.get("record", "")}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    told = [case for test in cases for case in test.get("alert_rule_test", [])]
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert {case["alertname"] for case in told if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in told if not case["exp_alerts"]} == alerts


def test_the_targets_are_where_make_up_listens() -> None:
    from featurestore.board.options import DEFAULT_PORT as BOARD
    from featurestore.serving.options import DEFAULT_PORT as SERVER

    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    targets = {one["job_name"]: one["static_configs"][0]["targets"] for one in configuration["scrape_configs"]}
    assert targets == {"featurestore-board": [f"127.0.0.1:{BOARD}"], "featurestore-server": [f"127.0.0.1:{SERVER}"]}


@pytest.mark.parametrize(
    "command",
    [("check", "rules", "rules.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")],
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    require_programs("promtool", "promtool", remedy=REMEDY)
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
