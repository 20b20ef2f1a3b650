"""`freshness`: how old the data of each group is beside its SLO, and why a group is not as fresh as it should be."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from featurestore.cli.tables import table_text
from featurestore.cli.times import duration_text, instant_text
from featurestore.freshness.journal import FreshnessJournal, cause_document
from featurestore.freshness.judgement import ORDER, GroupFreshness, SourceFreshness, span
from featurestore.freshness.publishing import publish
from featurestore.freshness.watch import FreshnessWatch
from featurestore.store import FeatureStore

HEADERS = ["feature group", "slo", "current lag", "data lag", "online lag", "status", "newest window"]
SPANS = (timedelta(hours=1), timedelta(days=1), timedelta(days=30))


def freshness_documents(
    store: FeatureStore, journal: FreshnessJournal, groups: Iterable[str] | None, troubles: list[str] | None = None
) -> list[dict[str, Any]]:
    """The freshness of each group now, the worst first.

    Args:
        troubles: Where it is given, readers of the online store are told as well, and it gets what went wrong with that.

    Raises:
        UnknownName: a group is not registered.
        StoreUnavailable: the offline store or the metadata database cannot be reached.
    """
    found = FreshnessWatch(store.offline, store.online.parts_of).look(journal.confirmed(), groups)
    if troubles is not None:
        troubles += publish(store.online, found.values())
    kept = journal.statuses()
    attained = journal.attainment(store.clock(), SPANS)
    documents = [
        {
            **freshness_document(one),
            "since": kept[name][1] if name in kept and kept[name][0] == one.status else None,
            "attainment": dict(zip(("1h", "24h", "30d"), attained.get(name, (None,) * 3), strict=True)),
        }
        for name, one in found.items()
    ]
    return sorted(documents, key=lambda document: (-ORDER.index(document["status"]), document["group"]))


def freshness_document(found: GroupFreshness) -> dict[str, Any]:
    """The freshness of one group as plain values; durations are `timedelta`."""
    windows, online = found.facts.windows, found.facts.online
    return {
        "group": found.group.name,
        "tier": found.group.tier,
        "owner": found.group.owner,
        "status": found.status,
        "slo_seconds": found.group.freshness,
        "refresh_seconds": found.group.refresh,
        "materialization_lag_seconds": found.materialization_lag,
        "data_lag_seconds": found.data_lag,
        "online_lag_seconds": found.online_lag,
        "online_unknown": online.unknown if online else "",
        "last_materialized_at": found.last_materialized_at,
        "last_event_time": found.last_event_time,
        "newest_window": windows.newest if windows else None,
        "due_windows": windows.due if windows else 0,
        "holes": windows.holes if windows else 0,
        "quarantined": windows.quarantined if windows else 0,
        "sources": {source.name: _source(source) for source in found.sources},
        "causes": [cause_document(cause) for cause in found.causes],
    }


def _source(source: SourceFreshness) -> dict[str, Any]:
    return {
        "last_event_time": source.last_event_time,
        "lag_seconds": source.lag,
        "silence_seconds": source.silence,
    }


def freshness_text(documents: list[dict[str, Any]]) -> str:
    """A line a group, then a line for each thing that is wrong."""
    if not documents:
        return "No groups are declared."
    lines = [_line(document) for document in documents]
    causes = [f"{cause['status']:<6}  {cause['text']}" for document in documents for cause in document["causes"]]
    causes += [f"-       {one['online_unknown']}" for one in documents if one["online_unknown"]]
    table = table_text(HEADERS, lines, right=["slo", "current lag", "data lag", "online lag"])
    return "\n".join([table, *([""] if causes else []), *dict.fromkeys(causes)])


def _line(document: dict[str, Any]) -> list[str]:
    slo = document["slo_seconds"]
    return [
        document["group"],
        "-" if slo is None else duration_text(slo),
        *(_lag(document[f"{name}_lag_seconds"]) for name in ("materialization", "data", "online")),
        document["status"],
        instant_text(document["newest_window"]),
    ]


def _lag(lag: timedelta | None) -> str:
    return "-" if lag is None else span(lag)
