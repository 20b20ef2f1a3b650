"""Online keys: `{feature_group}:{entity_id}`, and how the id is spelled from one or more key columns.

The id is the key values in order, joined by `|`. Integers are decimal, booleans `true` or `false`, dates ISO 8601, strings
themselves; inside a string every reserved character is percent-encoded byte by byte: `:` and `|` so that distinct entities
never share a key, `{` and `}` so that none pins a cluster slot, `%` so that the encoding can be undone, the characters of
server-side patterns (`* ? [ ] \\`), `#`, `"`, spaces and control characters. Not here: values, or any store.
"""

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from numbers import Integral
from types import MappingProxyType
from typing import Any, cast

import polars as pl

from featurestore.errors import InvalidInput, SchemaMismatch

SEPARATOR = "|"
_RESERVED_CLASS = r'[\x00-\x20\x7f-\x{a0}%:{}|#*?\[\]\\"]'
_LONGEST_NUMBER = len(str(-(2**63)))
_RESERVED = re.compile(_RESERVED_CLASS.replace(r"\x{a0}", "\xa0"))
_RESERVED_ASCII = bytes(range(0x21)) + b'\x7f%:{}|#*?[]\\"'
_KEY_TYPES: Mapping[pl.DataType, type] = MappingProxyType(
    {pl.String(): str, pl.Int64(): int, pl.Int32(): int, pl.Boolean(): bool, pl.Date(): date}
)


def escape(text: str) -> str:
    """Percent-encode the reserved characters of a string key.

    >>> escape("a:b|{c}")
    'a%3Ab%7C%7Bc%7D'
    """
    return _RESERVED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def entity_id(values: Sequence[object]) -> str:
    """The id of one entity from its key values, as `entity_ids` spells it.

    Args:
        values: One value per key column, in the entity's order: int, str, bool or date; None is refused.

    Raises:
        InvalidInput: A value is null or of another type.

    >>> entity_id(["JFK", 4])
    'JFK|4'
    """
    return SEPARATOR.join([_spell(value) for value in values])


def _spell(value: object) -> str:
    if isinstance(value, str):
        return escape(value) if _RESERVED.search(value) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise InvalidInput(
        f"{value!r} ({type(value).__name__}) cannot be part of an entity key: keys are int, str, bool or date, never null."
    )


def entity_ids(frame: pl.DataFrame, key_columns: Sequence[str]) -> pl.Series:
    """The id of each row's entity.

    Args:
        frame: Any rows, in any order; its key columns are integers, String, Boolean or Date, without nulls.
        key_columns: In the entity's order; at least one.

    Returns:
        A String series, one id per row, in row order.

    Raises:
        InvalidInput: A key is null, or there are no key columns.
        SchemaMismatch: A key column is missing or of another dtype.
    """
    if not key_columns:
        raise InvalidInput("An entity has at least one key column; none was given.")
    spelled = [_spell_column(frame, name) for name in key_columns]
    if len(spelled) == 1:
        return spelled[0].alias("entity_id")
    return pl.select(pl.concat_str(spelled, separator=SEPARATOR).alias("entity_id")).to_series()


def _spell_column(frame: pl.DataFrame, name: str) -> pl.Series:
    column = _key_column(frame, name)
    if column.dtype == pl.Date:
        return column.dt.to_string("iso")
    if column.dtype != pl.String:
        return column.cast(pl.String)
    reserved = column.str.contains(_RESERVED_CLASS)
    if not reserved.any():
        return column
    texts = column.filter(reserved).unique()
    escaped = pl.Series([escape(text) for text in texts.to_list()], dtype=pl.String)
    return column.replace(texts, escaped)


def spelled_bytes(name: str, dtype: pl.DataType) -> pl.Expr:
    """How many bytes a key takes in its entity's id: of text exactly, of any other at most; 0 where it is null."""
    if dtype != pl.String:
        return pl.lit(_LONGEST_NUMBER)
    column = pl.col(name)
    escapes = column.str.count_matches(_RESERVED_CLASS) + column.str.count_matches("\xa0")
    return (column.str.len_bytes() + 2 * escapes).fill_null(0)


def most_spelled_bytes(name: str, dtype: pl.DataType) -> pl.Expr:
    """How many bytes a key may take in its entity's id at most, found without a look at its characters; 0 where it is null."""
    if dtype != pl.String:
        return pl.lit(_LONGEST_NUMBER)
    return 3 * pl.col(name).str.len_bytes().fill_null(0)


def _key_column(frame: pl.DataFrame, name: str) -> pl.Series:
    dtype = frame.schema.get(name)
    if dtype is None or not (dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Date)):
        raise SchemaMismatch(
            f"Key column {name!r} must be an integer, String, Boolean or Date; the frame has {dtype or 'no such column'}."
        )
    if nulls := frame[name].null_count():
        raise InvalidInput(
            f"Key column {name!r} has {nulls} nulls in {frame.height} rows. Drop those rows: nobody can ask for them."
        )
    return frame[name]


def online_keys(group: str, ids: Sequence[str] | pl.Series) -> list[bytes]:
    """The online key of each entity id.

    >>> online_keys("carrier_delay_daily", ["UA", "B6"])
    [b'carrier_delay_daily:UA', b'carrier_delay_daily:B6']
    """
    prefix = f"{group}:"
    return [(prefix + one).encode() for one in ids]


PlainId = str | int
"""An id; of an entity whose only key is an integer the integer itself, which is spelled when the key is made."""


def plain_ids(columns: Sequence[Sequence[Any]], dtypes: Sequence[pl.DataType]) -> Sequence[PlainId | None] | None:
    """The id of each row's entity from plain Python values, without a frame: what a small read asks for most often.

    Args:
        columns: One list per key column, all of one length; values are exactly of the key's Python type, or None.
        dtypes: Of the key columns, in the entity's order; at least one.

    Returns:
        One id per row, None where a key is null; `plain_keys` makes of them what `online_keys` makes of `entity_ids`. None
        instead of a list where a value is of another type or out of the dtype's range: a frame then tells what it is.
    """
    if len(columns) == 1 and _KEY_TYPES[dtypes[0]] is int:
        return columns[0] if _plain_there(columns[0], dtypes[0]) is not None else None
    spelled = []
    for values, dtype in zip(columns, dtypes, strict=True):
        column = _spell_plain(values, dtype)
        if column is None:
            return None
        spelled.append(column)
    if len(spelled) == 1:
        return spelled[0]
    return [None if None in row else SEPARATOR.join(row) for row in zip(*spelled, strict=True)]


def _plain_there(values: Sequence[Any], dtype: pl.DataType) -> Sequence[Any] | None:
    """The values that are not null, if all are exactly of the key's type and in its range."""
    expected, types = _KEY_TYPES[dtype], set(map(type, values))
    if not types <= {expected, type(None)}:
        return None
    there = [value for value in values if value is not None] if type(None) in types else values
    return there if expected is not int or _fits(there, dtype) else None


def _spell_plain(values: Sequence[Any], dtype: pl.DataType) -> list[str | None] | list[str] | None:
    there = _plain_there(values, dtype)
    if there is None:
        return None
    expected = _KEY_TYPES[dtype]
    if expected is str and _is_unreserved(there):
        return list(values)
    spell = _SPELLINGS[expected]
    return list(map(spell, values)) if there is values else [None if one is None else spell(one) for one in values]


_SPELLINGS: Mapping[type, Callable[[Any], str]] = MappingProxyType({str: _spell, int: str, bool: _spell, date: _spell})


def _fits(values: Sequence[int], dtype: pl.DataType) -> bool:
    try:
        array("i" if dtype == pl.Int32() else "q", values)
    except OverflowError:
        return False
    return True


def _is_unreserved(values: Sequence[str]) -> bool:
    """Whether no string has a reserved character; one look at all of them is much cheaper than one at each."""
    text = "".join(values)
    if not text.isascii():
        return _RESERVED.search(text) is None
    data = text.encode()
    return len(data.translate(None, _RESERVED_ASCII)) == len(data)


def plain_keys(group: str, ids: Sequence[PlainId]) -> list[bytes]:
    """The online keys of ids, all of them text or all integers.

    Text takes one join and one split for all, since no id holds a line end.

    >>> plain_keys("carrier_delay_daily", ["UA", "B6"]), plain_keys("plane_profile", [7])
    ([b'carrier_delay_daily:UA', b'carrier_delay_daily:B6'], [b'plane_profile:7'])
    """
    if not ids:
        return []
    if isinstance(ids[0], int):
        pattern = f"{group}:%d".encode()
        return [pattern % one for one in ids]
    return f"{group}:{f'{chr(10)}{group}:'.join(cast(Sequence[str], ids))}".encode().split(b"\n")
