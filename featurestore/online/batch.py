"""A batch of messages made ready for the conditional write: checked against the clock, with expiries, removed versions packed.

Not here: a connection, or the rule itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from featurestore.clock import microseconds
from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.online.message.columns import VERSION
from featurestore.online.message.layout import (
    BEFORE_EVERYTHING,
    HEADER_DTYPE,
    HEADER_SIZE,
    HEADER_TAGS,
    TIMESTAMP,
    Numbers,
    Rows,
)

EXPIRY_GRACE = timedelta(minutes=1)
"""How much longer than a reader at the writer's clock would accept it a value is kept, for readers whose clock is behind."""

_LAST_EXACT = 2**53
_VERSION_DTYPE = np.dtype([part for name in VERSION for part in ((f"{name}_tag", "<u2"), (name, "<i8"))])


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Messages for the server, in key order.

    Args:
        keys: One per message.
        messages: Rows or tombstones.
        expiries: Eight bytes per key: milliseconds from now, 0 for never.
        removed: By key index: the key's removed versions, 30 bytes each, and their expiry in milliseconds.
    """

    keys: Sequence[bytes]
    messages: Sequence[bytes]
    expiries: bytes
    removed: Mapping[int, tuple[bytes, int]]

    def cut(self, start: int, end: int) -> "WriteBatch":
        """The keys from `start` up to `end`."""
        removed = {index - start: value for index, value in self.removed.items() if start <= index < end}
        return WriteBatch(self.keys[start:end], self.messages[start:end], self.expiries[8 * start : 8 * end], removed)

    def arguments(self) -> list[str | bytes]:
        """What the scripts take for keys and messages."""
        return [str(len(self.keys)), self.expiries, *self.keys, *self.messages]

    def removed_arguments(self) -> list[str | bytes]:
        """What the script takes for removed versions, its indices counted from 1."""
        return [part for i, (versions, expiry) in self.removed.items() for part in (str(i + 1), versions, str(expiry))]


def prepare_batch(
    group: str,
    keys: Sequence[bytes],
    messages: Sequence[bytes],
    ttl: timedelta | None,
    removed: pl.DataFrame | None,
    now: datetime,
    allowed_skew: timedelta,
) -> WriteBatch:
    """Check messages and compute their expiries; `RedisPart.write` has the rules."""
    if len(keys) != len(messages):
        raise InvalidInput(
            f"{len(keys)} keys and {len(messages)} messages were given for group {group!r}; each key has one."
        )
    headers = read_headers(messages)
    _check_times(group, keys, headers, microseconds(now + allowed_skew))
    last_events = headers["event_time"].astype(np.int64)
    versions = _versions_by_key(group, keys, removed)
    for index, (_, last_event) in versions.items():
        last_events[index] = max(last_events[index], last_event)
    packed = {index: (own, _expiry(last_event, ttl, now)) for index, (own, last_event) in versions.items()}
    return WriteBatch(keys, messages, _expiries(last_events, ttl, now).astype("<i8").tobytes(), packed)


def read_headers(messages: Sequence[bytes]) -> Rows:
    """The headers of canonical messages, as `layout.HEADER_DTYPE`.

    Raises:
        InvalidInput: A message has none; its position is named.
    """
    cut = [message[:HEADER_SIZE].ljust(HEADER_SIZE) for message in messages]
    headers = np.frombuffer(b"".join(cut), HEADER_DTYPE)
    is_whole = np.ones(len(messages), np.bool_)
    for name, tag in HEADER_TAGS.items():
        is_whole &= headers[f"{name}_tag"] == tag
    if not is_whole.all():
        raise InvalidInput(
            f"Message {int(np.argmin(is_whole))} of {len(messages)} has no header. Build messages with `encode`."
        )
    return headers


def _check_times(group: str, keys: Sequence[bytes], headers: Rows, latest: int) -> None:
    earliest = microseconds(BEFORE_EVERYTHING)
    for name in VERSION:
        limit = _LAST_EXACT if name == "created_at" else latest
        wrong = np.flatnonzero((headers[name] > limit) | (headers[name] < earliest))
        if wrong.size:
            first = int(wrong[0])
            raise InvalidInput(
                f"{name} of {wrong.size} of {len(keys)} rows of group {group!r} is out of range, first of key {keys[first]!r}: "
                f"{_spelled(int(headers[name][first]))}; the latest allowed is {_spelled(limit)}. One row from the future would "
                "keep every later value out: correct the row, or the writer's clock."
            )


def _spelled(microseconds: int) -> str:
    moment = np.datetime64(microseconds, "us")
    return f"{moment}Z"


def _versions_by_key(group: str, keys: Sequence[bytes], removed: pl.DataFrame | None) -> dict[int, tuple[bytes, int]]:
    """By key index: the key's removed versions and the latest event time among them."""
    if removed is None or removed.is_empty():
        return {}
    _check_removed(removed)
    packed = np.empty(removed.height, _VERSION_DTYPE)
    for name in VERSION:
        packed[f"{name}_tag"] = HEADER_TAGS[name]
        packed[name] = removed[name].to_physical().to_numpy()
    index_of = {key: index for index, key in enumerate(keys)}
    found: dict[int, tuple[bytes, int]] = {}
    for key, row in zip(removed["key"].to_list(), packed, strict=True):
        if key not in index_of:
            raise InvalidInput(
                f"Versions of key {key!r} were removed, but group {group!r} writes nothing to it in this call. A key with a "
                "removed row takes its frontier row or a tombstone in the same step."
            )
        versions, last_event = found.get(index_of[key], (b"", -_LAST_EXACT))
        found[index_of[key]] = (versions + row.tobytes(), max(last_event, int(row["event_time"])))
    return found


def _check_removed(removed: pl.DataFrame) -> None:
    expected: dict[str, pl.DataType] = {"key": pl.Binary(), **dict.fromkeys(VERSION, TIMESTAMP)}
    for name, dtype in expected.items():
        if removed.schema.get(name) != dtype:
            raise SchemaMismatch(
                f"Column {name!r} of removed versions must be {dtype}; it is {removed.schema.get(name)}."
            )
        if removed[name].null_count():
            raise InvalidInput(f"Column {name!r} of removed versions has nulls; a version has all its times.")


def _expiry(last_event: int, ttl: timedelta | None, now: datetime) -> int:
    return int(_expiries(np.array([last_event]), ttl, now)[0])


def _expiries(last_events: Numbers, ttl: timedelta | None, now: datetime) -> Numbers:
    """Milliseconds from now, at least 1; 0 for never."""
    if ttl is None:
        return np.zeros(last_events.size, np.int64)
    kept = microseconds(now) - (ttl + EXPIRY_GRACE) // timedelta(microseconds=1)
    remaining: Numbers = -((kept - last_events) // 1000)
    return np.maximum(remaining, 1)
