"""The statistics of a group's windows, kept at `{root}/statistics/feature_group={name}/` beside its ledger.

One Parquet file a promotion, written whole or not at all, named so that a reader opens only what may hold its windows:

    {first window}-{last window}-{table version + 1}-{digest of the run}.parquet

A repeat of a run writes the same file again. No row is taken away: which of several promotions of a window counts is said by the
ledger, so statistics can be read as of any version of the group's table. No Delta table: a third commit would cost as much as
the ledger's, and there is nothing here that two writers could spoil.

A month of hourly windows is hundreds of files. So whoever may write merges the files of a month when there are too many: one file with
all their rows is written first, and then they are deleted, each one after it was read. A merge that is cut short, or made by two at once,
leaves rows twice, which readers count once; a reader whose file was merged away lists again.
"""

import hashlib
import io
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from featurestore.errors import StoreUnavailable
from featurestore.location import Location
from featurestore.quality.frame import STORED, WindowStatistics, from_stored_rows, stored_rows

STAMP = "%Y%m%dT%H%M%S%f"
FILES_A_MONTH = 64
"""With more files, those of a month are merged into one."""
LOOKS = 10
"""So often a reader lists anew whose files were merged away meanwhile."""
PROMOTION = ["window_start", "feature", "table_version", "run_id", "recorded_at"]
"""What a row is of; the same one may be kept more than once."""


class KeptStatistics:
    """What is kept of one group."""

    def __init__(self, root: Location, group_name: str) -> None:
        self.location = root.child("statistics", f"feature_group={group_name}")

    def append(self, windows: Sequence[WindowStatistics]) -> None:
        """Keep the statistics of windows of one promotion, or of several, in one file."""
        rows = stored_rows(windows)
        if rows.is_empty():
            return
        self._write(_name(windows), rows)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        """Every kept row of windows that start in [since, until), of all their promotions: `STORED`, in no order."""
        found = self._read(since, until).unique(PROMOTION, keep="last", maintain_order=True)
        start = pl.col("window_start")
        found = found if since is None else found.filter(start >= since)
        return found if until is None else found.filter(start < until)

    def compact(self) -> int:
        """Merge the files of every month that has more than `FILES_A_MONTH`; how many files are gone.

        Raises:
            StoreUnavailable: the store cannot be reached or written; every row is still there, some perhaps twice.
        """
        months: dict[str, list[str]] = {}
        for name in self.location.names():
            if (month := _month(name)) is not None:
                months.setdefault(month, []).append(name)
        return sum(self._merge(names) for names in months.values() if len(names) > FILES_A_MONTH)

    def _read(self, since: datetime | None, until: datetime | None) -> pl.DataFrame:
        for _ in range(LOOKS):
            names = [name for name in self.location.names() if _may_hold(name, since, until)]
            if (rows := self._rows_of(names)) is not None:
                return rows
        raise StoreUnavailable(f"The files under {self.location.uri} are merged faster than they are read. Try again.")

    def _rows_of(self, names: Sequence[str]) -> pl.DataFrame | None:
        """The rows of some files; None if one of them is gone."""
        parts = [pl.DataFrame(schema=STORED)]
        for name in names:
            if (data := self.location.read_bytes(name)) is None:
                return None
            parts.append(pl.read_parquet(io.BytesIO(data)))
        return pl.concat(parts, how="diagonal")

    def _merge(self, names: Sequence[str]) -> int:
        """Files whose rows are in the merged one are deleted, and no others; nothing happens if somebody else has begun."""
        if (rows := self._rows_of(names)) is None:
            return 0
        merged = _merged_name(names)
        self._write(
            merged, rows.unique(PROMOTION, keep="last", maintain_order=True).sort("window_start", maintain_order=True)
        )
        for name in names:
            self.location.delete(name)
        return len(names) - 1

    def _write(self, name: str, rows: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        rows.write_parquet(buffer, statistics=False)
        self.location.write(name, buffer.getvalue())

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


def _merged_name(names: Sequence[str]) -> str:
    """The span and the highest version of some files, and a digest of which they are: of others it is another name."""
    firsts, lasts, versions = zip(*(name.split("-")[:3] for name in names), strict=True)
    digest = hashlib.sha256(repr(sorted(names)).encode()).hexdigest()[:16]
    return f"{min(firsts)}-{max(lasts)}-{max(versions)}-{digest}.parquet"


def _month(name: str) -> str | None:
    """The month of a file's windows, as 'YYYYMM'; None if they are of several."""
    first, last = name.split("-")[:2]
    return first[:6] if first[:6] == last[:6] else None


def _may_hold(name: str, since: datetime | None, until: datetime | None) -> bool:
    """Whether a file may have a window that starts in [since, until), by its name."""
    first, _, rest = name.partition("-")
    last = rest.partition("-")[0]
    return (since is None or last >= since.strftime(STAMP)) and (until is None or first < until.strftime(STAMP))
