"""Pushes to a group: each is appended as a whole, in one commit, with the time of the push as its knowledge time.

Not here: whether the values make sense, and what a caller may hand over (`featurestore.push`).
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.windows import TimeWindow, utc
from featurestore.errors import InvalidInput
from featurestore.offline.commit import Commit, Committer, Plan, Request, next_created_at
from featurestore.offline.content import content_hash
from featurestore.offline.intake import check_schema, refuse_doubles, refuse_nulls
from featurestore.offline.log import PUSHED_AT, read_entry, standing_at
from featurestore.offline.spans import INSTANT
from featurestore.offline.view import TableView
from featurestore.registry.snapshot import RegisteredGroup


def append_push(committer: Committer, rows: pl.DataFrame, *, transaction: str, metadata: Mapping[str, str]) -> Commit:
    """See `FeatureTable.append_push`."""
    group = committer.group
    if group.kind != "pushed":
        raise InvalidInput(f"Group {group.name!r} is {group.kind}: its rows are computed, and none can be pushed.")
    checked = _checked(group, rows)
    digest = content_hash(checked, order=[*group.key_names, "event_time"])
    request = Request("push", transaction, digest, (), dict(metadata), is_fenced=False)

    def plan(view: TableView) -> Plan | None:
        _refuse_other_rows(committer, view, request)
        return _plan(view, checked, utc(committer.clock(), name="clock"))

    return committer.commit(request, plan)


def known_rows(group: RegisteredGroup, rows: pl.DataFrame, pushed_at: datetime) -> pl.DataFrame:
    """The rows of a push with the platform's columns, those of its commit left null: `created_at` and `window_start`."""
    known = pl.max_horizontal(pl.col("event_time"), pl.lit(pushed_at).cast(TIMESTAMP))
    nothing = pl.lit(None, dtype=TIMESTAMP)
    return rows.with_columns(
        knowledge_time=known,
        created_at=nothing,
        window_start=nothing,
        is_deleted=pl.lit(False),
        schema_number=pl.lit(group.schema_number, dtype=pl.Int32),
    ).select(list(group.stored_schema))


def _checked(group: RegisteredGroup, rows: pl.DataFrame) -> pl.DataFrame:
    names = [*group.key_names, "event_time", *group.feature_names]
    checked = check_schema(group, rows, {name: group.stored_schema[name] for name in names})
    refuse_nulls(group, checked, [*group.key_names, "event_time"])
    refuse_doubles(group, checked, [*group.key_names, "event_time"])
    return checked


def _refuse_other_rows(committer: Committer, view: TableView, request: Request) -> None:
    """The same rows would have been recognised before anything was planned."""
    version = None if view.table is None else view.table.transaction_version(request.transaction)
    entry = None if version is None else read_entry(committer.storage.location, version)
    if entry is not None and entry.own is not None:
        raise InvalidInput(
            f"Push {request.transaction!r} to group {view.group.name!r} was made before, in version {version}, with other rows. "
            "An idempotency key names one push: give this one another key."
        )


def _plan(view: TableView, rows: pl.DataFrame, now: datetime) -> Plan | None:
    if rows.is_empty():
        return None
    last = standing_at(view.storage.location, view.version).last_created_at if view.version is not None else None
    # Of its own even if two pushes come at one reading of the clock: it tells their rows apart.
    instant = next_created_at(view, last, now)
    known = known_rows(view.group, rows, now).with_columns(window_start=pl.lit(instant).cast(TIMESTAMP))
    counts = {"added": rows.height, "changed": 0, "removed": 0, "kept": 0}
    window = TimeWindow(instant, instant + INSTANT)
    metadata = {PUSHED_AT: now.isoformat()}
    return Plan(known, [], (window,), known, known.clear(), counts, metadata)
