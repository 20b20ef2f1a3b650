"""What the stores hold of a group at this moment: table version, rows, newest data, and how its windows ended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from featurestore.offline.ledger import Ledger
from featurestore.offline.staging import Staging
from featurestore.offline.storage import Storage
from featurestore.offline.table import FeatureTable


@dataclass(frozen=True, slots=True)
class TableStanding:
    """A group's table at its newest version; `rows` counts tombstones too."""

    table_version: int | None
    rows: int
    newest_event_time: datetime | None


def table_standing(table: FeatureTable) -> TableStanding:
    """Read a table's standing from Delta's statistics, and the rows of the newest files only.

    Statistics round times, so the newest event time itself is read; files without statistics are counted by reading.
    """
    opened = Storage(table.location).open()
    if opened is None:
        return TableStanding(None, 0, None)
    version, files = opened.version(), pl.DataFrame(opened.get_add_actions(flatten=True))
    if files.is_empty():
        return TableStanding(version, 0, None)
    rows = table.scan(version, event_since=_newest_in_statistics(files)).select(pl.col("event_time").max())
    return TableStanding(version, _row_count(files, table, version), rows.collect().item())


def _newest_in_statistics(files: pl.DataFrame) -> datetime | None:
    name = "max.event_time"
    if name not in files.columns or files[name].null_count():
        return None
    newest: datetime | None = files.select(pl.col(name).dt.convert_time_zone("UTC").max()).item()
    return newest


def _row_count(files: pl.DataFrame, table: FeatureTable, version: int) -> int:
    counts = files["num_records"]
    return int(table.scan(version).select(pl.len()).collect().item() if counts.null_count() else counts.sum())


def window_standing(ledger: Ledger, staging: Staging) -> dict[str, Any]:
    """How many windows are promoted, from when to when, and which are in quarantine for what.

    Returns:
        `promoted` (a count), `first` and `last` (starts of promoted windows, or None), `quarantined` (start and findings).
    """
    promoted = ledger.latest().filter(pl.col("status") == "promoted")["window_start"]
    return {
        "promoted": len(promoted),
        "first": promoted.min(),
        "last": promoted.max(),
        "quarantined": [_quarantined(staging, window) for window in staging.quarantined()],
    }


def _quarantined(staging: Staging, window: str) -> dict[str, Any]:
    report = staging.report(window) or {}
    return {
        "window": report.get("window", window),
        "findings": [_finding_text(finding) for finding in report.get("findings", [])],
    }


def _finding_text(finding: dict[str, Any]) -> str:
    of = f" of {finding['column']!r}" if finding["column"] else ""
    return f"{finding['check']}{of} is {finding['observed']}, limit {finding['limit']} ({finding['failing_rows']} rows)"
