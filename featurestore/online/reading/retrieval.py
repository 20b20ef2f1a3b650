"""Online values with their statuses: what the stored messages say at one instant.

The reader's clock decides expiry and age, so that replays and other clocks agree with the point-in-time join. Values are
read and checked at once; Polars frames of them are built when they are first asked for. Not here: the bytes (`decode`,
`few`), the rows asked (`entities`), or any server.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import polars as pl

from featurestore.clock import Clock
from featurestore.declaration.online import TierName
from featurestore.errors import InvalidInput
from featurestore.frames import FeatureFrame, Rows
from featurestore.online.reading.answer import FeatureColumn, GroupAnswer, answer_of, undecodable
from featurestore.online.reading.entities import Entities, entities_of
from featurestore.online.reading.plan import GroupPlan, ReadPlan
from featurestore.online.reading.statuses import ONLINE_STATUS, TIER, UNAVAILABLE
from featurestore.online.tier import Replies

__all__ = ["ONLINE_STATUS", "TIER", "UNAVAILABLE", "FeatureColumn", "OnlineFeatures", "TierName", "read_features"]

ReadMany = Callable[[Mapping[str, Sequence[bytes]]], Mapping[str, Replies]]
"""Reads messages of several groups, as `tier.Tier.read_many` does."""


@dataclass(frozen=True)
class OnlineFeatures(FeatureFrame):
    """The answer to an online read, a row for each entity row asked, in that order.

    Args:
        frame: The entity rows' columns, then a column a feature.
        statuses: A column a feature: PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE.
        event_times: A column a feature: when the value is true of; null where there is none.
        tiers: A column a feature: "hot" or "warm"; null where neither had a row.
        causes: By group, for people, why values of it are UNAVAILABLE; a group that answered wholly is not named.
    """

    statuses: pl.DataFrame
    event_times: pl.DataFrame
    tiers: pl.DataFrame
    causes: Mapping[str, str] = field(default_factory=dict)

    def feature_columns(self) -> list[FeatureColumn]:
        """The features as plain Python values, in the order asked: without frames, where none was built yet."""
        return [
            FeatureColumn(
                name,
                self.frame[name].to_list(),
                self.statuses[name].to_list(),
                self.event_times[name].to_physical().to_list(),
                self.tiers[name].to_list(),
            )
            for name in self.statuses.columns
        ]


class _ReadFeatures(OnlineFeatures):
    """An answer just read: values and statuses are settled, frames are built when they are first asked for."""

    def __init__(self, entities: Entities, groups: Sequence[GroupAnswer], causes: Mapping[str, str]) -> None:
        self.__dict__.update(_entities=entities, _groups=groups, causes=causes)

    _entities: Entities
    _groups: Sequence[GroupAnswer]

    @cached_property
    def frame(self) -> pl.DataFrame:
        return self._entities.frame.with_columns([series for group in self._groups for series in group.values()])

    @cached_property
    def statuses(self) -> pl.DataFrame:
        return pl.DataFrame([series for group in self._groups for series in group.statuses()])

    @cached_property
    def event_times(self) -> pl.DataFrame:
        return pl.DataFrame([series for group in self._groups for series in group.event_times()])

    @cached_property
    def tiers(self) -> pl.DataFrame:
        return pl.DataFrame([series for group in self._groups for series in group.tiers()])

    def feature_columns(self) -> list[FeatureColumn]:
        return [column for group in self._groups for column in group.columns()]

    def to_dict(self) -> dict[str, list[Any]]:
        return self._entities.to_dict() | {column.name: list(column.values) for column in self.feature_columns()}


def read_features(plan: ReadPlan, entity_rows: Rows, read_many: ReadMany, clock: Clock) -> OnlineFeatures:
    """Read the features of a request for some entities.

    Args:
        plan: The request's.
        entity_rows: Entity keys of every group asked, in any form that `frames.as_polars` takes.
        read_many: Of the store.
        clock: The reader's; looked at once, after the store has answered.

    Raises:
        InvalidInput: the rows are no table, lack a key column, or have a column of the name that a feature is to get.
        SchemaMismatch: a key has another dtype than its entity.
    """
    entities = entities_of(entity_rows, plan)
    replies = read_many(entities.sent)
    return assemble(plan, entities, replies, clock())


def assemble(plan: ReadPlan, entities: Entities, replies: Mapping[str, Replies], now: datetime) -> OnlineFeatures:
    """Turn replies to the keys sent into an answer at the instant `now`; a message that cannot be read is UNAVAILABLE, alone."""
    try:
        answers = _answers(plan, entities, replies, now)
    except InvalidInput:
        replies = {one.name: _decodable(one, replies[one.name]) for one in plan.groups}
        answers = _answers(plan, entities, replies, now)
    return _ReadFeatures(entities, answers, {name: one.cause for name, one in replies.items() if one.cause})


def _answers(plan: ReadPlan, entities: Entities, replies: Mapping[str, Replies], now: datetime) -> list[GroupAnswer]:
    return [
        answer_of(one, entities.keys[one.name].spread(replies[one.name], entities.count), now) for one in plan.groups
    ]


def _decodable(plan: GroupPlan, replies: Replies) -> Replies:
    """The replies without the messages that cannot be read."""
    broken = undecodable(plan, replies.messages)
    if not broken:
        return replies
    messages = [None if at in broken else message for at, message in enumerate(replies.messages)]
    what = "1 message is" if len(broken) == 1 else f"{len(broken)} messages are each"
    cause = f"{what} not a message of {plan.name} as it was written; rebuild its online copy"
    causes = "; ".join(one for one in (replies.cause, cause) if one)
    return replace(
        replies, messages=messages, unanswered=replies.unanswered | broken, warm=replies.warm - broken, cause=causes
    )
