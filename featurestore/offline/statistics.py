"""The statistics of a group's windows, kept at `{root}/statistics/feature_group={name}/` beside its ledger.

One Parquet file a promotion, written whole or not at all, named so that a reader opens only what may hold its windows:

    {first window}-{last window}-{table version + 1}-{digest of the run}.parquet

A repeat of a run writes the same file again. Nothing is taken away: which of several promotions of a window counts is said by the
ledger, so statistics can be read as of any version of the group's table. No Delta table: a third commit would cost as much as
the ledger's, and there is nothing here that two writers could spoil.
"""

import hashlib
import io
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from featurestore.location import Location
from featurestore.quality.frame import STORED, WindowStatistics, from_stored_rows, stored_rows

STAMP = "%Y%m%dT%H%M%S%f"


class KeptStatistics:
    """What is kept of one group."""

    def __init__(self, root: Location, group_name: str) -> None:
        self.location = root.child("statistics", f"feature_group={group_name}")

    def append(self, windows: Sequence[WindowStatistics]) -> None:
        """Keep the statistics of windows of one promotion, or of several, in one file."""
        rows = stored_rows(windows)
        if rows.is_empty():
            return
        buffer = io.BytesIO()
        rows.write_parquet(buffer, statistics=False)
        self.location.write(_name(windows), buffer.getvalue())

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        """Every kept row of windows that start in [since, until), of all their promotions: `STORED`, in no order."""
        names = [name for name in self.location.names() if _may_hold(name, since, until)]
        parts = [pl.read_parquet(io.BytesIO(data)) for name in names if (data := self.location.read_bytes(name))]
        found = pl.concat([pl.DataFrame(schema=STORED), *parts], how="diagonal")
        start = pl.col("window_start")
        found = found if since is None else found.filter(start >= since)
        return found if until is None else found.filter(start < until)

    def windows(self) -> list[WindowStatistics]:
        """Of each window the statistics with the highest version of the table, of equal ones the last recorded, oldest first."""
        last = [pl.col(name) == pl.col(name).max().over("window_start") for name in ("order", "recorded_at")]
        rows = self.rows().with_columns(order=pl.col("table_version").fill_null(-1))
        return from_stored_rows(rows.filter(last[0]).filter(last[1]).select(list(STORED)))


def _name(windows: Sequence[WindowStatistics]) -> str:
    starts = [one.window_start for one in windows]
    promotions = sorted({(one.run_id, one.table_version) for one in windows}, key=str)
    version = max((one.table_version for one in windows if one.table_version is not None), default=-1)
    digest = hashlib.sha256(repr((promotions, sorted(starts))).encode()).hexdigest()[:16]
    return f"{min(starts).strftime(STAMP)}-{max(starts).strftime(STAMP)}-{version + 1:012}-{digest}.parquet"


def _may_hold(name: str, since: datetime | None, until: datetime | None) -> bool:
    """Whether a file may have a window that starts in [since, until), by its name."""
    first, _, rest = name.partition("-")
    last = rest.partition("-")[0]
    return (since is None or last >= since.strftime(STAMP)) and (until is None or first < until.strftime(STAMP))
