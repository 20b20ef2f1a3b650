"""Where each field of a group's online message stands.

Here: the field table, the header, tags, and the NumPy dtype of a row's fixed part. Not here: reading or writing messages
(`encode`, `decode`, `wire`), or the printed `.proto` (`proto_text`). The format itself is drawn in `codec`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from featurestore.declaration.dtypes import BOUNDS, dtype_name
from featurestore.errors import DeclarationError, unknown_name
from featurestore.online.message.checksum import base_of

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Rows = np.ndarray[Any, np.dtype[np.void]]

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
FIRST_NUMBER, LAST_NUMBER, NULL_NUMBER = 32, 2046, 2047
LONGEST_STRING_BYTES = 2**14 - 1
BEFORE_EVERYTHING = datetime(1700, 1, 1, tzinfo=UTC)
"""All three times of the tombstone that a rewind leaves where nothing is known any more: lower than any row's version."""

TIMESTAMP = pl.Datetime("us", "UTC")
MESSAGE_FORMAT = 2
"""Goes up with every change of the bytes that `codec` draws: copies of another format are built anew."""
HEADER_NUMBERS: Mapping[str, int] = MappingProxyType(
    {
        "fence": 16,
        "message_checksum": 17,
        "schema_number": 18,
        "event_time": 19,
        "knowledge_time": 20,
        "created_at": 21,
        "field_count": 22,
        "is_deleted": 23,
    }
)
RESERVED_NAMES = frozenset(HEADER_NUMBERS) | {"found"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """How a fixed-width type is stored: its NumPy code, wire type and proto name."""

    code: str
    wire_type: int
    proto: str


_SCALARS: Mapping[pl.DataType, Scalar] = MappingProxyType(
    {
        pl.Float64(): Scalar("<f8", EIGHT_BYTES, "double"),
        pl.Int64(): Scalar("<i8", EIGHT_BYTES, "sfixed64"),
        TIMESTAMP: Scalar("<i8", EIGHT_BYTES, "sfixed64"),
        pl.Float32(): Scalar("<f4", FOUR_BYTES, "float"),
        pl.Int32(): Scalar("<i4", FOUR_BYTES, "sfixed32"),
        pl.Date(): Scalar("<i4", FOUR_BYTES, "sfixed32"),
        pl.Boolean(): Scalar("|u1", VARINT, "bool"),
    }
)
_BLOCK_ORDER = ("<f8", "<i8", "<f4", "<i4", "|u1")
LIST_PROTO: Mapping[pl.DataType, tuple[str, str]] = MappingProxyType(
    {
        pl.List(pl.Int64): ("Int64List", "sfixed64"),
        pl.List(pl.Float64): ("DoubleList", "double"),
        pl.List(pl.String): ("StringList", "string"),
    }
)


def tag(number: int, wire_type: int) -> int:
    """The two bytes of a field's tag, read as a little-endian uint16; any number from 16 to 2047 takes exactly two."""
    key = number << 3 | wire_type
    return (key & 0x7F | 0x80) | key >> 7 << 8


def varint(value: int, width: int) -> bytes:
    """`value` as a varint padded to `width` bytes: overlong, yet legal, so that every row keeps its shape."""
    digits = [value >> 7 * i & 0x7F for i in range(width)]
    return bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])


def varint_width(largest: int) -> int:
    """Bytes that a varint needs for values up to `largest`."""
    return max(1, -(-largest.bit_length() // 7))


@dataclass(frozen=True)
class WireField:
    """One feature inside a message.

    Args:
        number: Field number, 32 to 2046; from the registry, never reused.
        name: The feature's name; also its name in the `.proto`.
        dtype: Float64, Float32, Int64, Int32, Boolean, String, Date, Datetime("us", "UTC"), Array(Float32, n), or List of
            Int64, Float64 or String.
        max_length: The most elements of a list (required), or characters of a string (default: 16,383 bytes of UTF-8).
        since: The schema number with which the feature came; rows computed under a lower one do not have it.

    Raises:
        DeclarationError: Anything above does not hold.
    """

    number: int
    name: str
    dtype: pl.DataType
    max_length: int | None = None
    since: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.dtype, type):
            object.__setattr__(self, "dtype", self.dtype())
        fault = self._fault()
        if fault:
            raise DeclarationError(f"Wire field {self.name!r} (number {self.number}) {fault}")

    def _fault(self) -> str | None:
        if not FIRST_NUMBER <= self.number <= LAST_NUMBER:
            return (
                f"is outside {FIRST_NUMBER}..{LAST_NUMBER}: lower numbers are the header's, {NULL_NUMBER} marks nulls."
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name) or self.name in RESERVED_NAMES:
            return f"needs another name: letters, digits and underscores, and none of {sorted(RESERVED_NAMES)}."
        if not (self.is_scalar or self.is_vector or self.is_string or self.is_list):
            return f"has dtype {self.dtype}, which has no wire type. Use one of those listed at `WireField`."
        if self.is_list and self.max_length is None:
            return "is a list without `max_length`: declare the most elements it may hold."
        if self.is_vector and self.width < 1:
            return "is a vector without elements: declare its length."
        if self.max_length is not None and not 1 <= self.max_length < 2**21:
            return f"has max_length {self.max_length}; it must be between 1 and {2**21 - 1}."
        if self.since < 1:
            return f"has since {self.since}; schema numbers start at 1."
        return None

    @cached_property
    def is_scalar(self) -> bool:
        """Whether the value has a fixed width of 1, 4 or 8 bytes."""
        return self.dtype in _SCALARS

    @cached_property
    def is_vector(self) -> bool:
        """Whether the value is a fixed-length float32 vector."""
        return isinstance(self.dtype, pl.Array) and self.dtype == pl.Array(pl.Float32, self.dtype.shape[0])

    @cached_property
    def is_string(self) -> bool:
        """Whether the value is a string."""
        return self.dtype == pl.String

    @cached_property
    def is_list(self) -> bool:
        """Whether the value is a list of bounded length."""
        return self.dtype in LIST_PROTO

    @cached_property
    def can_be_refused(self) -> bool:
        """Whether there are values of the dtype that no message holds: too long, or beyond the calendar."""
        return not self.is_scalar or self.dtype in BOUNDS

    @cached_property
    def scalar(self) -> Scalar:
        """How this fixed-width field is stored."""
        return _SCALARS[self.dtype]

    @cached_property
    def width(self) -> int:
        """Elements of this vector field."""
        return int(self.dtype.shape[0]) if isinstance(self.dtype, pl.Array) else 0

    @cached_property
    def wire_type(self) -> int:
        """Protobuf wire type."""
        return self.scalar.wire_type if self.is_scalar else BYTES

    @cached_property
    def tag(self) -> int:
        """This field's tag, as `tag` gives it."""
        return tag(self.number, self.wire_type)

    @cached_property
    def null_tag(self) -> int:
        """The tag that stands here instead when the value is null."""
        return tag(NULL_NUMBER, self.wire_type)

    @cached_property
    def inner_length_width(self) -> int:
        """Bytes of the length in front of a numeric list's packed elements."""
        return varint_width(8 * (self.max_length or 0))

    @cached_property
    def length_width(self) -> int:
        """Bytes of the length varint: fixed per field, so that offsets are arithmetic."""
        if self.is_vector:
            return varint_width(4 * self.width)
        if self.is_string:
            return max(2, varint_width(self.longest_bytes))
        if self.dtype == pl.List(pl.String):
            return 4
        return varint_width(1 + self.inner_length_width + 8 * (self.max_length or 0))

    @cached_property
    def longest_bytes(self) -> int:
        """The most UTF-8 bytes of a string."""
        return LONGEST_STRING_BYTES if self.max_length is None else 4 * self.max_length


@dataclass(frozen=True)
class Block:
    """Fields of one NumPy type that stand together: k pairs of tag and value, read as one (rows, k) view."""

    code: str
    fields: tuple[WireField, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        """Of the fields."""
        return frozenset(field.name for field in self.fields)

    @cached_property
    def dated(self) -> list[tuple[int, WireField]]:
        """The fields of times and days, and their places among the fields."""
        return [(place, field) for place, field in enumerate(self.fields) if field.dtype in BOUNDS]

    @cached_property
    def tags(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """Tags of the k fields, uint16 of shape (k,)."""
        return np.array([field.tag for field in self.fields], np.uint16)

    @cached_property
    def null_tag(self) -> int:
        """The tag of a null, the same for all k fields."""
        return self.fields[0].null_tag


_HEADER_FORMATS = (
    ("fence", EIGHT_BYTES, "<i8"),
    ("message_checksum", EIGHT_BYTES, "<u8"),
    ("schema_number", FOUR_BYTES, "<i4"),
    ("event_time", EIGHT_BYTES, "<i8"),
    ("knowledge_time", EIGHT_BYTES, "<i8"),
    ("created_at", EIGHT_BYTES, "<i8"),
    ("field_count", VARINT, "<u2"),
    ("is_deleted", VARINT, "|u1"),
)
HEADER_TAGS: Mapping[str, int] = MappingProxyType(
    {name: tag(HEADER_NUMBERS[name], wire_type) for name, wire_type, _ in _HEADER_FORMATS}
)
HEADER_DTYPE = np.dtype([part for name, _, code in _HEADER_FORMATS for part in ((f"{name}_tag", "<u2"), (name, code))])
HEADER_SIZE = HEADER_DTYPE.itemsize
HEADER_AT: Mapping[str, int] = MappingProxyType({name: part[1] for name, part in (HEADER_DTYPE.fields or {}).items()})
"""Where each value of the header begins, and under `<name>_tag` its tag."""
HEADER_CONSTANTS = np.array(
    [at for name in HEADER_TAGS for at in (HEADER_AT[f"{name}_tag"], HEADER_AT[f"{name}_tag"] + 1)]
    + [HEADER_AT["field_count"], HEADER_AT["field_count"] + 1]
)
"""Bytes of the header that are the same in every row of a layout: tags and field count."""
FENCE_SLICE = slice(HEADER_AT["fence"], HEADER_AT["fence"] + 8)
CHECKSUM_SLICE = slice(HEADER_AT["message_checksum"], HEADER_AT["message_checksum"] + 8)
SCHEMA_NUMBER_SLICE = slice(HEADER_AT["schema_number"], HEADER_AT["schema_number"] + 4)
VERSION_SLICE = slice(HEADER_AT["event_time_tag"], HEADER_AT["created_at"] + 8)
"""Bytes of a message that hold its version triple, tags included: equal slices, equal versions."""


def count_code(count: int) -> int:
    """A field count as the header holds it: a two-byte varint, read as a little-endian uint16."""
    return int.from_bytes(varint(count, 2), "little")


@dataclass(frozen=True)
class MessageLayout:
    """The fields of one group's message, and where each stands.

    Args:
        fields: Any order; numbers and names are distinct.
        group: `RegisteredGroup.message_name`, which goes into every checksum.

    Raises:
        DeclarationError: Two fields share a number or a name.
    """

    fields: tuple[WireField, ...]
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(sorted(self.fields, key=lambda field: field.number)))
        _refuse_doubles("number", [field.number for field in self.fields])
        _refuse_doubles("name", [field.name for field in self.fields])

    def at(self, schema_number: int) -> "MessageLayout":
        """The layout of rows computed under `schema_number`: without the features that came later."""
        return MessageLayout(tuple(field for field in self.fields if field.since <= schema_number), self.group)

    def by_schema_number(self, newest: int) -> dict[int, "MessageLayout"]:
        """Layouts of every schema number from 1 to `newest`, as `decode` takes them."""
        return {number: self.at(number) for number in range(1, newest + 1)}

    def absent(self, name: str) -> pl.Expr:
        """Whether a decoded row was computed before the feature existed (NOT_FOUND), and so is not merely null."""
        return pl.col("found") & (pl.col("schema_number") < self.field(name).since)

    def field(self, name: str) -> WireField:
        """The field of a feature; `UnknownName` if there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise unknown_name("Feature", name, [field.name for field in self.fields], "The message")

    @cached_property
    def base(self) -> int:
        """What `checksum` starts from: group, field numbers and dtypes."""
        return base_of(self.group, tuple((field.number, dtype_name(field.dtype)) for field in self.fields))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Fixed-width fields by NumPy type, widest first."""
        scalars = [field for field in self.fields if field.is_scalar]
        groups = ((code, tuple(field for field in scalars if field.scalar.code == code)) for code in _BLOCK_ORDER)
        return tuple(Block(code, fields) for code, fields in groups if fields)

    @cached_property
    def vectors(self) -> tuple[WireField, ...]:
        """Fixed-length vectors, after the blocks."""
        return tuple(field for field in self.fields if field.is_vector)

    @cached_property
    def variable(self) -> tuple[WireField, ...]:
        """Strings and lists, last."""
        return tuple(field for field in self.fields if field.is_string or field.is_list)

    @cached_property
    def row_dtype(self) -> np.dtype[np.void]:
        """Structured dtype of the fixed part: the header, a field per block, a field per vector."""
        blocks = [([("tag", "<u2"), ("value", block.code)], (len(block.fields),)) for block in self.blocks]
        vectors = [
            [("tag", "<u2"), ("length", "u1", (field.length_width,)), ("value", "<f4", (field.width,))]
            for field in self.vectors
        ]
        parts: list[Any] = [np.dtype(part) for part in blocks + vectors]
        return np.dtype([("header", HEADER_DTYPE), *((f"p{i}", part) for i, part in enumerate(parts, start=1))])

    @cached_property
    def part_names(self) -> dict[str, str]:
        """Name in `row_dtype` of each block (by its code) and each vector (by its name)."""
        keys = [block.code for block in self.blocks] + [field.name for field in self.vectors]
        return {key: f"p{i}" for i, key in enumerate(keys, start=1)}

    @cached_property
    def fixed_size(self) -> int:
        """Bytes of the fixed part."""
        return self.row_dtype.itemsize

    @cached_property
    def template(self) -> Bytes:
        """The fixed part of a row without nulls: all tags and lengths in place, every value zero."""
        row = np.zeros(1, self.row_dtype)
        for name, value in HEADER_TAGS.items():
            row["header"][f"{name}_tag"] = value
        row["header"]["field_count"] = count_code(len(self.fields))
        for block in self.blocks:
            row[self.part_names[block.code]]["tag"] = block.tags
        for field in self.vectors:
            part = row[self.part_names[field.name]]
            part["tag"] = field.tag
            part["length"] = np.frombuffer(varint(4 * field.width, field.length_width), np.uint8)
        return row.view(np.uint8)

    def rows(self, count: int) -> Rows:
        """`count` copies of the template, ready to be filled."""
        rows = np.empty((count, self.fixed_size), np.uint8)
        rows[:] = self.template
        return rows.view(self.row_dtype)[:, 0]

    @cached_property
    def null_tail(self) -> bytes:
        """The variable part of a row all of whose strings and lists are null."""
        return b"".join(field.null_tag.to_bytes(2, "little") + varint(0, field.length_width) for field in self.variable)


def _refuse_doubles(what: str, values: Sequence[object]) -> None:
    doubles = sorted({str(value) for value in values if values.count(value) > 1})
    if doubles:
        raise DeclarationError(f"Two wire fields share the {what} {', '.join(doubles)}: every {what} is used once.")
