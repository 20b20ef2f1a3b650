"""Messages to columns: what a store answered for one group becomes arrays, or one Polars frame.

A batch of canonical rows is read as one strided NumPy view per block; rows in any other valid form are rewritten by `wire`
first. Not here: expiry, statuses, where the bytes came from, or the quicker way for a handful of messages (`few`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from operator import is_not
from typing import cast

import numpy as np
import polars as pl

from featurestore.declaration.dtypes import BOUNDS
from featurestore.errors import InvalidInput
from featurestore.online.message.canonical import Part, RowLayout, read_part
from featurestore.online.message.columns import (
    VERSION,
    Array,
    Column,
    ListColumn,
    NumberBlock,
    NumberColumn,
    TextColumn,
    VectorColumn,
    masked,
    scattered,
    series_of,
)
from featurestore.online.message.integrity import check_intact, sealed
from featurestore.online.message.joined import Batch
from featurestore.online.message.layout import (
    HEADER_AT,
    HEADER_DTYPE,
    HEADER_SIZE,
    SCHEMA_NUMBER_SLICE,
    TIMESTAMP,
    Block,
    Flags,
    MessageLayout,
    Numbers,
    Rows,
    WireField,
)
from featurestore.online.message.wire import Malformed, canonical_message, read_strings

_VERSIONS = np.dtype(
    {
        "names": ["version"],
        "formats": [np.dtype((np.dtype([("tag", "<u2"), ("time", "<i8")]), 3))],
        "offsets": [HEADER_AT["event_time_tag"]],
        "itemsize": HEADER_SIZE,
    }
)
"""The same bytes as a header's, its three times in one field."""


def decode(
    layouts: Mapping[int, MessageLayout], replies: Sequence[bytes | None], features: Sequence[str] | None = None
) -> pl.DataFrame:
    """Decode replies of one group into columns.

    Rules: canonical messages (`encode`) are read in bulk; any other valid proto3 serialisation of the group's message that
    carries the checksum of its own bytes gives the same values. A feature that a row's schema did not have is null;
    `MessageLayout.absent` tells it from a null value.
    A schema number above the newest known is read with the newest layout: what it added is skipped.

    Args:
        layouts: Layout of each schema number; the highest one names the columns of the result.
        replies: One message per key, None where the store had none. Any length.
        features: Names of the features wanted, in the order wanted; None for all, by field number.

    Returns:
        One row per reply, in order: `found`, `schema_number`, `event_time`, `knowledge_time`, `created_at`, `fence`,
        `is_deleted`, then the features. All but `found` are null where nothing was found, and features are null in a
        tombstone.

    Raises:
        UnknownName: The newest layout lacks a wanted feature.
        InvalidInput: A reply is not of this group, or not as it was written; the message names its position.
    """
    newest = layouts[max(layouts)]
    wanted = newest.fields if features is None else tuple(newest.field(name) for name in features)
    read = Decoder(layouts, wanted).read(replies)
    found = np.ones(len(replies), np.bool_) if read.found is None else read.found
    values = series_of(read.columns, read.found)
    return pl.DataFrame([pl.Series("found", found), *_header_columns(read.header, found), *values])


def _header_columns(header: Rows, found: Flags) -> Iterator[pl.Series]:
    yield masked(pl.Series("schema_number", np.ascontiguousarray(header["schema_number"])), found)
    for name in VERSION:
        yield masked(pl.Series(name, np.ascontiguousarray(header[name])), found).cast(TIMESTAMP)
    yield masked(pl.Series("fence", np.ascontiguousarray(header["fence"])), found)
    yield masked(pl.Series("is_deleted", header["is_deleted"].astype(np.bool_)), found)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the replies of one group say.

    Args:
        found: Which replies are messages; None: all.
        header: The header of each message, of `layout.HEADER_DTYPE`; where nothing was found it means nothing.
        wanted: The features wanted, in that order.
        blocks: Those of fixed width, with their values.
        others: The rest, by name.
    """

    found: Flags | None
    header: Rows
    wanted: Sequence[WireField]
    blocks: Sequence[tuple[Block, NumberBlock]]
    others: Mapping[str, Column]

    @cached_property
    def columns(self) -> list[Column]:
        """The features wanted, in that order."""
        made = dict(self.others)
        for block, numbers in self.blocks:
            made |= {field.name: NumberColumn(field, numbers, row) for row, field in enumerate(block.fields)}
        return [made[field.name] for field in self.wanted]


@dataclass(frozen=True, eq=False)
class Decoder:
    """Reads replies of one group; made once for all reads of the same features.

    Args:
        layouts: As `decode` takes them.
        wanted: Fields of the newest layout, in the order wanted.
    """

    layouts: Mapping[int, MessageLayout]
    wanted: tuple[WireField, ...]

    @cached_property
    def _newest(self) -> int:
        return max(self.layouts)

    @cached_property
    def _stages(self) -> list[RowLayout]:
        """The rows of the newest layout are read first, then those of older ones, tombstones, and schemas newer than known."""
        numbered = [RowLayout(layout, number) for number, layout in sorted(self.layouts.items(), reverse=True)]
        return [
            *numbered,
            RowLayout(self.layouts[self._newest].at(0), None),
            RowLayout(self.layouts[self._newest], None),
        ]

    @cached_property
    def _filler(self) -> bytes:
        """A whole row without nulls: it stands where nothing was found, so that the batch stays as even as it was."""
        newest = self._stages[0]
        row = newest.layout.template.copy()
        row[SCHEMA_NUMBER_SLICE] = np.frombuffer(self._newest.to_bytes(4, "little"), np.uint8)
        return sealed(row.tobytes() + newest.layout.null_tail, newest.layout.base)

    def read(self, replies: Sequence[bytes | None]) -> Decoded:
        """Decode replies, one a key; None where there was none.

        Raises:
            InvalidInput: A reply is not of this group, or not as it was written; the message names its position.
        """
        found = None
        try:
            parts = self._parts(cast(Sequence[bytes], replies))
        except TypeError:  # the join, which is the quickest to notice that something is None
            found = np.frombuffer(bytes(map(is_not, replies, repeat(None))), np.bool_)
            parts = self._parts([self._filler if reply is None else reply for reply in replies])
        header = parts[0].rows["header"] if len(parts) == 1 else _scattered_headers(parts, len(replies))
        count = len(replies)
        blocks = [(block, _number_block(block, parts, count)) for block in self._blocks]
        _refuse_impossible_times(header, blocks)
        others: dict[str, Column] = {column.field.name: column for column in _text_columns(self._texts, parts, count)}
        for field in self._others:
            others[field.name] = (_vector_column if field.is_vector else _list_column)(field, parts, count)
        return Decoded(found, header, self.wanted, blocks, others)

    def _parts(self, messages: Sequence[bytes]) -> list[Part]:
        batch = Batch.of(messages, self._stages[0].size)
        parts, left = self._read(batch)
        if not left.size:
            return parts
        rewritten = list(messages)
        for position in left.tolist():
            rewritten[position] = self._rewrite(messages[position], position, len(messages))
        parts, left = self._read(Batch.of(rewritten, is_verified=True))
        if left.size:
            raise InvalidInput(f"Message at position {left[0]} of {len(messages)} cannot be decoded.")
        return parts

    def _read(self, batch: Batch) -> tuple[list[Part], Numbers]:
        """The parts of a batch that are canonical rows, and the positions of what is not."""
        parts: list[Part] = []
        left = batch.positions
        for stage in self._stages:
            part = read_part(stage, batch, left)
            if part.positions.size or not left.size:
                parts.append(part)
            if part.positions.size == left.size:
                return parts, left[:0]
            left = np.setdiff1d(left, part.positions, assume_unique=True)
        return parts, left

    def _rewrite(self, message: bytes, position: int, count: int) -> bytes:
        try:
            check_intact(self.layouts, message)
            return canonical_message(self.layouts[self._newest], message)
        except Malformed as error:
            raise InvalidInput(
                f"Message at position {position} of {count} is not a message of this group as it was written: {error} "
                f"({len(message)} bytes). Rebuild the group's online copy."
            ) from error

    @cached_property
    def _blocks(self) -> list[Block]:
        """The newest layout's blocks, of the wanted fields only."""
        wanted = {field.name for field in self.wanted}
        blocks = [
            Block(block.code, tuple(field for field in block.fields if field.name in wanted))
            for block in self.layouts[self._newest].blocks
        ]
        return [block for block in blocks if block.fields]

    @cached_property
    def _texts(self) -> list[WireField]:
        return [field for field in self.wanted if field.is_string]

    @cached_property
    def _others(self) -> list[WireField]:
        return [field for field in self.wanted if field.is_vector or field.is_list]


def _refuse_impossible_times(header: Rows, blocks: Sequence[tuple[Block, NumberBlock]]) -> None:
    """`encode` lets none through, and a checksum shows if bytes became one: only another writer could have made it."""
    first, last = BOUNDS[TIMESTAMP]
    times = np.ascontiguousarray(header.view(_VERSIONS)["version"]["time"].T)
    if times.size and (times.min() < first or times.max() > last):
        for name, own in zip(VERSION, times, strict=True):
            _refuse_outside(name, TIMESTAMP, own, None)
    for block, numbers in blocks:
        for row, field in block.dated:
            valid = None if numbers.valid is None else numbers.valid[row]
            _refuse_outside(field.name, field.dtype, numbers.values[row], valid)


def _refuse_outside(name: str, dtype: pl.DataType, values: Array, valid: Flags | None) -> None:
    first, last = BOUNDS[dtype]
    if not values.size or (values.min() >= first and values.max() <= last):
        return
    outside = (values < first) | (values > last)
    found = np.flatnonzero(outside if valid is None else outside & valid)
    if found.size:
        raise InvalidInput(
            f"Message at position {found[0]}: {name!r} is {values[found[0]]}, beyond the years 1 to 9999. Its writer made a "
            "mistake: rebuild the group's online copy."
        )


def _scattered_headers(parts: list[Part], count: int) -> Rows:
    whole = np.zeros(count, HEADER_DTYPE)
    for part in parts:
        whole[part.positions] = part.rows["header"]
    return whole


def _number_block(block: Block, parts: list[Part], count: int) -> NumberBlock:
    """The block's features of all parts; null where a part's layout lacks one."""
    if len(parts) == 1 and parts[0].layout.has_all(block):
        return NumberBlock(*parts[0].numbers(block))
    values = np.zeros((len(block.fields), count), block.code)
    valid = np.zeros(values.shape, np.bool_)
    for part in parts:
        rows = [row for row, field in enumerate(block.fields) if field.name in part.layout.names]
        own = Block(block.code, tuple(block.fields[row] for row in rows))
        if rows and part.positions.size:
            place = (np.array(rows)[:, None], part.positions)
            values[place], flags = part.numbers(own)
            valid[place] = True if flags is None else flags
    return NumberBlock(values, valid)


def _vector_column(field: WireField, parts: list[Part], count: int) -> VectorColumn:
    having = [part for part in parts if field.name in part.layout.names]
    if len(parts) == 1 and having:
        values, valid = parts[0].vectors(field)
        return VectorColumn(field, values, None if valid.all() else valid)
    values, valid = np.zeros((count, field.width), np.float32), np.zeros(count, np.bool_)
    for part in having:
        values[part.positions], valid[part.positions] = part.vectors(field)
    return VectorColumn(field, values, valid)


def _text_columns(fields: Sequence[WireField], parts: list[Part], count: int) -> list[TextColumn]:
    """String features; all their strings are looked at at once, and one by one only if some are not ASCII."""
    if not fields:
        return []
    batch, spans = parts[0].batch, [_spans(field, parts, count) for field in fields]
    are_ascii = None
    if not (len(parts) == 1 and parts[0].is_ascii()):
        are_ascii = batch.are_ascii(*(np.concatenate([one[i] for one in spans]) for i in (0, 1)))
    columns = []
    for index, (field, (starts, sizes, valid)) in enumerate(zip(fields, spans, strict=True)):
        column = TextColumn(field, batch.joined, starts, sizes, None if valid.all() else valid)
        own = None if are_ascii is None else are_ascii[index * count : (index + 1) * count]
        broken = None if own is None or own.all() else column.first_broken(own)
        if broken is not None:
            raise _undecodable(field, broken, "it is not UTF-8")
        columns.append(column)
    return columns


def _list_column(field: WireField, parts: list[Part], count: int) -> ListColumn:
    starts, sizes, valid = _spans(field, parts, count)
    joined = parts[0].batch.joined
    spans = zip(starts.tolist(), (starts + sizes).tolist(), valid.tolist(), strict=True)
    return ListColumn(
        field,
        [
            _list_value(field, joined[start:end], position) if is_valid else None
            for position, (start, end, is_valid) in enumerate(spans)
        ],
    )


def _spans(field: WireField, parts: list[Part], count: int) -> tuple[Numbers, Numbers, Flags]:
    if len(parts) == 1 and field.name in parts[0].spans:
        return parts[0].spans[field.name]
    having = [part for part in parts if field.name in part.spans]
    if not having:
        return np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.bool_)
    starts, sizes, valid = (
        scattered([(part.positions, part.spans[field.name][i]) for part in having], count) for i in range(3)
    )
    return starts, sizes, valid


def _list_value(field: WireField, payload: bytes, position: int) -> list[str] | Array:
    if field.dtype != pl.List(pl.String):
        return np.frombuffer(payload, "<i8" if field.dtype == pl.List(pl.Int64) else "<f8")
    try:
        return read_strings(field.name, payload)
    except (Malformed, UnicodeDecodeError) as error:
        raise _undecodable(field, position, error) from error


def _undecodable(field: WireField, position: int, why: object) -> InvalidInput:
    return InvalidInput(f"Message at position {position}: {field.name!r} cannot be decoded: {why}.")
