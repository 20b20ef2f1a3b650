"""Panels of Grafana dashboards as plain documents, and the dashboard around them: the JSON that Grafana imports.

Not here: which panels there are (`dashboards.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = 24
SCHEMA_VERSION = 39
"""Of Grafana 10.4 on; later ones convert it by themselves."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
STATUSES = {"OK": (0, "#009E73"), "WARN": (1, "#E69F00"), "NEVER": (2, "#6A5ACD"), "BREACH": (3, "#D55E00")}
"""As the rule `group:featurestore_status:max` numbers them; colours that colour-blind people tell apart (Okabe and Ito)."""
GROUP = "{{group}} {{store}}"
"""What a group's series is called; of one store alone there is no name to tell."""

Panel = dict[str, Any]
Row = tuple[int, Sequence[Panel]]
"""A height, and panels beside each other."""


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query and what its series are called; empty: by all their labels."""

    expr: str
    legend: str = ""


def series(title: str, queries: Sequence[Query], *, unit: str, text: str = "", low: float | None = 0) -> Panel:
    """Lines over time.

    Args:
        title: The panel's.
        queries: One line a series.
        unit: Grafana's name of it: 's', 'percentunit', 'reqps', 'short'.
        text: What a reader has to know.
        low: The axis begins here; None: where the values do.
    """
    custom = {"lineWidth": 1, "fillOpacity": 5, "showPoints": "never"}
    defaults = {"unit": unit, "custom": custom, **({} if low is None else {"min": low})}
    legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, queries, text, {"defaults": defaults, "overrides": []}, options)


def number(title: str, query: str, *, unit: str = "short", text: str = "", warn: float | None = None) -> Panel:
    """One figure of now; from `warn` on it is shown in the colour of a breach."""
    steps: list[dict[str, Any]] = [{"color": "text", "value": None}]
    if warn is not None:
        steps.append({"color": STATUSES["BREACH"][1], "value": warn})
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return _panel("stat", title, [Query(query)], text, {"defaults": defaults, "overrides": []}, options)


def ranking(title: str, query: str, *, unit: str, text: str = "", longest: float | None = None) -> Panel:
    """A bar for each group as of now."""
    defaults = {"unit": unit, "min": 0, **({} if longest is None else {"max": longest})}
    options = {
        "orientation": "horizontal",
        "displayMode": "basic",
        "reduceOptions": {"calcs": ["lastNotNull"]},
    }
    panel = _panel("bargauge", title, [Query(query, GROUP)], text, {"defaults": defaults, "overrides": []}, options)
    panel["targets"][0]["instant"] = True
    return panel


def statuses(title: str, query: str, *, text: str = "") -> Panel:
    """Each group's status over time, as word and colour."""
    mappings = {str(value): {"text": word, "color": color} for word, (value, color) in STATUSES.items()}
    defaults = {"mappings": [{"type": "value", "options": mappings}], "custom": {"fillOpacity": 80, "lineWidth": 0}}
    options = {"showValue": "auto", "mergeValues": True, "rowHeight": 0.8}
    return _panel(
        "state-timeline", title, [Query(query, GROUP)], text, {"defaults": defaults, "overrides": []}, options
    )


def dashboard(
    uid: str, title: str, text: str, variables: Sequence[tuple[str, str]], rows: Sequence[Row]
) -> dict[str, Any]:
    """A dashboard; its panels stand in rows, each as wide as the others of its row.

    Args:
        uid: Its address in Grafana.
        title: Its name.
        text: What it is for.
        variables: What a reader may choose: a label of `featurestore_group_info`, and its caption.
        rows: From above.
    """
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["featurestore"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["featurestore"], "title": "featurestore", "asDropdown": True}],
        "templating": {"list": [_datasource(), *(_variable(label, caption) for label, caption in variables)]},
        "panels": _placed(rows),
    }


def _panel(
    kind: str, title: str, queries: Sequence[Query], text: str, fields: Mapping[str, Any], options: Mapping[str, Any]
) -> Panel:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "datasource": SOURCE,
        }
        for place, query in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": dict(fields),
        "options": dict(options),
    }


def _placed(rows: Sequence[tuple[int, Sequence[Panel]]]) -> list[Panel]:
    placed: list[Panel] = []
    top = 0
    for height, panels in rows:
        width = COLUMNS // len(panels)
        for place, panel in enumerate(panels):
            position = {"x": place * width, "y": top, "w": width, "h": height}
            placed.append({"id": len(placed) + 1, **panel, "gridPos": position})
        top += height
    return placed


def _datasource() -> dict[str, Any]:
    return {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"}


def _variable(label: str, caption: str) -> dict[str, Any]:
    """A choice among a label's values: one group, or any number of stores, owners and tiers."""
    query = f"label_values(featurestore_group_info, {label})"
    several = label != "group"
    return {
        "type": "query",
        "name": label,
        "label": caption,
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }
