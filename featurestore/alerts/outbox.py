"""The outbox: notices that sinks are still to have, and how each sink stands, in the metadata database. Not here: sending.

A sink is delivered to by one worker at a time, which holds its lease; a lease that is not extended ends by itself. Notices of one kind
and group go to a sink in the order in which they were made: what cannot be delivered holds up its own successors and nothing else.

An instant further ahead than anything is ever put off was kept by a clock that was ahead: it counts as past, so that one such tick
silences nobody once the clock is right again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, insert, select, update

from featurestore.alerts.notice import Notice, notice_from
from featurestore.metadata.database import Database
from featurestore.metadata.tables import EPISODES, OUTBOX, SINKS

LEASE = timedelta(seconds=60)
LONGEST_WAIT = timedelta(minutes=5)
FIRST_WAIT = timedelta(seconds=10)
REFUSED_WAIT = timedelta(minutes=15)
"""After a sink has refused a notice for good: somebody has to mend it or the sink."""
LOADED = 500
"""Notices that are read at once: those after them have their turn when these are delivered."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice that a sink is still to have.

    Args:
        number: Of its row.
        attempts: How often it was refused.
        due_at: When it is tried again.
        error: Why it was refused last; "" if it was not.
    """

    number: int
    sink: str
    notice: Notice
    attempts: int
    due_at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class SinkStanding:
    """How a sink stands: failures in a row, when it is tried again, and why it could not be reached."""

    sink: str
    failures: int = 0
    due_at: datetime | None = None
    error: str = ""


class Outbox:
    """What is to be delivered. Several processes and threads may use it at once; each worker has a name of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lease(self, sink: str, worker: str, now: datetime) -> bool:
        """Take a sink, if nobody has it; the worker that has it extends its lease."""
        with self._database.writing() as connection:
            row = connection.execute(select(SINKS).where(SINKS.c.sink == sink)).one_or_none()
            until = now + LEASE
            if row is None:
                values = {"sink": sink, "leased_by": worker, "leased_until": until, "failures": 0, "error": ""}
                connection.execute(insert(SINKS).values(**values))
                return True
            if row.leased_by != worker and _is_ahead(row.leased_until, now, LEASE):
                return False
            _set_sink(connection, sink, leased_by=worker, leased_until=until)
            return True

    def release(self, sink: str, worker: str) -> None:
        """Leave a sink to others."""
        with self._database.writing() as connection:
            mine = update(SINKS).where(SINKS.c.sink == sink, SINKS.c.leased_by == worker)
            connection.execute(mine.values(leased_until=None))

    def has_work(self, sink: str, now: datetime, repeat_every: timedelta | None) -> bool:
        """Whether a sink is due, and has notices to get or open episodes to be told of again."""
        with self._database.reading() as connection:
            row = connection.execute(select(SINKS).where(SINKS.c.sink == sink)).one_or_none()
            if row is not None and _is_ahead(row.due_at, now, LONGEST_WAIT):
                return False
            due = (OUTBOX.c.attempts == 0) | (OUTBOX.c.due_at <= now) | (OUTBOX.c.due_at > now + REFUSED_WAIT)
            waiting = select(OUTBOX.c.number).where(OUTBOX.c.sink == sink, OUTBOX.c.delivered_at.is_(None), due)
            if connection.execute(waiting.limit(1)).one_or_none() is not None:
                return True
            return repeat_every is not None and _is_repeat_due(row.repeated_at if row else None, now, repeat_every)

    def due(self, sink: str, now: datetime) -> list[Waiting]:
        """The notices that a sink can have now, in their order; of a kind and group nothing after one that waits."""
        columns = (OUTBOX.c.number, OUTBOX.c.kind, OUTBOX.c.group_name, OUTBOX.c.attempts, OUTBOX.c.due_at)
        chosen = select(*columns).where(OUTBOX.c.sink == sink, OUTBOX.c.delivered_at.is_(None))
        held: set[tuple[str, str]] = set()
        numbers: list[int] = []
        with self._database.reading() as connection:
            for number, kind, group, attempts, due_at in connection.execute(chosen.order_by(OUTBOX.c.number)):
                if attempts and _is_ahead(due_at, now, REFUSED_WAIT):
                    held.add((kind, group))
                elif (kind, group) not in held:
                    numbers.append(number)
            return _waiting(connection, OUTBOX.c.number.in_(numbers[:LOADED]))

    def backlog(self) -> list[Waiting]:
        """Every notice that some sink is still to have, the oldest first."""
        with self._database.reading() as connection:
            return _waiting(connection, OUTBOX.c.delivered_at.is_(None))

    def standings(self) -> dict[str, SinkStanding]:
        with self._database.reading() as connection:
            rows = connection.execute(select(SINKS).order_by(SINKS.c.sink)).all()
            return {row.sink: SinkStanding(row.sink, row.failures, row.due_at, row.error) for row in rows}

    def delivered(self, sink: str, numbers: Sequence[int], now: datetime, remark: str = "") -> None:
        """Keep that a sink has some notices, so it can be reached."""
        with self._database.writing() as connection:
            rows = update(OUTBOX).where(OUTBOX.c.number.in_(numbers))
            connection.execute(rows.values(delivered_at=now, error=remark, attempts=OUTBOX.c.attempts + 1))
            _set_sink(connection, sink, failures=0, due_at=None, error="")

    def refused(self, numbers: Sequence[int], now: datetime, why: str) -> None:
        """Keep that a sink does not take some notices as they are; they stay, and are tried again after a long while."""
        with self._database.writing() as connection:
            rows = update(OUTBOX).where(OUTBOX.c.number.in_(numbers))
            connection.execute(rows.values(due_at=now + REFUSED_WAIT, error=why, attempts=OUTBOX.c.attempts + 1))

    def unreachable(self, sink: str, now: datetime, why: str) -> None:
        """Keep that a sink could not be reached: it is tried again after a wait that doubles."""
        with self._database.writing() as connection:
            failures = connection.execute(select(SINKS.c.failures).where(SINKS.c.sink == sink)).scalar_one() + 1
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 10))
            _set_sink(connection, sink, failures=failures, due_at=now + wait, error=why)

    def to_repeat(self, sink: str, now: datetime, every: timedelta) -> list[Notice] | None:
        """The last delivered notices of the open episodes that a sink was told of; None: it is not time to repeat them."""
        with self._database.reading() as connection:
            repeated_at = connection.execute(select(SINKS.c.repeated_at).where(SINKS.c.sink == sink)).scalar()
            if not _is_repeat_due(repeated_at, now, every):
                return None
            rows = connection.execute(
                select(OUTBOX.c.notice, OUTBOX.c.delivered_at)
                .join(EPISODES, (EPISODES.c.kind == OUTBOX.c.kind) & (EPISODES.c.group_name == OUTBOX.c.group_name))
                .where(OUTBOX.c.sink == sink, EPISODES.c.ended_at.is_(None))
                .where(OUTBOX.c.notice_id.startswith(EPISODES.c.episode_id))
                .order_by(OUTBOX.c.number)
            )
            last: dict[str, Notice] = {}
            for document, delivered_at in rows:
                notice = notice_from(document)
                if delivered_at is not None and not notice.is_over:
                    last[notice.episode_id] = notice
            return list(last.values())

    def repeated(self, sink: str, now: datetime) -> None:
        """Keep that a sink was told again of what is open, so it can be reached."""
        with self._database.writing() as connection:
            _set_sink(connection, sink, repeated_at=now, failures=0, due_at=None, error="")


def _waiting(connection: Connection, chosen: ColumnElement[bool]) -> list[Waiting]:
    rows = connection.execute(select(OUTBOX).where(chosen).order_by(OUTBOX.c.number).limit(LOADED))
    return [Waiting(row.number, row.sink, notice_from(row.notice), row.attempts, row.due_at, row.error) for row in rows]


def _set_sink(connection: Connection, sink: str, **values: object) -> None:
    connection.execute(update(SINKS).where(SINKS.c.sink == sink).values(**values))


def _is_ahead(instant: datetime | None, now: datetime, longest: timedelta) -> bool:
    """Whether something is put off still; nothing is for longer than `longest`."""
    return instant is not None and now < instant <= now + longest


def _is_repeat_due(repeated_at: datetime | None, now: datetime, every: timedelta) -> bool:
    return repeated_at is None or not repeated_at <= now < repeated_at + every
