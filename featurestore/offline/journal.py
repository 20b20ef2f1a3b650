"""An append-only Delta table of small records, read in the order in which they were written.

What is recorded is the caller's: the ledger of a group's windows, the receipts of a source's landing files. Whoever has read
a journal reads on from there: a look for the next log entry costs far less than opening the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import polars as pl
from deltalake import write_deltalake

from featurestore.location import Location
from featurestore.offline.durability import sync_since
from featurestore.offline.log import LogEntry, read_entry
from featurestore.offline.storage import CONFIGURATION, Storage
from featurestore.offline.view import scan_files

SEQUENCE = "sequence"
UNREAD = -1
"""The version of a reader that has read nothing."""


@dataclass(frozen=True)
class Journal:
    """Records of one schema at one location.

    The column `sequence` orders them: clocks of two machines, or one that a test sets, may stand or step back.

    Args:
        schema: Columns of a record; `recorded_at` among them orders the records of one commit.
        defaults: What records say that were written before a column was there.
    """

    location: Location
    schema: Mapping[str, pl.DataType]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _storage(self) -> Storage:
        return Storage(self.location)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records in one commit, which is durable afterwards; nothing for none."""
        if not records:
            return
        before = self.version()
        rows = pl.DataFrame(list(records), schema=dict(self.schema))
        write_deltalake(
            self._storage.uri,
            rows.with_columns(pl.lit(UNREAD if before is None else before, dtype=pl.Int64).alias(SEQUENCE) + 1),
            mode="append",
            schema_mode="merge",
            storage_options=self._storage.options,
            configuration=CONFIGURATION,
        )
        sync_since(self.location, before, self.version() or 0)

    def version(self) -> int | None:
        """The Delta version; None before the first record."""
        table = self._storage.open()
        return None if table is None else table.version()

    def records(self) -> pl.DataFrame:
        """Every record, in the order in which they were written."""
        table = self._storage.open()
        if table is None:
            return pl.DataFrame(schema=self.schema)
        return self._read(pl.DataFrame(table.get_add_actions(flatten=True))["path"].to_list())

    def records_since(self, version: int | None) -> pl.DataFrame:
        """The records of every commit after a version; all of them after None."""
        return self.read_on(UNREAD if version is None else version)[0]

    def read_on(self, version: int) -> tuple[pl.DataFrame, int]:
        """The records of every commit after a version (`UNREAD` for all), and the version that was reached.

        With nothing new one log entry is asked for, and no table is opened.
        """
        if version == UNREAD:
            newest = self.version()
            return (pl.DataFrame(schema=self.schema), UNREAD) if newest is None else (self.records(), newest)
        commits = self._commits_after(version)
        if not commits:
            return pl.DataFrame(schema=self.schema), version
        rows = self._read([name for commit in commits for name in commit.added])
        return rows, version + len(commits)

    def is_at(self, version: int) -> bool:
        """Whether nothing was written after a version."""
        return read_entry(self.location, version + 1) is None

    def _commits_after(self, version: int) -> list[LogEntry]:
        found: list[LogEntry] = []
        for number in count(version + 1):
            if (entry := read_entry(self.location, number)) is None:
                return found
            found.append(entry)
        return found

    def _read(self, names: Sequence[str]) -> pl.DataFrame:
        rows = scan_files(self._storage, names, {**self.schema, SEQUENCE: pl.Int64()})
        filled = [pl.col(name).fill_null(value) for name, value in self.defaults.items()]
        ordered = rows.sort(SEQUENCE, "recorded_at", maintain_order=True).select(list(self.schema))
        return ordered.with_columns(filled).collect()
