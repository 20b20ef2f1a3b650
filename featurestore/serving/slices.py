"""What one read gave, and the parts of it that belong to each request: the form between reading and bodies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import polars as pl

from featurestore.freshness.read_state import Freshness
from featurestore.online.reading.retrieval import UNAVAILABLE, FeatureColumn, OnlineFeatures
from featurestore.pit import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT
from featurestore.serving.prepared import PreparedRead
from featurestore.serving.wire import INVALID

NO_ANSWER = "the online store gave this request no answer in its time; the server's log has what failed"
WIRE_STATUSES = (INVALID, PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE)
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class ReadResult:
    """All values that one read gave, for the entities of all requests that were joined in it.

    Args:
        prepared: What was asked.
        answer: What the store said; None if it said nothing, and then no value is there.
        count: Entities.
        requests: How many requests were joined.
        now: The instant that ages are counted to, microseconds since 1970 UTC.
    """

    prepared: PreparedRead
    answer: OnlineFeatures | None
    count: int
    requests: int
    now: int

    @cached_property
    def freshness(self) -> Freshness:
        """How fresh the groups are: at the read, or by what is known where there was none."""
        return self.prepared.freshness() if self.answer is None else self.answer.freshness

    @cached_property
    def freshness_json(self) -> bytes:
        """The same as JSON: it is one for all requests that were joined."""
        return msgspec.json.encode(self.freshness.document())

    @cached_property
    def columns(self) -> list[FeatureColumn]:
        """Every feature in plain values, its statuses as the wire has them."""
        if self.answer is None:
            nothing: list[None] = [None] * self.count
            statuses = [INVALID] * self.count
            return [FeatureColumn(name, nothing, statuses, nothing, nothing) for name, _ in self.prepared.columns]
        return _with_wire_statuses(self.answer.feature_columns())

    @cached_property
    def causes(self) -> Mapping[str, str]:
        """By group, why values of it are INVALID for some of the entities."""
        if self.answer is None:
            return {group.name: NO_ANSWER for group in self.prepared.groups}
        return self.answer.causes

    @cached_property
    def values(self) -> pl.DataFrame:
        """Every feature as a typed column."""
        names = [name for name, _ in self.prepared.columns]
        if self.answer is not None:
            return self.answer.frame.select(names)
        return pl.DataFrame(
            {name: pl.repeat(None, self.count, dtype=dtype, eager=True) for name, dtype in self.prepared.columns}
        )


def _with_wire_statuses(columns: Sequence[FeatureColumn]) -> list[FeatureColumn]:
    """Rename UNAVAILABLE; a list that several columns share is looked at once and stays shared."""
    seen: dict[int, Sequence[str]] = {}
    found = []
    for column in columns:
        statuses = seen.get(id(column.statuses))
        if statuses is None:
            statuses = seen[id(column.statuses)] = _renamed(column.statuses)
        found.append(
            column
            if statuses is column.statuses
            else FeatureColumn(column.name, column.values, statuses, column.event_times, column.tiers)
        )
    return found


def _renamed(statuses: Sequence[str]) -> Sequence[str]:
    if UNAVAILABLE not in statuses:
        return statuses
    return [INVALID if status == UNAVAILABLE else status for status in statuses]


@dataclass(frozen=True, slots=True)
class Slice:
    """One request's part of a read.

    Args:
        result: The read.
        start: Its first entity there.
        keys: The entities' keys as the client gave them.
        count: How many there are.
        with_versions: Whether the client asked for the versions of groups.
        with_serving_metadata: Whether it asked for ages and tiers.
        with_freshness: Whether it asked how fresh the groups are.
    """

    result: ReadResult
    start: int
    keys: dict[str, list[Any]]
    count: int
    with_versions: bool = False
    with_serving_metadata: bool = False
    with_freshness: bool = False

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def causes(self) -> dict[str, str]:
        """By group, why values of this request are INVALID: of what was read together, others may lack theirs alone."""
        if not self.result.causes:
            return {}
        columns, found = iter(self.result.columns), {}
        for wanted in self.result.prepared.requested:
            first, *_ = [next(columns) for _ in wanted.features]  # a group answers for an entity as a whole
            cause = self.result.causes.get(wanted.group.name)
            if cause and INVALID in first.statuses[self.start : self.end]:
                found[wanted.group.name] = cause
        return found

    def ages(self, event_times: Sequence[int | None]) -> list[float | None]:
        """Seconds from each event time to the read's instant."""
        now = self.result.now
        return [None if time is None else (now - time) / MICROSECONDS for time in event_times]
