"""`POST /push`: rows in Feast's form made typed ones. What a push does is `FeatureStore.push`; not here."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.errors import SchemaMismatch
from featurestore.registry.snapshot import RegisteredGroup

EVENT_TIME = "event_time"
FEAST_EVENT_TIME = "event_timestamp"
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def pushed_rows(group: RegisteredGroup, given: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """The rows of a request's body in the group's dtypes; a column that the group does not have is left as it came.

    Rules: the event time may be called as Feast calls it. Times are ISO 8601 with a zone, dates ISO 8601, floats that JSON
    has no number for are 'NaN', 'Infinity' and '-Infinity'.

    Raises:
        SchemaMismatch: a value is of another type, or columns differ in length.
    """
    columns = dict(given)
    if EVENT_TIME not in columns and FEAST_EVENT_TIME in columns:
        columns = {EVENT_TIME if name == FEAST_EVENT_TIME else name: values for name, values in columns.items()}
    dtypes = {**group.stored_schema}
    try:
        return pl.DataFrame([_series(name, values, dtypes.get(name)) for name, values in columns.items()])
    except pl.exceptions.ShapeError as error:
        sizes = {name: len(values) for name, values in columns.items()}
        raise SchemaMismatch(f"Columns of 'df' must be of one length; they have {sizes}.") from error


def _series(name: str, values: Sequence[Any], dtype: pl.DataType | None) -> pl.Series:
    try:
        if dtype is None:
            return pl.Series(name, values)
        convert = _converter(dtype)
        typed = values if convert is None else [None if value is None else convert(value) for value in values]
        return pl.Series(name, typed, dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        said = f"{dtype}" if dtype is not None else "values of one type"
        raise SchemaMismatch(f"Column {name!r} takes {said}: {str(error)[:200]}") from error


def _converter(dtype: pl.DataType) -> Callable[[Any], Any] | None:
    if dtype == TIMESTAMP:
        return _instant
    if dtype == pl.Date():
        return date.fromisoformat
    return _float if dtype.is_float() else None


def _instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError(f"{value!r} has no zone; write it as in '2026-03-01T12:00:00Z'")
    return instant


def _float(value: float | str) -> float:
    return _NON_FINITE[value] if isinstance(value, str) and value in _NON_FINITE else value  # type: ignore[return-value]
