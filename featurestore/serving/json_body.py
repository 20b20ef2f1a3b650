"""The JSON body of Feast's contract, written in pieces: what columns or requests have in common is written once.

Values are as Feast writes them: times and dates are seconds since 1970 UTC (with a fraction where there is one), and floats
that JSON has no number for are 'NaN', 'Infinity' and '-Infinity'.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from math import isfinite, isnan
from typing import Any

import msgspec
import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.online.reading.retrieval import FeatureColumn
from featurestore.pit import PRESENT
from featurestore.serving.slices import MICROSECONDS, ReadResult, Slice

NO_TIME = "1970-01-01T00:00:00Z"
SMALL = 4
"""Requests of so many entities on average are small: their values are written for all of them at once."""
_EPOCH_DAY = date(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER = msgspec.json.Encoder()
_encode = _ENCODER.encode


class JsonWriter:
    """Writes the bodies of all requests that were joined in one read.

    A block is `{"values":[...],` and then its tail: statuses and times, which a group's columns mostly have in common.
    """

    def __init__(self, result: ReadResult) -> None:
        self._result = result

    def write(self, part: Slice) -> bytes:
        """The body of one request's answer: keys first, then the features, a block each."""
        pieces = [_head(part)]
        for values in part.keys.values():
            pieces += [b'{"values":', _encode(values), _key_tail(part.count)]
        tails = [self._tail(column, part) for column in self._tail_columns]
        singles = self._singles if part.count == 1 and self._is_small else None
        for index, tail in enumerate(self._tail_numbers):
            written = singles[index][part.start] if singles else _encode(self._values[index][part.start : part.end])
            pieces += [b'{"values":', written, tails[tail]]
        pieces[-1] = pieces[-1][:-1]  # the last one's comma
        pieces.append(self._end(part))
        return b"".join(pieces)

    @staticmethod
    def _end(part: Slice) -> bytes:
        """Why values are INVALID, and that a group is in breach, is told unasked too: Feast never answers so, and its clients pass
        over a field they do not know."""
        causes, end = part.causes, b"]"
        if causes or part.with_serving_metadata:
            end += b',"causes":%b' % _encode(causes)
        if part.with_freshness or part.with_serving_metadata or part.result.freshness.is_degraded:
            end += b',"freshness":%b' % part.result.freshness_json
        return end + b"}"

    @property
    def _is_small(self) -> bool:
        return self._result.count <= SMALL * self._result.requests

    @cached_property
    def _values(self) -> list[Sequence[Any]]:
        """Every feature's values for all requests, as JSON has them."""
        dtypes = [dtype for _, dtype in self._result.prepared.columns]
        return [_wire_values(column.values, dtype) for column, dtype in zip(self._result.columns, dtypes, strict=True)]

    @cached_property
    def _singles(self) -> list[list[bytes]]:
        """Every feature's values, each written as a list of one. JSON has no line break inside a value."""
        return [_ENCODER.encode_lines([[value] for value in values]).split(b"\n") for values in self._values]

    @cached_property
    def _tail_numbers(self) -> list[int]:
        """Which of the different tails each feature has; neighbours with the same statuses and times share one."""
        numbers: list[int] = []
        last: FeatureColumn | None = None
        for column in self._result.columns:
            is_same = last is not None and last.statuses == column.statuses and last.event_times == column.event_times
            numbers.append((numbers[-1] if numbers else -1) + (not is_same))
            last = column
        return numbers

    @cached_property
    def _tail_columns(self) -> list[FeatureColumn]:
        """The first feature with each of the tails."""
        firsts: dict[int, FeatureColumn] = {}
        for number, column in zip(self._tail_numbers, self._result.columns, strict=True):
            firsts.setdefault(number, column)
        return list(firsts.values())

    def _tail(self, column: FeatureColumn, part: Slice) -> bytes:
        if part.count == 1 and not part.with_serving_metadata:
            return _single_tail(column.statuses[part.start], column.event_times[part.start])
        statuses, times = column.statuses[part.start : part.end], column.event_times[part.start : part.end]
        parts = [b',"statuses":', _encode(statuses), b',"event_timestamps":', _encode(list(map(wire_time, times)))]
        if part.with_serving_metadata:
            tiers = column.tiers[part.start : part.end]
            parts += [b',"age_seconds":', _encode(part.ages(times)), b',"tiers":', _encode(tiers)]
        return b"".join([*parts, b"},"])


def _head(part: Slice) -> bytes:
    prepared, keys = part.result.prepared, tuple(part.keys)
    head = prepared.heads.get((keys, part.with_versions))
    if head is None:
        metadata: dict[str, Any] = {"feature_names": [*keys, *(name for name, _ in prepared.columns)]}
        if part.with_versions:
            metadata["feature_view_metadata"] = [{"name": one.name, "version": one.version} for one in prepared.groups]
        head = prepared.heads[keys, part.with_versions] = b'{"metadata":%b,"results":[' % _encode(metadata)
    return head


@lru_cache(maxsize=256)
def _key_tail(count: int) -> bytes:
    """What follows the values of a key: it is always there, and of no time."""
    return b',"statuses":%b,"event_timestamps":%b},' % (_encode([PRESENT] * count), _encode([NO_TIME] * count))


@lru_cache(maxsize=65_536)
def _single_tail(status: str, time: int | None) -> bytes:
    return b',"statuses":["%b"],"event_timestamps":["%b"]},' % (status.encode(), wire_time(time).encode())


@lru_cache(maxsize=65_536)
def wire_time(microseconds: int | None) -> str:
    """A time as Feast writes it: with as many digits as it needs of none, three or six.

    >>> wire_time(1_500)
    '1970-01-01T00:00:00.001500Z'
    """
    if microseconds is None:
        return NO_TIME
    seconds, fraction = divmod(microseconds, MICROSECONDS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return text + "Z"
    return f"{text}.{fraction // 1000:03d}Z" if fraction % 1000 == 0 else f"{text}.{fraction:06d}Z"


def _wire_values(values: Sequence[Any], dtype: pl.DataType) -> Sequence[Any]:
    """Values as JSON has them."""
    if dtype.is_float():
        return values if isfinite(sum(filter(None, values))) else _each(_wire_float, values)
    if dtype == TIMESTAMP:
        return _each(_wire_seconds, values)
    if dtype == pl.Date():
        return _each(_wire_day, values)
    if isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_float():
        return _each(_wire_floats, values)
    return values


def _each(convert: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    return [None if value is None else convert(value) for value in values]


def _wire_float(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _wire_floats(values: Sequence[float]) -> Sequence[float | str | None]:
    return values if None not in values and isfinite(sum(values)) else _each(_wire_float, values)


def _wire_seconds(value: datetime) -> int | float:
    delta = value - _EPOCH
    whole = delta.days * 86_400 + delta.seconds
    return whole + delta.microseconds / MICROSECONDS if delta.microseconds else whole


def _wire_day(value: date) -> int:
    return (value - _EPOCH_DAY).days * 86_400
