"""The frontier of an entity: its rows in the order in which production could first serve them.

Here live the three times of a feature frame, how they are read, and the frontier and its last row as of an instant.
Joining labels to a frontier is in `pit`; storing one is not here: no store, file or socket is known.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from featurestore.errors import InvalidInput

EVENT_TIME = "event_time"
KNOWLEDGE_TIME = "knowledge_time"
CREATED_AT = "created_at"
IS_DELETED = "is_deleted"
RESERVED = (EVENT_TIME, KNOWLEDGE_TIME, CREATED_AT, IS_DELETED)

FRONTIER_ORDER = (KNOWLEDGE_TIME, EVENT_TIME, CREATED_AT)
VERSION_ORDER = (EVENT_TIME, KNOWLEDGE_TIME, CREATED_AT)

INSTANT = pl.Datetime("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def frontier(features: pl.DataFrame | pl.LazyFrame, *, keys: str | Sequence[str]) -> pl.DataFrame:
    """Return the rows that a read at some instant would serve, in the order in which they became servable.

    Rows are ordered by (knowledge_time, event_time, created_at), exact ties by input order; a row stays only if its
    event_time is not older than that of any row of its entity known before it. Tombstones are rows like any other.

    Args:
        features: Keys (never null), `event_time`, optional `knowledge_time` (taken as `event_time` when absent),
            optional `created_at`, any other columns; times are aware and not null; rows in any order.
        keys: Names of the entity's key columns.

    Returns:
        A subset of the rows of `features`, all its columns with their dtypes, in frontier order over all entities.

    Raises:
        InvalidInput: A column is missing, a time is naive or null, a key is null or of a dtype that cannot be one.

    Source:
        The design, "The one idea".
    """
    frame = collected(features, "features")
    timeline, by = _keyed_timeline(frame, keys)
    return frame.select(pl.all().gather(on_frontier(in_order(timeline, FRONTIER_ORDER), by)["row"]))


def latest_as_of(features: pl.DataFrame | pl.LazyFrame, *, keys: str | Sequence[str], as_of: datetime) -> pl.DataFrame:
    """Return each entity's highest version among the rows known at an instant: the last row of its frontier.

    Versions compare (event_time, knowledge_time, created_at), exact ties take the last row in input order. A tombstone
    is returned like any row, so that the caller can store it; neither max age nor TTL is applied.

    Args:
        features: As for `frontier`.
        keys: Names of the entity's key columns.
        as_of: An aware instant; a row known exactly then counts.

    Returns:
        At most one row for each entity, all columns of `features` with their dtypes, in ascending version order.

    Raises:
        InvalidInput: As for `frontier`, or `as_of` is naive.

    Source:
        The design, "The one idea".
    """
    instant = _microseconds(as_of)
    frame = collected(features, "features")
    timeline, by = _keyed_timeline(frame, keys)
    known = timeline.filter(pl.col(KNOWLEDGE_TIME) <= instant)
    latest = in_order(known, VERSION_ORDER).unique(by, keep="last", maintain_order=True)
    return frame.select(pl.all().gather(latest["row"]))


def rows_behind(features: pl.DataFrame, *, keys: str | Sequence[str]) -> pl.DataFrame:
    """Return the rows that are not on the frontier: known later than a row of a newer event time, and so never served.

    Args:
        features: As for `frontier`.
        keys: Names of the entity's key columns.

    Raises:
        InvalidInput: As for `frontier`.
    """
    timeline, by = _keyed_timeline(features, keys)
    served = on_frontier(in_order(timeline, FRONTIER_ORDER), by)
    return features[timeline.join(served, on="row", how="anti", maintain_order="left")["row"]]


def timeline_of(features: pl.DataFrame) -> pl.DataFrame:
    """Read the times of a feature frame as whole UTC microseconds, one row for each of its rows, in its order.

    Returns:
        `row` UInt32 (position in `features`), `event_time`, `knowledge_time` (the event time when absent) and, if there
        is one, `created_at`, all Int64 and never null.
    """
    event = instants(features, EVENT_TIME, "features", allow_null=False)
    known = event
    if KNOWLEDGE_TIME in features.columns:
        known = instants(features, KNOWLEDGE_TIME, "features", allow_null=False)
    times = [event, known.alias(KNOWLEDGE_TIME)]
    if CREATED_AT in features.columns:
        times.append(instants(features, CREATED_AT, "features", allow_null=False))
    return pl.DataFrame(times).with_row_index("row")


def in_order(timeline: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """Sort a timeline by the columns of `order` that it has; exact ties stay in input order."""
    columns = [name for name in order if name in timeline.columns]
    if all(timeline[name].is_sorted() for name in columns):
        return timeline
    return timeline.sort(columns, maintain_order=True)


def on_frontier(ordered: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Keep the rows of a timeline in frontier order whose event time no row before them, of the same `by`, exceeds."""
    if ordered[EVENT_TIME].is_sorted():
        return ordered
    return ordered.filter(pl.col(EVENT_TIME) >= pl.col(EVENT_TIME).cum_max().over(by))


def collected(frame: pl.DataFrame | pl.LazyFrame, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return a frame in memory; of a lazy one only `columns` are read, those that it has."""
    there = column_names(frame, name)
    if isinstance(frame, pl.DataFrame):
        return frame
    return frame.select([c for c in there if columns is None or c in columns]).collect()


def column_names(frame: pl.DataFrame | pl.LazyFrame, name: str) -> list[str]:
    """Return the column names of a Polars frame, and refuse anything else."""
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise InvalidInput(
            f"{name} is a {type(frame).__module__}.{type(frame).__qualname__}; a Polars DataFrame or LazyFrame is needed. "
            "Convert it first, with pl.from_pandas(...) or pl.from_arrow(...)."
        )
    return frame.collect_schema().names()


def key_names(keys: str | Sequence[str]) -> list[str]:
    """Return the names of the key columns as a list: at least one, each once, none of them a time."""
    names = [keys] if isinstance(keys, str) else list(keys)
    if not names or len(set(names)) != len(names):
        raise InvalidInput(f"keys is {names}: name at least one key column, and each of them once.")
    taken = sorted(set(names) & set(RESERVED))
    if taken:
        raise InvalidInput(
            f"keys names {taken}, which the platform reserves ({list(RESERVED)}). Rename the key column."
        )
    return names


def key_columns(frame: pl.DataFrame, keys: Sequence[str], name: str) -> list[pl.Series]:
    """Return the key columns of a frame as `key0`, `key1`, ..., of dtypes that compare exactly."""
    require_columns(frame, keys, name)
    for key in keys:
        dtype = frame.schema[key]
        if dtype.is_float() or dtype.is_nested() or dtype in (pl.Object, pl.Null):
            raise InvalidInput(
                f"Key {key!r} of {name} is {dtype}, which does not compare exactly. "
                "Use integers, strings, booleans, dates or enums: cast the column first, with pl.Int64 for instance."
            )
    return [frame[key].alias(f"key{i}") for i, key in enumerate(keys)]


def require_columns(frame: pl.DataFrame, columns: Sequence[str], name: str) -> None:
    """Refuse a frame that lacks one of the columns."""
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise InvalidInput(f"{name} has no column {missing}; it has {frame.columns}. Add or rename the column.")


def how_to_make_aware(column: str, dtype: pl.DataType) -> str:
    """What to write to make a column of this dtype an aware time.

    >>> print(how_to_make_aware("at", pl.String()))
    Read the text as a time of the zone it was recorded in, e.g. pl.col('at').str.to_datetime(time_zone='UTC').
    """
    if isinstance(dtype, pl.Datetime):
        return f"Say which zone it was recorded in, e.g. pl.col({column!r}).dt.replace_time_zone('UTC')."
    if dtype == pl.String:
        return f"Read the text as a time of the zone it was recorded in, e.g. pl.col({column!r}).str.to_datetime(time_zone='UTC')."
    if dtype == pl.Date:
        return f"Say the time of day and the zone too, e.g. pl.col({column!r}).cast(pl.Datetime('us', 'UTC')) for midnight UTC."
    return "Give the column as pl.Datetime('us', 'UTC')."


def instants(frame: pl.DataFrame, column: str, name: str, *, allow_null: bool) -> pl.Series:
    """Return a time column as Int64 microseconds since 1970 UTC, keeping its name.

    Any zone and unit are taken as long as the instant is exact: nanoseconds only if they are whole microseconds.
    """
    require_columns(frame, [column], name)
    values, dtype = frame[column], frame.schema[column]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InvalidInput(
            f"Column {column!r} of {name} is {dtype}; a Datetime with a time zone is needed, and none is guessed. "
            f"{how_to_make_aware(column, dtype)}"
        )
    if not allow_null and values.null_count():
        raise InvalidInput(
            f"Column {column!r} of {name} is null in {values.null_count()} of {len(values)} rows: a row without its times "
            "has no place in the order. Drop those rows or fill in the time."
        )
    if dtype.time_unit == "ns" and (values.to_physical() % 1000 != 0).any():
        raise InvalidInput(
            f"Column {column!r} of {name} holds nanoseconds that are not whole microseconds, and time here is in "
            f"microseconds. Round it as you see fit: pl.col({column!r}).dt.truncate('1us')."
        )
    return values.dt.cast_time_unit("us").to_physical()


def _keyed_timeline(frame: pl.DataFrame, keys: str | Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return the timeline of a frame with its keys as `key0`, `key1`, ..., none of them null, and those names."""
    names = key_names(keys)
    columns = key_columns(frame, names, "features")
    for key, column in zip(names, columns, strict=True):
        if column.null_count():
            raise InvalidInput(
                f"Key {key!r} of features is null in {column.null_count()} of {len(column)} rows, which therefore belong "
                f"to no entity. Drop them first: features.drop_nulls({key!r})."
            )
    return timeline_of(frame).hstack(columns), [column.name for column in columns]


def _microseconds(as_of: datetime) -> int:
    if not isinstance(as_of, datetime) or as_of.tzinfo is None:
        raise InvalidInput(f"as_of is {as_of!r}; an aware datetime is needed, with tzinfo=UTC for instance.")
    return (as_of - _EPOCH) // timedelta(microseconds=1)
