"""Which messages of a batch are canonical rows of a layout, and where their values stand.

Here: tags, lengths, offsets and checksums, checked for all rows at once. Not here: values as columns (`columns`), or which layouts a
batch is tried with (`decode`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from featurestore.online.message.columns import Array
from featurestore.online.message.joined import Batch
from featurestore.online.message.layout import (
    HEADER_CONSTANTS,
    SCHEMA_NUMBER_SLICE,
    Block,
    Bytes,
    Flags,
    MessageLayout,
    Numbers,
    Rows,
    WireField,
    varint,
)


@dataclass(frozen=True, eq=False)
class RowLayout:
    """A layout with what its canonical rows have in common; of one schema number, or of any (None)."""

    layout: MessageLayout
    number: int | None

    @cached_property
    def names(self) -> frozenset[str]:
        """Of all features."""
        return frozenset(field.name for field in self.layout.fields)

    @cached_property
    def shortest(self) -> int:
        """Bytes of the shortest row; of every row, where there are no strings and lists."""
        return self.layout.fixed_size + len(self.layout.null_tail)

    @cached_property
    def size(self) -> int | None:
        """Bytes of every row; None if they differ."""
        return None if self.layout.variable else self.shortest

    @cached_property
    def pairs(self) -> Numbers:
        """Where two bytes stand that are the same in every row without nulls; together they are all of the fixed part that are."""
        mask = np.zeros(1, self.layout.row_dtype)
        for name in self.layout.part_names.values():
            mask[name]["tag"] = 0xFFFF
            if "length" in (mask[name].dtype.names or ()):
                mask[name]["length"] = 0xFF
        places = set(np.flatnonzero(mask.view(np.uint8)).tolist()) | set(HEADER_CONSTANTS.tolist())
        if self.number is not None:
            places |= set(range(SCHEMA_NUMBER_SLICE.start, SCHEMA_NUMBER_SLICE.stop))
        starts: list[int] = []
        for place in sorted(places):
            if not starts or place > starts[-1] + 1:
                starts.append(
                    place if place + 1 in places else place - 1
                )  # a length of one byte, with the tag before it
        return np.array(starts)

    @cached_property
    def expected(self) -> Array:
        """What stands there, as numbers of 16 bits."""
        return self._pairs_of(self.layout.template)

    @cached_property
    def if_null(self) -> Array:
        """What stands there if all features are null."""
        row = self.layout.template.view(self.layout.row_dtype).copy()
        for block in self.layout.blocks:
            row[self.layout.part_names[block.code]]["tag"] = block.null_tag
        for vector in self.layout.vectors:
            row[self.layout.part_names[vector.name]]["tag"] = vector.null_tag
        return self._pairs_of(row.view(np.uint8))

    def _pairs_of(self, row: Bytes) -> Array:
        numbered = row.copy()
        numbered[SCHEMA_NUMBER_SLICE] = np.frombuffer((self.number or 0).to_bytes(4, "little"), np.uint8)
        pairs: Array = numbered[self.pairs] | numbered[self.pairs + 1].astype(np.uint16) << 8
        return pairs

    @cached_property
    def blocks(self) -> dict[str, tuple[Block, str]]:
        """Of each code the layout's block, and its name in the row."""
        return {block.code: (block, self.layout.part_names[block.code]) for block in self.layout.blocks}

    def has_all(self, block: Block) -> bool:
        """Whether the layout has every feature of a block."""
        return block.names <= self.names


Spans = Mapping[str, tuple[Numbers, Numbers, Flags]]
"""Of each variable field: where its payload starts, how long it is, and whether it is not null."""


@dataclass(frozen=True, eq=False)
class Part:
    """Rows that were read by one layout: their positions in the batch, their fixed parts, and their variable parts.

    `is_plain` says that no fixed-width feature and no vector of theirs is null.
    """

    layout: RowLayout
    positions: Numbers
    batch: Batch
    rows: Rows
    spans: Spans
    is_plain: bool

    def numbers(self, block: Block) -> tuple[Array, Flags | None]:
        """Values (features, rows) of features of one type, and which are not null; None: all."""
        own, name = self.layout.blocks[block.code]
        cells = self.rows[name]
        if len(block.fields) != len(own.fields):
            cells = cells[:, [own.fields.index(field) for field in block.fields]]
        values = np.ascontiguousarray(cells["value"].T)
        return values, None if self.is_plain else np.ascontiguousarray((cells["tag"] == block.tags).T)

    def vectors(self, field: WireField) -> tuple[Array, Flags]:
        """Values (rows, length) of a vector, and which rows have one."""
        cells = self.rows[self.layout.layout.part_names[field.name]]
        return cells["value"], cells["tag"] == field.tag

    def is_ascii(self) -> bool:
        """Whether it is known that all strings are ASCII: not if there are lists too, or other rows in the batch."""
        variable = self.layout.layout.variable
        if self.positions.size != self.batch.count or any(field.is_list for field in variable):
            return False
        heads = sum(field.length_width for field in variable)
        """Bytes above ASCII in the tags and lengths before them: a tag's first one, and all but the last one of a length."""
        return self.batch.is_ascii_from(self.layout.layout.fixed_size, heads * self.batch.count)

    def only(self, flags: Flags) -> "Part":
        """Some of its rows."""
        if flags.all():
            return self
        spans = {name: (start[flags], size[flags], valid[flags]) for name, (start, size, valid) in self.spans.items()}
        return replace(self, positions=self.positions[flags], rows=self.rows[flags], spans=spans)

    def are_intact(self) -> Flags:
        """Which rows have the checksum that they should have."""
        sums = self.batch.sums(self.positions, self.layout.layout.base)
        intact: Flags = sums == self.rows["header"]["message_checksum"]
        return intact


def read_part(own: RowLayout, batch: Batch, left: Numbers) -> Part:
    """Read those of the messages at the positions `left` that are canonical rows, and as they were written."""
    layout = own.layout
    chosen = left
    if batch.size == 0 or batch.size != own.size:
        sizes = batch.sizes[left]
        fits = sizes >= own.shortest if layout.variable else sizes == own.shortest
        chosen = left if fits.all() else left[fits]
    rows = batch.rows(chosen, layout.row_dtype)
    canonical, is_plain = _canonical(own, batch, chosen, rows)
    spans: Spans = {}
    if layout.variable:
        spans, ends = _read_spans(layout, batch, batch.starts[chosen] + layout.fixed_size, canonical)
        canonical &= ends == batch.ends[chosen]
    part = Part(own, chosen, batch, rows, spans, is_plain).only(canonical)
    return part if batch.is_verified else part.only(part.are_intact())


def _canonical(own: RowLayout, batch: Batch, chosen: Numbers, rows: Rows) -> tuple[Flags, bool]:
    """Whether each fixed part has every tag where the layout puts it, and whether all of them are without nulls."""
    canonical: Flags = rows["header"]["is_deleted"] <= 1
    if "|u1" in own.blocks:
        canonical &= (rows[own.blocks["|u1"][1]]["value"] <= 1).all(axis=1)
    pairs = batch.pairs(chosen, own.pairs)
    is_plain = pairs == own.expected
    if is_plain.all():
        return canonical, True
    is_either = is_plain | (pairs == own.if_null)
    if not is_either.all():
        canonical &= is_either.all(axis=1)
    return canonical, False


def _read_spans(layout: MessageLayout, batch: Batch, at: Numbers, canonical: Flags) -> tuple[Spans, Numbers]:
    """Walk the variable fields of all rows at once; rows that turn out not to be canonical are marked so."""
    spans = {}
    for variable in layout.variable:
        words, width = batch.words(at), variable.length_width
        sizes = _varints(words >> np.uint64(16), width)
        head = words & np.uint64(0xFFFF | _every(0x80, width) << 16)
        valid = head == np.uint64(variable.tag | _padding(width) << 16)
        if not valid.all():
            canonical &= valid | (head == np.uint64(variable.null_tag | _padding(width) << 16)) & (sizes == 0)
        at = at + (2 + width)
        start, size = at, sizes
        if variable.is_list and variable.dtype != pl.List(pl.String):
            start, size, is_list = _open_numbers(variable, batch, at, sizes)
            canonical &= is_list | ~valid
        spans[variable.name] = (start, size, valid)
        at = at + sizes
    return spans, at


def _varints(words: Array, width: int) -> Numbers:
    """Values of the varints of `width` bytes that the words begin with."""
    values = words & np.uint64(0x7F)
    for digit in range(1, width):
        values |= (words >> np.uint64(digit)) & np.uint64(0x7F << 7 * digit)
    return values.view(np.int64)


def _padding(width: int) -> int:
    """The highest bits of the bytes of a varint padded to `width`, which say that more bytes follow."""
    return int.from_bytes(varint(0, width), "little")


def _every(byte: int, width: int) -> int:
    return int.from_bytes(bytes([byte]) * width, "little")


def _open_numbers(variable: WireField, batch: Batch, at: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers, Flags]:
    """Step inside the nested message of a numeric list."""
    width = variable.inner_length_width
    words = batch.words(at)
    inner = _varints(words >> np.uint64(8), width)
    is_headed = words & np.uint64(0xFF | _every(0x80, width) << 8) == np.uint64(0x0A | _padding(width) << 8)
    is_list = is_headed & (inner + 1 + width == sizes) & (inner % 8 == 0)
    return at + 1 + width, inner, is_list
