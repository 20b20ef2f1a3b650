"""What is kept of freshness in the metadata database: confirmations, every change of status, and lags for pictures.

A status holds from the look that found it until the look that found another, so attainment is exact to the distance of looks.
Not here: who looks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select

from featurestore.clock import Clock, system_clock
from featurestore.freshness.judgement import Cause, GroupFreshness, Status
from featurestore.metadata.database import Book, Database
from featurestore.metadata.tables import CONFIRMED, FRESHNESS, FRESHNESS_KEPT, LAGS

KEPT = timedelta(days=31)
"""How long lags are kept. Changes are kept for ever: attainment is told from them."""
SAMPLES = 60
"""Lags kept within one SLO, at most."""
LEAST_DISTANCE = timedelta(minutes=1)
USUAL_DISTANCE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """That a group's status became another. `before` is None for the first that is known."""

    number: int
    group: str
    since: datetime
    status: Status
    before: Status | None
    causes: tuple[Cause, ...]


@dataclass(frozen=True, slots=True)
class Lag:
    """A group's lags at one look, in seconds; None where there was nothing to measure by."""

    at: datetime
    status: Status
    materialization_seconds: float | None
    data_seconds: float | None
    online_seconds: float | None


StatusHistory = list[tuple[datetime, Status]]
"""When a group's status became which, the oldest first; each holds until the next."""


class FreshnessJournal(Book):
    """Confirmations, changes of status and lags of every group."""

    part = FRESHNESS_KEPT

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        super().__init__(database, clock)
        self._lagged: dict[str, datetime] | None = None

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
        """Keep what a look found: changes of status, and lags where the last kept ones are old enough.

        Returns:
            The changes, in the order of the groups. A look that is not newer than a group's last change changes nothing.
        """
        with self._database.writing() as connection:
            last = _last_changes(connection)
            changes = [
                change for one in found if (change := _change(connection, one, last.get(one.group.name))) is not None
            ]
            kept = _last_lags(connection) if self._lagged is None else self._lagged
            due = [one for one in found if _is_due(one, kept.get(one.group.name))]
            if due:
                connection.execute(insert(LAGS), [_lag_row(one) for one in due])
                connection.execute(delete(LAGS).where(LAGS.c.at < self._clock() - KEPT))
            self._lagged = kept | {one.group.name: one.at for one in due}
        return changes

    def statuses(self) -> dict[str, tuple[Status, datetime]]:
        """The status of each group as last found, and since when it has it."""
        with self._database.reading() as connection:
            return {name: (status, since) for name, (_, status, since) in _last_changes(connection).items()}

    def history(self, since: datetime) -> dict[str, StatusHistory]:
        """By group the statuses that it had from an instant on, the oldest first; the first one may have begun before."""
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
        return found

    def attainment(self, now: datetime, spans: Sequence[timedelta]) -> dict[str, tuple[float | None, ...]]:
        """By group the share of each span before `now` in which it was not in breach; None where nothing is known of it.

        What lies before the first look of a group is left out of the share.
        """
        history = self.history(now - max(spans))
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

    def recorded_at(self) -> datetime | None:
        """When lags were last kept, of any group: long ago means that nobody keeps freshness. None: never."""
        with self._database.reading() as connection:
            newest: datetime | None = connection.execute(select(func.max(LAGS.c.at))).scalar_one()
        return newest

    def changes(self, after: int = 0, limit: int = 1000) -> list[StatusChange]:
        """Changes of status after a number, the oldest first."""
        earlier = func.lag(FRESHNESS.c.status).over(partition_by=FRESHNESS.c.group_name, order_by=FRESHNESS.c.number)
        told = select(FRESHNESS, earlier.label("before")).subquery()
        with self._database.reading() as connection:
            rows = connection.execute(select(told).where(told.c.number > after).order_by(told.c.number).limit(limit))
            return [
                StatusChange(row.number, row.group_name, row.since, row.status, row.before, causes_of(row.causes))
                for row in rows
            ]


def attained(history: StatusHistory, now: datetime, spans: Sequence[timedelta]) -> tuple[float | None, ...]:
    """The share of each span before `now` without a breach, of what is known of it and was not NEVER; None where nothing is."""
    return tuple(_share(history, now - span, now) for span in spans)


def stays(history: StatusHistory, now: datetime) -> list[tuple[datetime, datetime, Status]]:
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
    newest = select(func.max(FRESHNESS.c.number)).group_by(FRESHNESS.c.group_name)
    rows = connection.execute(
        select(FRESHNESS.c.group_name, FRESHNESS.c.number, FRESHNESS.c.status, FRESHNESS.c.since).where(
            FRESHNESS.c.number.in_(newest)
        )
    )
    return {name: (number, status, since) for name, number, status, since in rows}


def _last_lags(connection: Connection) -> dict[str, datetime]:
    newest = select(LAGS.c.group_name, func.max(LAGS.c.at)).group_by(LAGS.c.group_name)
    return dict(connection.execute(newest).all())


def _change(connection: Connection, found: GroupFreshness, last: Last | None) -> StatusChange | None:
    if last is not None and (last[1] == found.status or last[2] >= found.at):
        return None
    name, causes = found.group.name, [cause_document(cause) for cause in found.causes]
    values = {"group_name": name, "since": found.at, "status": found.status, "causes": causes}
    number = connection.execute(insert(FRESHNESS).values(**values)).inserted_primary_key
    before = None if last is None else last[1]
    return StatusChange(number[0] if number else 0, name, found.at, found.status, before, found.causes)


def _is_due(found: GroupFreshness, last: datetime | None) -> bool:
    slo = found.group.freshness
    distance = USUAL_DISTANCE if slo is None else max(LEAST_DISTANCE, min(USUAL_DISTANCE, slo / SAMPLES))
    return last is None or found.at - last >= distance


def _lag_row(found: GroupFreshness) -> dict[str, object]:
    lags = {
        "materialization_seconds": found.materialization_lag,
        "data_seconds": found.data_lag,
        "online_seconds": found.online_lag,
    }
    seconds = {name: None if lag is None else lag.total_seconds() for name, lag in lags.items()}
    return {"group_name": found.group.name, "at": found.at, "status": found.status, **seconds}


def _share(changes: StatusHistory, first: datetime, now: datetime) -> float | None:
    """The share of [first, now) without a breach, of what is known of it."""
    known = good = timedelta(0)
    for since, end, status in stays(changes, now):
        length = min(end, now) - max(since, first)
        if length > timedelta(0) and status != "NEVER":
            known += length
            good += timedelta(0) if status == "BREACH" else length
    return good / known if known else None
