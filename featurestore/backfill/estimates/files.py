"""The data files of a Delta table as numbers: bytes by column and rows by time, without reading a row.

Sizes, row counts and spans of time are the table's own statistics; how a file's bytes divide among its columns is read from
the Parquet footers of a few of its files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from featurestore.offline.storage import Storage
from featurestore.offline.view import ROUNDING

SAMPLED_FILES = 8
ROW_GROUP_ROWS = 1024 * 1024
"""delta-rs begins another row group after so many rows: a file with fewer has one, which is read whole or not at all."""
NEVER = datetime(1, 1, 2, tzinfo=UTC)
ALWAYS = datetime(9999, 12, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a file: compressed bytes by column, and the span of the time column, ends included."""

    bytes_by_column: dict[str, int]
    first: datetime
    last: datetime

    def bytes_of(self, columns: Sequence[str]) -> int:
        return sum(self.bytes_by_column.get(name, 0) for name in columns)


@dataclass(frozen=True)
class TableFiles:
    """The files of one version of a table.

    Args:
        storage: Where the files are.
        files: One row each: `path`, `size_bytes`, `rows`, and `first` and `last` of the time column.
        time: The column that reads bound: `knowledge_time`, or `window_start`.
    """

    storage: Storage
    files: pl.DataFrame
    time: str

    @classmethod
    def of(cls, storage: Storage, table: DeltaTable | None, time: str) -> "TableFiles":
        """The files of an open table; of no table, none."""
        added = pl.DataFrame() if table is None else pl.DataFrame(table.get_add_actions(flatten=True))
        if added.is_empty():
            schema = {"path": pl.String, "size_bytes": pl.Int64, "rows": pl.Int64}
            times = {"first": pl.Datetime("us", "UTC"), "last": pl.Datetime("us", "UTC")}
            return cls(storage, pl.DataFrame(schema={**schema, **times}), time)
        first, last = _span(added, time)
        chosen = added.select("path", "size_bytes", pl.col("num_records").fill_null(0).alias("rows"), first, last)
        return cls(storage, chosen.sort("path"), time)

    @property
    def count(self) -> int:
        return self.files.height

    @property
    def rows(self) -> int:
        return int(self.files["rows"].sum())

    @property
    def size_bytes(self) -> int:
        return int(self.files["size_bytes"].sum())

    def between(self, after: datetime | None, until: datetime) -> "TableFiles":
        """The files that may hold a row of `after <= time <= until`."""
        held = pl.col("first") <= until
        if after is not None:
            held &= pl.col("last") >= after
        return TableFiles(self.storage, self.files.filter(held), self.time)

    def bytes_between(self, after: datetime | None, until: datetime, columns: Sequence[str]) -> int:
        """The bytes of column chunks that a read of `after <= time <= until` takes, in whole row groups."""
        read = self.between(after, until).files
        is_whole = pl.col("last") <= until
        if after is not None:
            is_whole &= pl.col("first") >= after
        one_group = is_whole | (pl.col("rows") <= ROW_GROUP_ROWS)
        sizes = read.filter(one_group)["size_bytes"].to_numpy()
        parts = read.filter(~one_group)["path"]
        whole = float((sizes * self._shares(sizes, columns)).sum())
        return round(whole) + sum(self._part(path, after, until, columns) for path in parts)

    def data_bytes_per_row(self, columns: Sequence[str]) -> float:
        """What a stored row takes in column chunks, in the mean; 0 without rows."""
        sizes = self.files["size_bytes"].to_numpy()
        return float((sizes * self._shares(sizes, columns)).sum()) / self.rows if self.rows else 0.0

    @cached_property
    def footer_bytes(self) -> float:
        """What a file takes beside its column chunks, in the mean of the sampled ones; 0 without files."""
        beside = [size - sum(sum(group.bytes_by_column.values()) for group in groups) for size, groups in self._sample]
        return sum(beside) / len(beside) if beside else 0.0

    @cached_property
    def rows_until(self) -> Callable[[Sequence[datetime]], Any]:
        """Rows with `time` up to each of some instants, as an array; rows are taken to lie evenly over their file's span."""
        steps = self._steps()
        return lambda instants: np.interp([instant.timestamp() for instant in instants], *steps, left=0.0)

    def _steps(self) -> tuple[Any, Any]:
        """Instants, in seconds, and the rows up to each: a broken line."""
        if not self.count:
            return np.zeros(1), np.zeros(1)
        first = self.files["first"].dt.epoch("us").to_numpy() / 1e6
        last = np.maximum(self.files["last"].dt.epoch("us").to_numpy() / 1e6, first + 1e-3)
        slopes = self.files["rows"].to_numpy() / (last - first)
        at = np.concatenate([first, last])
        order = np.argsort(at, kind="stable")
        slope = np.cumsum(np.concatenate([slopes, -slopes])[order])
        at = at[order]
        return at, np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(at))])

    @cached_property
    def _sample(self) -> list[tuple[int, list[RowGroup]]]:
        """Size and row groups of files evenly spread over the sizes, the smallest and the largest among them."""
        by_size = self.files.sort("size_bytes", "path")
        places = np.unique(np.linspace(0, max(by_size.height - 1, 0), SAMPLED_FILES).round().astype(int))
        chosen = by_size[places.tolist()] if by_size.height else by_size
        return [(size, self._groups(path)) for path, size in chosen.select("path", "size_bytes").rows()]

    @property
    def sampled(self) -> int:
        """How many footers shares rest on."""
        return min(self.count, SAMPLED_FILES)

    def _shares(self, sizes: Any, columns: Sequence[str]) -> Any:
        """The share of some columns in files of these sizes: small ones are mostly footer."""
        if not self._sample:
            return np.zeros(len(sizes))
        known = {size: sum(group.bytes_of(columns) for group in groups) / size for size, groups in self._sample}
        return np.interp(sizes, sorted(known), [known[size] for size in sorted(known)])

    def _part(self, path: str, after: datetime | None, until: datetime, columns: Sequence[str]) -> int:
        groups = (g for g in self._groups(path) if g.first <= until and (after is None or g.last >= after))
        return sum(group.bytes_of(columns) for group in groups)

    def _groups(self, path: str) -> list[RowGroup]:
        if path not in self._footers:
            with self._opener.open_input_file(path) as file:
                footer = pq.read_metadata(file)
            self._footers[path] = [_row_group(footer.row_group(n), self.time) for n in range(footer.num_row_groups)]
        return self._footers[path]

    @cached_property
    def _footers(self) -> dict[str, list[RowGroup]]:
        return {}

    @cached_property
    def _opener(self) -> DeltaStorageHandler:
        return DeltaStorageHandler(self.storage.uri, self.storage.options)


def _span(added: pl.DataFrame, time: str) -> list[pl.Expr]:
    """First and last time of each file: by its statistics, else its month where that is of the time, else any time."""
    months = [f"partition.{name}" for name in ("known_year", "known_month")]
    month = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    if time == "knowledge_time" and set(months) <= set(added.columns):
        month = pl.datetime(pl.col(months[0]), pl.col(months[1]), 1, time_zone="UTC", time_unit="us")
    ends = {name: pl.col(name) if name in added.columns else pl.lit(None) for name in (f"min.{time}", f"max.{time}")}
    first = pl.coalesce(ends[f"min.{time}"].cast(pl.Datetime("us", "UTC")), month, pl.lit(NEVER))
    last = pl.coalesce(
        ends[f"max.{time}"].cast(pl.Datetime("us", "UTC")) + ROUNDING,
        month.dt.offset_by("1mo") - timedelta(microseconds=1),
        pl.lit(ALWAYS),
    )
    return [first.cast(pl.Datetime("us", "UTC")).alias("first"), last.cast(pl.Datetime("us", "UTC")).alias("last")]


def _row_group(group: Any, time: str) -> RowGroup:
    sizes: dict[str, int] = {}
    first, last = NEVER, ALWAYS
    for number in range(group.num_columns):
        chunk = group.column(number)
        column = chunk.path_in_schema.split(".")[0]
        sizes[column] = sizes.get(column, 0) + chunk.total_compressed_size
        if column == time and chunk.statistics is not None and chunk.statistics.has_min_max:
            first, last = chunk.statistics.min, chunk.statistics.max
    return RowGroup(sizes, first, last)
