"""`freshness`: how old the data of each group is beside its SLO, and why a group is not as fresh as it should be."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from featurestore.cli.tables import table_text
from featurestore.cli.times import duration_text, instant_text, share_text
from featurestore.freshness.document import LONGEST_SPAN, freshness_documents
from featurestore.freshness.journal import FreshnessJournal
from featurestore.freshness.judgement import span
from featurestore.freshness.publishing import publish
from featurestore.freshness.watch import FreshnessWatch
from featurestore.store import FeatureStore

HEADERS = ["feature group", "slo", "current lag", "data lag", "online lag", "status", "24 h", "newest window"]


def current_freshness(
    store: FeatureStore, journal: FreshnessJournal, groups: Iterable[str] | None, troubles: list[str] | None = None
) -> list[dict[str, Any]]:
    """The freshness of each group now, as documents, the worst first.

    Args:
        troubles: Where it is given, readers of the online store are told as well, and it gets what went wrong with that.

    Raises:
        UnknownName: a group is not registered.
        StoreUnavailable: the offline store or the metadata database cannot be reached.
    """
    found = FreshnessWatch(store.offline, store.online.parts_of).look(journal.confirmed(), groups)
    if troubles is not None:
        troubles += publish(store.online, found.values())
    now = store.clock()
    return freshness_documents(found.values(), journal.history(now - LONGEST_SPAN), now)


def freshness_text(documents: list[dict[str, Any]]) -> str:
    """A line a group, then a line for each thing that is wrong, and for what cannot be seen of its line: silent copies, holes and quarantine."""
    if not documents:
        return "No groups are declared."
    lines = [_line(document) for document in documents]
    causes = [f"{cause['status']:<6}  {cause['text']}" for document in documents for cause in document["causes"]]
    causes += [f"-       {one['online_unknown']}" for one in documents if one["online_unknown"]]
    causes += [_counts(one) for one in documents if one["holes"] or one["quarantined"]]
    table = table_text(HEADERS, lines, right=["slo", "current lag", "data lag", "online lag", "24 h"])
    return "\n".join([table, *([""] if causes else []), *dict.fromkeys(causes)])


def _line(document: dict[str, Any]) -> list[str]:
    slo = document["slo_seconds"]
    return [
        document["group"],
        "-" if slo is None else duration_text(slo),
        *(_lag(document[f"{name}_lag_seconds"]) for name in ("slo", "data", "online")),
        document["status"],
        share_text(document["attainment"]["24h"]),
        instant_text(document["newest_window"]),
    ]


def _counts(document: dict[str, Any]) -> str:
    holes, held = document["holes"], document["quarantined"]
    return f"-       {document['group']}: {holes} hole{'' if holes == 1 else 's'}, {held} in quarantine."


def _lag(lag: timedelta | None) -> str:
    return "-" if lag is None else span(lag)
