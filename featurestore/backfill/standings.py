"""The ledger's side of a rollback: each window counts again as it did before the backfill.

An entry is never taken away; the earlier one is written once more, under the name of the rollback.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore

PREFIX = "rollback/"


def rollback_name(backfill_id: str, last_version: int) -> str:
    """Names the rollback of a backfill whose last commit to the table is `last_version`, in the log and in the ledger."""
    return f"{PREFIX}{backfill_id}/{last_version}"


@dataclass(frozen=True, slots=True)
class Returned:
    """The commit with which a rollback returned rows.

    Args:
        starts: The windows, by their starts.
        version: Its Delta version; None if there was nothing to return.
        at: When it was made; what the ledger was told later stays.
    """

    starts: Collection[datetime]
    version: int | None
    at: datetime


def restore_standings(
    store: OfflineStore, group_name: str, backfill_id: str, name: str, returned: Returned
) -> list[datetime]:
    """Write the standing that windows had before a backfill; one never promoted before is `rolled_back`.

    Rules: concerned are windows whose rows in production the backfill has promoted, and those returned that it has promoted
    once, whoever vouched for their rows since: these rows are gone. What is in quarantine stays in it. A repeat writes nothing.

    Args:
        name: The rollback's, as `rollback_name` gives it.

    Returns:
        The starts of the windows whose standing was written.
    """
    ledger = store.ledger(group_name)
    entries = [LedgerEntry(**row) for row in ledger.entries().to_dicts()]
    is_recorded = any(entry.run_id == name for entry in entries)
    written: list[LedgerEntry] = []
    for start, standing in standings_of(entries).items():
        promoted = [entry for entry in standing if entry.status == "promoted"]
        if not any(belongs(entry, backfill_id) for entry in promoted):
            continue
        is_returned = start in returned.starts and not is_recorded and promoted[-1].recorded_at <= returned.at
        if is_returned or belongs(promoted[-1], backfill_id):
            written += _earlier(standing, backfill_id, name, returned, max(store.clock(), returned.at))
    ledger.append(written)
    return [entry.window_start for entry in written if entry.run_id == name]


def belongs(entry: LedgerEntry, backfill_id: str) -> bool:
    """Whether an entry is of a backfill, or of the run of this name if that belonged to none."""
    return (entry.backfill_id or entry.run_id) == backfill_id


def standings_of(entries: Iterable[LedgerEntry]) -> dict[datetime, list[LedgerEntry]]:
    """By window, the entries that count: a rollback takes its backfill's away, and whatever was said since."""
    standings: dict[datetime, list[LedgerEntry]] = {}
    for entry in entries:
        standing = standings.setdefault(entry.window_start, [])
        if entry.run_id.startswith(PREFIX):
            del standing[_first(standing, entry.run_id.removeprefix(PREFIX).rpartition("/")[0]) :]
        else:
            standing.append(entry)
    return standings


def _first(standing: list[LedgerEntry], backfill_id: str) -> int:
    return next((i for i, entry in enumerate(standing) if belongs(entry, backfill_id)), len(standing))


def _earlier(
    standing: list[LedgerEntry], backfill_id: str, name: str, returned: Returned, now: datetime
) -> list[LedgerEntry]:
    """What production held before, and after it the quarantine that the window was in, or has come to."""
    before = standing[: _first(standing, backfill_id)]
    promoted = [entry for entry in before if entry.status == "promoted"]
    gone = replace(standing[-1], status="rolled_back", rows=0, history_rows=0, null_key_rows=0)
    version = returned.version if standing[-1].window_start in returned.starts else None
    held = [entry for entry in (*before[-1:], standing[-1]) if entry.status == "quarantined"][-1:]
    production = replace(promoted[-1] if promoted else gone, run_id=name)
    moved = production if version is None else replace(production, table_version=version)
    return [replace(entry, recorded_at=now, compute_seconds=0.0) for entry in (moved, *held)]
