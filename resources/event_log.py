"""Dagster's event log for one machine: the consolidated SQLite log, on connections that are kept.

The stock SQLite logs open an engine, and with it a file, several times for each event; a ranged run writes three events
a partition, so a month of an hourly group spends most of its time there. This class changes how connections are made
and nothing else: tables, queries and migrations are Dagster's own. In production the log is PostgreSQL.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as db
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy.engine import Connection, Engine
from watchdog.events import FileSystemEvent, PatternMatchingEventHandler
from watchdog.observers import Observer


class PooledSqliteEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """One pooled engine a process; after a fork the child makes its own.

    Commits are `synchronous=NORMAL` under write-ahead logging: a crash of a process loses nothing, a power cut may lose
    the last events but never the file. What they speak of is in Delta, and a re-run reports it again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._engines: dict[int, Engine] = {}
        self._tables: set[str] = set()
        super().__init__(*args, **kwargs)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine().begin() as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def watch(self, run_id: str, cursor: str | None, callback: Callable[[EventLogEntry, str], None]) -> None:
        """Have new events of a run handed on as they are written; the run's page lives on this."""
        if not self._obs:
            observer = Observer()
            observer.start()
            observer.schedule(_WriteAheadWatch(self), self._base_dir)
            self._obs: Any = observer
        super().watch(run_id, cursor, callback)  # type: ignore[no-untyped-call]

    def dispose(self) -> None:
        """Close this process's connections; those that it was forked with stay its parent's to close."""
        for pid, engine in self._engines.items():
            engine.dispose(close=pid == os.getpid())
        self._engines.clear()
        super().dispose()  # type: ignore[no-untyped-call]

    def _engine(self) -> Engine:
        pid = os.getpid()
        if pid not in self._engines:
            engine = db.create_engine(
                self._conn_string, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
            )
            db.event.listen(engine, "connect", _relax_sync)
            self._engines[pid] = engine
        return self._engines[pid]


class _WriteAheadWatch(PatternMatchingEventHandler):
    """Wakes a log's watchers when its write-ahead file grows.

    The stock handler looks at the database file, which between checkpoints stays as it is while connections are kept.
    """

    def __init__(self, log: PooledSqliteEventLogStorage) -> None:
        super().__init__(patterns=[f"{log.get_db_path()}-wal"])  # type: ignore[no-untyped-call]
        self._log = log

    def on_modified(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - the watchers read what is new
        self._log.on_modified()  # type: ignore[no-untyped-call]


def _relax_sync(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
