"""Columns to messages: a Polars frame becomes one canonical message per row.

Not here: which rows are written, their keys, or what the store does with them.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from featurestore.declaration.dtypes import BOUNDS
from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.online.message.checksum import sums_of_messages, sums_of_rows
from featurestore.online.message.layout import (
    CHECKSUM_SLICE,
    TIMESTAMP,
    Block,
    Bytes,
    MessageLayout,
    Numbers,
    Rows,
    WireField,
    varint,
)
from featurestore.online.message.wire import write_strings

_CHUNK = 4096
"""Rows encoded at once: few enough that their bytes stay in the processor's cache while column after column is filled."""
_ROOM = 4
"""Bytes after the last message, so that its last word can be read whole."""
_TIMES = ("event_time", "knowledge_time", "created_at")


def encode(layout: MessageLayout, frame: pl.DataFrame, *, schema_number: int, fence: int) -> list[bytes]:
    """Encode each row of `frame` as one message.

    Rules: a row with `is_deleted` becomes a header only (a tombstone). A row keeps the schema under which it was computed:
    features that came later are left out. Null and NaN stay apart, and floats keep every bit.

    Args:
        layout: The newest layout of the group.
        frame: Any number of rows, in any order. `event_time`, `knowledge_time`, `created_at` (Datetime us UTC) and
            `is_deleted` (Boolean) without nulls; the layout's features with their exact dtypes (a vector may also be a
            List(Float32) of that length), nulls allowed, nulls inside lists and vectors not; optionally `schema_number`
            (an integer from 1 to the newest). Other columns are ignored.
        schema_number: The newest schema number; of every row, if the frame has no such column.
        fence: Delta version of the newest rewind that the writer knows; 0 if there is none.

    Returns:
        One message per row, in row order.

    Raises:
        SchemaMismatch: A column is missing or has another dtype.
        InvalidInput: A null where none may be, a string or list that is too long, a schema number out of range, a time or a
            day that is not of the years 1 to 9999.
    """
    _check_columns(layout, frame)
    _check_header(frame, schema_number, fence)
    numbers = _schema_numbers(frame, schema_number)
    shapes = np.where(frame["is_deleted"].to_numpy(), 0, numbers)
    there, frame = np.unique(shapes).tolist(), _physical(layout, frame)
    _check_calendar(layout, frame)
    layouts = {shape: layout if shape == schema_number else layout.at(shape) for shape in there}
    if len(there) == 1:
        return _encode_shape(layouts[there[0]], frame, numbers, fence)
    messages = [b""] * frame.height
    for shape in there:
        rows = np.flatnonzero(shapes == shape)
        encoded = _encode_shape(layouts[shape], frame[rows], numbers[rows], fence)
        for row, message in zip(rows.tolist(), encoded, strict=True):
            messages[row] = message
    return messages


def _physical(layout: MessageLayout, frame: pl.DataFrame) -> pl.DataFrame:
    """Times and fixed-width features as the numbers that stand for them; once for all chunks, each step of Polars having its price."""
    scalars = [field for field in layout.fields if field.is_scalar]
    flags = [field.name for field in scalars if field.dtype == pl.Boolean]
    others = [field.name for field in scalars if field.dtype != pl.Boolean]
    return frame.with_columns(pl.col(*_TIMES, *others).to_physical(), pl.col(flags).cast(pl.UInt8))


def _check_calendar(layout: MessageLayout, frame: pl.DataFrame) -> None:
    """No reader could show such an instant, or such a day."""
    dated: dict[str, pl.DataType] = {**dict.fromkeys(_TIMES, TIMESTAMP)}
    dated |= {field.name: field.dtype for field in layout.fields if field.dtype in BOUNDS}
    for name, dtype in dated.items():
        first, last = BOUNDS[dtype]
        is_shown = frame[name].is_between(first, last)
        if not is_shown.all():
            rows = (~is_shown).arg_true()
            unit = "days" if dtype == pl.Date else "microseconds"
            raise InvalidInput(
                f"Column {name!r} is not of the years 1 to 9999 in {len(rows)} of {frame.height} rows, first in row {rows[0]}: "
                f"{frame[name][rows[0]]} {unit} since 1970-01-01. Nothing could show it: mend it in the transform, or make it null."
            )


def _encode_shape(layout: MessageLayout, frame: pl.DataFrame, numbers: Numbers, fence: int) -> list[bytes]:
    """Encode rows that all have the same fields, a chunk at a time."""
    messages: list[bytes] = []
    for start in range(0, frame.height, _CHUNK):
        messages += _encode_alike(layout, frame.slice(start, _CHUNK), numbers[start : start + _CHUNK], fence)
    return messages


def _check_columns(layout: MessageLayout, frame: pl.DataFrame) -> None:
    expected: dict[str, pl.DataType] = {**dict.fromkeys(_TIMES, TIMESTAMP), "is_deleted": pl.Boolean()}
    expected |= {field.name: field.dtype for field in layout.fields}
    for name, dtype in expected.items():
        found = frame.schema.get(name)
        if found != dtype and not (isinstance(dtype, pl.Array) and found == pl.List(pl.Float32)):
            raise SchemaMismatch(
                f"Column {name!r} must be {dtype} to be written online; the frame has {found or 'no such column'}. "
                "Cast it in the transform, or change its declaration."
            )


def _check_header(frame: pl.DataFrame, schema_number: int, fence: int) -> None:
    for name in (*_TIMES, "is_deleted"):
        if nulls := frame[name].null_count():
            raise InvalidInput(f"Column {name!r} has {nulls} nulls in {frame.height} rows; every online row needs it.")
    if not 1 <= schema_number < 2**31 or fence < 0:
        raise InvalidInput(f"schema_number {schema_number} must be 1 or more, and fence {fence} not negative.")


def _schema_numbers(frame: pl.DataFrame, newest: int) -> Numbers:
    if "schema_number" not in frame.columns:
        return np.full(frame.height, newest, np.int64)
    column = frame["schema_number"]
    if not column.dtype.is_integer() or column.null_count() or not column.is_between(1, newest).all():
        raise InvalidInput(
            f"Column 'schema_number' must hold integers from 1 to {newest}, the newest schema; it is {column.dtype} with "
            f"{column.null_count()} nulls, from {column.min()!r} to {column.max()!r}. Read the registry again."
        )
    return column.cast(pl.Int64).to_numpy()


def _encode_alike(layout: MessageLayout, frame: pl.DataFrame, numbers: Numbers, fence: int) -> list[bytes]:
    rows = layout.rows(frame.height)
    header = rows["header"]
    header["schema_number"] = numbers
    header["fence"] = fence
    header["is_deleted"] = frame["is_deleted"].to_numpy()
    for name in _TIMES:
        header[name] = frame[name].to_numpy()
    for block in layout.blocks:
        _fill_block(rows[layout.part_names[block.code]], block, frame)
    for field in layout.vectors:
        _fill_vector(rows[layout.part_names[field.name]], field, frame[field.name])
    if not layout.variable:
        header["message_checksum"] = sums_of_rows(rows.view(np.uint8).reshape(rows.size, -1), layout.base)
        whole: list[bytes] = rows.view(np.dtype((np.void, layout.fixed_size))).tolist()
        return whole
    return _join(layout, rows, [_tail(field, frame[field.name]) for field in layout.variable])


def _fill_block(part: Rows, block: Block, frame: pl.DataFrame) -> None:
    for i, field in enumerate(block.fields):
        column = frame[field.name]
        if column.null_count():
            part["tag"][:, i][column.is_null().to_numpy()] = block.null_tag
            column = column.fill_null(0)
        part["value"][:, i] = column.to_numpy()


def _fill_vector(part: Rows, field: WireField, column: pl.Series) -> None:
    given = column.drop_nulls()
    lengths = given.list.len() if isinstance(given.dtype, pl.List) else None
    if lengths is not None and not (lengths == field.width).all():
        raise InvalidInput(f"Vector {field.name!r} must have {field.width} values in every row, or be null as a whole.")
    values = given.explode()
    _refuse_null_elements(field, values)
    valid = column.is_not_null().to_numpy()
    part["tag"][~valid] = field.null_tag
    part["value"][valid] = values.to_numpy().reshape(-1, field.width)


def _refuse_null_elements(field: WireField, elements: pl.Series) -> None:
    if nulls := elements.null_count():
        raise InvalidInput(
            f"{field.name!r} has {nulls} null elements inside its {field.dtype} values: Protobuf cannot hold them. "
            "Drop or replace them in the transform; a value may be null as a whole."
        )


@dataclass(frozen=True, slots=True)
class _Tail:
    """One variable-width field of all rows: a prefix of equal width each, then `lengths` bytes each, cut from `data`."""

    prefix: Bytes
    data: Bytes
    lengths: Numbers


def _tail(field: WireField, column: pl.Series) -> _Tail:
    if field.is_string:
        return _string_tail(field, column)
    _check_list(field, column)
    if field.dtype == pl.List(pl.String):
        payloads = [write_strings(elements) for elements in column.drop_nulls().to_list()]
        return _payload_tail(field, column, payloads)
    return _numbers_tail(field, column)


def _string_tail(field: WireField, column: pl.Series) -> _Tail:
    characters = _longest(column.str.len_chars())
    size = _longest(column.str.len_bytes())
    if characters > (field.max_length or characters) or size > field.longest_bytes:
        limit = f"{field.max_length} characters" if field.max_length else f"{field.longest_bytes} bytes"
        raise InvalidInput(
            f"{field.name!r} holds a string of {characters} characters ({size} bytes); its limit is {limit}. "
            "Shorten it in the transform, or raise max_length in its declaration."
        )
    lengths = column.str.len_bytes().fill_null(0).cast(pl.Int64).to_numpy()
    data = np.frombuffer("".join(column.drop_nulls().to_list()).encode(), np.uint8)
    return _Tail(_prefix(field, column, lengths), data, lengths)


def _longest(lengths: pl.Series) -> int:
    return int(lengths.fill_null(0).to_numpy().max(initial=0))


def _payload_tail(field: WireField, column: pl.Series, payloads: list[bytes]) -> _Tail:
    lengths = np.zeros(len(column), np.int64)
    lengths[column.is_not_null().to_numpy()] = np.fromiter(map(len, payloads), np.int64, len(payloads))
    data = np.frombuffer(b"".join(payloads), np.uint8)
    return _Tail(_prefix(field, column, lengths), data, lengths)


def _numbers_tail(field: WireField, column: pl.Series) -> _Tail:
    counts = column.list.len().fill_null(0).cast(pl.Int64)
    data = column.filter(counts > 0).explode().to_numpy().view(np.uint8)
    lengths = counts.to_numpy() * 8
    valid = column.is_not_null().to_numpy()
    inner = 1 + field.inner_length_width
    outer = _prefix(field, column, np.where(valid, lengths + inner, 0))
    # A null has no inner part, so its row is shorter: put the inner part into the data instead of the prefix.
    inner_part = np.hstack([np.full((len(column), 1), 0x0A, np.uint8), _varints(lengths, field.inner_length_width)])
    pieces = _interleave(inner_part[valid], data, lengths[valid])
    return _Tail(outer, pieces, np.where(valid, lengths + inner, 0))


def _check_list(field: WireField, column: pl.Series) -> None:
    lengths = column.list.len()
    longest = _longest(lengths)
    if longest > (field.max_length or 0):
        raise InvalidInput(
            f"{field.name!r} holds a list of {longest} elements; its limit is {field.max_length}. "
            "Shorten it in the transform, or raise max_length in its declaration."
        )
    _refuse_null_elements(field, column.filter(lengths.fill_null(0) > 0).explode())


def _prefix(field: WireField, column: pl.Series, lengths: Numbers) -> Bytes:
    """Tag and length of every row: shape (rows, 2 + length_width)."""
    tags = np.where(column.is_not_null().to_numpy(), field.tag, field.null_tag).astype("<u2")
    return np.hstack([tags.view(np.uint8).reshape(-1, 2), _varints(lengths, field.length_width)])


def _varints(values: Numbers, width: int) -> Bytes:
    """Each value as a varint padded to `width` bytes: shape (rows, width)."""
    shifts = 7 * np.arange(width)
    more = np.frombuffer(varint(0, width), np.uint8)
    return (values[:, None] >> shifts & 0x7F).astype(np.uint8) | more


def _spread(out: Bytes, starts: Numbers, data: Bytes, lengths: Numbers) -> None:
    """Copy consecutive pieces of `data`, `lengths` bytes each, to `starts` in `out`."""
    source_starts = np.cumsum(lengths) - lengths
    out[np.repeat(starts - source_starts, lengths) + np.arange(data.size)] = data


def _interleave(prefix: Bytes, data: Bytes, lengths: Numbers) -> Bytes:
    """Each row's prefix followed by its piece of `data`, all rows end to end."""
    width = prefix.shape[1]
    sizes = lengths + width
    starts = np.cumsum(sizes) - sizes
    out = np.empty(int(sizes.sum()), np.uint8)
    out[starts[:, None] + np.arange(width)] = prefix
    _spread(out, starts + width, data, lengths)
    return out


def _join(layout: MessageLayout, rows: Rows, tails: list[_Tail]) -> list[bytes]:
    """Fixed parts and tails as one message per row, each with its checksum."""
    fixed = rows.view(np.uint8).reshape(rows.size, -1)
    sizes = fixed.shape[1] + sum(tail.prefix.shape[1] + tail.lengths for tail in tails)
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    out = np.empty(int(ends[-1]) + _ROOM, np.uint8)
    at = ends[:-1].copy()
    for matrix, tail in [(fixed, None), *((tail.prefix, tail) for tail in tails)]:
        out[at[:, None] + np.arange(matrix.shape[1])] = matrix
        at += matrix.shape[1]
        if tail is not None:
            _spread(out, at, tail.data, tail.lengths)
            at += tail.lengths
    sums = sums_of_messages(out, ends[:-1], ends[1:], fixed, layout.base)
    checksums = np.arange(CHECKSUM_SLICE.start, CHECKSUM_SLICE.stop)
    out[ends[:-1, None] + checksums] = sums.astype("<u8").view(np.uint8).reshape(-1, checksums.size)
    return _cut(out.tobytes(), ends)


def _cut(data: bytes, ends: Numbers) -> list[bytes]:
    bounds = ends.tolist()
    return [data[start:end] for start, end in pairwise(bounds)]
