"""The lags of groups now and then, in the metadata database: how many are kept of them, and for how long.

A day has them as densely as a group's SLO asks for. What is older is thinned to the steps that pictures are drawn in, each with the
highest lags and the worst status of its time; a month back all of it goes. Each look does a little of that: never more than one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, delete, func, insert, select

from featurestore.freshness.judgement import ORDER, GroupFreshness, Status
from featurestore.metadata.tables import LAGS, THINNED

KEPT = timedelta(days=31)
"""How long lags are kept."""
THINNED_AFTER = timedelta(days=1)
SAMPLES = 60
"""Lags kept within one SLO, at most."""
LEAST_DISTANCE = timedelta(minutes=1)
USUAL_DISTANCE = timedelta(minutes=15)
"""No two lags of a group that is looked at are further apart; a step of the pictures."""
FORGOTTEN_AT_ONCE = timedelta(hours=1)
"""So much of what is too old goes with one look: after a long silence the next ones have their share."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Lag:
    """A group's lags at one look, in seconds; None where there was nothing to measure by."""

    at: datetime
    status: Status
    materialization_seconds: float | None
    data_seconds: float | None
    online_seconds: float | None


def is_lag_due(found: GroupFreshness, last: datetime | None) -> bool:
    """Whether the lags that a look found are to be kept, where those of `last` were; of a clock that was ahead, if it is to come."""
    slo = found.group.freshness
    distance = USUAL_DISTANCE if slo is None else max(LEAST_DISTANCE, min(USUAL_DISTANCE, slo / SAMPLES))
    return last is None or found.at - last >= distance or last > found.at


def keep_lags(connection: Connection, found: Sequence[GroupFreshness]) -> None:
    """Keep the lags that a look found."""
    if found:
        connection.execute(insert(LAGS), [_row(one) for one in found])


def tidy_lags(connection: Connection, now: datetime) -> None:
    """Forget what is older than a month, and thin what is older than a day: a bounded part of it."""
    oldest = connection.execute(select(func.min(LAGS.c.at))).scalar_one()
    if oldest is None:
        return
    connection.execute(delete(LAGS).where(LAGS.c.at < min(now - KEPT, oldest + FORGOTTEN_AT_ONCE)))
    _thin(connection, now)


def _thin(connection: Connection, now: datetime) -> None:
    """Thin the first step that was not yet, if it is old enough."""
    done = connection.execute(select(THINNED.c.until)).scalar()
    rest = select(func.min(LAGS.c.at)) if done is None else select(func.min(LAGS.c.at)).where(LAGS.c.at >= done)
    first = connection.execute(rest).scalar_one()
    if first is None:
        return
    step = EPOCH + (first - EPOCH) // USUAL_DISTANCE * USUAL_DISTANCE
    end = step + USUAL_DISTANCE
    if end > now - THINNED_AFTER:
        return
    _merge(connection, (LAGS.c.at >= step) & (LAGS.c.at < end))
    connection.execute(delete(THINNED))
    connection.execute(insert(THINNED).values(until=end))


def _merge(connection: Connection, is_within: ColumnElement[bool]) -> None:
    """One row for each group that has several within a step."""
    lags = [LAGS.c.materialization_seconds, LAGS.c.data_seconds, LAGS.c.online_seconds]
    worst = func.max(case({status: place for place, status in enumerate(ORDER)}, value=LAGS.c.status))
    merged = (
        select(LAGS.c.group_name, func.min(LAGS.c.at).label("at"), worst.label("worst"), *map(_highest, lags))
        .where(is_within)
        .group_by(LAGS.c.group_name)
        .having(func.count() > 1)
    )
    rows = [dict(row) for row in connection.execute(merged).mappings()]
    if rows:
        names = [row["group_name"] for row in rows]
        connection.execute(delete(LAGS).where(is_within, LAGS.c.group_name.in_(names)))
        connection.execute(insert(LAGS), [{**row, "status": ORDER[row.pop("worst")]} for row in rows])


def _highest(column: ColumnElement[float]) -> ColumnElement[float]:
    return func.max(column).label(column.name)


def _row(found: GroupFreshness) -> dict[str, object]:
    lags = {
        "materialization_seconds": found.materialization_lag,
        "data_seconds": found.data_lag,
        "online_seconds": found.online_lag,
    }
    seconds = {name: None if lag is None else lag.total_seconds() for name, lag in lags.items()}
    return {"group_name": found.group.name, "at": found.at, "status": found.status, **seconds}
