"""Any valid proto3 serialisation of a message, one message at a time, turned into the canonical bytes of its layout.

The batch reader of `decode` reads canonical rows only; whatever another Protobuf library wrote comes through here first.
Not here: columns, batches, NumPy.
"""

from collections import defaultdict
from collections.abc import Iterator

import polars as pl

from featurestore.online.message.layout import (
    BYTES,
    EIGHT_BYTES,
    FIRST_NUMBER,
    FOUR_BYTES,
    HEADER_NUMBERS,
    NULL_NUMBER,
    VARINT,
    MessageLayout,
    WireField,
    tag,
    varint,
)

_HEADER_WIRE_TYPES = {
    "fence": EIGHT_BYTES,
    "message_checksum": EIGHT_BYTES,
    "schema_number": FOUR_BYTES,
    "event_time": EIGHT_BYTES,
    "knowledge_time": EIGHT_BYTES,
    "created_at": EIGHT_BYTES,
    "field_count": VARINT,
    "is_deleted": VARINT,
}
_FIXED_WIDTHS = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
_LARGEST_TAG, _LARGEST_SIZE = 2**32 - 1, 2**31 - 1


class Malformed(ValueError):
    """Bytes that are not a message of this layout."""


Record = tuple[int, bytes]
"""Wire type and payload; a varint's payload is one byte per seven bits, lowest first, without continuation bits."""


def read_records(data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield (field number, record) for each field in `data`, in order."""
    at = 0
    while at < len(data):
        key, at = _read_short_varint(data, at, _LARGEST_TAG)
        if key >> 3 == 0:
            raise Malformed(f"field number 0 ends at byte {at}")
        payload, at = _read_payload(data, at, key & 7)
        yield key >> 3, (key & 7, payload)


def _read_payload(data: bytes, at: int, wire_type: int) -> tuple[bytes, int]:
    if wire_type == VARINT:
        start = at
        _, at = _read_varint(data, at)
        return bytes(byte & 0x7F for byte in data[start:at]), at
    if wire_type == BYTES:
        size, at = _read_short_varint(data, at, _LARGEST_SIZE)
    elif wire_type in _FIXED_WIDTHS:
        size = _FIXED_WIDTHS[wire_type]
    else:
        raise Malformed(f"wire type {wire_type} at byte {at}")
    if at + size > len(data):
        raise Malformed(f"a field needs {size} bytes at byte {at}, and the message has {len(data)} bytes")
    return data[at : at + size], at + size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise Malformed(f"it ends inside a number at byte {at}")
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            if value >= 1 << 64:
                raise Malformed(f"a number at byte {at} is longer than 64 bits")
            return value, at + i + 1
    raise Malformed(f"a number at byte {at} is longer than ten bytes")


def _read_short_varint(data: bytes, at: int, largest: int) -> tuple[int, int]:
    """A tag or a length: other parsers read at most five bytes of one."""
    value, end = _read_varint(data, at)
    if end - at > 5 or value > largest:
        raise Malformed(f"a tag or a length at byte {at} is {value} in {end - at} bytes")
    return value, end


def canonical_message(layout: MessageLayout, data: bytes) -> bytes:
    """Rewrite one message as the canonical bytes of `layout`, header kept; a tombstone becomes a row of nulls.

    The checksum is kept too, though it is that of the bytes given.

    Rules: fields that `layout` does not know are skipped, fields not in `data` are null. A repeated field is refused by its
    count: `field_count` says how many features, null markers included, the writer wrote. Messages from writers that leave
    `field_count` out carry no such guard.

    Raises:
        Malformed: `data` is cut short, lacks a header field, or holds a known field in another type.
    """
    found: dict[int, list[Record]] = defaultdict(list)
    for number, record in read_records(data):
        found[number].append(record)
    header = {name: _header_value(found, name) for name in HEADER_NUMBERS}
    _check_field_count(found)
    header["field_count"] = varint(len(layout.fields), 2)
    parts = [
        tag(HEADER_NUMBERS[name], _HEADER_WIRE_TYPES[name]).to_bytes(2, "little") + value
        for name, value in header.items()
    ]
    ordered = [field for block in layout.blocks for field in block.fields] + [*layout.vectors, *layout.variable]
    return b"".join(parts + [_canonical_field(field, found.get(field.number, [])) for field in ordered])


def _header_value(found: dict[int, list[Record]], name: str) -> bytes:
    records = found.get(HEADER_NUMBERS[name])
    if not records:
        if name == "field_count":
            return b""
        raise Malformed(f"it has no {name} (field {HEADER_NUMBERS[name]})")
    payload = _payload(records[-1], _HEADER_WIRE_TYPES[name], name)
    return bytes([any(payload)]) if name == "is_deleted" else payload


def _check_field_count(found: dict[int, list[Record]]) -> None:
    records = found.get(HEADER_NUMBERS["field_count"])
    if not records:
        return
    expected = sum(byte << 7 * i for i, byte in enumerate(records[-1][1]))
    count = sum(len(records) for number, records in found.items() if FIRST_NUMBER <= number <= NULL_NUMBER)
    if count != expected:
        raise Malformed(f"it has {count} of the {expected} features that its header announces")


def _payload(record: Record, wire_type: int, name: str) -> bytes:
    if record[0] != wire_type:
        raise Malformed(f"{name!r} has wire type {record[0]}, expected {wire_type}")
    return record[1]


def _canonical_field(field: WireField, records: list[Record]) -> bytes:
    if not records:
        return _canonical_null(field)
    head = field.tag.to_bytes(2, "little")
    if field.is_scalar:
        payload = _payload(records[-1], field.wire_type, field.name)
        return head + (bytes([any(payload)]) if field.wire_type == VARINT else payload)
    payload = _variable_payload(field, records)
    if len(payload) >= 1 << 7 * field.length_width:
        raise Malformed(f"{field.name!r} takes {len(payload)} bytes, more than its max_length allows")
    return head + varint(len(payload), field.length_width) + payload


def _canonical_null(field: WireField) -> bytes:
    head = field.null_tag.to_bytes(2, "little")
    if field.is_scalar:
        return head + bytes(_FIXED_WIDTHS.get(field.wire_type, 1))
    size = 4 * field.width
    return head + varint(size, field.length_width) + bytes(size)


def _variable_payload(field: WireField, records: list[Record]) -> bytes:
    if field.is_vector:
        return _vector_payload(field, records)
    payloads = [_payload(record, BYTES, field.name) for record in records]
    if field.is_string:
        _check_text(field.name, payloads)
        return payloads[-1]
    # A message field given twice is merged, which for repeated contents is concatenation; each must be whole by itself.
    contents = [_contents(payload) for payload in payloads]
    if field.dtype == pl.List(pl.String):
        _check_text(field.name, [_payload(record, BYTES, field.name) for own in contents for record in own])
        return b"".join(payloads)
    return _numbers_payload(field, [record for own in contents for record in own])


def _contents(nested: bytes) -> list[Record]:
    """The elements of a list from the payload of its nested message."""
    return [record for number, record in read_records(nested) if number == 1]


def _check_text(name: str, payloads: list[bytes]) -> None:
    """Every string must be UTF-8, also one that another overrides: other parsers refuse the message for it."""
    for payload in payloads:
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"{name!r} holds what is not UTF-8") from error


def _vector_payload(field: WireField, records: list[Record]) -> bytes:
    values = b"".join(payload for _, payload in records)
    if len(values) != 4 * field.width or not _are_packed(records, FOUR_BYTES, 4):
        raise Malformed(f"vector {field.name!r} holds {len(values) / 4:g} values, expected {field.width}")
    return values


def _numbers_payload(field: WireField, records: list[Record]) -> bytes:
    values = b"".join(payload for _, payload in records)
    if not _are_packed(records, EIGHT_BYTES, 8):
        raise Malformed(f"list {field.name!r} holds {len(values) / 8:g} values of 8 bytes")
    if len(values) > 8 * (field.max_length or 0):
        raise Malformed(
            f"list {field.name!r} holds {len(values) // 8} values, more than its max_length {field.max_length}"
        )
    return b"\x0a" + varint(len(values), field.inner_length_width) + values


def _are_packed(records: list[Record], wire_type: int, width: int) -> bool:
    """Whether all records hold whole values of `width` bytes, one alone or many packed."""
    return all(kind in (BYTES, wire_type) and len(payload) % width == 0 for kind, payload in records)


def read_strings(name: str, nested: bytes) -> list[str]:
    """The elements of a string list from the payload of its nested message."""
    return [_payload(record, BYTES, name).decode() for record in _contents(nested)]


def write_strings(elements: list[str]) -> bytes:
    """The payload of a string list's nested message."""
    return b"".join(_sized(element.encode()) for element in elements)


def _sized(element: bytes) -> bytes:
    size = len(element)
    return b"\x0a" + varint(size, max(1, -(-size.bit_length() // 7))) + element
