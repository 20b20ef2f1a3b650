"""`POST /push` and `/write-to-online-store`: rows in Feast's form made typed ones. What a push does is `FeatureStore.push`; not here.

Feast's clients send every column of a batch source, `created` among them, and Feast's online write passes over those that are no
keys, features or event time. So it is here, as long as nothing that the group has is missing: a misspelled name is not passed over.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP, dtype_name
from featurestore.errors import SchemaMismatch
from featurestore.registry.snapshot import RegisteredGroup
from featurestore.serving.prepared import whole_number

EVENT_TIME = "event_time"
FEAST_EVENT_TIME = "event_timestamp"
SHOWN_CHARACTERS = 80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
Convert = Callable[[Any], Any]


def pushed_rows(
    group: RegisteredGroup, given: Mapping[str, Sequence[Any]], *, has_feast_times: bool = False
) -> pl.DataFrame:
    """The rows of a request's body in the group's dtypes; of a column that nobody pushes only the name is kept, if that.

    Rules: the event time may be called as Feast calls it. Times are ISO 8601 with a zone, dates ISO 8601, floats that JSON
    has no number for are 'NaN', 'Infinity' and '-Infinity', also in lists. Whole-number keys may be text or floats, as in reads;
    numbers of Float32 features are rounded to it.

    Args:
        has_feast_times: Times may also be without a zone, and are UTC then, or seconds since 1970: as Feast's remote online
            store writes them.

    Raises:
        SchemaMismatch: a value is of another type, or columns differ in length.
    """
    if len(set(map(len, given.values()))) > 1:
        sizes = {name: len(values) for name, values in given.items()}
        raise SchemaMismatch(f"Columns of 'df' must be of one length; they have {sizes}.")
    names = {name: _stored_name(name, given) for name in given}
    left_out = passed_over(group, given)
    series = [
        _series(group, name, names[name], values, has_feast_times=has_feast_times)
        for name, values in given.items()
        if name not in left_out
    ]
    return pl.DataFrame(series)


def passed_over(group: RegisteredGroup, given: Mapping[str, Sequence[Any]]) -> list[str]:
    """Columns that the group does not have; none of them where it has some that are not given: one may be meant for the other."""
    own = {*group.key_names, EVENT_TIME, *group.feature_names}
    names = {name: _stored_name(name, given) for name in given}
    return [] if own - set(names.values()) else [name for name, stored in names.items() if stored not in own]


def passed_over_text(names: Sequence[str]) -> str:
    """What a client is told of them; "" if there are none."""
    return f"Columns {list(names)} are not of the group and were passed over." if names else ""


def _stored_name(name: str, given: Mapping[str, object]) -> str:
    return EVENT_TIME if name == FEAST_EVENT_TIME and EVENT_TIME not in given else name


def _series(
    group: RegisteredGroup, given_name: str, name: str, values: Sequence[Any], *, has_feast_times: bool
) -> pl.Series:
    if name not in (*group.key_names, EVENT_TIME, *group.feature_names):
        return pl.Series(name, [None] * len(values))
    dtype = group.stored_schema[name]
    convert = _converter(dtype, is_key=name in group.key_names)
    if has_feast_times and dtype == TIMESTAMP:
        convert = _feast_instant
    try:
        typed = values if convert is None else [None if value is None else convert(value) for value in values]
        return pl.Series(name, typed, dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        row = next((row for row, value in enumerate(values) if not _fits(value, dtype, convert)), 0)
        declared = group.feature(name).dtype if name in group.feature_names else dtype
        wanted = _wanted(declared) + (", or null" if name in group.feature_names else "")
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


def _converter(dtype: pl.DataType, *, is_key: bool = False) -> Convert | None:
    """What makes a JSON value one of a dtype; None: Polars takes it as it is, or refuses it.

    Rules: true and false are no numbers. All of JSON's numbers are doubles, so that one with more digits than a Float32 has becomes
    the nearest of those, as a client that writes 0.1 expects; in the SDK, where a column has a dtype, it is refused. One that is
    too large, and would become infinite, is refused here too.
    """
    if dtype == TIMESTAMP:
        return _instant
    if dtype == pl.Date():
        return date.fromisoformat
    if isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner
        return partial(_items, _converter(inner() if isinstance(inner, type) else inner))
    if dtype.is_float():
        return _float32 if dtype == pl.Float32() else _float
    if dtype.is_integer():
        return _key_number if is_key else _number
    return None


def _items(convert: Convert | None, value: Any) -> list[Any]:
    """A list's items; text and objects are none, though Polars would take their letters or names."""
    if not isinstance(value, list):
        raise TypeError("no list")
    return value if convert is None else [None if item is None else convert(item) for item in value]


def _instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError("no zone")
    return instant


def _feast_instant(value: str | float) -> datetime:
    if isinstance(value, bool):
        raise TypeError("no time")
    if isinstance(value, int | float):
        return _EPOCH + timedelta(seconds=value)
    instant = datetime.fromisoformat(value)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise TypeError("Polars would take it for 0 or 1")
    return value


def _key_number(value: Any) -> Any:
    return whole_number(_number(value))


def _float(value: Any) -> Any:
    return _NON_FINITE[value] if isinstance(value, str) and value in _NON_FINITE else _number(value)


def _float32(value: Any) -> Any:
    number = _float(value)
    if isinstance(number, int | float):
        struct.pack("<f", float(number))  # raises OverflowError if it is finite and would become infinite
    return number
