"""Online keys: `{feature_group}:{entity_id}`, and how the id is spelled from one or more key columns.

The id is the key values in order, joined by `|`. Integers are decimal, booleans `true` or `false`, dates ISO 8601, strings
themselves; inside a string every reserved character is percent-encoded byte by byte: `:` and `|` so that distinct entities
never share a key, `{` and `}` so that none pins a cluster slot, `%` so that the encoding can be undone, the characters of
server-side patterns (`* ? [ ] \\`), `#`, `"`, spaces and control characters. Not here: values, or any store.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime
from numbers import Integral

import polars as pl

from featurestore.errors import InvalidInput, SchemaMismatch

SEPARATOR = "|"
_RESERVED_CLASS = r'[\x00-\x20\x7f-\x{a0}%:{}|#*?\[\]\\"]'
_RESERVED = re.compile(_RESERVED_CLASS.replace(r"\x{a0}", "\xa0"))


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
