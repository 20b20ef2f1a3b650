"""The ledger of a group: for every window, what it was last computed with and how that ended.

It says what rows cannot: that a window was promoted empty, or failed its gate. It is written after the promotion it
speaks of, so a window that the ledger misses is at worst computed again, to the same rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import polars as pl
from deltalake import write_deltalake

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.launch import Strategy
from featurestore.location import Location
from featurestore.offline.durability import sync_since
from featurestore.offline.log import read_entry
from featurestore.offline.storage import CONFIGURATION, Storage
from featurestore.offline.view import scan_files

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
    scheduled run; `declaration` is a digest of what else than code the rows rest on; `table_version` is the group's table as
    it was promoted to. `recorded_at` is never below the `created_at` of the window's rows.
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
    """The append-only ledger of one group at `{root}/ledger/feature_group={name}/`.

    The column `sequence` orders its entries: clocks of two machines, or one that a test sets, may stand or step back.
    """

    def __init__(self, root: Location, group_name: str) -> None:
        self.location = root.child("ledger", f"feature_group={group_name}")
        self._storage = Storage(self.location)

    def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Record how windows ended, in one commit."""
        if not entries:
            return
        before = self.version()
        rows = pl.DataFrame([asdict(entry) for entry in entries], schema=SCHEMA)
        write_deltalake(
            self._storage.uri,
            rows.with_columns(sequence=pl.lit(-1 if before is None else before, dtype=pl.Int64) + 1),
            mode="append",
            schema_mode="merge",
            storage_options=self._storage.options,
            configuration=CONFIGURATION,
        )
        sync_since(self.location, before, self.version() or 0)

    def version(self) -> int | None:
        """The ledger's Delta version; None before the first entry."""
        table = self._storage.open()
        return None if table is None else table.version()

    def entries(self) -> pl.DataFrame:
        """Every entry that says how a window ended, in the order in which they were written."""
        return self._every().filter(pl.col("status") != LEFT)

    def left_by(self, backfill_ids: Iterable[str]) -> set[datetime]:
        """The starts of the windows that some backfills have looked at and left as they were."""
        left = self._every().filter((pl.col("status") == LEFT) & pl.col("backfill_id").is_in(list(backfill_ids)))
        return set(left["window_start"])

    def _every(self) -> pl.DataFrame:
        table = self._storage.open()
        if table is None:
            return pl.DataFrame(schema=SCHEMA)
        return self._read(pl.DataFrame(table.get_add_actions(flatten=True))["path"].to_list())

    def entries_since(self, version: int | None) -> pl.DataFrame:
        """The entries of every commit after a version of the ledger; all of them after None."""
        newest = self.version()
        versions = range(0 if version is None else version + 1, 0 if newest is None else newest + 1)
        commits = [read_entry(self.location, number) for number in versions]
        since = self._read([name for commit in commits if commit is not None for name in commit.added])
        return since.filter(pl.col("status") != LEFT)

    def _read(self, names: Sequence[str]) -> pl.DataFrame:
        rows = scan_files(self._storage, names, {**SCHEMA, "sequence": pl.Int64()})
        filled = [pl.col(name).fill_null(value) for name, value in DEFAULTS.items()]
        ordered = rows.sort("sequence", "recorded_at", maintain_order=True).select(list(SCHEMA))
        return ordered.with_columns(filled).collect()

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
