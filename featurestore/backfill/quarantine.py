"""The windows of a backfill that failed their gate and wait in staging, with the gate's reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from featurestore.backfill.footprint import cadence_of
from featurestore.declaration.windows import TimeWindow
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup


@dataclass(frozen=True, slots=True)
class HeldWindow:
    """A window in quarantine.

    Args:
        key: Its partition key.
        place: Where its rows lie.
        report: The gate's: `run_id`, `seen_version`, `rows`, and `findings` with `check`, `column`, `observed`, `limit`,
            `failing_rows` and `examples`.
    """

    group: RegisteredGroup
    window: TimeWindow
    key: str
    place: str
    report: Mapping[str, Any] = field(hash=False)

    @property
    def run_id(self) -> str:
        return str(self.report["run_id"])

    @property
    def seen_version(self) -> int:
        """The table's version when the run began that computed it; -1 if there was no table."""
        seen = self.report.get("seen_version")
        return -1 if seen is None else int(seen)

    def rows(self, store: OfflineStore) -> pl.DataFrame | None:
        """Its rows as they were computed; None if they are gone."""
        return store.staging(self.group.name).quarantined_rows(self.window.start)


def held_windows(store: OfflineStore, backfill_id: str, groups: Sequence[str] | None = None) -> list[HeldWindow]:
    """The windows of a backfill in quarantine, by group and time.

    Args:
        backfill_id: A backfill, or a run that belonged to none.
        groups: Stored names; default every group with windows.
    """
    names = store.registry.groups if groups is None else groups
    windowed = [group for group in map(store.registry.group, names) if group.has_windows]
    return [held for group in windowed for held in _held(store, group) if _owner(held.report) == backfill_id]


def _held(store: OfflineStore, group: RegisteredGroup) -> list[HeldWindow]:
    staging, cadence = store.staging(group.name), cadence_of(group)
    reports = [report for name in staging.quarantined() if (report := staging.report(name)) is not None]
    windows = [cadence.window_at(datetime.fromisoformat(report["window"])) for report in reports]
    return [
        HeldWindow(group, window, cadence.key_of(window), staging.place(window.start), report)
        for window, report in zip(windows, reports, strict=True)
    ]


def _owner(report: Mapping[str, Any]) -> str:
    return str(report.get("backfill_id") or report["run_id"])
