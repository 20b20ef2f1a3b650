"""What rows must be before they may be written: exact columns and dtypes, whole keys and times, one row per event.

Whether values make sense is the promotion gate's to judge, not this module's.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import polars as pl

from featurestore.declaration.windows import DAY, HOUR, TimeWindow
from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.frames import plain_rows
from featurestore.lossless import column_faults
from featurestore.offline.spans import of_windows
from featurestore.registry.snapshot import RegisteredGroup

LENGTHS = {"hourly": HOUR, "daily": DAY}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER_NULL = ("event_time", "knowledge_time", "window_start", "is_deleted", "schema_number")


def row_schema(group: RegisteredGroup) -> dict[str, pl.DataType]:
    """The columns of a row to be written: a stored row without `created_at`, which the store sets."""
    return {name: dtype for name, dtype in group.stored_schema.items() if name != "created_at"}


def identity(group: RegisteredGroup) -> list[str]:
    """Columns that tell a stored row from every other."""
    return [*group.key_names, "event_time", "window_start"]


def check_schema(group: RegisteredGroup, rows: pl.DataFrame, expected: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows with columns in table order.

    Raises:
        SchemaMismatch: a column is missing, unknown, or of another dtype; nothing is cast.
    """
    missing = [name for name in expected if name not in rows.columns]
    unknown = [name for name in rows.columns if name not in expected]
    if missing or unknown:
        raise SchemaMismatch(
            f"Rows for group {group.name!r} {column_faults(missing, unknown)}. "
            f"Give exactly {list(expected)}; the store sets created_at, year and month."
        )
    wrong = [
        f"{name} is {rows.schema[name]!r}, not {dtype!r}"
        for name, dtype in expected.items()
        if rows.schema[name] != dtype
    ]
    if wrong:
        raise SchemaMismatch(
            f"Rows for group {group.name!r}: {'; '.join(wrong)}. Cast them yourself: the store casts nothing."
        )
    _check_vectors(group, rows)
    return rows.select(list(expected))


def _check_vectors(group: RegisteredGroup, rows: pl.DataFrame) -> None:
    for feature in group.features:
        if not isinstance(feature.dtype, pl.Array):
            continue
        lengths = rows[feature.name].list.drop_nulls().list.len().drop_nulls()
        odd = lengths.filter(lengths != feature.dtype.size)
        if odd.len():
            raise SchemaMismatch(
                f"Feature {feature.name!r} of group {group.name!r} is a vector of {feature.dtype.size} numbers; {odd.len()} rows "
                f"have other lengths or null items, the first {odd[0]}. Give whole vectors, or null for a missing one."
            )


def check_windows(group: RegisteredGroup, windows: Sequence[TimeWindow]) -> list[TimeWindow]:
    """The windows to overwrite, oldest first, each once.

    Raises:
        InvalidInput: there are none, or one is not a window of the group's cadence.
    """
    named = sorted(set(windows))
    if not named:
        raise InvalidInput(
            f"An overwrite of group {group.name!r} names no window. Name every window whose rows it replaces."
        )
    length = LENGTHS.get(group.cadence)
    for window in named:
        if length is not None and (window.end - window.start != length or (window.start - EPOCH) % length):
            raise InvalidInput(
                f"[{window.start.isoformat()}, {window.end.isoformat()}) is not a window of {group.cadence} group {group.name!r}. "
                "Take windows from its cadence."
            )
    for before, after in pairwise(named):
        if after.start < before.end:
            raise InvalidInput(
                f"Windows of group {group.name!r} that start {before.start.isoformat()} and {after.start.isoformat()} overlap."
            )
    return named


def check_rows(group: RegisteredGroup, rows: pl.DataFrame, windows: Sequence[TimeWindow]) -> pl.DataFrame:
    """Rows fit for the windows, with columns in table order.

    Raises:
        SchemaMismatch: columns or dtypes are not exactly those declared.
        InvalidInput: a key or a time is null, a row is of no named window, or two rows say the same thing of one moment.
    """
    checked = check_schema(group, rows, row_schema(group))
    refuse_nulls(group, checked, [*group.key_names, *NEVER_NULL])
    _refuse_newer_schema(group, checked)
    outside = checked.filter(~of_windows(windows))
    if outside.height:
        raise InvalidInput(
            f"{outside.height} rows for group {group.name!r} have a window_start of none of the {len(windows)} windows named, the first "
            f"{outside['window_start'][0].isoformat()}. Name every window that is written, by the instant at which it starts."
        )
    refuse_doubles(group, checked, identity(group))
    return checked


def refuse_nulls(group: RegisteredGroup, rows: pl.DataFrame, columns: Sequence[str]) -> None:
    """Raise InvalidInput if one of the columns has a null."""
    nulls = {name: rows[name].null_count() for name in columns if rows[name].null_count()}
    if nulls:
        raise InvalidInput(
            f"Rows for group {group.name!r} have nulls where none may be: {nulls}. Drop or fix those rows first."
        )


def refuse_doubles(group: RegisteredGroup, rows: pl.DataFrame, columns: Sequence[str]) -> None:
    """Raise InvalidInput if two rows agree in all of the columns."""
    doubled = rows.select(columns).filter(pl.struct(columns).is_duplicated())
    if doubled.height:
        raise InvalidInput(
            f"{doubled.height} rows for group {group.name!r} share their {list(columns)}, for instance {plain_rows(doubled.head(1))[0]}. "
            "Keep one row each: the transform breaks the tie."
        )


def _refuse_newer_schema(group: RegisteredGroup, rows: pl.DataFrame) -> None:
    newest = rows["schema_number"].max()
    if isinstance(newest, int) and newest > group.schema_number:
        raise InvalidInput(
            f"Rows for group {group.name!r} have schema_number {newest}; the registry in use knows {group.schema_number}. Read the registry again."
        )
