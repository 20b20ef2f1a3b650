"""A Delta table on its disk or bucket: opening it, making it, and the writes that it takes.

An overwrite or append commits on exactly the version it was given, or not at all (`max_commit_retries=0`): delta-rs would else move
it past commits that it has not seen, and fence, `created_at` and the check for newer runs would rest on the wrong version.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.location import Location
from featurestore.offline.durability import sync_commit
from featurestore.offline.log import OWN_KEY, LogEntry, OwnCommit, cut_short, read_entry
from featurestore.offline.spans import delta_predicate

PARTITIONS = ("year", "month")
# Expired log entries stay: fences, changes between versions and time travel read them.
CONFIGURATION = {"delta.checkpointInterval": "20", "delta.enableExpiredLogCleanup": "false"}
READER_VERSION = 1
UNUSABLE = re.compile(r"[\[\]\\^|\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class Storage:
    """Where one table is. It holds no open table: each use opens the version it needs."""

    location: Location

    def __post_init__(self) -> None:
        if self.location.is_local and (found := UNUSABLE.search(self.location.uri)):
            raise InvalidInput(
                f"Folder {self.location.uri!r} has {found.group()!r} in its name, with which delta-rs fails. Choose another folder for the store."
            )

    @property
    def uri(self) -> str:
        return str(self.location.path) if self.location.is_local else self.location.uri

    @property
    def options(self) -> dict[str, str] | None:
        return dict(self.location.options) or None

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The table at a version (default: the newest); None if there is no table.

        Raises:
            InvalidInput: there is no such version, or another engine changed the table to a form not read here.
            StoreUnavailable: the store cannot be reached, or the newest log entry is cut short.
        """
        try:
            table = DeltaTable(self.uri, version=version, storage_options=self.options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise self._unreadable(version, error) from error
        if table.protocol().min_reader_version > READER_VERSION:
            raise InvalidInput(
                f"Table {self.uri} has reader version {table.protocol().min_reader_version}; this store reads "
                f"{READER_VERSION}. Another engine upgraded it (deletion vectors, column mapping): restore it from before."
            )
        if self.location.is_local:
            read_entry(self.location, table.version())
        return table

    def create(self, schema: dict[str, pl.DataType], partitions: Sequence[str] = PARTITIONS) -> None:
        """Make an empty table, partitioned by Int32 columns beside the schema; if another writer was first, that one stands."""
        columns = {**schema, **dict.fromkeys(partitions, pl.Int32())}
        fields = pl.DataFrame(schema=columns).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        try:
            DeltaTable.create(
                self.uri,
                fields,
                mode="error",
                partition_by=list(partitions),
                configuration=CONFIGURATION,
                storage_options=self.options,
            )
        except (DeltaError, OSError) as error:
            if self.open() is None:
                raise StoreUnavailable(f"Cannot make table {self.uri}: {_first_line(error)}.") from error
        self.sync(0)

    def overwrite(self, table: DeltaTable, rows: pl.DataFrame, spans: list[TimeWindow], own: OwnCommit) -> int:
        """Replace the rows of the spans in one commit on top of the version that `table` is open at.

        Args:
            rows: Every column of the table (new ones are added to it), with year and month, in the order to store.

        Returns:
            The version of the commit, which is durable.

        Raises:
            CommitFailedError: another commit came between.
        """
        version = table.version() + 1
        write_deltalake(
            table,
            rows,
            mode="overwrite",
            predicate=delta_predicate(spans),
            schema_mode="merge",
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=self._commit_properties(own, version),
        )
        self.sync(version)
        return version

    def append(self, table: DeltaTable, rows: pl.DataFrame, own: OwnCommit) -> int:
        """Add rows in one commit on top of the version that `table` is open at; no file there is opened.

        Args:
            rows: As for `overwrite`.

        Returns:
            The version of the commit, which is durable.

        Raises:
            CommitFailedError: another commit came between.
        """
        version = table.version() + 1
        write_deltalake(
            table,
            rows,
            mode="append",
            schema_mode="merge",
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=self._commit_properties(own, version),
        )
        self.sync(version)
        return version

    def _commit_properties(self, own: OwnCommit, version: int) -> CommitProperties:
        return CommitProperties(
            custom_metadata={OWN_KEY: own.to_json()},
            max_commit_retries=0,
            app_transactions=[Transaction(own.transaction, version)],
        )

    def compact(self, table: DeltaTable, year: int, month: int, own: OwnCommit) -> int | None:
        """Put the rows of a month into few files; None if they are.

        delta-rs moves this commit past others that leave its files alone, and writes no transaction into it.

        Raises:
            CommitFailedError: a file of the month was replaced meanwhile.
        """
        result = table.optimize.compact(
            partition_filters=[("year", "=", str(year)), ("month", "=", str(month))],
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=CommitProperties(custom_metadata={OWN_KEY: own.to_json()}),
        )
        if not result["numFilesRemoved"]:
            return None
        self.sync(table.version())
        return table.version()

    def sync(self, version: int) -> LogEntry | None:
        """Make a commit durable, and return its log entry."""
        entry = read_entry(self.location, version)
        if entry is not None:
            sync_commit(self.location, entry)
        return entry

    def _unreadable(self, version: int | None, error: Exception) -> InvalidInput | StoreUnavailable:
        if version is not None:
            newest = self.open()
            there = "no table" if newest is None else f"versions up to {newest.version()}"
            return InvalidInput(
                f"Version {version} of {self.uri} cannot be read; there is {there}. Ask for one that is kept."
            )
        if self.location.is_local:
            self._refuse_cut_entries()
        return StoreUnavailable(
            f"Cannot open table {self.uri}: {_first_line(error)}. Check that its store is up and whole."
        )

    def _refuse_cut_entries(self) -> None:
        names = sorted(path.name for path in (self.location.path / "_delta_log").glob("*.json"))
        for name in names[-1:]:
            version = int(name.removesuffix(".json"))
            if read_entry(self.location, version) is None:
                raise cut_short(self.location, version)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
