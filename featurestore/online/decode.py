"""Messages to columns: what a store answered becomes one Polars frame.

A batch of canonical rows is read as one strided NumPy view per block; rows in any other valid form are rewritten by `wire`
first. Not here: expiry, statuses, or where the bytes came from.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from featurestore.errors import InvalidInput
from featurestore.online.columns import Batch, Part, Spans, combine
from featurestore.online.layout import (
    HEADER_CONSTANTS,
    Bytes,
    Flags,
    MessageLayout,
    Numbers,
    Rows,
    WireField,
    varint,
)
from featurestore.online.wire import Malformed, canonical_message


def decode(
    layouts: Mapping[int, MessageLayout], replies: Sequence[bytes | None], features: Sequence[str] | None = None
) -> pl.DataFrame:
    """Decode replies of one group into columns.

    Rules: canonical messages (`encode`) are read in bulk; any other valid proto3 serialisation of the group's message gives
    the same values. A feature that a row's schema did not have is null; `MessageLayout.absent` tells it from a null value.
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
        InvalidInput: A reply is cut short or malformed; the message names its position.
    """
    number = max(layouts)
    newest = layouts[number]
    wanted = newest.fields if features is None else [newest.field(name) for name in features]
    found = np.fromiter((reply is not None for reply in replies), np.bool_, len(replies))
    blank = newest.blank[:2] + number.to_bytes(4, "little") + newest.blank[6:]
    parts = list(_read_parts(layouts, [blank if reply is None else reply for reply in replies]))
    return combine(wanted, found, parts)


def _read_parts(layouts: Mapping[int, MessageLayout], messages: list[bytes]) -> Iterator[Part]:
    """Read the rows of the newest layout first, then those of older ones and tombstones, and what is left one by one."""
    newest, *older = sorted(layouts.items(), reverse=True)
    left = np.arange(len(messages))
    for number, layout in [newest, *older, (None, MessageLayout(()))]:
        part = _read(layout, number, left, messages)
        yield part
        if part.positions.size == left.size:
            return
        left = np.setdiff1d(left, part.positions, assume_unique=True)
    for position in left.tolist():
        messages[position] = _rewrite(newest[1], messages[position], position, len(messages))
    yield _read(newest[1], None, left, messages)


def _rewrite(layout: MessageLayout, message: bytes, position: int, count: int) -> bytes:
    try:
        return canonical_message(layout, message)
    except Malformed as error:
        raise InvalidInput(
            f"Message at position {position} of {count} cannot be decoded: {error} ({len(message)} bytes). "
            "It was cut short or is not of this group: rebuild the group's online copy."
        ) from error


def _read(layout: MessageLayout, number: int | None, positions: Numbers, messages: list[bytes]) -> Part:
    """Read those of the messages at `positions` that are canonical rows of `layout` (and of schema `number`, if given)."""
    batch = Batch.of(messages if positions.size == len(messages) else [messages[i] for i in positions.tolist()])
    chosen, rows = _fixed_rows(layout, batch)
    canonical = _is_canonical(layout, number, rows)
    spans, ends = _read_spans(layout, batch, batch.starts[chosen] + layout.fixed_size, canonical)
    canonical &= ends == batch.ends[chosen]
    if not canonical.all():
        chosen, rows = chosen[canonical], rows[canonical]
        spans = {
            name: (start[canonical], size[canonical], valid[canonical]) for name, (start, size, valid) in spans.items()
        }
    return Part(layout, positions[chosen], batch, rows, spans)


def _fixed_rows(layout: MessageLayout, batch: Batch) -> tuple[Numbers, Rows]:
    """The rows long enough to hold the layout, and their fixed parts: a view if nothing else lies between them."""
    sizes = batch.ends - batch.starts
    shortest = layout.fixed_size + len(layout.null_tail)
    fits = sizes >= shortest if layout.variable else sizes == shortest
    chosen = np.flatnonzero(fits)
    if not layout.variable and chosen.size == sizes.size:
        return chosen, np.frombuffer(batch.joined, layout.row_dtype)
    if not chosen.size:
        return chosen, np.empty(0, layout.row_dtype)
    return chosen, batch.at(batch.starts[chosen], layout.fixed_size).view(layout.row_dtype)[:, 0]


def _is_canonical(layout: MessageLayout, number: int | None, rows: Rows) -> Flags:
    """Whether each fixed part has every tag where the layout puts it."""
    header = rows["header"]
    data = rows.view(np.uint8).reshape(rows.size, layout.fixed_size)
    canonical: Flags = (data[:, HEADER_CONSTANTS] == layout.template[HEADER_CONSTANTS]).all(axis=1)
    canonical &= header["is_deleted"] <= 1
    if number is not None:
        canonical &= header["schema_number"] == number
    for block in layout.blocks:
        part = rows[layout.part_names[block.code]]
        tags = part["tag"]
        canonical &= ((tags == block.tags) | (tags == block.null_tag)).all(axis=1)
        if block.code == "|u1":
            canonical &= (part["value"] <= 1).all(axis=1)
    for vector in layout.vectors:
        canonical &= _is_vector(vector, rows[layout.part_names[vector.name]])
    return canonical


def _is_vector(vector: WireField, cells: Rows) -> Flags:
    length = np.frombuffer(varint(4 * vector.width, vector.length_width), np.uint8)
    is_tagged = (cells["tag"] == vector.tag) | (cells["tag"] == vector.null_tag)
    is_whole: Flags = is_tagged & (cells["length"] == length).all(axis=1)
    return is_whole


def _read_spans(layout: MessageLayout, batch: Batch, at: Numbers, canonical: Flags) -> tuple[Spans, Numbers]:
    """Walk the variable fields of all rows at once; rows that turn out not to be canonical are marked so."""
    spans = {}
    for variable in layout.variable:
        width = variable.length_width
        head = batch.at(np.minimum(at, batch.data.size), 2 + width)
        tags = head[:, 0].astype(np.uint16) | head[:, 1].astype(np.uint16) << 8
        sizes, is_padded = _read_varints(head[:, 2:])
        valid = tags == variable.tag
        canonical &= is_padded & (valid | (tags == variable.null_tag) & (sizes == 0))
        at = at + 2 + width
        start, size = at, sizes
        if variable.is_list and variable.dtype != pl.List(pl.String):
            start, size, is_list = _open_numbers(variable, batch, at, sizes)
            canonical &= is_list | ~valid
        spans[variable.name] = (start, size, valid)
        at = at + sizes
    return spans, at


def _read_varints(digits: Bytes) -> tuple[Numbers, Flags]:
    """Values of varints padded to the width of `digits`, and whether each is padded so."""
    width = digits.shape[1]
    more = np.frombuffer(varint(0, width), np.uint8)
    values: Numbers = ((digits & 0x7F).astype(np.int64) << 7 * np.arange(width)).sum(axis=1)
    return values, (digits & 0x80 == more).all(axis=1)


def _open_numbers(variable: WireField, batch: Batch, at: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers, Flags]:
    """Step inside the nested message of a numeric list."""
    width = variable.inner_length_width
    head = batch.at(np.minimum(at, batch.data.size), 1 + width)
    inner, is_padded = _read_varints(head[:, 1:])
    is_list = (head[:, 0] == 0x0A) & is_padded & (inner + 1 + width == sizes) & (inner % 8 == 0)
    return at + 1 + width, inner, is_list
