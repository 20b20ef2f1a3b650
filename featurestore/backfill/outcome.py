"""What the store says of a backfill: how each of its windows ended, and what its commits wrote. Not here: what Dagster says."""

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from featurestore.backfill.footprint import owner_of
from featurestore.backfill.standings import PREFIX
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore


def ended_windows(store: OfflineStore, group_name: str, *backfill_ids: str) -> list[LedgerEntry]:
    """How each window of a group ended that some backfills computed: their last word on each, oldest window first.

    Args:
        backfill_ids: Backfills, or runs that belonged to none.
    """
    ids = list(backfill_ids)
    ledger = store.ledger(group_name).entries()
    is_own = pl.col("backfill_id").is_in(ids) | ((pl.col("backfill_id") == "") & pl.col("run_id").is_in(ids))
    own = ledger.filter(is_own & ~pl.col("run_id").str.starts_with(PREFIX))
    last = own.unique("window_start", keep="last", maintain_order=True).sort("window_start")
    return [LedgerEntry(**entry) for entry in last.to_dicts()]


def standing_windows(store: OfflineStore, group_name: str, *backfill_ids: str) -> set[datetime]:
    """The starts of the windows whose rows in production are by some backfills, or by runs of these names that belonged to none."""
    ids, owner = list(backfill_ids), pl.when(pl.col("backfill_id") != "").then("backfill_id").otherwise("run_id")
    return set(store.ledger(group_name).in_production().filter(owner.is_in(ids))["window_start"])


def taken_back(store: OfflineStore, group_name: str, ended: Iterable[LedgerEntry], *backfill_ids: str) -> set[datetime]:
    """The starts of the windows that some backfills promoted, and their rollbacks have taken back since.

    Args:
        ended: What they have computed, as `ended_windows` gives it.
    """
    promoted = {entry.window_start for entry in ended if entry.status == "promoted"}
    of_rollbacks = [pl.col("run_id").str.starts_with(f"{PREFIX}{backfill_id}/") for backfill_id in backfill_ids]
    returned = store.ledger(group_name).entries().filter(pl.any_horizontal(of_rollbacks))["window_start"]
    return (promoted & set(returned)) - standing_windows(store, group_name, *backfill_ids)


def left_windows(
    store: OfflineStore, group_name: str, ended: Iterable[LedgerEntry], *backfill_ids: str
) -> set[datetime]:
    """The starts of the windows that some backfills left as they were, and have not computed: already current, or better.

    Args:
        ended: What they have computed, as `ended_windows` gives it.
    """
    return store.ledger(group_name).left_by(backfill_ids) - {entry.window_start for entry in ended}


def written_bytes(store: OfflineStore, group_name: str, ended: Iterable[LedgerEntry], *backfill_ids: str) -> int:
    """The size of the files that the commits of some backfills added, those replaced since included.

    Only the commits that the ledger names are read; one whose log entry has expired counts nothing.
    """
    table = store.table(group_name)
    versions = {entry.table_version for entry in ended if entry.table_version is not None}
    entries = [table.entry(version) for version in sorted(versions)]
    return sum(
        entry.added_bytes
        for entry in entries
        if entry is not None and entry.own is not None and owner_of(entry.own.metadata) in backfill_ids
    )
