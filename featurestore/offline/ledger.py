"""The ledger of a group: for every window, what it was last computed with and how that ended.

It says what rows cannot: that a window was promoted empty, or failed its gate. It is written after the promotion it
speaks of, so a window that the ledger misses is at worst computed again, to the same rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.launch import Strategy
from featurestore.location import Location
from featurestore.offline.journal import Journal

Status = Literal["promoted", "quarantined", "rolled_back", "left"]
"""`left` is no word on a window: a backfill has looked at it and left it as it was. Only `left_by` reads it."""
LEFT: Status = "left"

SCHEMA: dict[str, pl.DataType] = {
    "window_start": TIMESTAMP,
    "recorded_at": TIMESTAMP,
    "status": pl.String(),
    "run_id": pl.String(),
    "code_version": pl.String(),
    "source_versions": pl.String(),
    "verdict_digest": pl.String(),
    "rows": pl.Int64(),
    "history_rows": pl.Int64(),
    "null_key_rows": pl.Int64(),
    "strategy": pl.String(),
    "backfill_id": pl.String(),
    "compute_seconds": pl.Float64(),
    "declaration": pl.String(),
    "table_version": pl.Int64(),
}
DEFAULTS = {"strategy": "full", "backfill_id": "", "compute_seconds": 0.0, "declaration": ""}
"""What entries say that were written before a column was there."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """How one computation of one window ended.

    `source_versions` is JSON (input name to table version, as they were before the inputs were read); `history_rows` counts
    input rows whose knowledge time rests on their author's word; `null_key_rows` were refused; `backfill_id` is empty for a
    scheduled run, and is the run's own id where a person computed history in a process of their own; `declaration` is a digest of
    what else than code the rows rest on; `table_version` is the group's table as it was promoted to. `recorded_at` is never below the
    `created_at` of the window's rows.
    """

    window_start: datetime
    recorded_at: datetime
    status: Status
    run_id: str
    code_version: str
    source_versions: str
    verdict_digest: str
    rows: int
    history_rows: int
    null_key_rows: int
    strategy: Strategy = "full"
    backfill_id: str = ""
    compute_seconds: float = 0.0
    declaration: str = ""
    table_version: int | None = None


class Ledger:
    """The append-only ledger of one group at `{root}/ledger/feature_group={name}/`."""

    def __init__(self, root: Location, group_name: str) -> None:
        self.journal = Journal(root.child("ledger", f"feature_group={group_name}"), SCHEMA, DEFAULTS)

    @property
    def location(self) -> Location:
        return self.journal.location

    def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Record how windows ended, in one commit."""
        self.journal.append([asdict(entry) for entry in entries])

    def version(self) -> int | None:
        """The ledger's Delta version; None before the first entry."""
        return self.journal.version()

    def entries(self) -> pl.DataFrame:
        """Every entry that says how a window ended, in the order in which they were written."""
        return _endings(self.journal.records())

    def entries_since(self, version: int | None) -> pl.DataFrame:
        """The entries of every commit after a version of the ledger; all of them after None."""
        return _endings(self.journal.records_since(version))

    def read_on(self, version: int) -> tuple[pl.DataFrame, int]:
        """The entries of every commit after a version (`UNREAD` for all), and the version that was reached; see `Journal.read_on`."""
        entries, reached = self.journal.read_on(version)
        return _endings(entries), reached

    def left_by(self, backfill_ids: Iterable[str]) -> set[datetime]:
        """The starts of the windows that some backfills have looked at and left as they were."""
        is_left = (pl.col("status") == LEFT) & pl.col("backfill_id").is_in(list(backfill_ids))
        return set(self.journal.records().filter(is_left)["window_start"])

    def latest(self) -> pl.DataFrame:
        """The last entry of each window, by window start."""
        return self.entries().unique("window_start", keep="last", maintain_order=True).sort("window_start")

    def in_production(self, table_version: int | None = None) -> pl.DataFrame:
        """Of each window the entry that its rows in production are by: the last one that no quarantine withheld.

        Args:
            table_version: Look back to this version of the group's table; entries that do not tell theirs count at any.
        """
        counted = self.entries().filter(pl.col("status") != "quarantined")
        if table_version is not None:
            counted = counted.filter((pl.col("table_version") <= table_version).fill_null(True))
        last = counted.unique("window_start", keep="last", maintain_order=True)
        return last.filter(pl.col("status") == "promoted").sort("window_start")

    def promoted(self) -> set[datetime]:
        """The starts of the windows whose last computation was promoted."""
        return set(self.latest().filter(pl.col("status") == "promoted")["window_start"])

    def missing(self, window_starts: Iterable[datetime]) -> list[datetime]:
        """Those of some windows that are not promoted: never computed, or in quarantine."""
        promoted = self.promoted()
        return [start for start in window_starts if start not in promoted]


def _endings(entries: pl.DataFrame) -> pl.DataFrame:
    return entries.filter(pl.col("status") != LEFT)
