"""A group's message as a `.proto` file, for readers in other languages. Not here: bytes."""

import polars as pl

from featurestore.online.message.layout import (
    HEADER_NUMBERS,
    LIST_PROTO,
    NULL_NUMBER,
    TIMESTAMP,
    MessageLayout,
    WireField,
)

_HEADER_LINES = {
    "fence": ("sfixed64", "table version of the newest rewind that the writer knew"),
    "message_checksum": ("fixed64", "of group, dtypes and all bytes that follow it"),
    "schema_number": ("sfixed32", "schema of the registry under which the row was computed"),
    "event_time": ("sfixed64", "microseconds since 1970-01-01 UTC: when the values are true of"),
    "knowledge_time": ("sfixed64", "microseconds since 1970-01-01 UTC: when they could first be served"),
    "created_at": ("sfixed64", "microseconds since 1970-01-01 UTC: when this content was first committed"),
    "field_count": ("uint32", "features that follow, null markers included; a reader that counts less lost some"),
    "is_deleted": ("bool", "a tombstone: no features follow"),
}
_UNITS: dict[pl.DataType, str] = {TIMESTAMP: "microseconds since 1970-01-01 UTC", pl.Date(): "days since 1970-01-01"}


def proto_text(group_name: str, layout: MessageLayout) -> str:
    """The `.proto` of a group's message.

    Rules: every field has presence, so a null is an absent field; a list is wrapped in a message, so that an empty list
    and a null differ. Number 2047 marks nulls on the wire and is never declared.

    >>> from featurestore.online.message.layout import WireField
    >>> text = proto_text("carrier_delay_daily", MessageLayout((WireField(32, "dep_delay_mean_7d", pl.Float64()),)))
    >>> print(text.splitlines()[-2].strip())
    optional double dep_delay_mean_7d = 32;
    """
    name = "".join(part.capitalize() for part in group_name.split("_"))
    lists = {LIST_PROTO[field.dtype] for field in layout.fields if field.is_list}
    lines = [
        f"// The online value of feature group {group_name!r}; its key is {group_name}:{{entity_id}}.",
        'syntax = "proto3";',
        "",
        "package featurestore.online;",
        "",
        f"message {name} {{",
        f"  reserved {NULL_NUMBER};  // stands in for a null on the wire",
        *(f"  message {wrapper} {{ repeated {kind} values = 1; }}" for wrapper, kind in sorted(lists)),
        *(
            f"  optional {kind} {field} = {HEADER_NUMBERS[field]};  // {note}"
            for field, (kind, note) in _HEADER_LINES.items()
        ),
        *(f"  {_field_line(field)}" for field in layout.fields),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _field_line(field: WireField) -> str:
    notes = [note for note in (_note(field), f"since schema {field.since}" if field.since > 1 else "") if note]
    line = f"{_field_type(field)} {field.name} = {field.number};"
    return f"{line}  // {', '.join(notes)}" if notes else line


def _field_type(field: WireField) -> str:
    if field.is_vector:
        return "repeated float"
    if field.is_string:
        return "optional string"
    return f"optional {LIST_PROTO[field.dtype][0] if field.is_list else field.scalar.proto}"


def _note(field: WireField) -> str:
    if field.is_vector:
        return f"exactly {field.width} values, packed; none: null"
    if field.is_list:
        return f"at most {field.max_length} values"
    return _UNITS.get(field.dtype, "")
