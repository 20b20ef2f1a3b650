"""One version of a group's table as rows of the group's present schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import polars as pl
from deltalake import DeltaTable

from featurestore.declaration.windows import TimeWindow, utc
from featurestore.errors import SchemaMismatch
from featurestore.offline.spans import started_in
from featurestore.offline.storage import PARTITIONS, Storage
from featurestore.registry.snapshot import RegisteredGroup

# Delta keeps the statistics of timestamps in milliseconds.
ROUNDING = timedelta(milliseconds=1)


@dataclass(frozen=True)
class TableView:
    """The rows of a group at one version of its table, or of no table at all.

    Rows from before a feature was added have null in it; columns of features no longer declared are left out.

    Raises:
        SchemaMismatch: a stored column has another dtype than the group now declares.
    """

    storage: Storage
    group: RegisteredGroup
    table: DeltaTable | None

    def __post_init__(self) -> None:
        for name, stored in self._stored_columns.items():
            declared = self.group.stored_schema.get(name, stored)
            if stored != declared:
                raise SchemaMismatch(
                    f"Column {name!r} of group {self.group.name!r} is declared {declared!r} and stored as {stored!r}. "
                    "A feature keeps its dtype: give the new one another name, or the group a new version."
                )

    @property
    def version(self) -> int | None:
        return None if self.table is None else self.table.version()

    @cached_property
    def _stored_columns(self) -> dict[str, pl.DataType]:
        if self.table is None:
            return {}
        columns = pl.Schema(self.table.schema())
        return {name: dtype for name, dtype in columns.items() if name not in PARTITIONS}

    @cached_property
    def undeclared(self) -> dict[str, pl.DataType]:
        """Columns of features that the group no longer has: they stay in the table."""
        return {name: dtype for name, dtype in self._stored_columns.items() if name not in self.group.stored_schema}

    def scan(
        self,
        *,
        spans: Sequence[TimeWindow] | None = None,
        known_by: datetime | None = None,
        event_since: datetime | None = None,
        known_after: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Rows, lazily: files that cannot hold an asked-for row are left out by their statistics, without opening them.

        Args:
            spans: Only windows that start in one of them.
            known_by: Only rows with `knowledge_time` up to this.
            event_since: Only rows with `event_time` from this on.
            known_after: Only rows with `knowledge_time` after this.
            columns: The columns to give; default those of the stored schema. Undeclared ones may be named.
        """
        filters = [] if spans is None else [started_in(spans)]
        filters += [] if known_by is None else [pl.col("knowledge_time") <= utc(known_by, name="known_by")]
        filters += [] if event_since is None else [pl.col("event_time") >= utc(event_since, name="event_since")]
        filters += [] if known_after is None else [pl.col("knowledge_time") > utc(known_after, name="known_after")]
        everything = {**self.group.stored_schema, **self.undeclared}
        wanted = list(columns if columns is not None else self.group.stored_schema)
        rows = scan_files(self.storage, self._files(spans, known_by, event_since, known_after), everything)
        return rows.filter(*filters).select(wanted) if filters else rows.select(wanted)

    def _files(
        self,
        spans: Sequence[TimeWindow] | None,
        known_by: datetime | None,
        event_since: datetime | None,
        known_after: datetime | None,
    ) -> list[str]:
        if self.table is None:
            return []
        files = pl.DataFrame(self.table.get_add_actions(flatten=True))
        if spans is not None:
            files = _at_least(files, "window_start", min((span.start for span in spans), default=None))
            files = _at_most(files, "window_start", max((span.end for span in spans), default=None))
        files = _at_least(_at_least(files, "event_time", event_since), "knowledge_time", known_after)
        files = _at_most(files, "knowledge_time", known_by)
        return sorted(files["path"].to_list()) if files.height else []


def newest_value(table: DeltaTable | None, column: str) -> datetime | None:
    """The highest instant in a column by the statistics of its files, rounded down to milliseconds; None if none says."""
    files = pl.DataFrame() if table is None else pl.DataFrame(table.get_add_actions(flatten=True))
    found = files[f"max.{column}"].max() if f"max.{column}" in files.columns else None
    return utc(found) if isinstance(found, datetime) else None


def _at_least(files: pl.DataFrame, column: str, instant: datetime | None) -> pl.DataFrame:
    """Files that may hold a value from `instant` on; one without statistics may."""
    name = f"max.{column}"
    if instant is None or name not in files.columns:
        return files
    return files.filter(pl.col(name).is_null() | (pl.col(name) >= instant - ROUNDING))


def _at_most(files: pl.DataFrame, column: str, instant: datetime | None) -> pl.DataFrame:
    name = f"min.{column}"
    if instant is None or name not in files.columns:
        return files
    return files.filter(pl.col(name).is_null() | (pl.col(name) <= instant + ROUNDING))


def scan_files(storage: Storage, names: Sequence[str], schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    """The rows of data files of a table, with columns of `schema` and null where a file lacks one.

    Polars' own `scan_delta` takes `feature_group=` in the table's path for a partition column and refuses the table.
    """
    if not names:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(
        [f"{storage.uri}/{name}" for name in names],
        schema=schema,
        glob=False,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
        storage_options=storage.options,
    )
