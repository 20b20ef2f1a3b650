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
from featurestore.freshness.on_read import judge_all
from featurestore.freshness.read_state import Freshness, Mode, check_mode
from featurestore.online.published import Published
from featurestore.online.reading.answer import FeatureColumn, GroupAnswer, answer_of, undecodable
from featurestore.online.reading.entities import Entities, entities_of
from featurestore.online.reading.plan import GroupPlan, ReadPlan
from featurestore.online.reading.statuses import ONLINE_STATUS, TIER, UNAVAILABLE
from featurestore.online.tier import Replies

__all__ = ["ONLINE_STATUS", "TIER", "UNAVAILABLE", "FeatureColumn", "OnlineFeatures", "TierName", "read_features"]

ReadMany = Callable[[Mapping[str, Sequence[bytes]]], Mapping[str, Replies]]
"""Reads messages of several groups, as `tier.Tier.read_many` does."""
PublishedOf = Callable[[str], Published | None]
"""What is known to have been published of a group's freshness."""


@dataclass(frozen=True)
class OnlineFeatures(FeatureFrame):
    """The answer to an online read, a row for each entity row asked, in that order.

    Args:
        frame: The entity rows' columns, then a column a feature.
        statuses: A column a feature: PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE.
        event_times: A column a feature: when the value is true of; null where there is none.
        tiers: A column a feature: "hot" or "warm"; null where neither had a row.
        causes: By group, for people, why values of it are UNAVAILABLE; a group that answered wholly is not named.
        freshness: Of each group its state, lag and SLO at the read; `freshness.at` is the read's instant.
    """

    statuses: pl.DataFrame
    event_times: pl.DataFrame
    tiers: pl.DataFrame
    causes: Mapping[str, str] = field(default_factory=dict)
    freshness: Freshness = field(default_factory=Freshness)

    @property
    def is_degraded(self) -> bool:
        """Whether some group is in breach of its SLO."""
        return self.freshness.is_degraded

    @property
    def ages(self) -> pl.DataFrame:
        """A column a feature: seconds from its event time to the read's instant; null where there is none."""
        behind = pl.all() - pl.lit(self.freshness.at, pl.Datetime("us", "UTC"))
        return self.event_times.select(-behind.dt.total_microseconds() / 1e6)

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

    def __init__(
        self, entities: Entities, groups: Sequence[GroupAnswer], causes: Mapping[str, str], judged: "_Judged"
    ) -> None:
        self.__dict__.update(_entities=entities, _groups=groups, causes=causes, _judged=judged)

    _entities: Entities
    _groups: Sequence[GroupAnswer]
    _judged: "_Judged"

    @cached_property
    def freshness(self) -> Freshness:
        plan, published, now = self._judged
        return judge_all([one.freshness_bounds for one in plan.groups], published.get, now)

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


_Judged = tuple[ReadPlan, Mapping[str, Published | None], datetime]
"""What an answer's freshness is judged by, when somebody asks: the groups, what was known of them at the read, and its instant."""


def nothing_published(_: str) -> None:
    """What is known where nobody learns it."""


def read_features(
    plan: ReadPlan,
    entity_rows: Rows,
    read_many: ReadMany,
    clock: Clock,
    *,
    published: PublishedOf = nothing_published,
    freshness: Mode = "degrade",
) -> OnlineFeatures:
    """Read the features of a request for some entities.

    Args:
        plan: The request's.
        entity_rows: Entity keys of every group asked, in any form that `frames.as_polars` takes.
        read_many: Of the store.
        clock: The reader's; looked at once, after the store has answered.
        published: What is known of a group's freshness, once the store has answered.
        freshness: What the caller wants of groups that are late.

    Raises:
        NotFresh: `freshness` is "strict", and a group is in breach, or nobody knows that it is not.
        InvalidInput: the rows are no table, lack a key column, or have a column of the name that a feature is to get.
        SchemaMismatch: a key has another dtype than its entity.
    """
    if freshness != "degrade":
        check_mode(freshness)
    entities = entities_of(entity_rows, plan)
    replies = read_many(entities.sent)
    judged = (plan, {one.name: published(one.name) for one in plan.groups}, clock())
    answer = _assemble(entities, replies, judged, serves_old=freshness == "stale_ok")
    if freshness == "strict":
        answer.freshness.require()
    return answer


def _assemble(
    entities: Entities, replies: Mapping[str, Replies], judged: _Judged, *, serves_old: bool
) -> OnlineFeatures:
    """Turn replies to the keys sent into an answer; a message that cannot be read is UNAVAILABLE, alone."""
    plan, _, now = judged

    def answers(said: Mapping[str, Replies]) -> list[GroupAnswer]:
        spread = [entities.keys[one.name].spread(said[one.name], entities.count) for one in plan.groups]
        return [answer_of(one, own, now, serves_old=serves_old) for one, own in zip(plan.groups, spread, strict=True)]

    try:
        found = answers(replies)
    except InvalidInput:
        replies = {one.name: _decodable(one, replies[one.name]) for one in plan.groups}
        found = answers(replies)
    return _ReadFeatures(entities, found, {name: one.cause for name, one in replies.items() if one.cause}, judged)


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
