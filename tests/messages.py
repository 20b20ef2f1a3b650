"""Online messages for tests: random layouts and rows, and Google's own parser to compare with."""

import re
import struct
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from hypothesis import strategies as st

from featurestore.online.message.codec import MessageLayout, WireField
from featurestore.online.message.integrity import sealed

TIMESTAMP = pl.Datetime("us", "UTC")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(-70 * 365 * 86_400_000_000, 230 * 365 * 86_400_000_000).map(
    lambda us: EPOCH + timedelta(microseconds=us)
)
FLOAT32 = st.floats(width=32, allow_nan=False)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pl.Float64(): st.floats(allow_nan=False) | st.just(float("nan")),
    pl.Float32(): FLOAT32,
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.Int32(): st.integers(-(2**31), 2**31 - 1),
    pl.Boolean(): st.booleans(),
    pl.String(): st.text(max_size=12),
    pl.Date(): st.dates(),
    TIMESTAMP: TIMES,
    pl.List(pl.Int64): st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    pl.List(pl.Float64): st.lists(st.floats(allow_nan=False), max_size=5),
    pl.List(pl.String): st.lists(st.text(max_size=6), max_size=5),
    pl.Array(pl.Float32, 3): st.lists(FLOAT32, min_size=3, max_size=3),
    pl.Array(pl.Float32, 40): st.lists(FLOAT32, min_size=40, max_size=40),
}


def max_length_of(dtype: pl.DataType) -> int | None:
    return 5 if isinstance(dtype, pl.List) else None


@st.composite
def layouts(draw: st.DrawFn) -> MessageLayout:
    dtypes = draw(st.lists(st.sampled_from(list(VALUES)), min_size=0, max_size=10))
    numbers = draw(st.lists(st.integers(32, 2046), min_size=len(dtypes), max_size=len(dtypes), unique=True))
    return MessageLayout(
        tuple(
            WireField(number, f"f{i}", dtype, max_length_of(dtype), since=draw(st.integers(1, 3)))
            for i, (number, dtype) in enumerate(zip(numbers, dtypes, strict=True))
        )
    )


@st.composite
def rows_of(draw: st.DrawFn, layout: MessageLayout) -> list[dict[str, Any]]:
    def row() -> dict[str, Any]:
        header: dict[str, Any] = {name: draw(TIMES) for name in ("event_time", "knowledge_time", "created_at")}
        header |= {"is_deleted": draw(st.integers(0, 4)) == 0, "schema_number": draw(st.sampled_from([1, 2, 3, 3, 3]))}
        return header | {field.name: draw(st.none() | VALUES[field.dtype]) for field in layout.fields}

    return [row() for _ in range(draw(st.integers(0, 6)))]


def frame_of(layout: MessageLayout, rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema: dict[str, Any] = dict.fromkeys(("event_time", "knowledge_time", "created_at"), TIMESTAMP)
    schema |= {"is_deleted": pl.Boolean(), "schema_number": pl.Int32()}
    schema |= {field.name: field.dtype for field in layout.fields}
    return pl.DataFrame(rows, schema=schema, orient="row")


def simple_rows(count: int, **columns: Any) -> pl.DataFrame:
    times = {name: pl.Series([NOW] * count, dtype=TIMESTAMP) for name in ("event_time", "knowledge_time", "created_at")}
    return pl.DataFrame({**times, "is_deleted": [False] * count, **columns})


def expected_value(field: WireField, row: dict[str, Any]) -> Any:
    return None if row["is_deleted"] or field.since > row["schema_number"] else row[field.name]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    return type(left) is type(right) and left == right


def message_class(name: str, text: str) -> Any:
    """Google's class for a printed `.proto`: what `protoc` would make of these lines."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="featurestore.online", syntax="proto3")
    outer = file.message_type.add(name=name)
    for wrapper, kind in re.findall(r"message (\w+) \{ repeated (\w+) values = 1; \}", text):
        add_field(outer.nested_type.add(name=wrapper), "repeated", kind, "values", 1, name)
    for label, kind, field, number in re.findall(r"^  (optional|repeated) (\w+) (\w+) = (\d+);", text, re.M):
        add_field(outer, label, kind, field, int(number), name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"featurestore.online.{name}"))


def add_field(message: Any, label: str, kind: str, field: str, number: int, outer: str) -> None:
    proto = descriptor_pb2.FieldDescriptorProto
    made = message.field.add(name=field, number=number)
    made.label = proto.LABEL_REPEATED if label == "repeated" else proto.LABEL_OPTIONAL
    if kind.endswith("List"):
        made.type, made.type_name = proto.TYPE_MESSAGE, f".featurestore.online.{outer}.{kind}"
    else:
        made.type = getattr(proto, f"TYPE_{kind.upper()}")
    if label == "optional":
        made.proto3_optional = True
        made.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field}")


def sealed_by_google(layout: MessageLayout, parsed: Any) -> bytes:
    """A message as Google writes it, with the checksum of these very bytes: what a writer in another language does."""
    parsed.message_checksum = 0
    has_features = not parsed.HasField("field_count") or parsed.field_count
    own = layout.at(parsed.schema_number if has_features else 0)
    return sealed(parsed.SerializeToString(), own.base)


def google_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - EPOCH.date()).days
    return value


def value_in(message: Any, field: WireField) -> Any:
    if field.is_vector:
        return list(getattr(message, field.name)) or None
    if not message.HasField(field.name):
        return None
    found = getattr(message, field.name)
    return list(found.values) if field.is_list else found


def set_in(message: Any, field: WireField, value: Any) -> None:
    if value is None:
        return
    if field.is_vector:
        getattr(message, field.name).extend(value)
    elif field.is_list:
        getattr(message, field.name).SetInParent()
        getattr(message, field.name).values.extend(value)
    else:
        setattr(message, field.name, google_value(value))
