"""When each group was looked at, in the metadata database: first, last, and which gaps there were between two looks.

A look costs one read and one write for all groups. Not here: what looks found (`journal.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from sqlalchemy import Connection, delete, insert, select, update

from featurestore.declaration.tier import LOOK_EVERY
from featurestore.freshness.judgement import GroupFreshness
from featurestore.metadata.tables import GAPS, LOOKED

UNSEEN = 10 * LOOK_EVERY
"""Of the time between two looks nothing is known where they are further apart than this."""
OPEN = datetime.max.replace(tzinfo=UTC)
"""The end of a gap that lasts."""

Gap = tuple[datetime, datetime]
"""From when to when nothing is known of a group."""


@dataclass(frozen=True, slots=True)
class Looked:
    """When a group was looked at first and last, and when its lags were last kept."""

    first_at: datetime
    last_at: datetime
    lag_at: datetime

    def is_before(self, found: GroupFreshness, now: datetime) -> bool:
        """Whether a look is newer; also than one of an instant to come, when a clock was ahead."""
        return found.at > self.last_at or self.last_at > now


def read_looks(connection: Connection) -> dict[str, Looked]:
    """By group when it was looked at; groups that never were are missing."""
    columns = (LOOKED.c.group_name, LOOKED.c.first_at, LOOKED.c.last_at, LOOKED.c.lag_at)
    return {name: Looked(*instants) for name, *instants in connection.execute(select(*columns))}


def keep_looks(
    connection: Connection, found: Sequence[GroupFreshness], before: Mapping[str, Looked], lagged: Sequence[str]
) -> None:
    """Keep that groups were looked at, and the gap before the look where there was one.

    Args:
        found: What looks found that are newer than the last ones.
        before: When each group was looked at before.
        lagged: The groups whose lags are kept of this look.
    """
    new = [one for one in found if one.group.name not in before]
    if new:
        connection.execute(insert(LOOKED), [_first_row(one) for one in new])
    gaps = [
        _gap_row(one, last) for one in found if (last := before.get(one.group.name)) and one.at - last.last_at > UNSEEN
    ]
    if gaps:
        connection.execute(insert(GAPS), gaps)
    for at, names in _by_instant(one for one in found if one.group.name in before):
        # A gap that ends in what is to come is of a clock that was ahead.
        connection.execute(delete(GAPS).where(GAPS.c.until > at, GAPS.c.group_name.in_(names)))
        connection.execute(update(LOOKED).where(LOOKED.c.group_name.in_(names)).values(last_at=at))
        with_lags = sorted(set(names) & set(lagged))
        if with_lags:
            connection.execute(update(LOOKED).where(LOOKED.c.group_name.in_(with_lags)).values(lag_at=at))


def read_gaps(connection: Connection, since: datetime) -> dict[str, list[Gap]]:
    """By group its gaps between looks that ended after an instant, the oldest first."""
    query = select(GAPS).where(GAPS.c.until > since).order_by(GAPS.c.group_name, GAPS.c.since)
    found: dict[str, list[Gap]] = {}
    for name, began, until in connection.execute(query):
        found.setdefault(name, []).append((began, until))
    return found


def unseen(began: datetime, looked: Looked | None, gaps: Sequence[Gap], now: datetime) -> list[Gap]:
    """From when to when nobody looked at a group, the oldest first.

    Args:
        began: From here on.
        looked: When it was looked at first and last; None: nobody ever kept that.
        gaps: Those between two looks.
        now: Until here; a last look that is older begins a gap that is open.
    """
    if looked is None:
        return [(began, OPEN)]
    before = [(began, looked.first_at)] if began < looked.first_at else []
    after = [(looked.last_at, OPEN)] if now - looked.last_at > UNSEEN else []
    return [*before, *gaps, *after]


def _first_row(found: GroupFreshness) -> dict[str, object]:
    return {"group_name": found.group.name, "first_at": found.at, "last_at": found.at, "lag_at": found.at}


def _gap_row(found: GroupFreshness, last: Looked) -> dict[str, object]:
    return {"group_name": found.group.name, "since": last.last_at, "until": found.at}


def _by_instant(found: Iterable[GroupFreshness]) -> list[tuple[datetime, list[str]]]:
    """The groups by the instant that they were judged for: of one look all are of one."""
    ordered = sorted((one.at, one.group.name) for one in found)
    return [(at, [name for _, name in same]) for at, same in groupby(ordered, key=lambda pair: pair[0])]
