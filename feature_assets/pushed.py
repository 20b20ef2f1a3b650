"""`offline/<group>` of a pushed group: no run makes its rows, so it is an external asset that is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import dagster as dg

from feature_assets.catalogue import group_metadata, group_tags, offline_key, owners
from feature_assets.freshness import policy_of
from featurestore.cli.standing import TableStanding, table_standing
from featurestore.declaration import FeatureGroup
from featurestore.offline.log import PUSHED_AT
from featurestore.offline.store import OfflineStore
from featurestore.offline.table import FeatureTable
from resources.store import StoreResource

DATA_VERSION = "dagster/data_version"
WAITING = "-waiting"
"""Ends the data version while rows wait for their event time: the copy moves once more when it has come."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a pushed group's table holds: a data version that changes whenever the online copy is to move, and metadata."""

    data_version: str
    metadata: Mapping[str, Any]


def pushed_asset(group: FeatureGroup) -> dg.AssetsDefinition:
    """An observable asset: an observation says what the table holds, and how old that is.

    The sensor of pushed groups reports new pushes by itself; a person may observe at any time. The freshness policy counts from
    what the sensor reported last.
    """
    spec = dg.AssetSpec(
        offline_key(group),
        description=group.description,
        owners=owners(group.owner),
        tags=group_tags(group),
        kinds={"deltalake"},
        group_name="offline",
        metadata=group_metadata(group),
        freshness_policy=policy_of(group, offline_key(group)),
    )

    @dg.multi_observable_source_asset(name=f"observe_offline__{group.stored_name}", specs=[spec])  # type: ignore[untyped-decorator]
    def offline(store: StoreResource) -> dg.ObserveResult:
        observed = observe(store.offline(), group)
        return dg.ObserveResult(
            asset_key=spec.key, metadata=observed.metadata, data_version=dg.DataVersion(observed.data_version)
        )

    return cast(dg.AssetsDefinition, offline)


def observe(store: OfflineStore, group: FeatureGroup) -> Observed:
    """Look at a pushed group's table: version, rows, the last push, the newest event time, and how old both are.

    `dagster/last_updated_timestamp` is the last push, for freshness checks.
    """
    table, now = store.table(group.stored_name), store.clock()
    standing = table_standing(table)
    pushed_at = last_push(table, standing.table_version)
    metadata: dict[str, Any] = {"dagster/row_count": standing.rows}
    if standing.table_version is not None:
        metadata["table_version"] = standing.table_version
    if pushed_at is not None:
        metadata["dagster/last_updated_timestamp"] = dg.MetadataValue.timestamp(pushed_at)
        metadata["seconds_since_push"] = (now - pushed_at).total_seconds()
    if standing.newest_event_time is not None:
        metadata["newest_event_time"] = dg.MetadataValue.timestamp(standing.newest_event_time)
        metadata["age_seconds"] = (now - standing.newest_event_time).total_seconds()
    return Observed(_data_version(standing, now), metadata)


def last_push(table: FeatureTable, version: int | None) -> datetime | None:
    """The instant of the newest push up to a version; None if there was none, or its log entry has expired."""
    for earlier in range(version or 0, 0, -1):
        entry = table.entry(earlier)
        if entry is None:
            return None
        if entry.own is not None and entry.own.kind == "push":
            return datetime.fromisoformat(entry.own.metadata[PUSHED_AT])
    return None


def _data_version(standing: TableStanding, now: datetime) -> str:
    is_waiting = standing.newest_event_time is not None and standing.newest_event_time > now
    return f"{standing.table_version}{WAITING if is_waiting else ''}"
