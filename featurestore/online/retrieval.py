"""Online values with their statuses: what the stored messages say at one instant.

The reader's clock decides expiry and age, so that replays and other clocks agree with the point-in-time join.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.group import TierName
from featurestore.errors import InvalidInput
from featurestore.frames import FeatureFrame, Rows, as_polars
from featurestore.online.decode import decode
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.schema import layouts_of
from featurestore.online.tier import Replies
from featurestore.pit import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT
from featurestore.references import RequestedGroup
from featurestore.registry.snapshot import RegisteredGroup

UNAVAILABLE = "UNAVAILABLE"
TIER = pl.Enum(["hot", "warm"])
ONLINE_STATUS = pl.Enum([PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE, UNAVAILABLE])


@dataclass(frozen=True, slots=True)
class FeatureColumn:
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


@dataclass(frozen=True, slots=True)
class OnlineFeatures(FeatureFrame):
    """The answer to an online read, a row for each entity row asked, in that order.

    Args:
        frame: The entity rows' columns, then a column a feature.
        statuses: A column a feature: PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE.
        event_times: A column a feature: when the value is true of; null where there is none.
        tiers: A column a feature: "hot" or "warm"; null where neither had a row.
    """

    statuses: pl.DataFrame
    event_times: pl.DataFrame
    tiers: pl.DataFrame

    def feature_columns(self) -> list[FeatureColumn]:
        """The features as plain Python values, in the order asked."""
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


def entity_frame(entity_rows: Rows, requested: Sequence[RequestedGroup]) -> pl.DataFrame:
    """The entity rows as a frame; no rows at all, as an empty list gives them, have the keys' columns.

    Raises:
        InvalidInput: the rows are no table, or have a column of the name that a feature is to get.
    """
    rows = as_polars(entity_rows, "entity_rows")
    if not rows.columns and not rows.height:
        rows = pl.DataFrame(
            schema={key: dtype for wanted in requested for key, dtype in wanted.group.key_schema.items()}
        )
    taken = [column for wanted in requested for _, column in wanted.features if column in rows.columns]
    if taken:
        raise InvalidInput(
            f"The entity rows already have columns {taken}. Leave them out, or ask with full_feature_names=True."
        )
    return rows


def group_keys(rows: pl.DataFrame, group: RegisteredGroup) -> list[bytes | None]:
    """The online key of each row's entity; None where a key is null, which names no entity."""
    keyed = rows.select(pl.col(key).cast(dtype) for key, dtype in group.key_schema.items())
    has_key = keyed.select(_has_key(group)).to_series()
    keys = iter(online_keys(group.name, entity_ids(keyed.filter(has_key), group.key_names)))
    return [next(keys) if there else None for there in has_key]


def aligned(keys: Sequence[bytes | None], replies: Replies) -> Replies:
    """Replies to the keys that name an entity, spread over all rows; a null key is answered: nothing is there."""
    asked = [position for position, key in enumerate(keys) if key is not None]
    messages: list[bytes | None] = [None] * len(keys)
    for position, message in zip(asked, replies.messages, strict=True):
        messages[position] = message
    unanswered, warm = (frozenset(asked[i] for i in positions) for positions in (replies.unanswered, replies.warm))
    return replace(replies, messages=messages, unanswered=unanswered, warm=warm)


def assemble(
    rows: pl.DataFrame, requested: Sequence[RequestedGroup], replies: dict[str, Replies], now: datetime
) -> OnlineFeatures:
    """Turn the tiers' replies into values, statuses and event times.

    Args:
        rows: The entity rows asked.
        requested: Groups and features, as `references.resolve` gives them.
        replies: For each group one reply a row.
        now: The reader's instant.
    """
    values: list[pl.Series] = []
    statuses: list[pl.Series] = []
    times: list[pl.Series] = []
    tiers: list[pl.Series] = []
    for wanted in requested:
        tier = _tiers(replies[wanted.group.name])
        names = [feature.name for feature, _ in wanted.features]
        decoded = decode(layouts_of(wanted.group), replies[wanted.group.name].messages, names)
        is_unanswered = pl.Series(
            [i in replies[wanted.group.name].unanswered for i in range(rows.height)], dtype=pl.Boolean
        )
        base = decoded.select(_base_status(wanted.group, now, is_unanswered)).to_series()
        for feature, column in wanted.features:
            is_absent = (decoded["schema_number"] < feature.since).fill_null(False)
            status = _feature_status(base, is_absent, decoded[feature.name])
            is_readable = status.is_in([PRESENT, NULL_VALUE])
            values.append(_where(is_readable, decoded[feature.name]).alias(column))
            statuses.append(status.alias(column))
            tiers.append(tier.alias(column))
            times.append(
                _where(status.is_in([PRESENT, NULL_VALUE, OUTSIDE_MAX_AGE]), decoded["event_time"]).alias(column)
            )
    return OnlineFeatures(rows.with_columns(values), pl.DataFrame(statuses), pl.DataFrame(times), pl.DataFrame(tiers))


def _tiers(replies: Replies) -> pl.Series:
    """Which tier gave each message."""
    found = [
        None if message is None else "warm" if i in replies.warm else "hot"
        for i, message in enumerate(replies.messages)
    ]
    return pl.Series(found, dtype=TIER)


def _has_key(group: RegisteredGroup) -> pl.Expr:
    return pl.all_horizontal(pl.col(group.key_names).is_not_null()).alias("has_key")


def _base_status(group: RegisteredGroup, now: datetime, is_unanswered: pl.Series) -> pl.Expr:
    """The status of each row before its features are looked at."""
    age = pl.lit(now).cast(TIMESTAMP) - pl.col("event_time")
    is_gone = pl.col("is_deleted").fill_null(False)
    if group.ttl is not None:
        is_gone |= (age > group.ttl).fill_null(False)
    is_old = pl.lit(False) if group.max_age is None else (age > group.max_age).fill_null(False)
    return (
        pl.when(is_unanswered)
        .then(_status(UNAVAILABLE))
        .when(~pl.col("found") | is_gone)
        .then(_status(NOT_FOUND))
        .when(is_old)
        .then(_status(OUTSIDE_MAX_AGE))
        .otherwise(_status(PRESENT))
        .alias("status")
    )


def _feature_status(base: pl.Series, is_absent: pl.Series, value: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"base": base, "absent": is_absent, "null": value.is_null()})
    is_present = pl.col("base") == PRESENT
    status = (
        pl.when(is_present & pl.col("absent"))
        .then(_status(NOT_FOUND))
        .when(is_present & pl.col("null"))
        .then(_status(NULL_VALUE))
        .otherwise(pl.col("base"))
    )
    return frame.select(status.alias("status")).to_series()


def _status(name: str) -> pl.Expr:
    return pl.lit(name, dtype=ONLINE_STATUS)


def _where(keep: pl.Series, values: pl.Series) -> pl.Series:
    return (
        pl.DataFrame({"keep": keep, "value": values}).select(pl.when("keep").then("value").alias("value")).to_series()
    )
