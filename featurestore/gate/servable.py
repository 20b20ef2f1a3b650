"""What a value may be and yet nobody could be shown it, or no tier of the online store could hold it.

Pure expressions for the gate: a row that got past it would stop every later materialization of its group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from featurestore.declaration.dtypes import BOUNDS, CALENDAR, in_calendar
from featurestore.online.dynamo.items import ITEM_OVERHEAD_BYTES, LARGEST_ENTITY_ID_BYTES, LARGEST_ITEM_BYTES
from featurestore.online.keys import most_spelled_bytes, spelled_bytes
from featurestore.online.message.layout import LONGEST_STRING_BYTES
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

_SCALAR_BYTES = 10
_HEADER_BYTES = 128
"""Of a message, and of a value without its payload, generously."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One that rows are held to.

    Args:
        check: Its name in reports.
        column: Whose values are held to it; the group's name for rows as a whole.
        is_kept: Whether a row keeps it; never null.
        measure: What a report shows of the rows that do not, the largest of them, and its `unit`.
        most: The limit in words.
        sieve: Whether a row keeps it for certain, found cheaply; None: `is_kept` is cheap.
    """

    check: str
    column: str
    is_kept: pl.Expr
    measure: pl.Expr
    most: str
    unit: str = ""
    sieve: pl.Expr | None = None


def limits_of(group: RegisteredGroup, schema: Mapping[str, pl.DataType]) -> list[Limit]:
    """The limits of a group's rows, as far as these have the columns as they are declared.

    Times are of the calendar in any group. Texts fit a message if the group is online; keys and messages as a whole fit an item
    of DynamoDB unless the group is declared to be in the hot tier alone: others may have a warm copy, here or where they are
    deployed next.
    """
    there = {name for name, dtype in group.stored_schema.items() if schema.get(name) == dtype}
    limits = [_calendar(name, schema[name]) for name in group.stored_schema if name in there and schema[name] in BOUNDS]
    if group.is_online:
        limits += [_text(one.name) for one in group.features if one.name in there and one.dtype == pl.String()]
    if group.is_online and group.tiers != ("hot",) and there.issuperset((*group.key_names, *group.feature_names)):
        limits += _item(group)
    return limits


def _calendar(column: str, dtype: pl.DataType) -> Limit:
    shown = pl.col(column).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
    return Limit("calendar", column, in_calendar(pl.col(column), dtype), shown, CALENDAR)


def _text(column: str) -> Limit:
    size = pl.col(column).str.len_bytes()
    return Limit(
        "text_size", column, _at_most(size, LONGEST_STRING_BYTES), size, f"{LONGEST_STRING_BYTES} bytes", " bytes"
    )


def _item(group: RegisteredGroup) -> list[Limit]:
    values = [_value_bytes(feature) for feature in group.features]
    key, longest_key = _id_bytes(group.key_schema, spelled_bytes), _id_bytes(group.key_schema, most_spelled_bytes)
    item, largest_item = (pl.sum_horizontal(_HEADER_BYTES, one, *values) for one in (key, longest_key))
    return [
        _of_dynamo("key_size", group.name, key, longest_key, LARGEST_ENTITY_ID_BYTES),
        _of_dynamo("item_size", group.name, item, largest_item, LARGEST_ITEM_BYTES - ITEM_OVERHEAD_BYTES),
    ]


def _of_dynamo(check: str, column: str, size: pl.Expr, bound: pl.Expr, most: int) -> Limit:
    words = f"{most} bytes, DynamoDB's, to which a group of tiers=('hot',) is not held"
    return Limit(check, column, _at_most(size, most), size, words, " bytes", _at_most(bound, most))


def _at_most(size: pl.Expr, most: int) -> pl.Expr:
    return (size <= most).fill_null(True)


def _id_bytes(keys: Mapping[str, pl.DataType], spelled: Callable[[str, pl.DataType], pl.Expr]) -> pl.Expr:
    """Length of each row's entity id; a null key counts for nothing."""
    return pl.sum_horizontal(len(keys) - 1, *(spelled(name, dtype) for name, dtype in keys.items()))


def _value_bytes(feature: RegisteredFeature) -> pl.Expr:
    """Length of each row's value in a message, or a little more."""
    column, dtype = pl.col(feature.name), feature.dtype
    if dtype == pl.String():
        return _SCALAR_BYTES + column.str.len_bytes().fill_null(0)
    if dtype == pl.List(pl.String):
        lengths = column.list.eval(pl.element().str.len_bytes() + _SCALAR_BYTES).list.sum()
        return _SCALAR_BYTES + lengths.fill_null(0)
    if isinstance(dtype, pl.List | pl.Array):
        return _SCALAR_BYTES + 8 * column.list.len().fill_null(0)
    return pl.lit(_SCALAR_BYTES)
