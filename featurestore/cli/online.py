"""`get-online` and `materialize`: reading the online copy, and moving it to what the tables hold."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click

from featurestore.cli.entities import parse_entities
from featurestore.cli.requests import parse_request
from featurestore.cli.tables import table_text, value_text
from featurestore.cli.times import age_text, duration_text, instant_text
from featurestore.freshness.read_state import GroupState, Mode
from featurestore.online.materialization.moves import Progress, Step
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.references import RequestedGroup, resolve
from featurestore.store import FeatureStore

PROGRESS_SECONDS = 2.0

FEATURE_HEADERS = ["feature", "value", "status", "event time", "age", "freshness"]
MODE_OF: dict[str, Mode] = {"strict": "strict", "degrade": "degrade", "stale-ok": "stale_ok"}
STEP_HEADERS = ["group", "keys", "written", "left", "table version", "note"]


def read_online(
    store: FeatureStore, asked: str, shared: Sequence[str], entities: Sequence[str], mode: Mode = "degrade"
) -> tuple[list[dict[str, Any]], Mapping[str, str]]:
    """The newest values of some entities, an item each: its keys, and its features in the order asked; and by group, why
    values are unavailable.

    Args:
        store: Whose online copy is read, by whose clock.
        asked: A service, or references with commas between them.
        shared: `key=value` of every entity.
        entities: Each entity's own pairs; none: one entity, of `shared`.
        mode: What is wanted of groups that are late.

    Raises:
        NotFresh: `mode` is "strict", and a group is in breach, or nobody knows that it is not.
    """
    request = parse_request(store.registry, asked)
    requested = resolve(store.registry, request, full_feature_names=True)
    rows = parse_entities(requested, shared, entities)
    answer = store.get_online_features(request, rows, full_feature_names=True, freshness=mode)
    now = answer.freshness.at or store.clock()
    items = [
        {"keys": keys, "features": _features(answer, requested, index, now)}
        for index, keys in enumerate(rows.to_dicts())
    ]
    return items, answer.causes


def _features(
    answer: OnlineFeatures, requested: Sequence[RequestedGroup], index: int, now: datetime
) -> list[dict[str, Any]]:
    states = {one.group: one for one in answer.freshness.groups}
    values, statuses, times = (
        frame.row(index, named=True) for frame in (answer.frame, answer.statuses, answer.event_times)
    )
    return [
        {
            "feature": f"{wanted.group.name}:{feature.name}",
            "value": values[column],
            "unit": feature.unit,
            "status": statuses[column],
            "event_time": times[column],
            "age_seconds": None if times[column] is None else now - times[column],
            "freshness": _freshness(states[wanted.group.name]),
        }
        for wanted in requested
        for feature, column in wanted.features
    ]


def _freshness(one: GroupState) -> dict[str, Any]:
    return {"state": one.state, "lag_seconds": one.lag, "slo_seconds": one.slo, "since": one.since, "cause": one.cause}


def online_text(entities: Sequence[dict[str, Any]]) -> str:
    """A table an entity; its keys above it."""
    return "\n\n".join(_entity_text(entity) for entity in entities)


def _entity_text(entity: dict[str, Any]) -> str:
    keys = "  ".join(f"{key}={value_text(value)}" for key, value in entity["keys"].items())
    lines = [_feature_line(feature) for feature in entity["features"]]
    return f"{keys}\n{table_text(FEATURE_HEADERS, lines)}"


def _feature_line(feature: dict[str, Any]) -> list[str]:
    age = feature["age_seconds"]
    return [
        feature["feature"],
        _measure(feature["value"], feature["unit"]),
        feature["status"],
        instant_text(feature["event_time"]),
        "-" if age is None else age_text(age),
        _state_text(feature["freshness"]),
    ]


def _state_text(freshness: dict[str, Any]) -> str:
    """A group's state; of one that is not well also how far it is behind, and why."""
    state, lag, cause = freshness["state"], freshness["lag_seconds"], freshness["cause"]
    if state in ("NONE", "OK"):
        return "-" if state == "NONE" else "OK"
    told = [cause] if cause and cause != "unpublished" else []
    told += [] if lag is None else [f"{age_text(lag)} of {duration_text(freshness['slo_seconds'])}"]
    return f"{state} ({', '.join(told)})" if told else state


def _measure(value: Any, unit: str) -> str:
    return f"{value_text(value)} {unit}" if unit and value is not None else value_text(value)


def causes_text(store: FeatureStore, causes: Mapping[str, str]) -> str:
    """Why values of some groups are unavailable, a line a group, with the remedy where it is ours."""
    return "\n".join(
        f"{group} is unavailable: {_sentence(cause)}{_remedy(store, group, cause)}" for group, cause in causes.items()
    )


def _sentence(cause: str) -> str:
    return cause if cause.endswith(".") else f"{cause}."


def _remedy(store: FeatureStore, group: str, cause: str) -> str:
    """A pushed group can have an empty copy; any other is made from rows."""
    if "holds no copy" not in cause:
        return ""
    is_pushed = store.registry.group(group).kind == "pushed"
    if not is_pushed and store.offline.table(group).version() is None:
        return " One is made from rows, and none were promoted yet."
    return f" Make one: featurestore materialize {group}"


@dataclass
class ProgressLines:
    """A line on standard error every `PROGRESS_SECONDS`; none of what takes less."""

    said_at: float = field(default_factory=time.monotonic)

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self.said_at >= PROGRESS_SECONDS:
            self.said_at = time.monotonic()
            click.echo(str(progress), err=True)


def steps_document(steps: dict[str, Step]) -> dict[str, Any]:
    """What each step did, by group."""
    return {name: step.as_dict() for name, step in steps.items()}


def steps_text(steps: dict[str, Step]) -> str:
    """A line a group."""
    if not steps:
        return "No group is served online. Declare online=Online(ttl=...) and apply."
    lines = [_step_line(name, step) for name, step in steps.items()]
    return table_text(STEP_HEADERS, lines, right=["keys", "written", "left", "table version"])


def _step_line(name: str, step: Step) -> list[str]:
    if step.table_version is None:
        return [name, "0", "0", "0", "-", "no rows were promoted yet"]
    note = "built anew" if step.was_rebuilt else "" if step.keys else "up to date"
    return [name, f"{step.keys:,}", f"{step.written:,}", f"{step.left:,}", str(step.table_version), note]
