"""The statistics of a group's windows, kept at `{root}/statistics/feature_group={name}/` beside its ledger.

A Delta table that only grows: one row a window and feature for each promotion that changed the window's rows. Of a window the last
promotion's rows count; earlier ones stay, so that statistics can be read as of a version of the group's table.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import polars as pl
from deltalake import write_deltalake

from featurestore.location import Location
from featurestore.offline.durability import sync_since
from featurestore.offline.storage import CONFIGURATION, Storage
from featurestore.offline.view import ROUNDING, scan_files
from featurestore.quality.frame import STORED, WindowStatistics, from_stored_rows, stored_rows

SEQUENCE = {"sequence": pl.Int64()}


class StatisticsTable:
    """What is kept of one group. The column `sequence` orders promotions, whatever clocks say."""

    def __init__(self, root: Location, group_name: str) -> None:
        self.location = root.child("statistics", f"feature_group={group_name}")
        self._storage = Storage(self.location)

    def append(self, windows: Sequence[WindowStatistics]) -> None:
        """Keep the statistics of windows, in one commit; of a window that has some, these count from now on."""
        rows = stored_rows(windows)
        if rows.is_empty():
            return
        before = self.version()
        sequence = pl.lit(-1 if before is None else before, dtype=pl.Int64) + 1
        write_deltalake(
            self._storage.uri,
            rows.with_columns(sequence=sequence),
            mode="append",
            schema_mode="merge",
            storage_options=self._storage.options,
            configuration=CONFIGURATION,
        )
        sync_since(self.location, before, self.version() or 0)

    def version(self) -> int | None:
        """The Delta version; None before the first statistics."""
        table = self._storage.open()
        return None if table is None else table.version()

    def windows(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        starts: Collection[datetime] | None = None,
        features: Collection[str] | None = None,
        table_version: int | None = None,
    ) -> list[WindowStatistics]:
        """The statistics that count, oldest window first.

        Args:
            since: Only windows that start at or after this.
            until: Only windows that start before this.
            starts: Only windows that start at one of these.
            features: Only these features; default all.
            table_version: Look back to this version of the group's table; statistics that tell no version count at any.
        """
        rows = self._last(since, until, starts, table_version)
        wanted = rows if features is None else rows.filter(pl.col("feature").is_in(list(features)))
        return from_stored_rows(wanted.select(list(STORED)).collect())

    def kept(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> dict[datetime, tuple[str, int | None]]:
        """By window start, the run and the table's version of the statistics that count."""
        rows = self._last(since, until, None, None).select("window_start", "run_id", "table_version").unique()
        return {start: (run_id, version) for start, run_id, version in rows.collect().rows()}

    def _last(
        self,
        since: datetime | None,
        until: datetime | None,
        starts: Collection[datetime] | None,
        table_version: int | None,
    ) -> pl.LazyFrame:
        """Of each window the rows of its last promotion; files that cannot hold a window asked for stay closed."""
        first, last = (since, until) if not starts else (min(starts), max(starts))
        rows = scan_files(self._storage, self._files(first, last), {**STORED, **SEQUENCE})
        start = pl.col("window_start")
        asked = [start >= since] if since is not None else []
        asked += [start < until] if until is not None else []
        asked += [start.is_in(list(starts))] if starts is not None else []
        if table_version is not None:
            asked.append((pl.col("table_version") <= table_version).fill_null(True))
        rows = rows.filter(*asked) if asked else rows
        return rows.filter(pl.col("sequence") == pl.col("sequence").max().over("window_start"))

    def _files(self, since: datetime | None, until: datetime | None) -> list[str]:
        table = self._storage.open()
        if table is None:
            return []
        files = pl.DataFrame(table.get_add_actions(flatten=True))
        if since is not None and "max.window_start" in files.columns:
            files = files.filter((pl.col("max.window_start") >= since - ROUNDING).fill_null(True))
        if until is not None and "min.window_start" in files.columns:
            files = files.filter((pl.col("min.window_start") <= until + ROUNDING).fill_null(True))
        return sorted(files["path"].to_list()) if files.height else []
