"""The answer in Protobuf, as `serving.proto` describes it, written without a Protobuf library.

A field is a tag, for lists and messages a length, and the bytes: fixed-width items lie packed one behind the other, so that
a column is one copy of an array.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from math import nan
from struct import pack
from typing import Any

import numpy as np
import polars as pl

from featurestore.declaration.dtypes import dtype_name
from featurestore.freshness.read_state import STATES, GroupState
from featurestore.pit import PRESENT
from featurestore.serving.slices import WIRE_STATUSES, Slice

TIER_NUMBERS = {None: 0, "hot": 1, "warm": 2}
STATE_NUMBERS = {state: number for number, state in enumerate(STATES)}
STATUS_NUMBERS = {status: number for number, status in enumerate(WIRE_STATUSES)}
_EPOCH, _EPOCH_DAY = datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)
Items = Callable[[Sequence[Any]], bytes]


def encode_protobuf(part: Slice) -> bytes:
    """The body of one request's answer."""
    schema = part.result.prepared.keys
    keys = [_key_column(name, values, schema[name], part.count) for name, values in part.keys.items()]
    features = [
        _column(name, column.values[part.start : part.end], dtype, _tail(part, column))
        for column, (name, dtype) in zip(part.result.columns, part.result.prepared.columns, strict=True)
    ]
    written = [_field(1, one) for one in keys] + [_field(2, one) for one in features]
    written += [_field(3, _field(1, group.encode()) + _field(2, why.encode())) for group, why in part.causes.items()]
    return b"".join(written + [_field(4, _freshness(one)) for one in part.result.freshness.groups])


def _freshness(one: GroupState) -> bytes:
    """A group's state; what is not known is NaN, or a time of 0."""
    lag, slo = (nan if span is None else span.total_seconds() for span in (one.lag, one.slo))
    times = [
        0 if time is None else _microseconds(time) for time in (one.since, one.last_materialized_at, one.looked_at)
    ]
    return (
        _field(1, one.group.encode())
        + _varint(2 << 3)
        + _varint(STATE_NUMBERS[one.state])
        + b"".join(_varint(number << 3 | 1) + pack("<d", seconds) for number, seconds in ((3, lag), (4, slo)))
        + b"".join(_varint(number << 3 | 1) + pack("<q", time) for number, time in enumerate(times, 5))
        + _field(8, one.cause.encode())
    )


def _key_column(name: str, values: Sequence[Any], dtype: pl.DataType, count: int) -> bytes:
    if dtype == pl.Date():
        values = [None if value is None else date.fromisoformat(value) for value in values]
    return _column(name, values, dtype, _field(2, bytes([STATUS_NUMBERS[PRESENT]]) * count))


def _column(name: str, values: Sequence[Any], dtype: pl.DataType, tail: bytes) -> bytes:
    number, items = _KINDS["vector" if isinstance(dtype, pl.Array) else dtype_name(dtype)]
    return _field(1, name.encode()) + tail + _field(number, items(values))


def _tail(part: Slice, column: Any) -> bytes:
    """Statuses, times and what else was asked for; statuses and tiers are small numbers, of a byte each."""
    statuses, times = column.statuses[part.start : part.end], column.event_times[part.start : part.end]
    written = _field(2, bytes(map(STATUS_NUMBERS.__getitem__, statuses))) + _field(3, _fixed("<i8", 0, times))
    if not part.with_serving_metadata:
        return written
    tiers = column.tiers[part.start : part.end]
    return (
        written
        + _field(4, _fixed("<f8", nan, part.ages(times)))
        + _field(5, bytes(map(TIER_NUMBERS.__getitem__, tiers)))
    )


def _fixed(dtype: str, missing: float, values: Sequence[Any]) -> bytes:
    return np.array([missing if value is None else value for value in values], dtype).tobytes()


def _packed(dtype: str, values: Sequence[Any]) -> bytes:
    """A message whose first field is a packed list of fixed-width numbers."""
    return _field(1, _fixed(dtype, 0, values))


def _strings(values: Sequence[str | None]) -> bytes:
    return b"".join([_field(1, (value or "").encode()) for value in values])


def _days(values: Sequence[date | None]) -> bytes:
    return _packed("<i4", [None if value is None else (value - _EPOCH_DAY).days for value in values])


def _instants(values: Sequence[datetime | None]) -> bytes:
    return _packed("<i8", [None if value is None else _microseconds(value) for value in values])


def _microseconds(value: datetime) -> int:
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _lists(items: Items, values: Sequence[Iterable[Any] | None]) -> bytes:
    return b"".join([_field(1, items(list(value or ()))) for value in values])


def _field(number: int, data: bytes) -> bytes:
    """A field with a length: text, a message, or a packed list."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


_KINDS: dict[str, tuple[int, Items]] = {
    "float64": (16, partial(_packed, "<f8")),
    "float32": (17, partial(_packed, "<f4")),
    "int64": (18, partial(_packed, "<i8")),
    "int32": (19, partial(_packed, "<i4")),
    "bool": (20, partial(_packed, "?")),
    "string": (21, _strings),
    "date": (22, _days),
    "timestamp": (23, _instants),
    "vector": (24, partial(_lists, partial(_packed, "<f4"))),
    "list<int64>": (25, partial(_lists, partial(_packed, "<i8"))),
    "list<float64>": (26, partial(_lists, partial(_packed, "<f8"))),
    "list<string>": (27, partial(_lists, _strings)),
}
