"""Columns brought to their declared dtypes, if that keeps every value; else refused with the rows that would change.

Not here: whether values make sense (the gate), or what a wire format means by its numbers (the server's adapter).
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.frames import plain_rows

EXAMPLES = 10


def cast_lossless(rows: pl.DataFrame, expected: Mapping[str, pl.DataType], what: str) -> pl.DataFrame:
    """The rows with exactly the expected columns, in that order, in exactly the expected dtypes.

    Allowed is what can be undone: Int64 to Int32 and Float64 to Int64 or Float32 where every value fits, other units and zones of
    aware timestamps, all-null columns, categories to strings, and the same inside lists. Text is never read as a number or time.

    Args:
        rows: Any number of rows.
        expected: Column names and dtypes.
        what: What the rows are, for messages.

    Raises:
        SchemaMismatch: a column is missing or unknown, or of a kind that is never cast.
        InvalidInput: some values would change; the message names rows, from 0.

    >>> cast_lossless(pl.DataFrame({"a": [1.0, 2.0]}), {"a": pl.Int32()}, "Rows")["a"].to_list()
    [1, 2]
    """
    missing = [name for name in expected if name not in rows.columns]
    unknown = [name for name in rows.columns if name not in expected]
    if missing or unknown:
        raise SchemaMismatch(f"{what} {column_faults(missing, unknown)}. Give exactly {list(expected)}.")
    return rows.select(_cast(rows[name], dtype, what) for name, dtype in expected.items())


def column_faults(missing: list[str], unknown: list[str]) -> str:
    """What is wrong with columns: those that lack, those that nobody knows, or both; at least one is."""
    faults = [f"lack columns {missing}"] if missing else []
    return " and ".join([*faults, f"have unknown ones {unknown}"] if unknown else faults)


def named_rows(rows: pl.DataFrame, mask: pl.Expr, columns: list[str]) -> list[dict[str, Any]]:
    """The first ten rows that a mask holds for: their positions, from 0, and some columns."""
    found = rows.with_row_index("row").filter(mask).select("row", *columns).head(EXAMPLES)
    return list(plain_rows(found))


def _cast(column: pl.Series, dtype: pl.DataType, what: str) -> pl.Series:
    given = column.dtype
    if given == dtype:
        return column
    if not _is_castable(given, dtype):
        hint = " Give it a time zone: a naive time is never guessed." if _is_naive(given) else ""
        raise SchemaMismatch(f"{what}: column {column.name!r} is {given!r}, declared {dtype!r}.{hint}")
    try:
        cast = column.cast(dtype, strict=False)
        back = cast.cast(_undone(given), strict=False)
    except pl.exceptions.PolarsError as error:
        raise SchemaMismatch(f"{what}: column {column.name!r} is {given!r}, declared {dtype!r}: {error}.") from error
    changed = ~column.cast(_undone(given)).eq_missing(back)
    if changed.any():
        shown = named_rows(column.to_frame(), pl.lit(changed), [column.name])
        raise InvalidInput(
            f"{what}: {changed.sum()} values of column {column.name!r} ({given!r}) do not fit {dtype!r} without change: {shown}. "
            "Round or correct them yourself: nothing is rounded here."
        )
    return cast


def _undone(given: pl.DataType) -> pl.DataType:
    """What a cast is compared in: the dtype it came from, a list for a fixed-size array, text for categories."""
    if isinstance(given, pl.Array):
        return pl.List(given.inner)
    return pl.String() if isinstance(given, pl.Categorical | pl.Enum) else given


def _is_castable(given: pl.DataType, dtype: pl.DataType) -> bool:
    """Whether values of one dtype may turn out to be values of the other."""
    if given == pl.Null():
        return True
    if dtype.is_numeric():
        return given.is_numeric()
    if isinstance(dtype, pl.Datetime):
        return isinstance(given, pl.Datetime) and given.time_zone is not None
    if isinstance(dtype, pl.List):
        return isinstance(given, pl.List | pl.Array) and _is_castable(_inner(given), _inner(dtype))
    return dtype == pl.String() and isinstance(given, pl.Categorical | pl.Enum)


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    return inner() if isinstance(inner, type) else inner


def _is_naive(given: pl.DataType) -> bool:
    return isinstance(given, pl.Datetime) and given.time_zone is None
