"""What one group's messages answer to a read: values, statuses, event times and tiers, as lists or as Series.

A handful of rows is kept as tuples, a batch as arrays; both give the same. Not here: how bytes are read, which status a row
has (`statuses`), or several groups in one answer (`retrieval`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from struct import Struct
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from featurestore.declaration.online import TierName
from featurestore.errors import InvalidInput
from featurestore.online.message.columns import chosen, masked, series_of
from featurestore.online.message.decode import Decoded
from featurestore.online.message.few import Row
from featurestore.online.message.layout import TIMESTAMP, Flags, WireField
from featurestore.online.reading.plan import GroupPlan
from featurestore.online.reading.statuses import (
    IS_NOT_FOUND,
    IS_NULL,
    IS_OUTSIDE,
    IS_PRESENT,
    IS_UNAVAILABLE,
    STATUSES,
    TIER,
    Codes,
    Limits,
    feature_codes,
    has_event_time,
    readable,
    row_code,
    row_codes,
    status_names,
    status_series,
)
from featurestore.online.tier import Replies
from featurestore.pit import PRESENT

FEW_ROWS = 16
"""Up to so many rows are read one by one; measured, where both ways take as long."""

_FIRST_DAY = date(1970, 1, 1).toordinal()
_FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))


class FeatureColumn(NamedTuple):
    """One feature of an answer as plain Python values, a place for each entity row.

    Args:
        name: The column's name.
        values: None where there is none to serve.
        statuses: As `OnlineFeatures.statuses`.
        event_times: Microseconds since 1970 UTC, or None.
        tiers: "hot" or "warm": which tier gave the row; None where neither did.
    """

    name: str
    values: Sequence[Any]
    statuses: Sequence[str]
    event_times: Sequence[int | None]
    tiers: Sequence[TierName | None]


class GroupAnswer(Protocol):
    """One group's part of an answer; Series and columns come one a feature, in the order asked, by their output names."""

    def columns(self) -> list[FeatureColumn]: ...

    def values(self) -> list[pl.Series]: ...

    def statuses(self) -> list[pl.Series]: ...

    def event_times(self) -> list[pl.Series]: ...

    def tiers(self) -> list[pl.Series]: ...


def answer_of(plan: GroupPlan, replies: Replies, now: datetime, *, serves_old: bool = False) -> GroupAnswer:
    """Decode and judge one group's replies, a reply a row; `serves_old` gives values beyond their max_age too.

    Raises:
        InvalidInput: A reply is not of this group, or not as it was written.
    """
    limits = Limits.of(plan, now, serves_old=serves_old)
    if len(replies.messages) <= FEW_ROWS:
        rows = plan.few_reader.read(replies.messages)
        if rows is not None:
            return FewAnswer(plan, replies, limits, rows)
    return BatchAnswer(plan, replies, limits, plan.decoder.read(replies.messages))


def undecodable(plan: GroupPlan, messages: Sequence[bytes | None]) -> frozenset[int]:
    """Positions of messages that are not of the group, or not as they were written."""
    return frozenset(at for at, message in enumerate(messages) if not _is_decodable(plan, message))


def _is_decodable(plan: GroupPlan, message: bytes | None) -> bool:
    try:
        plan.decoder.read([message])
    except InvalidInput:
        return False
    return True


def tier_names(replies: Replies) -> list[TierName | None]:
    """Which tier gave each message."""
    if not replies.warm:
        return [None if message is None else "hot" for message in replies.messages]
    return [
        None if message is None else "warm" if place in replies.warm else "hot"
        for place, message in enumerate(replies.messages)
    ]


@dataclass(frozen=True, eq=False)
class BatchAnswer:
    """An answer from arrays."""

    plan: GroupPlan
    replies: Replies
    limits: Limits
    read: Decoded

    @property
    def count(self) -> int:
        return len(self.replies.messages)

    @cached_property
    def codes(self) -> Codes | None:
        return row_codes(self.read, self.limits, self.replies.unanswered)

    @cached_property
    def _has_old_rows(self) -> bool:
        numbers = self.read.header["schema_number"]
        return self.plan.newest_since > 1 and bool((numbers < self.plan.newest_since).any())

    def _known(self, index: int) -> Flags | None:
        """Rows whose schema had the feature; None: all."""
        if not self._has_old_rows:
            return None
        known: Flags = self.read.header["schema_number"] >= self.plan.features[index].since
        return known

    def _readable(self, known: Flags | None) -> Flags | None:
        return readable(self.codes, known, serves_old=self.limits.serves_old)

    def _feature_codes(self) -> Iterator[Codes | None]:
        for index, column in enumerate(self.read.columns):
            yield feature_codes(self.codes, self._known(index), column.valid, self.count)

    def columns(self) -> list[FeatureColumn]:
        tiers, times = tier_names(self.replies), self.read.header["event_time"].tolist()
        made = []
        for index, (name, column, codes) in enumerate(
            zip(self.plan.columns, self.read.columns, self._feature_codes(), strict=True)
        ):
            known = self._known(index)
            values = column.to_list(self._readable(known))
            dated = chosen(times, has_event_time(self.codes, known))
            made.append(FeatureColumn(name, values, status_names(codes, self.count), dated, tiers))
        return made

    def values(self) -> list[pl.Series]:
        made = series_of(self.read.columns, self._readable(None))
        if self._has_old_rows:
            made = [_where(series, self._known(index)) for index, series in enumerate(made)]
        return [series.alias(name) for series, name in zip(made, self.plan.columns, strict=True)]

    def statuses(self) -> list[pl.Series]:
        shared = status_series(self.codes, self.count)
        return [
            (shared if codes is self.codes else status_series(codes, self.count)).alias(name)
            for name, codes in zip(self.plan.columns, self._feature_codes(), strict=True)
        ]

    def event_times(self) -> list[pl.Series]:
        times = pl.Series(np.ascontiguousarray(self.read.header["event_time"])).cast(TIMESTAMP)
        shared = masked(times, has_event_time(self.codes, None))
        return [
            (shared if known is None else masked(times, has_event_time(self.codes, known))).alias(name)
            for name, known in ((name, self._known(index)) for index, name in enumerate(self.plan.columns))
        ]

    def tiers(self) -> list[pl.Series]:
        shared = pl.Series(tier_names(self.replies), dtype=TIER)
        return [shared.alias(name) for name in self.plan.columns]


def _where(values: pl.Series, keep: Flags | None) -> pl.Series:
    if keep is None or keep.all():
        return values
    return values.zip_with(pl.Series(keep), pl.Series([None], dtype=values.dtype))


@dataclass(frozen=True, eq=False)
class FewAnswer:
    """An answer from rows as tuples; Series come from the same messages read as a batch."""

    plan: GroupPlan
    replies: Replies
    limits: Limits
    rows: list[Row | None]

    @cached_property
    def batch(self) -> BatchAnswer:
        return BatchAnswer(self.plan, self.replies, self.limits, self.plan.decoder.read(self.replies.messages))

    @cached_property
    def codes(self) -> list[int]:
        """The status of each row before its features are looked at."""
        unanswered = self.replies.unanswered
        return [
            (IS_UNAVAILABLE if place in unanswered else IS_NOT_FOUND)
            if row is None
            else row_code(row[1], row[2], self.limits)
            for place, row in enumerate(self.rows)
        ]

    def columns(self) -> list[FeatureColumn]:
        tiers = tier_names(self.replies)
        try:
            return [self._column(index, tiers) for index in range(len(self.plan.columns))]
        except (OverflowError, ValueError):  # a day or an instant that Python has none for
            return self.batch.columns()

    @cached_property
    def _whole(self) -> list[Row] | None:
        """The rows, if all are present and of a schema that has every feature."""
        rows = [row for row in self.rows if row is not None]
        is_whole = len(rows) == len(self.rows) and not any(self.codes)
        return rows if is_whole and all(row[0] >= self.plan.newest_since for row in rows) else None

    def _column(self, index: int, tiers: list[TierName | None]) -> FeatureColumn:
        restore, place, rows = _restorer(self.plan.fields[index]), index + 3, self._whole
        values = [] if rows is None else [row[place] for row in rows]
        if rows is None or None in values:
            return self._mixed_column(index, tiers)
        values = values if restore is None else [restore(value) for value in values]
        return FeatureColumn(self.plan.columns[index], values, self._present, self._times, tiers)

    @cached_property
    def _present(self) -> list[str]:
        return [PRESENT] * len(self.rows)

    @cached_property
    def _times(self) -> list[int]:
        return [row[1] for row in self.rows if row is not None]

    def _mixed_column(self, index: int, tiers: list[TierName | None]) -> FeatureColumn:
        since, restore, place = self.plan.features[index].since, _restorer(self.plan.fields[index]), index + 3
        values: list[Any] = []
        statuses: list[str] = []
        times: list[int | None] = []
        for row, code in zip(self.rows, self.codes, strict=True):
            value = None
            if row is not None and code == IS_PRESENT:
                value = row[place]
                code = IS_NOT_FOUND if row[0] < since else IS_NULL if value is None else IS_PRESENT
                value = value if code == IS_PRESENT else None
            elif row is not None and code == IS_OUTSIDE and self.limits.serves_old and row[0] >= since:
                value = row[place]
            values.append(value if value is None or restore is None else restore(value))
            statuses.append(STATUSES[code])
            times.append(row[1] if row is not None and code in _DATED else None)
        return FeatureColumn(self.plan.columns[index], values, statuses, times, tiers)

    def values(self) -> list[pl.Series]:
        return self.batch.values()

    def statuses(self) -> list[pl.Series]:
        return self.batch.statuses()

    def event_times(self) -> list[pl.Series]:
        return self.batch.event_times()

    def tiers(self) -> list[pl.Series]:
        return self.batch.tiers()


_DATED = frozenset((IS_PRESENT, IS_NULL, IS_OUTSIDE))


def _restorer(field: WireField) -> Callable[[Any], Any] | None:
    """What makes a Python value of one as stored; None if it is one already."""
    if field.is_vector:
        return lambda payload: list(Struct(f"<{field.width}f").unpack(payload))
    return _RESTORERS.get(field.dtype)


_RESTORERS: dict[pl.DataType, Callable[[Any], Any]] = {
    pl.Boolean(): bool,
    pl.Date(): lambda days: date.fromordinal(_FIRST_DAY + days),
    TIMESTAMP: lambda microseconds: _FIRST_INSTANT + timedelta(microseconds=microseconds),
}
