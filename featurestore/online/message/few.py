"""A handful of messages, read one by one: below some rows, one `struct` a message is quicker than arrays are to set up.

It reads canonical rows and gives up on all else, which `decode` then reads or refuses: whatever is read here is read alike
there. Not here: statuses, or messages in bulk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from struct import Struct
from typing import Any

import numpy as np
import polars as pl

from featurestore.declaration.dtypes import BOUNDS
from featurestore.online.message.checksum import sum_of, sums_of_rows
from featurestore.online.message.layout import (
    CHECKSUM_SLICE,
    HEADER_SIZE,
    HEADER_TAGS,
    SCHEMA_NUMBER_SLICE,
    TIMESTAMP,
    MessageLayout,
    WireField,
    count_code,
    varint,
)
from featurestore.online.message.wire import Malformed, read_strings

Row = tuple[Any, ...]
"""Of one message: schema_number, event_time, is_deleted, then the wanted features as stored; None for a null."""
_CHECKSUM, _SCHEMA_NUMBER, _EVENT_TIME, _KNOWLEDGE_TIME, _CREATED_AT, _FIELD_COUNT, _IS_DELETED = range(3, 16, 2)
_HEADER_CODES = "HqHQHiHqHqHqHHHB"
_TOGETHER = 4
"""From so many messages of one size on, their checksums are quicker looked at in one go."""
_CODES = {"<f8": "Hd", "<i8": "Hq", "<f4": "Hf", "<i4": "Hi", "|u1": "HB"}


class NotCanonical(Exception):
    """This message is read the other way."""


@dataclass(frozen=True, eq=False)
class FewReader:
    """Reads messages of one group; made once for all reads of the same features.

    Args:
        layouts: Layout of each schema number.
        wanted: Fields of the newest layout, in the order wanted.
    """

    layouts: Mapping[int, MessageLayout]
    wanted: tuple[WireField, ...]

    @cached_property
    def _rows(self) -> dict[int, "RowReader"]:
        return {number: RowReader(layout, self.wanted) for number, layout in self.layouts.items()}

    @cached_property
    def _tombstone(self) -> "RowReader":
        return RowReader(self.layouts[max(self.layouts)].at(0), self.wanted)

    def read(self, replies: Sequence[bytes | None]) -> list[Row | None] | None:
        """The rows of the replies, None where there was none; None for all if any is not a canonical row."""
        try:
            if len(replies) < _TOGETHER:
                return [None if reply is None else self._reader(reply).read_intact(reply) for reply in replies]
            rows = [None if reply is None else self._reader(reply).read(reply) for reply in replies]
        except NotCanonical:
            return None
        return rows if self._are_intact([reply for reply in replies if reply is not None]) else None

    def _reader(self, message: bytes) -> "RowReader":
        if len(message) == HEADER_SIZE:
            return self._tombstone
        reader = self._rows.get(int.from_bytes(message[SCHEMA_NUMBER_SLICE], "little"))
        if reader is None:
            raise NotCanonical
        return reader

    def _are_intact(self, messages: list[bytes]) -> bool:
        """Whether all have the checksum that they should have."""
        if len(messages) < _TOGETHER or len({(len(one), one[SCHEMA_NUMBER_SLICE]) for one in messages}) > 1:
            return all(self._reader(one).is_intact(one) for one in messages)
        rows = np.frombuffer(b"".join(messages), np.uint8).reshape(len(messages), -1)
        sums = sums_of_rows(rows, self._reader(messages[0]).layout.base)
        return bool((rows[:, CHECKSUM_SLICE].view("<u8")[:, 0] == sums).all())


@dataclass(frozen=True, eq=False)
class RowReader:
    """Reads canonical rows of one layout.

    The fixed part is pairs of a tag and a value all along, the header included, and so one `unpack` gives the tags as every
    other item; they are compared at once.
    """

    layout: MessageLayout
    wanted: tuple[WireField, ...]

    @cached_property
    def _fixed(self) -> list[WireField]:
        return [field for block in self.layout.blocks for field in block.fields] + list(self.layout.vectors)

    @cached_property
    def _struct(self) -> Struct:
        codes = [
            f"{2 + field.length_width}s{4 * field.width}s" if field.is_vector else _CODES[field.scalar.code]
            for field in self._fixed
        ]
        return Struct(f"<{_HEADER_CODES}{''.join(codes)}")

    @cached_property
    def _tags(self) -> Row:
        return (*HEADER_TAGS.values(), *(_head(field, field.tag) for field in self._fixed))

    @cached_property
    def _null_tags(self) -> Row:
        return (*HEADER_TAGS.values(), *(_head(field, field.null_tag) for field in self._fixed))

    @cached_property
    def _field_count(self) -> int:
        return count_code(len(self.layout.fields))

    @cached_property
    def _flags(self) -> list[int]:
        """Where booleans stand among the items."""
        header = len(HEADER_TAGS)
        return [
            2 * (header + i) + 1
            for i, field in enumerate(self._fixed)
            if field.is_scalar and field.scalar.code == "|u1"
        ]

    @cached_property
    def _bounds(self) -> list[tuple[int, int, int]]:
        """Where times and days stand among the items, and between what they must lie."""
        header = len(HEADER_TAGS)
        own = [
            (2 * (header + i) + 1, *BOUNDS[field.dtype]) for i, field in enumerate(self._fixed) if field.dtype in BOUNDS
        ]
        return [(place, *BOUNDS[TIMESTAMP]) for place in (_EVENT_TIME, _KNOWLEDGE_TIME, _CREATED_AT)] + own

    @cached_property
    def _pick(self) -> Callable[[Row], Row]:
        """Takes a row's header and wanted features out of all items; what the layout lacks is the None at their end."""
        header = len(HEADER_TAGS)
        places = {field.name: 2 * (header + i) + 1 for i, field in enumerate(self._fixed)}
        tail = 2 * (header + len(self._fixed))
        places |= {field.name: tail + i for i, field in enumerate(self.layout.variable)}
        picks = [places.get(field.name, -1) for field in self.wanted]
        return itemgetter(_SCHEMA_NUMBER, _EVENT_TIME, _IS_DELETED, *picks)

    def is_intact(self, message: bytes) -> bool:
        """Whether a message of this layout has the checksum that it should have."""
        return sum_of(message, self.layout.base) == int.from_bytes(message[CHECKSUM_SLICE], "little")

    def read_intact(self, message: bytes) -> Row:
        """Read one message, and look at its checksum.

        Raises:
            NotCanonical: It is not a canonical row of this layout, or not as it was written.
        """
        row = self.read(message)
        if not self.is_intact(message):
            raise NotCanonical
        return row

    def read(self, message: bytes) -> Row:
        """Read one message, whatever its checksum.

        Raises:
            NotCanonical: It is not a canonical row of this layout.
        """
        fixed = self._struct
        if len(message) < fixed.size:
            raise NotCanonical
        items = fixed.unpack_from(message)
        if items[_FIELD_COUNT] != self._field_count or items[_IS_DELETED] > 1:
            raise NotCanonical
        for place in self._flags:
            if items[place] > 1:
                raise NotCanonical
        if items[::2] != self._tags:
            items = self._without_nulls(items)
        for place, first, last in self._bounds:
            if items[place] is not None and not first <= items[place] <= last:
                raise NotCanonical
        if self.layout.variable:
            return self._pick((*items, *self._read_variable(message), None))
        if len(message) != fixed.size:
            raise NotCanonical
        return self._pick((*items, None))

    def _without_nulls(self, items: Row) -> Row:
        found, values = items[::2], list(items)
        for i, (own, tag, null_tag) in enumerate(zip(found, self._tags, self._null_tags, strict=True)):
            if own != tag:
                if own != null_tag:
                    raise NotCanonical
                values[2 * i + 1] = None
        return tuple(values)

    def _read_variable(self, message: bytes) -> list[Any]:
        at, values = self._struct.size, []
        for field in self.layout.variable:
            start = at + 2 + field.length_width
            tag, size = int.from_bytes(message[at : at + 2], "little"), _padded(message[at + 2 : start])
            at = start + size
            if at > len(message) or (tag != field.tag and (tag != field.null_tag or size)):
                raise NotCanonical
            values.append(_value(field, message[start:at]) if tag == field.tag else None)
        if at != len(message):
            raise NotCanonical
        return values


def _head(field: WireField, tag: int) -> int | bytes:
    """What stands before a field's value."""
    return tag.to_bytes(2, "little") + varint(4 * field.width, field.length_width) if field.is_vector else tag


def _padded(digits: bytes) -> int:
    """The value of a varint that takes all these bytes."""
    value = 0
    for i, digit in enumerate(digits):
        value |= (digit & 0x7F) << 7 * i
    if digits != varint(value, len(digits)):
        raise NotCanonical
    return value


def _value(field: WireField, payload: bytes) -> str | list[Any]:
    try:
        if field.is_string:
            return payload.decode()
        if field.dtype == pl.List(pl.String):
            return read_strings(field.name, payload)
    except (Malformed, UnicodeDecodeError) as error:
        raise NotCanonical from error
    return _numbers(field, payload)


def _numbers(field: WireField, nested: bytes) -> list[Any]:
    head = 1 + field.inner_length_width
    if nested[:1] != b"\x0a" or len(nested) < head or (len(nested) - head) % 8:
        raise NotCanonical
    count, left = divmod(_padded(nested[1:head]), 8)
    if left or 8 * count != len(nested) - head:
        raise NotCanonical
    return list(Struct(f"<{count}{'q' if field.dtype == pl.List(pl.Int64) else 'd'}").unpack_from(nested, head))
