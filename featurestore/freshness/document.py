"""The freshness of groups as plain documents: what `featurestore freshness --json` prints and the board serves.

Not here: how they are shown, or what a status means (`judgement.py`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from featurestore.freshness.journal import StatusHistory, attained, cause_document
from featurestore.freshness.judgement import ORDER, GroupFreshness, SourceFreshness

SPANS: Mapping[str, timedelta] = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "30d": timedelta(days=30)}
"""What attainment is told over; the longest comes last."""
LONGEST_SPAN = max(SPANS.values())


def freshness_documents(
    found: Iterable[GroupFreshness], history: Mapping[str, StatusHistory], now: datetime
) -> list[dict[str, Any]]:
    """What a look found, the worst first.

    Args:
        found: Of each group.
        history: By group its statuses since `LONGEST_SPAN` ago, as the journal kept them; groups may be missing.
        now: The end of the spans of attainment.
    """
    documents = [{**freshness_document(one), **_kept(one, history.get(one.group.name, []), now)} for one in found]
    return sorted(documents, key=lambda document: (-ORDER.index(document["status"]), document["group"]))


def _kept(found: GroupFreshness, history: StatusHistory, now: datetime) -> dict[str, Any]:
    """Since when it has its status, if that was kept, and attainment."""
    since = history[-1][0] if history and history[-1][1] == found.status else None
    return {"since": since, "attainment": dict(zip(SPANS, attained(history, now, list(SPANS.values())), strict=True))}


def freshness_document(found: GroupFreshness) -> dict[str, Any]:
    """The freshness of one group as plain values; durations are `timedelta`."""
    windows, online = found.facts.windows, found.facts.online
    return {
        "group": found.group.name,
        "tier": found.group.tier,
        "owner": found.group.owner,
        "alerts": found.group.alerts,
        "status": found.status,
        "slo_seconds": found.group.slo,
        "refresh_seconds": found.group.refresh,
        "arrival_seconds": found.group.arrival,
        "materialization_lag_seconds": found.materialization_lag,
        "data_lag_seconds": found.data_lag,
        "online_lag_seconds": found.online_lag,
        "slo_lag_seconds": found.slo_lag,
        "freshness_seconds": found.group.freshness,
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
        "silent_since": source.silent_since,
    }
