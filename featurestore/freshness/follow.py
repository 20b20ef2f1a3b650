"""Following one group's or one source's writes at the price of looking for the next commit: what changed since the last look.

Each follower keeps what it has read, so that an idle group costs one look for a file. Not here: what the facts mean.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from featurestore.freshness.facts import WindowFacts
from featurestore.offline.journal import UNREAD
from featurestore.offline.ledger import Ledger
from featurestore.offline.log import read_entry
from featurestore.offline.storage import Storage
from featurestore.offline.table import FeatureTable
from featurestore.offline.view import newest_value
from featurestore.registry.snapshot import RegisteredGroup

REMEMBERED = 64
"""Versions of a table that an online copy may lack and be told since when."""
TAKEN = ["window_start", "recorded_at", "status", "run_id", "backfill_id"]
LENGTHS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Written:
    """A version of a group's table: the horizons of its windows (of a load or push: its instant), and when it was recorded."""

    version: int
    first_horizon: datetime
    last_horizon: datetime
    recorded_at: datetime


@dataclass(slots=True)
class WindowFollower:
    """The windows of a group, from its ledger: which are promoted, taken back or in quarantine, as bits by their place."""

    group: RegisteredGroup
    ledger: Ledger
    version: int = UNREAD
    promoted: int = 0
    taken_back: int = 0
    quarantined: int = 0
    held_since: datetime | None = None
    held_by: dict[int, str] = field(default_factory=dict)
    materialized_at: datetime | None = None
    written: deque[Written] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def look(self) -> None:
        """Take in what the ledger has since the last look."""
        entries, self.version = self.ledger.read_on(self.version)
        if entries.is_empty():
            return
        for start, recorded_at, status, *computed_by in entries.select(TAKEN).iter_rows():
            place = self._place(start)
            self._take(place, recorded_at, status)
            self._hold(place, recorded_at, *computed_by)
        self._remember(entries)

    def facts(self, now: datetime) -> WindowFacts:
        if not self.promoted:
            return WindowFacts(**self._held())
        first, newest = _lowest(self.promoted), self._newest
        last_due = (now - self._origin - self._delay) // self._length - 1
        awaited = _bits(newest + 1, last_due + 1) & ~self.taken_back
        late_since = self._horizon(_lowest(awaited)) if awaited else None
        return WindowFacts(
            newest=self._start(newest),
            due=awaited.bit_count(),
            late_since=late_since if late_since is not None and late_since <= now else None,
            holes=(_bits(first, newest) & ~(self.promoted | self.taken_back)).bit_count(),
            awaited=self._start(_lowest(awaited)) if awaited else None,
            **self._held(),
        )

    def _held(self) -> dict[str, Any]:
        return {
            "quarantined": self.quarantined.bit_count(),
            "held": tuple(map(self._start, _places(self.quarantined))),
            "held_since": self.held_since,
            "held_by": self.held_by[max(self.held_by)] if self.held_by else "",
        }

    def _take(self, place: int, recorded_at: datetime, status: str) -> None:
        bit = 1 << place
        if status == "promoted":
            if place >= self._newest and not self.promoted & bit:
                self.materialized_at = recorded_at
            self.promoted, self.taken_back = self.promoted | bit, self.taken_back & ~bit
        elif status == "rolled_back":
            self.promoted, self.taken_back = self.promoted & ~bit, self.taken_back | bit
        # What a quarantine withholds stays as it was in production: promoted before or not.
        self.quarantined = self.quarantined | bit if status == "quarantined" else self.quarantined & ~bit

    def _hold(self, place: int, recorded_at: datetime, run_id: str, backfill_id: str) -> None:
        """Who computed a window that is in quarantine, and since when some window is."""
        if self.quarantined >> place & 1:
            self.held_by[place] = backfill_id or run_id
        else:
            self.held_by.pop(place, None)
        self.held_since = (self.held_since or recorded_at) if self.quarantined else None

    def _remember(self, entries: pl.DataFrame) -> None:
        changed = entries.filter((pl.col("status") == "promoted") & pl.col("table_version").is_not_null())
        ahead = self._length + self._delay + timedelta(microseconds=self.group.publish_us)
        by_version = changed.group_by("table_version", maintain_order=True).agg(
            (pl.col("window_start").min() + ahead).alias("first"),
            (pl.col("window_start").max() + ahead).alias("last"),
            pl.col("recorded_at").max(),
        )
        self.written.extend(Written(*row) for row in by_version.iter_rows())

    @property
    def _newest(self) -> int:
        return self.promoted.bit_length() - 1

    @property
    def _origin(self) -> datetime:
        return datetime.fromisoformat(self.group.start)

    @property
    def _length(self) -> timedelta:
        return LENGTHS[self.group.cadence]

    @property
    def _delay(self) -> timedelta:
        return timedelta(microseconds=self.group.delay_us)

    def _place(self, start: datetime) -> int:
        return (start - self._origin) // self._length

    def _start(self, place: int) -> datetime:
        return self._origin + place * self._length

    def _horizon(self, place: int) -> datetime:
        return self._start(place + 1) + self._delay + timedelta(microseconds=self.group.publish_us)


@dataclass(slots=True)
class TableFollower:
    """The loads or pushes of a group without windows, from the log of its table."""

    table: FeatureTable
    version: int | None = None
    materialized_at: datetime | None = None
    last_event: datetime | None = None
    written: deque[Written] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def look(self) -> None:
        """Take in the commits since the last look; of a table seen for the first time the last ones."""
        before = self.version
        if before is None:
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
        if self.version != before and self.table.group.kind == "pushed":
            self.last_event = newest_value(self.table.view().table, "event_time")


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


def _bits(first: int, end: int) -> int:
    """Ones at the places [first, end)."""
    return (1 << end) - (1 << first) if end > first else 0


def _places(bits: int) -> Iterator[int]:
    """The places of the ones, the lowest first."""
    while bits:
        yield (place := _lowest(bits))
        bits &= ~(1 << place)


def _lowest(bits: int) -> int:
    """The place of the lowest one; at least one is set."""
    return (bits & -bits).bit_length() - 1
