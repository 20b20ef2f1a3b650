"""What is kept of freshness in the metadata database: confirmations, every change of status, looks, and lags for pictures.

A status holds from the look that found it until the look that found another, as far as somebody looked: of the time between two looks
that are far apart (`looks.UNSEEN`) nothing is known, and it counts for nothing. Not here: who looks.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self

from sqlalchemy import URL, Connection, delete, func, insert, select

from featurestore.clock import Clock, system_clock
from featurestore.freshness.judgement import Cause, GroupFreshness, Status
from featurestore.freshness.lags import Lag, is_lag_due, keep_lags, tidy_lags
from featurestore.freshness.looks import OPEN, Gap, keep_looks, read_gaps, read_looks, unseen
from featurestore.metadata.database import Book
from featurestore.metadata.tables import CONFIRMED, FRESHNESS, FRESHNESS_KEPT, FRESHNESS_LOOKS, LAGS, LOOKED


@dataclass(frozen=True, slots=True)
class StatusChange:
    """That a group's status became another. `before` is None for the first that is known."""

    number: int
    group: str
    since: datetime
    status: Status
    before: Status | None
    causes: tuple[Cause, ...]


StatusHistory = list[tuple[datetime, Status | Literal["UNKNOWN"]]]
"""When a group's status became which, the oldest first; each holds until the next. UNKNOWN: nobody looked."""


class FreshnessJournal(Book):
    """Confirmations, changes of status, looks and lags of every group."""

    part = FRESHNESS_KEPT

    @classmethod
    def open(cls, url: str | URL, clock: Clock = system_clock) -> Self:
        """As every book; looks are a part of their own, which a database of the version before has not yet."""
        journal = super().open(url, clock)
        journal._database.prepare(FRESHNESS_LOOKS)
        return journal

    def confirmed(self) -> dict[str, datetime]:
        """When each group was last confirmed to hold everything due."""
        with self._database.reading() as connection:
            return _confirmed(connection)

    def confirm(self, groups: Iterable[str], at: datetime) -> None:
        """Keep that groups were seen to hold everything due at an instant; an earlier one than is kept changes nothing."""
        with self._database.writing() as connection:
            known = _confirmed(connection)
            for name in groups:
                if name in known and known[name] >= at:
                    continue
                connection.execute(delete(CONFIRMED).where(CONFIRMED.c.group_name == name))
                connection.execute(insert(CONFIRMED).values(group_name=name, at=at))

    def record(self, found: Sequence[GroupFreshness]) -> list[StatusChange]:
        """Keep what a look found: that it was made, changes of status, and lags where the last kept ones are old enough.

        Returns:
            The changes, in the order of the groups. A look that is not newer than a group's last one changes nothing, unless that
            is of an instant to come: a clock that was ahead is not waited for.
        """
        now = self._clock()
        with self._database.writing() as connection:
            before = read_looks(connection)
            newer = [one for one in found if (last := before.get(one.group.name)) is None or last.is_before(one, now)]
            lagged = {name: looked.lag_at for name, looked in before.items()}
            due = [one for one in newer if is_lag_due(one, lagged.get(one.group.name))]
            keep_looks(connection, newer, before, [one.group.name for one in due])
            last_changes = _last_changes(connection)
            changes = [
                change
                for one in newer
                if (change := _change(connection, one, last_changes.get(one.group.name), now)) is not None
            ]
            keep_lags(connection, due)
            tidy_lags(connection, now)
        return changes

    def looked_at(self) -> dict[str, datetime]:
        """When each group was last looked at; long ago, or never, means that nobody keeps its freshness."""
        with self._database.reading() as connection:
            return {name: looked.last_at for name, looked in read_looks(connection).items()}

    def history(self, since: datetime, now: datetime | None = None) -> dict[str, StatusHistory]:
        """By group the statuses that it had from an instant on, the oldest first; the first one may have begun before.

        Args:
            now: Until when; default what the clock says. What was not looked at until then is unknown.
        """
        earlier = select(func.max(FRESHNESS.c.number)).where(FRESHNESS.c.since < since).group_by(FRESHNESS.c.group_name)
        query = (
            select(FRESHNESS.c.group_name, FRESHNESS.c.since, FRESHNESS.c.status)
            .where((FRESHNESS.c.since >= since) | FRESHNESS.c.number.in_(earlier))
            .order_by(FRESHNESS.c.number)
        )
        found: dict[str, StatusHistory] = {}
        with self._database.reading() as connection:
            for name, began, status in connection.execute(query):
                found.setdefault(name, []).append((began, status))
            looks, gaps = read_looks(connection), read_gaps(connection, since)
        until = self._clock() if now is None else now
        return {
            name: as_seen(kept, unseen(kept[0][0], looks.get(name), gaps.get(name, []), until))
            for name, kept in ((name, in_order(kept)) for name, kept in found.items())
        }

    def attainment(self, now: datetime, spans: Sequence[timedelta]) -> dict[str, tuple[float | None, ...]]:
        """By group the share of each span before `now` in which it was not in breach; None where nothing is known of it.

        What lies before the first look of a group, and between looks that are far apart, is left out of the share.
        """
        history = self.history(now - max(spans), now)
        return {name: attained(changes, now, spans) for name, changes in history.items()}

    def lags(self, since: datetime, groups: Iterable[str] | None = None) -> dict[str, list[Lag]]:
        """By group its lags since an instant, the oldest first."""
        columns = [column for column in LAGS.c if column is not LAGS.c.group_name]
        query = select(LAGS.c.group_name, *columns).where(LAGS.c.at >= since).order_by(LAGS.c.group_name, LAGS.c.at)
        if groups is not None:
            query = query.where(LAGS.c.group_name.in_(list(groups)))
        found: dict[str, list[Lag]] = {}
        with self._database.reading() as connection:
            for name, *fields in connection.execute(query):
                found.setdefault(name, []).append(Lag(*fields))
        return found

    def newest_change(self) -> int:
        """The number of the last change of status; 0 before the first."""
        with self._database.reading() as connection:
            return connection.execute(select(func.max(FRESHNESS.c.number))).scalar_one() or 0

    def changes(self, after: int = 0, limit: int = 1000) -> list[StatusChange]:
        """Changes of status after a number, the oldest first."""
        one, older = FRESHNESS.alias("one"), FRESHNESS.alias("older")
        before = (
            select(older.c.status)
            .where(older.c.group_name == one.c.group_name, older.c.number < one.c.number)
            .order_by(older.c.number.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = select(one, before.label("before")).where(one.c.number > after).order_by(one.c.number).limit(limit)
        with self._database.reading() as connection:
            return [
                StatusChange(row.number, row.group_name, row.since, row.status, row.before, causes_of(row.causes))
                for row in connection.execute(query)
            ]


def attained(history: StatusHistory, now: datetime, spans: Sequence[timedelta]) -> tuple[float | None, ...]:
    """The share of each span before `now` without a breach, of what is known of it and was not NEVER; None where nothing is."""
    return tuple(_share(history, now - span, now) for span in spans)


def in_order(kept: StatusHistory) -> StatusHistory:
    """Statuses as they were kept; one of a clock that was ahead ended when the next one was found."""
    ordered: StatusHistory = []
    for since, status in reversed(kept):
        ordered.append((min(since, ordered[-1][0]) if ordered else since, status))
    return ordered[::-1]


def as_seen(kept: StatusHistory, gaps: Sequence[Gap]) -> StatusHistory:
    """Statuses as they were kept, with UNKNOWN where nobody looked.

    Args:
        kept: At least one.
        gaps: Apart from each other, the oldest first.
    """
    first, began, starts = kept[0][0], [since for since, _ in kept], [start for start, _ in gaps]
    edges = {edge for gap in gaps for edge in gap if first <= edge < OPEN}
    history: StatusHistory = []
    for at in sorted({*began, *edges}):
        place = bisect_right(starts, at) - 1
        is_unseen = place >= 0 and at < gaps[place][1]
        status = "UNKNOWN" if is_unseen else kept[bisect_right(began, at) - 1][1]
        if not history or history[-1][1] != status:
            history.append((at, status))
    return history


def stays(history: StatusHistory, now: datetime) -> list[tuple[datetime, datetime, Status | Literal["UNKNOWN"]]]:
    """From when to when a group had each status."""
    ends = [since for since, _ in history[1:]] + [now]
    return [(since, end, status) for (since, status), end in zip(history, ends, strict=False)]


def causes_of(documents: Sequence[Mapping[str, str]]) -> tuple[Cause, ...]:
    """Causes as they were kept."""
    return tuple(Cause(**{**one, "since": datetime.fromisoformat(one["since"])}) for one in documents)  # type: ignore[arg-type]


def cause_document(cause: Cause) -> dict[str, str]:
    """A cause as plain text."""
    return {
        "kind": cause.kind,
        "status": cause.status,
        "asset": cause.asset,
        "since": cause.since.isoformat(),
        "text": cause.text,
    }


Last = tuple[int, Status, datetime]


def _confirmed(connection: Connection) -> dict[str, datetime]:
    return dict(connection.execute(select(CONFIRMED.c.group_name, CONFIRMED.c.at)).all())


def _last_changes(connection: Connection) -> dict[str, Last]:
    """The last change of each group that was looked at: one step into an index for each, however many changes there were."""
    newest = select(func.max(FRESHNESS.c.number)).where(FRESHNESS.c.group_name == LOOKED.c.group_name).scalar_subquery()
    last = FRESHNESS.alias("last")
    rows = connection.execute(
        select(last.c.group_name, last.c.number, last.c.status, last.c.since).join_from(
            LOOKED, last, last.c.number == newest
        )
    )
    return {name: (number, status, since) for name, number, status, since in rows}


def _change(connection: Connection, found: GroupFreshness, last: Last | None, now: datetime) -> StatusChange | None:
    if last is not None and (last[1] == found.status or found.at <= last[2] <= now):
        return None
    name, causes = found.group.name, [cause_document(cause) for cause in found.causes]
    values = {"group_name": name, "since": found.at, "status": found.status, "causes": causes}
    number = connection.execute(insert(FRESHNESS).values(**values)).inserted_primary_key
    before = None if last is None else last[1]
    return StatusChange(number[0] if number else 0, name, found.at, found.status, before, found.causes)


def _share(changes: StatusHistory, first: datetime, now: datetime) -> float | None:
    """The share of [first, now) without a breach, of what is known of it."""
    known = good = timedelta(0)
    for since, end, status in stays(changes, now):
        length = min(end, now) - max(since, first)
        if length > timedelta(0) and status not in ("NEVER", "UNKNOWN"):
            known += length
            good += timedelta(0) if status == "BREACH" else length
    return good / known if known else None
