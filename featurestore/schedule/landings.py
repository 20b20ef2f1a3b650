"""Landing files that are not taken in yet, and due windows that wait for them.

After a night with the daemon down both lie there: files, and windows that read them. A window that was computed first would
miss rows that were known by its cut-off. So a group waits for the files that had landed when its windows were found to be due,
but not for ever: a file that nobody manages to take in holds nothing for longer than `LONGEST_HOLD`, and neither do files
that land meanwhile.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from threading import Lock

import polars as pl

from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.landing import landed_marks, landing_day
from featurestore.location import Location
from featurestore.offline.journal import UNREAD
from featurestore.offline.receipts import Receipts

LONGEST_HOLD = timedelta(minutes=10)

Landed = tuple[str, str, str]
"""Source, file and mark."""


@dataclass
class Landings:
    """The receipts of sources, kept in a process and read on; for any number of threads.

    Args:
        since: The first day of landing; files of earlier days are left alone.
    """

    since: date
    _read: dict[tuple[str, str], tuple[int, dict[str, str]]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def unread(self, root: Location, landing: Location, source: Source, today: date) -> dict[str, str]:
        """The landing files of a source that have no receipt under their mark, with their marks; in name order.

        Left out are files of days to come and, unless the source is timeless, files whose names start with no day.

        Raises:
            StoreUnavailable: landing zone or store cannot be reached.
        """
        landed = landed_marks(landing, source.name)
        marks = {name: mark for name, mark in landed.items() if source.is_timeless or self._has_come(name, today)}
        if not marks:
            return {}
        with self._lock:
            taken = self._taken(root, source)
            return {name: mark for name, mark in marks.items() if taken.get(name) != mark}

    def _has_come(self, name: str, today: date) -> bool:
        day = landing_day(name)
        return day is not None and self.since <= day <= today

    def _taken(self, root: Location, source: Source) -> dict[str, str]:
        version, taken = self._read.get((root.uri, source.name), (UNREAD, {}))
        records, reached = Receipts(root, source.name).journal.read_on(version)
        taken |= dict(records.select(pl.col("file"), pl.col("mark")).rows())
        self._read[root.uri, source.name] = (reached, taken)
        return taken


@dataclass
class Holds:
    """Since when the due windows of each group wait, and for which files."""

    _held: dict[str, tuple[datetime, frozenset[Landed]]] = field(default_factory=dict)
    _given_up: set[Landed] = field(default_factory=set)

    def is_held(
        self, catalog: Catalog, group: FeatureGroup, unread: Callable[[Source], dict[str, str]], now: datetime
    ) -> bool:
        """Whether the due windows of a group are to wait for files that have landed.

        Args:
            unread: What `Landings` says of a source.
        """
        landed = frozenset(
            (source.name, name, mark) for source in catalog.sources_of(group) for name, mark in unread(source).items()
        )
        held_since, waited_for = self._held.get(group.stored_name, (now, landed - self._given_up))
        since = min(held_since, now)
        if not (left := waited_for & landed):
            return False
        if now - since >= LONGEST_HOLD:
            self._given_up |= left
            return False
        self._held[group.stored_name] = (since, left)
        return True

    def keep(self, groups: Iterable[FeatureGroup]) -> None:
        """Forget the holds of all other groups: what is due next of them waits for what has landed by then."""
        names = {group.stored_name for group in groups}
        self._held = {name: held for name, held in self._held.items() if name in names}
