"""The metadata database behind a URL: a SQLite file on a laptop, PostgreSQL in production. Not here: what is kept in it.

One writer at a time in both: SQLite's own lock, an advisory lock in PostgreSQL. So what a transaction reads before it
writes is still true, and the numbers of appended rows are in the order of their commits. Each transaction has a
connection of its own: nothing is held across a fork, and a restarted server is simply asked again.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.pool import NullPool

from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.metadata.tables import BACKFILLS, METADATA, SCHEMA, Part

LOCK_SECONDS = 15
LOCK_STEP_SECONDS = 0.02
CONNECT_SECONDS = 5
WRITERS = 7_305_148_222
"""Key of the advisory lock in PostgreSQL."""
FROZEN_WRITER = "60s"
"""PostgreSQL ends a writer that says nothing for so long in the middle of a transaction, as a frozen process does."""
FORMS = "sqlite:////folder/metadata.db or postgresql://user:password@host:5432/database"
HINT = f"Write {FORMS}, with reserved characters of the password percent-encoded."
FILE_REMEDY = "Check that its folder may be written, and is on a disk of this machine; then try again."
SERVER_REMEDY = "Start it, or check FEATURESTORE_METADATA_URL and what its user may do; then try again."


class Database:
    """Transactions on one metadata database. Its URL, which may hold a password, is never shown.

    Args:
        url: `sqlite:///path` or `postgresql://...`, as SQLAlchemy reads them.
        lock_seconds: How long a writer waits for another one to end.
        is_durable: Whether what was written outlives a loss of power; without it a write waits for no disk.

    Raises:
        InvalidInput: the URL is neither.
        ModuleNotFoundError: the driver of PostgreSQL is not installed (extra `postgres`).
    """

    def __init__(self, url: str | URL, *, lock_seconds: float = LOCK_SECONDS, is_durable: bool = True) -> None:
        parsed = _parsed(url)
        self.address = _address(parsed)
        self._file = Path(str(parsed.database)) if parsed.drivername == "sqlite" else None
        self._lock_seconds = lock_seconds
        self._engine = _engine(parsed, lock_seconds, is_durable)

    def __repr__(self) -> str:
        return f"Database({self.address!r})"

    def prepare(self, part: Part = BACKFILLS) -> None:
        """Make the tables of a part where there are none; of several processes at once one does.

        A database that an earlier version of this library made has no later part yet: it gets those tables beside its own.

        Raises:
            InvalidInput: the tables are those of another version of this library.
            StoreUnavailable: the database cannot be reached or read.
        """
        if self._file is not None:
            self._prepare_file(self._file)
        with self.reading() as connection:
            found = _schema_version(connection, part)
        if found is None:
            found = self._make_tables(part)
        if found != part.version:
            raise InvalidInput(
                f"The metadata database {self.address} has tables of version {found}; this library knows version "
                f"{part.version}. Use the featurestore that made them, or name another database."
            )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            StoreUnavailable: the database cannot be reached or read.
        """
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that no other writer interleaves with: all of it is kept when it ends, or none.

        Raises:
            StoreUnavailable: the database cannot be reached or written, or another writer does not end.
        """
        with self._errors(), self._engine.execution_options(is_writer=True).begin() as connection:
            yield connection

    def _make_tables(self, part: Part) -> int:
        with self.writing() as connection:
            found = _schema_version(connection, part)
            if found is None:
                METADATA.create_all(connection, tables=[SCHEMA, *part.tables])
                connection.execute(insert(SCHEMA).values(part=part.name, version=part.version))
            return part.version if found is None else found

    def _prepare_file(self, file: Path) -> None:
        """Readers beside a writer need WAL. Its switch takes the file whole, and does not wait by itself."""
        deadline = time.monotonic() + self._lock_seconds
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            while not _is_wal(file, self._lock_seconds):
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("it cannot be switched to WAL, which its disk may not allow")
                time.sleep(LOCK_STEP_SECONDS)
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._unavailable(error) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._unavailable(error.orig) from error
        except StatementError as error:
            if isinstance(error.orig, InvalidInput):  # a value that its column refused
                raise error.orig from None
            raise

    def _unavailable(self, cause: BaseException | None) -> StoreUnavailable:
        reason = str(cause).strip().partition("\n")[0].rstrip(".")
        remedy = SERVER_REMEDY if self._file is None else FILE_REMEDY
        return StoreUnavailable(f"The metadata database {self.address} cannot be used: {reason}. {remedy}")


class Book:
    """What is kept in one part of a metadata database. Several processes and threads may use it at once.

    Args:
        database: Where it is; `open` makes the tables too.
        clock: Tells when things were written, and what is too old to be kept.
    """

    part: ClassVar[Part]
    is_durable: ClassVar[bool] = True
    """Whether what was written outlives a loss of power."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open(cls, url: str | URL, clock: Clock = system_clock) -> Self:
        """The book at a URL, with its tables made if there are none.

        Args:
            url: `sqlite:///path` or `postgresql://user:password@host:port/database`.
            clock: As above.

        Raises:
            InvalidInput: the URL is neither, or the tables are of another version of this library.
            StoreUnavailable: the database cannot be reached.
        """
        database = Database(url, is_durable=cls.is_durable)
        database.prepare(cls.part)
        return cls(database, clock)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.address!r})"


def _is_wal(file: Path, lock_seconds: float) -> bool:
    """Switch a file to WAL; False if it is not, for another process may have it just now."""
    with closing(sqlite3.connect(file, timeout=lock_seconds)) as connection:
        try:
            return bool(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise


def _parsed(url: str | URL) -> URL:
    """Errors of a parser may quote a password: none is passed on."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput(f"The URL of the metadata database cannot be read. {HINT}") from None
    kind, _, driver = parsed.drivername.partition("+")
    if kind in ("postgresql", "postgres") and driver in ("", "psycopg"):
        return _checked_server(parsed.set(drivername="postgresql+psycopg"), url)
    if parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(database=str(Path(str(parsed.database)).absolute()))
    raise InvalidInput(f"A metadata database of kind {parsed.drivername!r} cannot be used. {HINT}")


def _checked_server(url: URL, given: str | URL) -> URL:
    """A password with '@' or '/' in it ends up in what would be shown; with '?' too, in parameters, its beginning as the host."""
    if "@" in f"{url.host}{url.database}" or (isinstance(given, str) and given.count("@") > 1):
        raise InvalidInput(f"The URL of the metadata database can be read in two ways. {HINT}")
    return url


def _address(url: URL) -> str:
    if url.drivername == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host", "localhost")
    return f"{host}:{url.port or 5432}/{url.database}"


def _engine(url: URL, lock_seconds: float, is_durable: bool) -> Engine:
    is_file = url.drivername == "sqlite"
    arguments: dict[str, Any] = {"timeout": lock_seconds} if is_file else {}
    if not is_file and "connect_timeout" not in url.query:
        arguments["connect_timeout"] = CONNECT_SECONDS
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    if is_file:
        event.listen(engine, "connect", partial(_set_up_sqlite, "FULL" if is_durable else "NORMAL"))
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", partial(_begin_postgres, f"{lock_seconds:.3f}s", is_durable))
    return engine


def _set_up_sqlite(synchronous: str, connection: Any, _: Any) -> None:
    """Transactions are begun by us alone; with FULL, what was committed outlives a loss of power."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes then would be refused instead of waiting for its turn."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _is_writer(connection) else "BEGIN")


def _begin_postgres(lock_timeout: str, is_durable: bool, connection: Connection) -> None:
    if _is_writer(connection):
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_WRITER}'")
        if not is_durable:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{lock_timeout}'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")


def _is_writer(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("is_writer"))


def _schema_version(connection: Connection, part: Part) -> int | None:
    if not inspect(connection).has_table(SCHEMA.name):
        return None
    return connection.execute(select(SCHEMA.c.version).where(SCHEMA.c.part == part.name)).scalar()
