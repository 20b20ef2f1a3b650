"""Materialization: moving a group's online copy one step, from what it holds (R) to what the table holds now (V).

R is what the online store itself records: the table, its Delta version, and the instant as of which rows were served.
A step takes every key with a row changed or removed in (R, V], or whose knowledge time has come since, and offers the
key's frontier row of the whole table as of now, or a tombstone. What is stored of it is decided key by key in the server.
With no R that can be continued, the copy is built anew.

Whatever a step rests on it reads after R: a writer that was held up plans at least what R already holds.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from featurestore.clock import Clock
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.errors import InvalidInput, StaleWriter
from featurestore.frontier import latest_as_of
from featurestore.offline.changes import Changes
from featurestore.offline.table import FeatureTable
from featurestore.online.encode import encode
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.layout import BEFORE_EVERYTHING, MessageLayout
from featurestore.online.redis import RedisOnlineStore
from featurestore.online.schema import layout_of
from featurestore.online.tier import MaterializationState
from featurestore.registry.snapshot import RegisteredGroup

BATCH_ROWS = 50_000
TRIES = 3
CLOCK_SKEW = timedelta(minutes=5)
"""How far R's instant may be ahead of a writer's clock and still be taken for another clock, not for a replay of the past."""
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
    """What to offer: a frontier row or a tombstone for each key, and the versions that their keys lost.

    `target` is R once all of it is written. A rebuild has no `removed`.
    """

    target: MaterializationState
    rows: pl.DataFrame
    removed: pl.DataFrame | None = None

    @property
    def is_rebuild(self) -> bool:
        return self.removed is None


def materialize(table: FeatureTable, online: RedisOnlineStore, clock: Clock) -> Step:
    """Bring a group's online copy to the table's newest version as of now.

    Rules: rows go online at their knowledge time, never before. A step cut short anywhere is taken again from the same R.
    A writer refused for its fence, or overtaken by another, reads R, fence and rows again.

    Args:
        table: The group's offline table.
        online: The tier to move.
        clock: Rules what is known and what is expired.

    Raises:
        InvalidInput: a row cannot be served as it is: true of the future, a list too long, of a newer schema. Nothing is written.
        FenceRefused: the online store was emptied or started over meanwhile; take the step again.
        StaleWriter: others kept being ahead, or the copy is of a newer registry than this one; take the step again.
        StoreUnavailable: a store does not answer.
    """
    for _ in range(TRIES):
        step = _step(table, online, clock)
        if step is not None:
            return step
    raise StaleWriter(
        f"Other materializations of group {table.group.name!r} were ahead of this one {TRIES} times. Materialize again."
    )


def _step(table: FeatureTable, online: RedisOnlineStore, clock: Clock) -> Step | None:
    """One try; None if another writer was ahead."""
    group = table.group
    epoch = online.ensure_epoch(group.name)
    plan = _plan(table, online.state(group.name), clock())
    if plan is None:
        return Step(None, clock(), was_rebuilt=False, keys=0, written=0, left=0)
    _refuse_unservable(group, plan)
    if plan.is_rebuild:
        epoch = online.start_over(group.name, epoch=epoch)
        plan = _renewed(table, plan, clock())
    counts = _write(table, online, plan, epoch)
    if counts is None:
        return None
    try:
        online.set_state(group.name, plan.target, epoch=epoch, is_rebuild=plan.is_rebuild)
    except StaleWriter:
        return None
    return Step(plan.target.version, plan.target.as_of, plan.is_rebuild, plan.rows.height, *counts)


def _write(table: FeatureTable, online: RedisOnlineStore, plan: _Plan, epoch: str) -> tuple[int, int] | None:
    """Offer every row; how many were written and left, or None if a key has a newer fence."""
    group, fence = table.group, table.fence(plan.target.version)
    written = left = 0
    for rows, keys in _batches(group, plan.rows):
        messages = encode(layout_of(group), rows, schema_number=group.schema_number, fence=fence)
        removed = _removed_of(group, plan, rows)
        result = online.write(group.name, keys, messages, epoch=epoch, ttl=group.ttl, removed=removed)
        written, left = written + result.written, left + result.left
        if result.refused:
            return None
    return written, left


def _plan(table: FeatureTable, state: MaterializationState | None, now: datetime) -> _Plan | None:
    """The step from R to the table's newest version; None if there is no table."""
    rebuild = _target(table, now)
    if rebuild is None:
        return None
    if state is None or state.table_id != rebuild.table_id or state.as_of > now + CLOCK_SKEW:
        return _rebuild(table, rebuild)
    _refuse_older_registry(table.group, state)
    if state.contract != rebuild.contract:
        return _rebuild(table, rebuild)
    target = replace(rebuild, as_of=max(now, state.as_of))
    changes = table.changes(state.version, target.version, table_id=state.table_id)
    return _continued(table, state, target, changes) if isinstance(changes, Changes) else _rebuild(table, rebuild)


def _target(table: FeatureTable, now: datetime) -> MaterializationState | None:
    version, table_id = table.version(), table.table_id
    if version is None or table_id is None:
        return None
    return MaterializationState(table_id, version, now, _contract(table.group))


def _rebuild(table: FeatureTable, target: MaterializationState) -> _Plan:
    return _Plan(target, _frontier_rows(table, target))


def _renewed(table: FeatureTable, plan: _Plan, now: datetime) -> _Plan:
    """A rebuild as of after the start-over, since others may have published more while this writer was held up."""
    target = _target(table, now)
    if target is None:
        return plan
    is_same = replace(target, as_of=plan.target.as_of) == plan.target
    if is_same and _come_since(table, plan.target.as_of, target).is_empty():
        return replace(plan, target=target)
    return _rebuild(table, target)


def _continued(
    table: FeatureTable, state: MaterializationState, target: MaterializationState, changes: Changes
) -> _Plan:
    come = _come_since(table, state.as_of, target)
    touched = pl.concat([changes.keys, come]).unique(maintain_order=True)
    rows = _frontier_rows(table, target, touched)
    return _Plan(target, pl.concat([rows, _nothing_known(table.group, touched, rows)]), changes.removed)


def _come_since(table: FeatureTable, since: datetime, target: MaterializationState) -> pl.DataFrame:
    """Keys of rows whose knowledge time has come after an instant, once per row."""
    known = table.scan(target.version, known_by=target.as_of)
    return known.filter(pl.col("knowledge_time") > since).select(list(table.group.key_names)).collect()


def _frontier_rows(table: FeatureTable, target: MaterializationState, keys: pl.DataFrame | None = None) -> pl.DataFrame:
    """The last frontier row of each key as of the target, left out if it has expired."""
    group, now = table.group, target.as_of
    since = None if group.ttl is None else now - group.ttl
    known = table.scan(target.version, known_by=now, event_since=since)
    if keys is not None:
        known = known.join(keys.lazy(), on=list(group.key_names), how="semi") if keys.height else known.head(0)
    return latest_as_of(known, keys=list(group.key_names), as_of=now)


def _nothing_known(group: RegisteredGroup, touched: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Tombstones for touched keys without a row: lower than any version, they only take the place of a removed one."""
    gone = touched.join(rows, on=list(group.key_names), how="anti")
    times = dict.fromkeys((*VERSION, "window_start"), pl.lit(BEFORE_EVERYTHING).cast(TIMESTAMP))
    number = pl.lit(group.schema_number, dtype=pl.Int32)
    return pl.concat(
        [rows.clear(), gone.with_columns(**times, is_deleted=pl.lit(True), schema_number=number)], how="diagonal"
    ).select(rows.columns)


def _refuse_unservable(group: RegisteredGroup, plan: _Plan) -> None:
    """Refuse before anything is sent what would be refused in the middle of writing."""
    now = plan.target.as_of
    future = plan.rows.filter(pl.col("event_time") > now).select(*group.key_names, "event_time")
    if future.height:
        raise InvalidInput(
            f"{future.height} keys of group {group.name!r} have rows that are true of the future, first {future.row(0, named=True)}; "
            f"it is {now.isoformat()}. Such a row would keep every later value out: correct its window, or this machine's clock."
        )
    # Only values of variable length can be too long; the others need not be encoded twice.
    fields = [field for field in layout_of(group).fields if not field.is_scalar]
    for rows in plan.rows.iter_slices(BATCH_ROWS):
        encode(MessageLayout(tuple(fields)), rows, schema_number=group.schema_number, fence=0)


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
    """What a stored copy depends on beside the rows, a change of which rebuilds: the schema's number, and a digest."""
    text = f"{group.ttl_us}/{group.max_age_us}/{[(feature.number, feature.dtype_name) for feature in group.features]}"
    return f"{group.schema_number}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _refuse_older_registry(group: RegisteredGroup, state: MaterializationState) -> None:
    """A process that still holds an older registry would rebuild the copy without the newer features, again and again."""
    number = state.contract.partition("/")[0]
    if number.isdecimal() and int(number) > group.schema_number:
        raise StaleWriter(
            f"The online copy of group {group.name!r} has schema number {number}; the registry in use here knows "
            f"{group.schema_number}. Read the registry again: a new FeatureStore does."
        )
