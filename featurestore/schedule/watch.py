"""What the groups of a catalogue owe, as a process that asks every half minute keeps track of it.

Most of the time nothing is due, which the clock alone tells: a group sleeps until its next window is due, or for a few
minutes, since a rollback or a person may have changed its ledger meanwhile. Only of a group that is awake the ledger is looked
at, and of its upstream groups, for what was written since the last look. A group that cannot be read is nobody else's trouble:
what reads its windows waits for them.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from featurestore.backfill.selection import first_backfillable
from featurestore.backfill.strategies.incremental import computed_otherwise, input_versions
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import DAY, TimeWindow, Windowless
from featurestore.errors import FeatureStoreError
from featurestore.location import Location
from featurestore.offline.follower import LedgerFollower
from featurestore.offline.ledger import Ledger
from featurestore.offline.store import OfflineStore
from featurestore.schedule.due import Owed, awaited, due_before, missing_windows, next_due, owed

LONGEST_SLEEP = timedelta(minutes=5)
QUARANTINE_SLEEP = timedelta(minutes=1)
"""How often a group is looked at of which a window is in quarantine."""
READERS = 16
NEVER = datetime.min.replace(tzinfo=UTC)
NEW_GROUPS_A_LOOK = 200
"""A ledger that was never looked at takes some 20 ms. A tick has 60 seconds in all."""
A_RUN = 31 * DAY


@dataclass
class _Watched:
    group: FeatureGroup
    follower: LedgerFollower
    sleeps_until: datetime = NEVER
    was_looked_at: bool = False
    ledger_error: FeatureStoreError | None = None
    """Why its ledger could not be read on by the last look."""
    examined: object = None
    """What the windows in quarantine were last held against, all of which left them there."""


@dataclass
class Watch:
    """The ledgers of a catalogue's windowed and event groups. Not for two threads at once."""

    catalog: Catalog
    unreadable: dict[str, FeatureStoreError] = field(default_factory=dict, init=False)
    """The groups that the last look could not read, by stored name, and why."""
    _root: Location | None = None
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def owed(self, root: Location, now: datetime, store: Callable[[], OfflineStore]) -> dict[FeatureGroup, Owed]:
        """What the groups owe that are awake; a group that owes nothing is left out, and sleeps. So is one that is `unreadable`.

        Args:
            root: Of the store; another one than before is read from its beginning.
            now: By the store's clock.
            store: Opens the store, which is done only if something is due.
        """
        if root != self._root:
            self._begin(root)
        awake = self._awake(now)
        self.unreadable.clear()
        self._read_on(self._with_upstreams(awake))
        for watched in awake:
            watched.was_looked_at = True
        readable = [watched for watched in awake if watched.ledger_error is None]
        found = {watched.group: self._owed_by(watched, now, store) for watched in readable}
        return {group: work for group, work in found.items() if work.ready or work.blocked}

    def is_current(self, group: FeatureGroup) -> bool:
        """Whether nothing was written to the ledger of a group since it was looked at."""
        watched = self._watched[group.stored_name]
        return watched.follower.ledger.journal.is_at(watched.follower.version)

    def windows_a_run(self, group: FeatureGroup) -> int:
        """The most windows that one run computes: 31 days of them."""
        return A_RUN // self._watched[group.stored_name].follower.length

    def _begin(self, root: Location) -> None:
        self._root = root
        self._watched = {
            group.stored_name: _Watched(
                group, LedgerFollower(Ledger(root, group.stored_name), group.cadence.origin, group.cadence.length)
            )
            for group in self.catalog.ordered_groups
            if not isinstance(group.cadence, Windowless)
        }

    def _awake(self, now: datetime) -> list[_Watched]:
        """The groups to look at; of those never looked at only so many that a look has its end.

        One that would sleep for longer than any does was put to sleep by a clock that was ahead.
        """
        awake = [one for one in self._watched.values() if not now < one.sleeps_until <= now + LONGEST_SLEEP]
        new = [watched for watched in awake if not watched.was_looked_at]
        later = {watched.group.stored_name for watched in new[NEW_GROUPS_A_LOOK:]}
        return [watched for watched in awake if watched.group.stored_name not in later]

    def _with_upstreams(self, awake: Iterable[_Watched]) -> list[_Watched]:
        names: set[str] = set()
        for watched in awake:
            upstreams = awaited(self.catalog, watched.group).values()
            names |= {watched.group.stored_name, *(upstream.stored_name for upstream in upstreams)}
        return [self._watched[name] for name in sorted(names)]

    def _read_on(self, watched: list[_Watched]) -> None:
        if not watched:
            return
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(_look, watched))
        self.unreadable |= {one.group.stored_name: one.ledger_error for one in watched if one.ledger_error}

    def _owed_by(self, watched: _Watched, now: datetime, store: Callable[[], OfflineStore]) -> Owed:
        group, follower = watched.group, watched.follower
        wakes_at = min(next_due(group, follower, now), now + LONGEST_SLEEP)
        may_owe = follower.held or missing_windows(group, follower, now)
        if not may_owe or not (windows := self._windows_if_readable(watched, now, store())):
            watched.sleeps_until = min(wakes_at, now + QUARANTINE_SLEEP) if may_owe else wakes_at
            return Owed()
        watched.sleeps_until = NEVER
        return owed(self.catalog, group, windows, self._is_promoted, self.windows_a_run(group))

    def _windows_if_readable(self, watched: _Watched, now: datetime, store: OfflineStore) -> list[TimeWindow]:
        try:
            return self._windows_of(watched, now, store)
        except FeatureStoreError as error:
            self.unreadable[watched.group.stored_name] = error
            return []

    def _windows_of(self, watched: _Watched, now: datetime, store: OfflineStore) -> list[TimeWindow]:
        group, follower = watched.group, watched.follower
        if group.stored_name not in store.registry.groups or (
            follower.first_scheduled is None and not self._can_begin(store, group)
        ):
            return []
        allowed_from = first_backfillable(store.registry.group(group.stored_name))
        missing = missing_windows(group, follower, now, allowed_from)
        return sorted({*missing, *self._to_repeat(watched, now, store)})

    def _to_repeat(self, watched: _Watched, now: datetime, store: OfflineStore) -> list[TimeWindow]:
        """The windows in quarantine, of those that the schedule computes, for which something has changed since."""
        group, follower = watched.group, watched.follower
        first, until = follower.first_scheduled, due_before(group, follower, now)
        entries = {
            follower.window(number): entry
            for start, entry in follower.held.items()
            if first is not None and first <= (number := follower.number_at(start)) < until
        }
        if not entries:
            return []
        held_against = (sorted(entry.run_id for entry in entries.values()), _inputs(store, self.catalog, group))
        if watched.examined == held_against:
            return []
        changed = computed_otherwise(store, self.catalog, group, entries)
        watched.examined = None if changed else held_against
        return list(changed)

    def _can_begin(self, store: OfflineStore, group: FeatureGroup) -> bool:
        """Whether everything that a group reads has rows: of an empty store no window is computed."""
        inputs = self.catalog.inputs_of(group).values()
        sources = [store.source(item).version() for item in inputs if isinstance(item, Source)]
        groups = [item for item in inputs if isinstance(item, FeatureGroup) and isinstance(item.cadence, Windowless)]
        return None not in (*sources, *(store.table(group.stored_name).version() for group in groups))

    def _is_promoted(self, name: str, start: datetime) -> bool:
        watched = self._watched[name]
        return watched.ledger_error is None and watched.follower.is_promoted(start)


def _look(watched: _Watched) -> None:
    watched.ledger_error = None
    try:
        watched.follower.look()
    except FeatureStoreError as error:
        watched.ledger_error = error


def _inputs(store: OfflineStore, catalog: Catalog, group: FeatureGroup) -> Mapping[str, int | None]:
    return input_versions(store, catalog.inputs_of(group))
