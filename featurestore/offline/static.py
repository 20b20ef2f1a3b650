"""Loads of a static group: each is compared with the last, and only what differs is appended.

The last state of an entity is its highest version. An entity that changed, or is new, gets a row; one that vanished gets
a tombstone. `schema_number` is part of the comparison: the first load after a feature was added writes every entity.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.windows import TimeWindow, utc
from featurestore.errors import InvalidInput, PromotionRefused, StaleWriter
from featurestore.offline.commit import Commit, Committer, Plan, Request
from featurestore.offline.content import content_hash
from featurestore.offline.difference import VERSION
from featurestore.offline.intake import check_schema, refuse_doubles, refuse_nulls
from featurestore.offline.spans import INSTANT
from featurestore.offline.view import TableView
from featurestore.registry.snapshot import RegisteredGroup


@dataclass(frozen=True, slots=True)
class Load:
    """A checked load: one row per entity, with keys and features, at one instant."""

    rows: pl.DataFrame
    instant: datetime
    valid_from: datetime

    @property
    def window(self) -> TimeWindow:
        return TimeWindow(self.instant, self.instant + INSTANT)


def load_static(
    committer: Committer,
    rows: pl.DataFrame,
    *,
    instant: datetime,
    valid_from: datetime,
    transaction: str,
    metadata: Mapping[str, str],
) -> Commit:
    """See `FeatureTable.load_static`."""
    group = committer.group
    if group.kind != "static":
        instead = "they arrive by push" if group.kind == "pushed" else "they belong to windows. Use overwrite_windows"
        raise InvalidInput(f"Group {group.name!r} is {group.kind}: its rows are not loaded, {instead}.")
    load = Load(_checked(group, rows), utc(instant, name="instant"), utc(valid_from, name="valid_from"))
    if load.valid_from > load.instant:
        raise InvalidInput(
            f"Group {group.name!r} is loaded at {load.instant.isoformat()} and declared valid from {load.valid_from.isoformat()}, "
            "which is later. Load it after that, or declare an earlier valid_from."
        )
    text = f"{load.instant.isoformat()} {load.valid_from.isoformat()} {content_hash(load.rows, order=group.key_names)}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    request = Request("load", transaction, digest, (load.window,), dict(metadata), is_fenced=False)
    return committer.commit(request, lambda view: _plan(view, load))


def _checked(group: RegisteredGroup, rows: pl.DataFrame) -> pl.DataFrame:
    """Keys and features of a load; `is_deleted` and `schema_number` may come along, and are set anew."""
    if "is_deleted" in rows.columns and rows["is_deleted"].any():
        raise InvalidInput(
            f"A load of group {group.name!r} has rows with is_deleted. Leave out what is gone: the load derives tombstones."
        )
    given = rows.drop("is_deleted", "schema_number", strict=False)
    expected = {name: group.stored_schema[name] for name in (*group.key_names, *group.feature_names)}
    checked = check_schema(group, given, expected)
    refuse_nulls(group, checked, group.key_names)
    refuse_doubles(group, checked, group.key_names)
    number = pl.lit(group.schema_number, dtype=pl.Int32).alias("schema_number")
    return checked.with_columns(number)


def _plan(view: TableView, load: Load) -> Plan | None:
    group, keys = view.group, list(view.group.key_names)
    stored = view.scan().collect()
    live = stored.sort(VERSION).unique(keys, keep="last").filter(~pl.col("is_deleted"))
    _refuse_loss(group, load, live)
    changed = _changed(group, load.rows, live)
    vanished = live.join(load.rows, on=keys, how="anti").select(keys)
    if changed.is_empty() and vanished.is_empty():
        return None
    _refuse_older(group, load, stored)
    rows = _stamped(group, load, changed, vanished, known=load.valid_from if stored.is_empty() else load.instant)
    new = changed.join(live, on=keys, how="anti").height
    kept = load.rows.height - changed.height
    counts = {"added": new, "changed": changed.height - new, "removed": vanished.height, "kept": kept}
    return Plan(rows, [load.window], (load.window,), rows, stored.clear(), counts)


def _refuse_loss(group: RegisteredGroup, load: Load, live: pl.DataFrame) -> None:
    """The coverage gate: how many of the entities alive until now does the load still have?"""
    found = live.join(load.rows, on=list(group.key_names), how="semi").height
    coverage = found / live.height if live.height else 1.0
    limit = group.min_coverage
    if coverage < (limit or 0) or (limit is None and live.height and load.rows.is_empty()):
        raise PromotionRefused(
            f"The load of {group.name!r} at {load.instant.isoformat()} has {found} of {live.height} entities of the last: coverage "
            f"{coverage:.4g}, limit {limit if limit is not None else 'above 0'}. Nobody is deleted. Load the whole input, or declare a lower min_coverage."
        )


def _refuse_older(group: RegisteredGroup, load: Load, stored: pl.DataFrame) -> None:
    last = stored["window_start"].max()
    if isinstance(last, datetime) and load.instant <= last:
        raise StaleWriter(
            f"Group {group.name!r} was loaded at {last.isoformat()}; this load is of {load.instant.isoformat()} and differs. "
            "The newer load stays. Load again with a later instant."
        )


def _changed(group: RegisteredGroup, rows: pl.DataFrame, live: pl.DataFrame) -> pl.DataFrame:
    keys = list(group.key_names)
    pairs = rows.select(keys).with_row_index("_new").join(live.select(keys).with_row_index("_old"), on=keys)
    same = pl.repeat(True, pairs.height, dtype=pl.Boolean, eager=True)
    for name in ("schema_number", *group.feature_names):
        same &= rows[name].gather(pairs["_new"]).eq_missing(live[name].gather(pairs["_old"]))
    unchanged = pairs.filter(same).select("_new")
    return rows.with_row_index("_new").join(unchanged, on="_new", how="anti").drop("_new")


def _stamped(
    group: RegisteredGroup, load: Load, changed: pl.DataFrame, vanished: pl.DataFrame, *, known: datetime
) -> pl.DataFrame:
    number = pl.lit(group.schema_number, dtype=pl.Int32).alias("schema_number")
    tombstones = vanished.with_columns(number, is_deleted=pl.lit(True))
    rows = pl.concat([changed.with_columns(is_deleted=pl.lit(False)), tombstones], how="diagonal")
    times = {"event_time": known, "knowledge_time": known, "window_start": load.instant}
    stamps = {name: pl.lit(instant).cast(TIMESTAMP) for name, instant in times.items()}
    return rows.with_columns(**stamps, created_at=pl.lit(None, dtype=TIMESTAMP)).select(list(group.stored_schema))
