"""Heartbeats of runs in the metadata database, and the record of runs that stood still.

Silence is what looks have seen, never the difference of two machines' clocks: a beat sets a worker's silence to nothing, and a look
adds the time since the look before, of which only so much counts. So a clock that jumps, and an hour in which nobody looked, add one
step at most; and a look is a write, so that while no worker can write its beat no silence is counted either. Who works now is nothing
to outlive a loss of power, so nobody waits for the disk. Not here: who looks.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from featurestore.heartbeat.process import Process
from featurestore.heartbeat.stuck import StuckRun
from featurestore.heartbeat.worker import Worker
from featurestore.metadata.database import Book
from featurestore.metadata.tables import HEARTBEATS, HEARTBEATS_KEPT, STUCK

KEPT = timedelta(days=90)
"""How long the record of a run is kept after it is over."""
NOTHING = timedelta(0)


class HeartbeatBook(Book):
    """Who works on which run, and which runs were ended. Its clock is the real one: beats are of processes, not of the store's windows."""

    part = HEARTBEATS_KEPT
    is_durable = False

    def beat(self, run_id: str, process: Process, doing: str, idle_seconds: float) -> None:
        """A sign of life.

        Args:
            doing: Where the work is in the code.
            idle_seconds: Since when the work has not moved, by the process's own steady clock.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        now = self._clock()
        said = {"beat_at": now, "doing": doing, "idle_seconds": idle_seconds, "silent_seconds": 0.0, "looked_at": None}
        with self._database.writing() as connection:
            beats = update(HEARTBEATS).where(_is(run_id, process)).values(**said, beats=HEARTBEATS.c.beats + 1)
            if connection.execute(beats).rowcount == 0:
                connection.execute(insert(HEARTBEATS).values(**_key(run_id, process), **said, began_at=now, beats=1))

    def leave(self, run_id: str, process: Process) -> None:
        """A process works on a run no longer."""
        with self._database.writing() as connection:
            connection.execute(delete(HEARTBEATS).where(_is(run_id, process)))

    def look(self, at_most: timedelta) -> list[Worker]:
        """All who work, the oldest first, after the time since the look before was added to the silence of each.

        Args:
            at_most: So much counts of it.

        Raises:
            StoreUnavailable: the database cannot be read and written; then nothing was counted.
        """
        with self._database.reading() as connection:
            if connection.execute(select(HEARTBEATS.c.run_id).limit(1)).first() is None:
                return []
        now = self._clock()
        with self._database.writing() as connection:
            for row in connection.execute(select(HEARTBEATS)).all():
                since = NOTHING if row.looked_at is None else min(max(now - row.looked_at, NOTHING), at_most)
                silent = row.silent_seconds + since.total_seconds()
                place = _is(row.run_id, _process(row))
                connection.execute(update(HEARTBEATS).where(place).values(silent_seconds=silent, looked_at=now))
            return _workers(connection)

    def workers(self) -> list[Worker]:
        """All who work, the oldest first, as the last look left them."""
        with self._database.reading() as connection:
            return _workers(connection)

    def claim(self, worker: Worker, stuck: StuckRun) -> bool:
        """Record that a run is being ended; False if its worker gave another sign of life since it was looked at.

        A run that was recorded before and not ended, since whoever did it died, is claimed again.
        """
        with self._database.writing() as connection:
            beats = connection.execute(select(HEARTBEATS.c.beats).where(_is(worker.run_id, worker.process))).scalar()
            if beats is None or (stuck.why == "silent" and beats != worker.beats):
                return False
            if connection.execute(select(STUCK.c.run_id).where(STUCK.c.run_id == stuck.run_id)).first() is None:
                connection.execute(insert(STUCK).values(**_row(stuck)))
            return True

    def tell(self, run_id: str, *, done: str = "", then: str = "", retried_as: str | None = None) -> None:
        """Add to the record of a run what was done and what comes next, or the run that repeats it."""
        told = {"done": _lines(done, then)} if done else {}
        values = {**told, **({"retried_as": retried_as} if retried_as else {})}
        with self._database.writing() as connection:
            connection.execute(update(STUCK).where(STUCK.c.run_id == run_id).values(**values))

    def close(self, run_id: str, outcome: str) -> None:
        """Its work was done after all, or is nobody's any more; records that were closed long ago are forgotten."""
        now = self._clock()
        with self._database.writing() as connection:
            connection.execute(
                update(STUCK)
                .where(STUCK.c.run_id == run_id, STUCK.c.over_at.is_(None))
                .values(over_at=now, outcome=outcome)
            )
            connection.execute(delete(STUCK).where(STUCK.c.over_at < now - KEPT))

    def stuck(self, since: datetime | None = None) -> list[StuckRun]:
        """The runs that stood still and whose work is not done yet, the newest first.

        Args:
            since: Also those that were ended at or after this instant and are over.
        """
        is_wanted: ColumnElement[bool] = STUCK.c.over_at.is_(None)
        if since is not None:
            is_wanted = is_wanted | (STUCK.c.found_at >= since)
        chosen = select(STUCK).where(is_wanted).order_by(STUCK.c.found_at.desc(), STUCK.c.run_id)
        with self._database.reading() as connection:
            return [_stuck(row) for row in connection.execute(chosen)]


def _key(run_id: str, process: Process) -> dict[str, str | int]:
    return {
        "run_id": run_id,
        "host": process.host,
        "machine": process.machine,
        "pid": process.pid,
        "started": process.started,
    }


def _is(run_id: str, process: Process) -> ColumnElement[bool]:
    return and_(*(HEARTBEATS.c[name] == value for name, value in _key(run_id, process).items()))


def _process(row: Row[tuple[object, ...]]) -> Process:
    return Process(row.host, row.machine, row.pid, row.started)


def _workers(connection: Connection) -> list[Worker]:
    rows = connection.execute(select(HEARTBEATS).order_by(HEARTBEATS.c.began_at, HEARTBEATS.c.run_id))
    return [
        Worker(
            run_id=row.run_id,
            process=_process(row),
            began_at=row.began_at,
            beat_at=row.beat_at,
            beats=row.beats,
            doing=row.doing,
            idle_for=timedelta(seconds=row.idle_seconds),
            silent_for=timedelta(seconds=row.silent_seconds),
        )
        for row in rows
    ]


def _row(stuck: StuckRun) -> dict[str, object]:
    names = ("run_id", "why", "since", "host", "pid", "doing", "found_at", "retried_as", "over_at", "outcome")
    values = {name: getattr(stuck, name) for name in names}
    return {
        **values,
        "assets": list(stuck.assets),
        "silent_seconds": stuck.silent_for.total_seconds(),
        "done": _lines(stuck.done, stuck.then),
    }


def _lines(done: str, then: str) -> str:
    """What was done and what comes next, as one column keeps both."""
    return f"{done}\n{then}" if then else done


def _stuck(row: Row[tuple[object, ...]]) -> StuckRun:
    values = dict(row._mapping)
    silent_for = timedelta(seconds=values.pop("silent_seconds"))
    done, _, then = values.pop("done").partition("\n")
    return StuckRun(**{**values, "assets": tuple(values["assets"])}, silent_for=silent_for, done=done, then=then)
