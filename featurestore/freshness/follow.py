"""Following one group's or one source's writes at the price of looking for the next commit: what changed since the last look.

Windows are followed in the ledger (`offline/follower.py`), here loads, pushes and sources. Not here: what the facts mean.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from featurestore.errors import StoreUnavailable
from featurestore.freshness.facts import WindowFacts
from featurestore.offline.follower import REMEMBERED, LedgerFollower, Written
from featurestore.offline.ledger import Ledger
from featurestore.offline.log import read_entry
from featurestore.offline.storage import Storage
from featurestore.offline.table import FeatureTable
from featurestore.offline.view import newest_value
from featurestore.registry.snapshot import RegisteredGroup


def window_follower(group: RegisteredGroup, ledger: Ledger) -> LedgerFollower:
    """What follows the windows of a group that has some."""
    return LedgerFollower(ledger, datetime.fromisoformat(group.start), group.window_length)


def window_facts(
    group: RegisteredGroup, windows: LedgerFollower, now: datetime, declared_since: datetime | None = None
) -> WindowFacts:
    """What the ledger of a group says of its windows at an instant.

    Args:
        windows: Its follower; whoever calls has it look first.
        declared_since: Of a group without any window in production.
    """
    newest = windows.newest
    if newest < 0:
        return WindowFacts(**_held(windows), first_served_by=_first_served_by(group, windows, now, declared_since))
    delay = timedelta(microseconds=group.delay_us)
    due = windows.awaited(newest + 1, windows.number_at(now - delay))
    late_since = windows.window(due[0]).end + delay + timedelta(microseconds=group.publish_us) if due else None
    return WindowFacts(
        newest=windows.window(newest).start,
        due=len(due),
        late_since=late_since if late_since is not None and late_since <= now else None,
        holes=windows.holes,
        gaps=_gaps(group, windows),
        awaited=windows.window(due[0]).start if due else None,
        **_held(windows),
    )


def _gaps(group: RegisteredGroup, windows: LedgerFollower) -> tuple[datetime, ...]:
    """The windows before the newest that the schedule owes: since its first one, and not of a time that is not computed any more."""
    first = windows.first_scheduled
    if first is None:
        return ()
    if group.backfillable_from is not None:
        first = max(first, windows.number_at(datetime.fromisoformat(group.backfillable_from).replace(tzinfo=UTC)))
    return tuple(windows.window(number).start for number in windows.missing(first, windows.newest))


def _first_served_by(
    group: RegisteredGroup, windows: LedgerFollower, now: datetime, declared_since: datetime | None
) -> datetime | None:
    """When the first window was to be served whose cut-off came since a group is declared."""
    if declared_since is None:
        return None
    delay = timedelta(microseconds=group.delay_us)
    first = windows.window(max(0, windows.number_at(declared_since - delay)))
    served_by = first.end + delay + timedelta(microseconds=group.publish_us)
    return served_by if served_by <= now else None


def _held(windows: LedgerFollower) -> dict[str, Any]:
    """Which windows are in quarantine, since when the first of them, and who computed the newest."""
    starts = sorted(windows.held)
    newest = windows.held[starts[-1]] if starts else None
    return {
        "quarantined": windows.quarantined,
        "held": tuple(starts),
        "held_since": min((entry.recorded_at for entry in windows.held.values()), default=None),
        "held_by": (newest.backfill_id or newest.run_id) if newest else "",
    }


def served_after(group: RegisteredGroup) -> timedelta:
    """How long after a window's start its rows are to be served; of a load or push nothing: its instant is that moment."""
    if not group.has_windows:
        return timedelta(0)
    return group.window_length + timedelta(microseconds=group.delay_us + group.publish_us)


@dataclass(slots=True)
class TableFollower:
    """The loads or pushes of a group without windows, from the log of its table.

    A push of old rows makes a group no fresher and no later: what counts is when its newest event came.
    """

    table: FeatureTable
    version: int | None = None
    materialized_at: datetime | None = None
    last_event: datetime | None = None
    written: deque[Written] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    events_of: int | None = None
    """The version of which the newest pushed event was read."""

    def look(self) -> None:
        """Take in the commits since the last look; of a table seen for the first time the last ones."""
        if self.version is None:
            newest = self.table.version()
            if newest is None:
                return
            self.version = max(-1, newest - REMEMBERED)
        while self.version is not None and (entry := read_entry(self.table.location, self.version + 1)) is not None:
            self.version += 1
            made_at = entry.own.created_at if entry.own is not None else None
            if entry.has_changed_data and made_at is not None:
                self.materialized_at = made_at
                self.written.append(Written(entry.version, made_at, made_at, made_at))
        if self.version != self.events_of and self.table.group.kind == "pushed":
            self._take_newest_event()
            self.events_of = self.version

    def _take_newest_event(self) -> None:
        rows = self.table.scan(event_since=newest_value(self.table.view().table, "event_time"))
        newest = rows.filter(pl.col("event_time") == pl.col("event_time").max())
        try:
            found = newest.select(pl.col("event_time").max(), pl.col("created_at").min()).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StoreUnavailable(f"The newest rows of {self.table.location.uri} cannot be read: {error}") from error
        self.last_event, self.materialized_at = found.row(0)


@dataclass(slots=True)
class SourceFollower:
    """The newest event of a source, from the statistics of its raw table."""

    storage: Storage
    event_time: str
    version: int | None = None
    last_event: datetime | None = None

    def look(self) -> None:
        """Read the statistics again if there is another commit."""
        if self.version is not None and read_entry(self.storage.location, self.version + 1) is None:
            return
        opened = self.storage.open()
        if opened is None:
            return
        self.version = opened.version()
        self.last_event = newest_value(opened, self.event_time)
