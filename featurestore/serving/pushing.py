"""`POST /push`: rows in Feast's form made typed ones. What a push does is `FeatureStore.push`; not here."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP, dtype_name
from featurestore.errors import SchemaMismatch
from featurestore.registry.snapshot import RegisteredGroup
from featurestore.serving.prepared import whole_number

EVENT_TIME = "event_time"
FEAST_EVENT_TIME = "event_timestamp"
SHOWN_CHARACTERS = 80
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
Convert = Callable[[Any], Any]


def pushed_rows(group: RegisteredGroup, given: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """The rows of a request's body in the group's dtypes; of a column that nobody pushes only the name is kept.

    Rules: the event time may be called as Feast calls it. Times are ISO 8601 with a zone, dates ISO 8601, floats that JSON
    has no number for are 'NaN', 'Infinity' and '-Infinity'. Whole-number keys may be text or floats, as in reads.

    Raises:
        SchemaMismatch: a value is of another type, or columns differ in length.
    """
    if len(set(map(len, given.values()))) > 1:
        sizes = {name: len(values) for name, values in given.items()}
        raise SchemaMismatch(f"Columns of 'df' must be of one length; they have {sizes}.")
    names = {name: _stored_name(name, given) for name in given}
    return pl.DataFrame([_series(group, name, names[name], values) for name, values in given.items()])


def _stored_name(name: str, given: Mapping[str, object]) -> str:
    return EVENT_TIME if name == FEAST_EVENT_TIME and EVENT_TIME not in given else name


def _series(group: RegisteredGroup, given_name: str, name: str, values: Sequence[Any]) -> pl.Series:
    if name not in (*group.key_names, EVENT_TIME, *group.feature_names):
        return pl.Series(name, [None] * len(values))
    dtype = group.stored_schema[name]
    convert = _converter(dtype, is_key=name in group.key_names)
    try:
        typed = values if convert is None else [None if value is None else convert(value) for value in values]
        return pl.Series(name, typed, dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        row = next((row for row, value in enumerate(values) if not _fits(value, dtype, convert)), 0)
        wanted = _wanted(dtype) + (", or null" if name in group.feature_names else "")
        said = f"Column {given_name!r} has {repr(values[row])[:SHOWN_CHARACTERS]} in row {row}; it takes {wanted}."
        raise SchemaMismatch(said) from error


def _fits(value: Any, dtype: pl.DataType, convert: Convert | None) -> bool:
    try:
        pl.Series([value if convert is None or value is None else convert(value)], dtype=dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return False
    return True


def _wanted(dtype: pl.DataType) -> str:
    if dtype == TIMESTAMP:
        return "times with a zone, such as '2026-03-01T12:00:00Z'"
    if dtype == pl.Date():
        return "dates, such as '2026-03-01'"
    return dtype_name(dtype)


def _converter(dtype: pl.DataType, *, is_key: bool) -> Convert | None:
    if dtype == TIMESTAMP:
        return _instant
    if dtype == pl.Date():
        return date.fromisoformat
    if dtype.is_float():
        return _float
    return _key_number if is_key and dtype.is_integer() else None


def _instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError("no zone")
    return instant


def _key_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise TypeError("Polars would take it for 0 or 1")
    return whole_number(value)


def _float(value: float | str) -> float:
    return _NON_FINITE[value] if isinstance(value, str) and value in _NON_FINITE else value  # type: ignore[return-value]
