"""Rows that were read, as Polars columns. Not here: finding out whether bytes are such rows (`decode`)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import polars as pl

from featurestore.errors import InvalidInput
from featurestore.online.layout import TIMESTAMP, Block, Bytes, Flags, MessageLayout, Numbers, Rows, WireField
from featurestore.online.wire import Malformed, read_strings

VERSION = ("event_time", "knowledge_time", "created_at")
_SLICE_FROM_ROWS = 2048
"""From so many rows on Polars cuts strings faster than Python does."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages end to end."""

    messages: Sequence[bytes]
    joined: bytes
    data: Bytes
    starts: Numbers
    ends: Numbers

    @classmethod
    def of(cls, messages: Sequence[bytes]) -> "Batch":
        joined = b"".join(messages)
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        ends = np.cumsum(lengths)
        return cls(messages, joined, np.frombuffer(joined, np.uint8), ends - lengths, ends)

    def at(self, starts: Numbers, width: int) -> Bytes:
        """`width` bytes from each start, shape (rows, width); what lies beyond the end repeats the last byte."""
        spots = starts[:, None] + np.arange(width)
        taken: Bytes = self.data[np.minimum(spots, self.data.size - 1)]
        return taken


Spans = Mapping[str, tuple[Numbers, Numbers, Flags]]
"""Of each variable field: where its payload starts, how long it is, and whether it is not null."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that were read by one layout: their positions in the replies, their fixed parts, and their variable parts."""

    layout: MessageLayout
    positions: Numbers
    batch: Batch
    rows: Rows
    spans: Spans


def combine(wanted: Sequence[WireField], found: Flags, parts: list[Part]) -> pl.DataFrame:
    """One frame of all parts, in reply order; header columns are null where nothing was found."""
    frames = [_frame(wanted, part, found[part.positions]) for part in parts if part.positions.size or len(parts) == 1]
    if len(frames) == 1:
        return frames[0]
    order = np.argsort(np.concatenate([part.positions for part in parts]))
    return pl.concat(frames)[order]


def _frame(wanted: Sequence[WireField], part: Part, found: Flags) -> pl.DataFrame:
    columns = {column.name: column for column in _columns(part, {field.name for field in wanted})}
    for field in wanted:
        if field.name not in columns:
            columns[field.name] = pl.Series(field.name, [None], field.dtype).new_from_index(0, found.size)
    header = _header_columns(part.rows["header"], found)
    return pl.DataFrame([pl.Series("found", found), *header, *(columns[field.name] for field in wanted)])


def _header_columns(header: Rows, found: Flags) -> Iterator[pl.Series]:
    yield _masked(pl.Series("schema_number", np.ascontiguousarray(header["schema_number"])), found)
    times = np.concatenate([header[name] for name in VERSION])
    flat = _masked(pl.Series(times), np.tile(found, len(VERSION))).cast(TIMESTAMP)
    for i, name in enumerate(VERSION):
        yield flat.slice(i * found.size, found.size).alias(name)
    yield _masked(pl.Series("fence", np.ascontiguousarray(header["fence"])), found)
    yield _masked(pl.Series("is_deleted", header["is_deleted"].astype(np.bool_)), found)


def _masked(values: pl.Series, valid: Flags) -> pl.Series:
    return values if valid.all() else values.set(pl.Series(~valid), None)


def _columns(part: Part, wanted: set[str]) -> Iterator[pl.Series]:
    for block in part.layout.blocks:
        yield from _block_columns(block, part.rows[part.layout.part_names[block.code]], wanted)
    for vector in part.layout.vectors:
        if vector.name in wanted:
            yield _vector_column(vector, part.rows[part.layout.part_names[vector.name]])
    for variable in part.layout.variable:
        if variable.name in wanted:
            yield _variable_column(variable, part)


def _block_columns(block: Block, cells: Rows, wanted: set[str]) -> Iterator[pl.Series]:
    """Turn the (rows, k) block once, then cut its columns from it: a Series costs more to build than to slice."""
    count = cells.shape[0]
    values = np.ascontiguousarray(cells["value"].T).reshape(-1)
    if block.code == "|u1":
        values = values.astype(np.bool_)
    flat = _masked(pl.Series(values), (cells["tag"] == block.tags).T.reshape(-1))
    for i, field in enumerate(block.fields):
        if field.name in wanted:
            column = flat.slice(i * count, count).alias(field.name)
            yield column if column.dtype == field.dtype else column.cast(field.dtype)


def _vector_column(vector: WireField, cells: Rows) -> pl.Series:
    valid = cells["tag"] == vector.tag
    if not cells.size:
        return pl.Series(vector.name, [], vector.dtype)
    column = pl.Series(vector.name, np.ascontiguousarray(cells["value"]).reshape(-1)).reshape((-1, vector.width))
    return column if valid.all() else column.zip_with(pl.Series(valid), pl.Series([None], dtype=vector.dtype))


def _variable_column(variable: WireField, part: Part) -> pl.Series:
    if variable.is_string:
        with suppress(UnicodeDecodeError, pl.exceptions.InvalidOperationError):  # the way below names the row
            return _string_column(variable, part)
    spans = zip(*(column.tolist() for column in part.spans[variable.name]), part.positions.tolist(), strict=True)
    joined = part.batch.joined
    values = [
        _value(variable, joined[start : start + size], position) if valid else None
        for start, size, valid, position in spans
    ]
    return pl.Series(variable.name, values, variable.dtype)


def _value(variable: WireField, payload: bytes, position: int) -> str | list[str] | pl.Series:
    try:
        if variable.is_string:
            return payload.decode()
        if variable.dtype == pl.List(pl.String):
            return read_strings(variable.name, payload)
    except (Malformed, UnicodeDecodeError) as error:
        raise InvalidInput(f"Message at position {position}: {variable.name!r} cannot be decoded: {error}.") from error
    return pl.Series(np.frombuffer(payload, "<i8" if variable.dtype == pl.List(pl.Int64) else "<f8"))


def _string_column(variable: WireField, part: Part) -> pl.Series:
    starts, sizes, valid = part.spans[variable.name]
    joined = part.batch.joined
    if starts.size >= _SLICE_FROM_ROWS:
        spans = pl.DataFrame([pl.Series("start", starts), pl.Series("size", sizes)])
        texts = spans.select(pl.lit(joined).bin.slice(pl.col("start"), pl.col("size")).cast(pl.String)).to_series()
    else:
        bounds = zip(starts.tolist(), (starts + sizes).tolist(), strict=True)
        texts = pl.Series([joined[start:end].decode() for start, end in bounds], dtype=pl.String)
    return _masked(texts.alias(variable.name), valid)
