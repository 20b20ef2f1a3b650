"""Materialization: moving a group's online copy one step, from what it holds (R) to what the table holds now (V).

R is what the online store itself records: the table, its Delta version, and the instant as of which rows were served.
A step takes every key with a row changed or removed in (R, V], or whose knowledge time has come since, and offers the
key's frontier row of the whole table as of now, or a tombstone. What is stored of it is decided key by key in the server.
With no R that can be continued, the copy is built anew.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import polars as pl

from featurestore.clock import Clock
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.errors import FenceRefused
from featurestore.frontier import latest_as_of
from featurestore.offline.changes import Changes
from featurestore.offline.table import FeatureTable
from featurestore.online.encode import encode
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.layout import BEFORE_EVERYTHING
from featurestore.online.redis import RedisOnlineStore
from featurestore.online.schema import layout_of
from featurestore.online.tier import MaterializationState
from featurestore.registry.snapshot import RegisteredGroup

BATCH_ROWS = 50_000
TRIES = 3
VERSION = ("event_time", "knowledge_time", "created_at")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: `keys` were looked at, `written` now hold another value, `left` kept a value not lower."""

    table_version: int | None
    as_of: datetime
    was_rebuilt: bool
    keys: int
    written: int
    left: int

    def as_dict(self) -> dict[str, Any]:
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class _Plan:
    """Rows to offer (a frontier row or a tombstone for each key), and the versions that their keys lost."""

    rows: pl.DataFrame
    removed: pl.DataFrame | None
    is_rebuild: bool


def materialize(table: FeatureTable, online: RedisOnlineStore, clock: Clock) -> Step:
    """Bring a group's online copy to the table's newest version as of now.

    Rules: rows go online at their knowledge time, never before. A step cut short anywhere is taken again from the same R.
    A writer refused for its fence reads fence and rows from the table again.

    Args:
        table: The group's offline table.
        online: The tier to move.
        clock: Rules what is known and what is expired.

    Raises:
        FenceRefused: the online store was emptied meanwhile, or newer rewinds kept coming; take the step again.
        StoreUnavailable: a store does not answer.
    """
    for _ in range(TRIES):
        step = _step(table, online, clock())
        if step is not None:
            return step
    raise FenceRefused(
        f"Keys of group {table.group.name!r} were fenced by newer rewinds {TRIES} times. Materialize again."
    )


def _step(table: FeatureTable, online: RedisOnlineStore, now: datetime) -> Step | None:
    group, version, table_id = table.group, table.version(), table.table_id
    if version is None or table_id is None:
        return Step(None, now, was_rebuilt=False, keys=0, written=0, left=0)
    epoch = online.ensure_epoch(group.name)
    plan = _plan(table, online.state(group.name), version, now)
    if plan.is_rebuild:
        epoch = online.start_over(group.name, epoch=epoch)
    fence = table.fence(version)
    written = left = 0
    for rows, keys in _batches(group, plan.rows):
        messages = encode(layout_of(group), rows, schema_number=group.schema_number, fence=fence)
        result = online.write(
            group.name, keys, messages, epoch=epoch, ttl=group.ttl, removed=_removed_of(group, plan, rows)
        )
        written, left = written + result.written, left + result.left
        if result.refused:
            return None
    state = MaterializationState(table_id, version, now, _contract(group))
    online.set_state(group.name, state, epoch=epoch, is_rebuild=plan.is_rebuild)
    return Step(version, now, plan.is_rebuild, plan.rows.height, written, left)


def _plan(table: FeatureTable, state: MaterializationState | None, version: int, now: datetime) -> _Plan:
    if state is None or state.contract != _contract(table.group) or state.as_of > now or state.version > version:
        return _Plan(_frontier_rows(table, version, now), None, is_rebuild=True)
    changes = table.changes(state.version, version, table_id=state.table_id)
    if not isinstance(changes, Changes):
        return _Plan(_frontier_rows(table, version, now), None, is_rebuild=True)
    keys = list(table.group.key_names)
    come = table.scan(version, known_by=now).filter(pl.col("knowledge_time") > state.as_of).select(keys).collect()
    touched = pl.concat([changes.keys, come]).unique(maintain_order=True)
    rows = _frontier_rows(table, version, now, touched)
    return _Plan(pl.concat([rows, _nothing_known(table.group, touched, rows)]), changes.removed, is_rebuild=False)


def _frontier_rows(table: FeatureTable, version: int, now: datetime, keys: pl.DataFrame | None = None) -> pl.DataFrame:
    """The last frontier row of each key as of now, left out if it has expired."""
    group = table.group
    since = None if group.ttl is None else now - group.ttl
    known = table.scan(version, known_by=now, event_since=since)
    if keys is not None:
        known = known.join(keys.lazy(), on=list(group.key_names), how="semi")
    return latest_as_of(known, keys=list(group.key_names), as_of=now)


def _nothing_known(group: RegisteredGroup, touched: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Tombstones for touched keys without a row: lower than any version, they only take the place of a removed one."""
    gone = touched.join(rows, on=list(group.key_names), how="anti")
    times = dict.fromkeys((*VERSION, "window_start"), pl.lit(BEFORE_EVERYTHING).cast(TIMESTAMP))
    number = pl.lit(group.schema_number, dtype=pl.Int32)
    return pl.concat(
        [rows.clear(), gone.with_columns(**times, is_deleted=pl.lit(True), schema_number=number)], how="diagonal"
    ).select(rows.columns)


def _batches(group: RegisteredGroup, rows: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, list[bytes]]]:
    for batch in rows.iter_slices(BATCH_ROWS):
        yield batch, online_keys(group.name, entity_ids(batch, group.key_names))


def _removed_of(group: RegisteredGroup, plan: _Plan, rows: pl.DataFrame) -> pl.DataFrame | None:
    """The versions that the keys of a batch lost, with their online keys."""
    if plan.removed is None or plan.removed.is_empty():
        return None
    lost = plan.removed.join(rows, on=list(group.key_names), how="semi")
    keys = pl.Series("key", online_keys(group.name, entity_ids(lost, group.key_names)), dtype=pl.Binary)
    return lost.select(VERSION).with_columns(keys)


def _contract(group: RegisteredGroup) -> str:
    """What a stored copy depends on beside the rows: a change of it rebuilds."""
    text = f"{group.ttl_us}/{group.max_age_us}/{[(feature.number, feature.dtype_name) for feature in group.features]}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
