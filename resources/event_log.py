"""Dagster's event log for one machine: the consolidated SQLite log, on connections that are kept.

The stock SQLite logs open an engine, and with it a file, several times for each event; a ranged run writes three events
a partition, so a month of an hourly group spends most of its time there. This class changes how connections are made
and nothing else: tables, queries and migrations are Dagster's own. In production the log is PostgreSQL.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as db
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy.engine import Connection, Engine


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

    def dispose(self) -> None:
        for engine in self._engines.values():
            engine.dispose()
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


def _relax_sync(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
