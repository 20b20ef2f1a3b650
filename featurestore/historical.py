"""Training sets from the offline store: the point-in-time join, group by group, on one spine of labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from featurestore.correctness import ClassUse, check_class, class_uses, refuse_below
from featurestore.declaration.windows import utc
from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.frontier import how_to_make_aware
from featurestore.offline.store import OfflineStore
from featurestore.pit import NOT_FOUND, STATUS, feature_status, gather_values, match_rows
from featurestore.references import RequestedGroup


@dataclass(frozen=True, slots=True)
class HistoricalFeatures:
    """A spine with its features.

    Args:
        rows: The spine's rows and columns in their order, then a column a feature, then the statuses.
        uses: By group, the windows that labels take values from, with their class; empty unless asked for.
    """

    rows: pl.DataFrame
    uses: Mapping[str, list[ClassUse]] = field(default_factory=dict)


def historical_features(
    store: OfflineStore,
    spine: pl.DataFrame,
    requested: list[RequestedGroup],
    *,
    label_time: str,
    with_status: bool,
    versions: Mapping[str, int] | None = None,
    min_correctness: str | None = None,
    with_uses: bool = False,
) -> HistoricalFeatures:
    """Add to a spine the values that production could have served at each label time.

    Args:
        store: The tables to read.
        spine: Entity keys of every group and `label_time` (aware); any other columns.
        requested: Groups and features, as `references.resolve` gives them.
        label_time: Name of the time column.
        with_status: Add `{column}__status` after the values.
        versions: Delta version to read of some groups, for an exact replay; others are read as they are now.
        min_correctness: The class that every window must have that a label takes a value from: that of the rows of the
            version read, so that what was recomputed after a pinned version counts as it was in it.
        with_uses: Also say which windows labels take values from.

    Raises:
        InvalidInput: a key or the time column is missing, a time is naive, a name is taken, or a label takes a value from a
            window below `min_correctness`.
        SchemaMismatch: a key has another dtype than its entity.
    """
    wanted_class = None if min_correctness is None else check_class(min_correctness)
    values: list[pl.Series] = []
    statuses: list[pl.Series] = []
    uses: dict[str, list[ClassUse]] = {}
    for wanted in requested:
        check_keys(spine, wanted, label_time)
        version = (versions or {}).get(wanted.group.name)
        found = _group_features(store, spine, wanted, label_time, with_status, version)
        values += found.values
        statuses += found.statuses
        if wanted_class is not None or with_uses:
            uses[wanted.group.name] = class_uses(store, wanted.group, found.taken, version)
    if wanted_class is not None:
        refuse_below([use for part in uses.values() for use in part], wanted_class, spine.height)
    added = values + (statuses if with_status else [])
    if taken := [series.name for series in added if series.name in spine.columns]:
        raise InvalidInput(f"The spine already has columns {taken}. Rename them, or ask with full_feature_names=True.")
    return HistoricalFeatures(spine.with_columns(added), uses)


def check_keys(spine: pl.DataFrame, wanted: RequestedGroup, label_time: str | None = None) -> None:
    """Refuse rows that lack a group's keys or have them in another dtype."""
    group = wanted.group
    needed = [*group.key_names, *([label_time] if label_time else [])]
    if missing := [name for name in needed if name not in spine.columns]:
        raise InvalidInput(
            f"Group {group.name!r} needs {missing}; the rows have {spine.columns}. Add or rename the columns."
        )
    for key, dtype in group.key_schema.items():
        given = spine.schema[key]
        fits = given in (dtype, pl.Null()) or (given.is_integer() and dtype.is_integer() and _casts(spine[key], dtype))
        if not fits:
            raise SchemaMismatch(
                f"Key {key!r} is {given}; entity {group.entity!r} declares {dtype}. Cast it first: pl.col({key!r}).cast(pl.{dtype})."
            )


def _casts(values: pl.Series, dtype: pl.DataType) -> bool:
    """Whether whole numbers fit another width: Python's come as Int64."""
    return values.cast(dtype, strict=False).null_count() == values.null_count()


@dataclass(frozen=True, slots=True)
class JoinedFeatures:
    """Values and statuses of one group's features, and the rows that labels take a value from, a row a label."""

    values: list[pl.Series]
    statuses: list[pl.Series]
    taken: pl.DataFrame


def _group_features(
    store: OfflineStore,
    spine: pl.DataFrame,
    wanted: RequestedGroup,
    label_time: str,
    with_status: bool,
    version: int | None,
) -> JoinedFeatures:
    rows = _readable_rows(store, spine, wanted, label_time, keep_outdated=with_status, version=version)
    return joined_features(rows, spine, wanted, label_time)


def joined_features(rows: pl.DataFrame, spine: pl.DataFrame, wanted: RequestedGroup, label_time: str) -> JoinedFeatures:
    """Join one group's stored rows to a spine: the values and statuses of a training set.

    Args:
        rows: Every stored row that a label could take, with all stored columns but those of features not wanted.
        spine: The group's keys and `label_time`.
    """
    group = wanted.group
    keyed = spine.select(pl.col(key).cast(dtype) for key, dtype in group.key_schema.items()).with_columns(
        spine[label_time]
    )
    matches = match_rows(keyed, rows, keys=list(group.key_names), label_time=label_time, max_age=group.max_age)
    computed_under = rows["schema_number"].gather(matches["row"])
    values, statuses = [], []
    for feature, column in wanted.features:
        is_known = (computed_under >= feature.since).fill_null(False)
        shown = matches.with_columns(
            row=pl.when(is_known).then("row"),
            status=pl.when(is_known | (pl.col("status") != "PRESENT"))
            .then("status")
            .otherwise(pl.lit(NOT_FOUND, dtype=STATUS)),
        )
        value = gather_values(rows[feature.name], shown).cast(feature.dtype).alias(column)
        values.append(value)
        statuses.append(feature_status(value, shown))
    oldest = min(feature.since for feature, _ in wanted.features)
    taken = matches["row"].filter((computed_under >= oldest).fill_null(False))
    return JoinedFeatures(values, statuses, rows.select("window_start", "created_at")[taken])


def _readable_rows(
    store: OfflineStore,
    spine: pl.DataFrame,
    wanted: RequestedGroup,
    label_time: str,
    *,
    keep_outdated: bool,
    version: int | None,
) -> pl.DataFrame:
    """The rows that some label could take; those too old for all of them only if their status is asked for."""
    group = wanted.group
    times = ["event_time", "knowledge_time", "created_at", "window_start"]
    columns = [*group.key_names, *times, "is_deleted", "schema_number"]
    rows = store.table(group.name).scan(version).select(columns + [feature.name for feature, _ in wanted.features])
    dtype = spine.schema[label_time]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InvalidInput(
            f"Column {label_time!r} is {dtype}. Label times have a time zone. {how_to_make_aware(label_time, dtype)}"
        )
    first, last = spine[label_time].min(), spine[label_time].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return rows.clear().collect()
    rows = rows.filter(pl.col("knowledge_time") <= utc(last))
    if group.max_age is not None and not keep_outdated:
        rows = rows.filter(pl.col("event_time") >= utc(first) - group.max_age)
    return rows.collect()
