"""The point-in-time join: for each label, what production could have served at its time.

Pure functions on frames: the law of the join, its modes for other systems' rules, and its two halves (which row each
label takes, and the gathering of one feature's values) for callers with several groups. The order of an entity's rows
is in `frontier`; retrieval from a store is not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

import polars as pl

from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.frontier import (
    EVENT_TIME,
    FRONTIER_ORDER,
    INSTANT,
    IS_DELETED,
    KNOWLEDGE_TIME,
    RESERVED,
    VERSION_ORDER,
    collected,
    column_names,
    in_order,
    instants,
    key_columns,
    key_names,
    on_frontier,
    require_columns,
    timeline_of,
)

PRESENT = "PRESENT"
NULL_VALUE = "NULL_VALUE"
NOT_FOUND = "NOT_FOUND"
OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
STATUS = pl.Enum([PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE])

Clock = Literal["knowledge", "event"]
Match = Literal["at_or_before", "before", "exact"]

_BEFORE_ALL_TIME = -(2**63)
_LONGEST_AGE_US = 2**63 - 1


@dataclass(frozen=True)
class JoinMode:
    """Which rows a label may see; the default is the law, the others imitate other systems.

    Args:
        clock: The time of a row that is compared with the label's: `knowledge` (the law) or `event`, which ignores when
            a row became known, and so leaks whatever was known later than its event time.
        match: `at_or_before` (the law), `before` (strictly: Chronon's rule), or `exact`: only rows whose clock equals
            the label time, as of a join on equal timestamps.
    """

    clock: Clock = "knowledge"
    match: Match = "at_or_before"

    def __post_init__(self) -> None:
        for name, value, choices in (("clock", self.clock, Clock), ("match", self.match, Match)):
            if value not in get_args(choices):
                raise InvalidInput(f"JoinMode {name} is {value!r}; choose one of {list(get_args(choices))}.")


THE_LAW = JoinMode()


def point_in_time_join(
    labels: pl.DataFrame | pl.LazyFrame,
    features: pl.DataFrame | pl.LazyFrame,
    *,
    keys: str | Sequence[str],
    label_time: str = "label_time",
    max_age: timedelta | None = None,
    mode: JoinMode = THE_LAW,
    values: Sequence[str] | None = None,
    with_status: bool = False,
    event_time_as: str | None = None,
) -> pl.DataFrame:
    """Give each label the feature values that production could have served at its time.

    One output row for each label, in input order, always. Among the rows of its entity known by the label time
    (`knowledge_time <= label_time`) the highest version (event_time, knowledge_time, created_at) wins, exact ties go to
    the last row in input order. If that row is a tombstone, or older than `max_age`, the values are null.

    Args:
        labels: The keys and `label_time` (an aware instant; null finds nothing), any other columns; any order, repeats
            allowed; a null key matches nothing.
        features: The keys (a row with a null key is never matched), `event_time`, optional `knowledge_time` (taken as
            `event_time` when absent), optional `created_at`, optional `is_deleted`, and value columns; any order. Times
            are aware and not null.
        keys: Names of the key columns, of equal dtypes in both frames; no floats.
        label_time: Name of the time column of `labels`.
        max_age: A value is served while `label_time - event_time <= max_age`, exact to the microsecond; None: always.
        mode: Other systems' rules; the default is the law.
        values: The value columns wanted, in that order; None: every column that is neither a key nor a time.
        with_status: Add `{value}__status` for each value column: PRESENT, NULL_VALUE, NOT_FOUND or OUTSIDE_MAX_AGE.
        event_time_as: Add the event time of the deciding row under this name; null where the status is NOT_FOUND.

    Returns:
        The columns of `labels`, then the values with their dtypes, then the statuses, then the event time.

    Raises:
        InvalidInput: A column is missing or its name is taken, a time is naive, null or finer than a microsecond, a key
            is a float, `max_age` is negative.
        SchemaMismatch: A key has another dtype in `features` than in `labels`.

    Source:
        The design, "Point-in-time join: the law".

    >>> from datetime import datetime, timezone
    >>> day = lambda d: datetime(2025, 1, d, tzinfo=timezone.utc)
    >>> labels = pl.DataFrame({"carrier": ["AA", "AA"], "label_time": [day(3), day(1)]})
    >>> delays = {"carrier": ["AA", "AA"], "event_time": [day(1), day(2)], "knowledge_time": [day(2), day(4)], "delay": [7, 9]}
    >>> point_in_time_join(labels, pl.DataFrame(delays), keys="carrier")["delay"].to_list()
    [7, None]
    """
    names = key_names(keys)
    spine = collected(labels, "labels")
    columns = _value_columns(column_names(features, "features"), names, values)
    table = collected(features, "features", [*names, *RESERVED, *columns])
    _require_same_keys(spine, table, names)
    _refuse_taken_names(spine, columns, with_status=with_status, event_time_as=event_time_as)
    matches = match_rows(spine, table, keys=names, label_time=label_time, max_age=max_age, mode=mode)
    gathered = [gather_values(table[name], matches) for name in columns]
    statuses = [feature_status(column, matches) for column in gathered] if with_status else []
    times = [matches[EVENT_TIME].alias(event_time_as)] if event_time_as is not None else []
    return spine.with_columns(*gathered, *statuses, *times)


def match_rows(
    labels: pl.DataFrame | pl.LazyFrame,
    features: pl.DataFrame | pl.LazyFrame,
    *,
    keys: str | Sequence[str],
    label_time: str = "label_time",
    max_age: timedelta | None = None,
    mode: JoinMode = THE_LAW,
) -> pl.DataFrame:
    """Find, for each label, the feature row that serves it: the join without its values.

    Reads only the keys and times of `features`, so that columns can be fetched and gathered one at a time, and rules
    that depend on the row found (the schema it was computed under) can be applied in between.

    Args:
        labels: As for `point_in_time_join`.
        features: As for `point_in_time_join`; value columns are not looked at.
        keys: As for `point_in_time_join`.
        label_time: As for `point_in_time_join`.
        max_age: As for `point_in_time_join`.
        mode: As for `point_in_time_join`.

    Returns:
        One row for each label, in input order: `row` UInt32, the position in `features` of the row whose values are
        served, null if none are; `status` (`STATUS`): PRESENT, NOT_FOUND or OUTSIDE_MAX_AGE; `event_time` of the
        deciding row, null where the status is NOT_FOUND.

    Raises:
        InvalidInput: As for `point_in_time_join`.
        SchemaMismatch: As for `point_in_time_join`.

    Source:
        The design, "Point-in-time join: the law".
    """
    names = key_names(keys)
    oldest = _longest_age(max_age)
    spine = collected(labels, "labels", [*names, label_time])
    table = collected(features, "features", [*names, *RESERVED])
    _require_same_keys(spine, table, names)
    asked = instants(spine, label_time, "labels", allow_null=True).alias("label_time")
    timeline = timeline_of(table)
    label_entity, known_entity = _entity_ids(key_columns(spine, names, "labels"), key_columns(table, names, "features"))
    history = timeline.hstack([known_entity]).drop_nulls("entity")
    row = _last_known(pl.DataFrame([label_entity, asked]), history, mode)
    return _judged(row, asked, timeline[EVENT_TIME].gather(row), _deleted(table).gather(row), oldest)


def gather_values(values: pl.Series, matches: pl.DataFrame) -> pl.Series:
    """Return one feature's value for each label: `values` at the matched rows, null where there is none, dtype kept.

    Args:
        values: A column of the `features` given to `match_rows`, same length and order.
        matches: What `match_rows` returned.

    Returns:
        One value for each label, in the labels' order, under the name of `values`.
    """
    return values.gather(matches["row"])


def feature_status(values: pl.Series, matches: pl.DataFrame) -> pl.Series:
    """Return the status of one gathered feature for each label, named `{feature}__status`, of dtype `STATUS`.

    Args:
        values: What `gather_values` returned.
        matches: What `match_rows` returned.

    Returns:
        The status of the match, with NULL_VALUE where a row was found and its value is null. NaN is a value.
    """
    status = pl.col("status")
    is_null = (status == PRESENT) & values.is_null()
    named = pl.when(is_null).then(pl.lit(NULL_VALUE, dtype=STATUS)).otherwise(status).alias(f"{values.name}__status")
    return matches.select(named).to_series()


def _entity_ids(labels: list[pl.Series], features: list[pl.Series]) -> tuple[pl.Series, pl.Series]:
    """Number the labels' distinct entities; a null key, and a feature row that no label asks for, has no number."""
    spine, table = pl.DataFrame(labels), pl.DataFrame(features)
    known = spine.unique().with_row_index("entity")
    by = spine.columns
    return (
        spine.join(known, on=by, how="left", maintain_order="left")["entity"],
        table.join(known, on=by, how="left", maintain_order="left")["entity"],
    )


def _last_known(spine: pl.DataFrame, history: pl.DataFrame, mode: JoinMode) -> pl.Series:
    """Return for each row of (entity, label_time) the `row` of the highest version that the mode lets it see."""
    clock, order = (KNOWLEDGE_TIME, FRONTIER_ORDER) if mode.clock == "knowledge" else (EVENT_TIME, VERSION_ORDER)
    ordered = in_order(history, order)
    if mode.match != "exact":  # an exact match sees only rows of its own instant: what was known before hides none
        ordered = on_frontier(ordered, ["entity"])
    asked = spine.with_columns(pl.col("label_time").fill_null(_BEFORE_ALL_TIME)).with_row_index("label")
    seen = _places_seen(asked, ordered[clock], mode)
    place = _own_places(seen, ordered["entity"])
    if mode.match == "exact":
        is_same = ordered[clock].gather(place) == asked["label_time"]
        place = place.to_frame().select(pl.when(is_same).then(pl.first())).to_series()
    return ordered["row"].gather(place)


def _places_seen(asked: pl.DataFrame, clock: pl.Series, mode: JoinMode) -> pl.DataFrame:
    """Give each label the place, among the rows of all entities in order, of the last row that its time lets it see."""
    return asked.sort("label_time").join_asof(
        clock.alias("clock").to_frame().with_columns(place=pl.int_range(pl.len())),
        left_on="label_time",
        right_on="clock",
        allow_exact_matches=mode.match != "before",
    )


def _own_places(seen: pl.DataFrame, owner: pl.Series) -> pl.Series:
    """Return for each label, in label order, the place of its entity's last row at or before the place it sees.

    (entity, place) is one integer, so that the as-of join needs no `by`: beside `by` Polars cannot check that its input
    is sorted, and answers wrongly when it is not; one sorted integer is checked, and faster.
    """
    height = max(len(owner), 1)
    code = pl.col("entity").cast(pl.Int64) * height + pl.col("place")
    rows = pl.DataFrame([owner.alias("entity")]).with_columns(place=pl.int_range(pl.len())).select(row_code=code)
    found = (
        seen.select("label", "entity", code=code.fill_null(-1))
        .sort("code")
        .join_asof(rows.sort("row_code"), left_on="code", right_on="row_code", coalesce=False)
        .sort("label")
    )
    is_own = pl.col("row_code") // height == pl.col("entity")
    return found.select(pl.when(is_own).then(pl.col("row_code") % height)).to_series()


def _judged(row: pl.Series, asked: pl.Series, event: pl.Series, deleted: pl.Series, oldest: int) -> pl.DataFrame:
    """Apply tombstones and the maximum age to the rows found."""
    frame = pl.DataFrame({"row": row, "asked": asked, "event": event, "deleted": deleted})
    is_missing = pl.col("row").is_null() | pl.col("deleted")
    is_too_old = pl.col("asked") - pl.col("event") > oldest
    status = (
        pl.when(is_missing)
        .then(pl.lit(NOT_FOUND, dtype=STATUS))
        .when(is_too_old)
        .then(pl.lit(OUTSIDE_MAX_AGE, dtype=STATUS))
        .otherwise(pl.lit(PRESENT, dtype=STATUS))
    )
    return frame.select(
        pl.when(~is_missing & ~is_too_old).then("row").alias("row"),
        status.alias("status"),
        pl.when(~is_missing).then("event").cast(INSTANT).alias(EVENT_TIME),
    )


def _deleted(table: pl.DataFrame) -> pl.Series:
    """Return which rows are tombstones; none if the frame does not say."""
    if IS_DELETED not in table.columns:
        return pl.repeat(False, table.height, eager=True)
    deleted = table[IS_DELETED]
    if deleted.dtype != pl.Boolean or deleted.null_count():
        raise InvalidInput(
            f"Column {IS_DELETED!r} of features is {deleted.dtype} with {deleted.null_count()} nulls; it marks tombstones "
            f"and has to be true or false. Use pl.col({IS_DELETED!r}).fill_null(False), or rename it if it is a feature."
        )
    return deleted


def _longest_age(max_age: timedelta | None) -> int:
    """Return the maximum age in microseconds; without one, more than any two instants are apart."""
    if max_age is None:
        return _LONGEST_AGE_US
    if not isinstance(max_age, timedelta) or max_age < timedelta(0):
        raise InvalidInput(f"max_age is {max_age!r}; it has to be a timedelta of zero or more, or None for no limit.")
    return min(max_age // timedelta(microseconds=1), _LONGEST_AGE_US)


def _require_same_keys(spine: pl.DataFrame, table: pl.DataFrame, keys: Sequence[str]) -> None:
    """Refuse keys that would be compared across dtypes."""
    require_columns(spine, keys, "labels")
    require_columns(table, keys, "features")
    for key in keys:
        ours, theirs = spine.schema[key], table.schema[key]
        if ours != theirs:
            raise SchemaMismatch(
                f"Key {key!r} is {ours} in labels and {theirs} in features, and keys are never cast silently. "
                f"Cast one of them: labels.with_columns(pl.col({key!r}).cast(pl.{theirs!r}))."
            )


def _value_columns(columns: Sequence[str], keys: Sequence[str], values: Sequence[str] | None) -> list[str]:
    """Return the names of the value columns asked for, or of all of them."""
    there = [name for name in columns if name not in keys and name not in RESERVED]
    if values is None:
        return there
    unknown = [name for name in values if name not in there]
    if unknown or isinstance(values, str) or len(set(values)) != len(values):
        raise InvalidInput(
            f"values is {values!r}; name value columns of features, each once, in a list. They are {there}; keys and "
            f"{list(RESERVED)} are none (event_time_as gives the event time)."
        )
    return list(values)


def _refuse_taken_names(
    spine: pl.DataFrame, columns: Sequence[str], *, with_status: bool, event_time_as: str | None
) -> None:
    """Refuse an output column whose name another one has already."""
    added = [*columns]
    if with_status:
        added += [f"{name}__status" for name in columns]
    if event_time_as is not None:
        added.append(event_time_as)
    names = [*spine.columns, *added]
    taken = sorted({name for name in added if names.count(name) > 1})
    if taken:
        raise InvalidInput(
            f"The output would have two columns named {taken}: labels has {spine.columns}, the join adds {added}. "
            "Rename the column in labels or in features, or leave it out with values=[...]."
        )
