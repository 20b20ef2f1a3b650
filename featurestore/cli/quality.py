"""`quality`: what was kept of a group's windows, and how far each is from its references; `training`: the sets of a service."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from featurestore.cli.tables import table_text, value_text
from featurestore.cli.times import instant_text
from featurestore.declaration.windows import Daily, Hourly
from featurestore.errors import InvalidInput
from featurestore.offline.store import OfflineStore
from featurestore.quality.deployed import deploy_training_set, deployed_set, read_manifest, training_sets
from featurestore.quality.drift import FeatureDrift, WindowDrift
from featurestore.quality.evaluation import evaluate
from featurestore.quality.frame import WindowStatistics, readable_rows, top_text
from featurestore.quality.recording import production_statistics
from featurestore.quality.reference import REACH
from featurestore.registry.snapshot import RegisteredGroup

HEADERS = ["window", "feature", "count", "null", "nan", "min", "p50", "mean", "max", "distinct", "top values", "drift"]
RIGHT = HEADERS[2:10]
SET_HEADERS = ["set", "rows", "windows", "deployed"]


def quality_document(
    store: OfflineStore, name: str, features: Sequence[str], first: str | None, last: str | None
) -> dict[str, Any]:
    """What was kept of the windows asked for, oldest first; without a first or last one, of the newest.

    Args:
        features: Names of the features to show; none shows all.
        first: Partition key of the first window; of a group without windows a day.
        last: The same of the last one, itself included.

    Raises:
        UnknownName: there is no such group, or it has no such feature.
        InvalidInput: a key is not one of the group's.
    """
    group = store.registry.group(name)
    wanted = {group.feature(feature).name for feature in features} or set(group.feature_names)
    since, until = (_start(group, key) if key else None for key in (first, last))
    known = production_statistics(store, group.name, since=None if since is None else since - REACH)
    shown = [one for one in known if (since is None or one.window_start >= since)]
    shown = [one for one in shown if until is None or one.window_start <= until]
    shown = shown if first or last else shown[-1:]
    drift = {one.window_start: one for one in evaluate(store, group, known, shown)} if group.has_windows else {}
    return {"group": group.name, "windows": [_window(one, drift.get(one.window_start), wanted) for one in shown]}


def quality_text(document: Mapping[str, Any]) -> str:
    """A line a window and feature."""
    if not document["windows"]:
        return f"No statistics of {document['group']}: no window asked for is in production."
    rows = [_line(window, feature) for window in document["windows"] for feature in window["features"]]
    return table_text(HEADERS, rows, right=RIGHT)


def training_document(store: OfflineStore, service: str, deploy: str | None, person: str) -> dict[str, Any]:
    """The training sets of a service; `deploy` names one that counts as deployed from now on.

    Raises:
        UnknownName: there is no such service, or no such set.
    """
    store.registry.service(service)
    if deploy is not None:
        deploy_training_set(store.root, service, deploy, store.clock(), person)
    current = deployed_set(store.root, service)
    return {
        "service": service,
        "deployed": None if current is None else current.name,
        "is_chosen": current is not None and current.is_chosen,
        "sets": [_set(store, service, name) for name in training_sets(store.root, service)],
    }


def training_text(document: Mapping[str, Any]) -> str:
    """A line a set."""
    if not document["sets"]:
        return f"Service {document['service']} has no training set yet."
    how = "named" if document["is_chosen"] else "the last built"
    rows = [
        [one["set"], f"{one['rows']:,}", f"{one['windows']:,}", how if one["set"] == document["deployed"] else "-"]
        for one in document["sets"]
    ]
    return table_text(SET_HEADERS, rows, right=["rows", "windows"])


def _start(group: RegisteredGroup, key: str) -> datetime:
    if group.has_windows:
        cadence = (Hourly if group.cadence == "hourly" else Daily)(date.fromisoformat(group.start[:10]))
        return cadence.window_of(key).start
    try:
        return datetime.combine(date.fromisoformat(key), datetime.min.time(), tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(f"{key!r} is not a day. Group {group.name!r} has no windows: write 2026-03-01.") from error


def _window(one: WindowStatistics, drift: WindowDrift | None, wanted: set[str]) -> dict[str, Any]:
    rows = readable_rows([one]).drop("window_start", "table_version", "run_id", "recorded_at").to_dicts()
    found = [] if drift is None else drift.features
    return {
        "window": one.window_start,
        "table_version": one.table_version,
        "run_id": one.run_id,
        "recorded_at": one.recorded_at,
        "status": None if drift is None else drift.status,
        "features": [
            {**row, "drift": [_drift(item) for item in found if item.feature == row["feature"]]}
            for row in rows
            if row["feature"] in wanted
        ],
    }


def _drift(one: FeatureDrift) -> dict[str, Any]:
    measures = {name: {"value": measured.value, "limit": measured.limit} for name, measured in one.measures.items()}
    return {
        "against": one.reference,
        "windows": one.windows,
        "is_beyond": one.is_beyond,
        "measures": measures,
        "not_compared": one.unjudged,
    }


def _line(window: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    shares = [_share(row[name]) for name in ("null_fraction", "nan_fraction")]
    numbers = [value_text(row[name]) for name in ("min", "p50", "mean", "max")]
    top = "-" if row["top_values"] is None else top_text(row["top_values"], row["count"]) or "-"
    start = instant_text(window["window"]).removesuffix(" UTC")
    drift = "; ".join(_drift_text(one) for one in row["drift"]) or "-"
    return [start, row["feature"], f"{row['count']:,}", *shares, *numbers, f"{row['distinct']:,}", top, drift]


def _drift_text(one: Mapping[str, Any]) -> str:
    if one["is_beyond"]:
        beyond = {name: m for name, m in one["measures"].items() if m["value"] > m["limit"]}
        told = ", ".join(f"{name} {m['value']:.3g} > {m['limit']:.3g}" for name, m in beyond.items())
        return f"{told} ({one['against']})"
    return f"none ({one['against']})" if one["measures"] else f"not compared: {one['not_compared']}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _set(store: OfflineStore, service: str, name: str) -> dict[str, Any]:
    manifest = read_manifest(store.root, service, name)
    windows = sum(len(counted) for counted in manifest.get("windows", {}).values())
    return {"set": name, "rows": manifest["rows"], "windows": windows}
