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
from featurestore.offline.storage import CONFIGURATION, Storage
from featurestore.offline.view import scan_files

Status = Literal["promoted", "quarantined"]

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
}
DEFAULTS = {"strategy": "full", "backfill_id": "", "compute_seconds": 0.0}
"""What entries say that were written before a column was there."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """How one computation of one window ended.

    `source_versions` is JSON (input name to table version); `history_rows` counts input rows whose knowledge time
    rests on their author's word; `null_key_rows` were refused; `backfill_id` is empty for a scheduled run.
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

    def latest(self) -> pl.DataFrame:
        """The last entry of each window, by window start."""
        table = self._storage.open()
        if table is None:
            return pl.DataFrame(schema=SCHEMA)
        names = pl.DataFrame(table.get_add_actions(flatten=True))["path"].to_list()
        rows = (
            scan_files(self._storage, names, {**SCHEMA, "sequence": pl.Int64()})
            .sort("sequence", "recorded_at", maintain_order=True)
            .unique("window_start", keep="last", maintain_order=True)
        )
        filled = [pl.col(name).fill_null(value) for name, value in DEFAULTS.items()]
        return rows.sort("window_start").select(list(SCHEMA)).with_columns(filled).collect()

    def promoted(self) -> set[datetime]:
        """The starts of the windows whose last computation was promoted."""
        return set(self.latest().filter(pl.col("status") == "promoted")["window_start"])

    def missing(self, window_starts: Iterable[datetime]) -> list[datetime]:
        """Those of some windows that are not promoted: never computed, or in quarantine."""
        promoted = self.promoted()
        return [start for start in window_starts if start not in promoted]
