"""Watching every group of a store: one look gives the freshness of each.

A watch is kept from look to look, and then only reads what was written since. Not here: what is kept of a look (`journal.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from featurestore.errors import FeatureStoreError
from featurestore.freshness.facts import GroupFacts, OnlineFacts
from featurestore.freshness.follow import SourceFollower, TableFollower, served_after, window_facts, window_follower
from featurestore.freshness.judgement import GroupFreshness, judge
from featurestore.offline.follower import LedgerFollower, Written
from featurestore.offline.raw import raw_location
from featurestore.offline.storage import Storage
from featurestore.offline.store import OfflineStore
from featurestore.online.tier import MaterializationState, TierPart
from featurestore.registry.snapshot import RegisteredGroup

READERS = 16
Follower = LedgerFollower | TableFollower
Parts = Callable[[RegisteredGroup], Sequence[TierPart]]


class Look(Protocol):
    """Anything that is followed."""

    def look(self) -> None: ...


class FreshnessWatch:
    """The freshness of the groups of one registry snapshot. Not for several threads at once.

    Args:
        store: Where tables, ledgers and raw rows are; its clock rules what is due.
        parts_of: The parts of the online store that a group is served from; None: nobody looks at copies.
    """

    def __init__(self, store: OfflineStore, parts_of: Parts | None) -> None:
        self.registry = store.registry
        self._store = store
        self._parts_of = parts_of
        self._groups: dict[str, Follower] = {
            group.name: self._follower(group) for group in self.registry.groups.values()
        }
        self._sources = {
            name: SourceFollower(Storage(raw_location(store.root, name)), source.event_time)
            for name, source in self.registry.sources.items()
            if source.event_time
        }

    def look(
        self,
        confirmed: Mapping[str, datetime] | None = None,
        groups: Iterable[str] | None = None,
        now: datetime | None = None,
    ) -> dict[str, GroupFreshness]:
        """Look once.

        Args:
            confirmed: When each group was last confirmed to hold everything due; groups may be missing.
            groups: Only these; default every group.
            now: Look as of this instant; default what the store's clock says.

        Returns:
            The freshness of each, in the registry's order.

        Raises:
            StoreUnavailable: the offline store cannot be reached. An online part that does not answer shows in the facts.
        """
        now = now or self._store.clock()
        names = list(self._groups) if groups is None else [self.registry.group(name).name for name in groups]
        read = {source.name for name in names for source in self.registry.sources_of(name)}
        followed: list[Look] = [self._groups[name] for name in names]
        followed += [source for name, source in self._sources.items() if name in read]
        self._each(followed)
        return {name: self._freshness(self.registry.groups[name], confirmed or {}, now) for name in names}

    def confirmed(self, found: GroupFreshness, at: datetime) -> GroupFreshness:
        """What a look found of a group, judged anew as of an instant at which it was confirmed to hold everything due."""
        facts = replace(found.facts, confirmed_at=at)
        return judge(found.group, self.registry.sources_of(found.group.name), facts, found.at)

    def _follower(self, group: RegisteredGroup) -> Follower:
        if group.has_windows:
            return window_follower(group, self._store.ledger(group.name))
        return TableFollower(self._store.table(group.name))

    def _each(self, followed: Sequence[Look]) -> None:
        if self._store.root.is_local:
            for one in followed:
                one.look()
            return
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(lambda one: one.look(), followed))

    def _freshness(self, group: RegisteredGroup, confirmed: Mapping[str, datetime], now: datetime) -> GroupFreshness:
        follower, sources = self._groups[group.name], self.registry.sources_of(group.name)
        last_events = {source.name: self._sources[source.name].last_event for source in sources if source.event_time}
        if isinstance(follower, TableFollower) and group.kind == "pushed":
            last_events[group.name] = follower.last_event
        facts = GroupFacts(
            materialized_at=follower.materialized_at,
            confirmed_at=confirmed.get(group.name),
            last_events=last_events,
            windows=window_facts(group, follower, now) if isinstance(follower, LedgerFollower) else None,
            online=self._online(group, follower.written, now),
        )
        return judge(group, sources, facts, now)

    def _online(self, group: RegisteredGroup, written: Iterable[Written], now: datetime) -> OnlineFacts | None:
        if not group.is_online or self._parts_of is None:
            return None
        try:
            states = [part.state(group.name) for part in self._parts_of(group)]
        except FeatureStoreError as error:
            return OnlineFacts(unknown=str(error))
        lacking = [moment for state in states for moment in _lacking(state, written, served_after(group), now)]
        return OnlineFacts(behind_since=min(lacking, default=None))


def _lacking(
    state: MaterializationState | None, written: Iterable[Written], after: timedelta, now: datetime
) -> list[datetime]:
    """Since when rows that are known by now are not in a part.

    Args:
        after: How long after the start of what was written its rows are served.
    """
    moments = []
    for one in written:
        if state is None or one.version > state.version:
            moments.append(max(one.recorded_at, one.first + after))
        elif one.last + after > state.as_of:
            moments.append(max(one.recorded_at, one.last + after))
    return [moment for moment in moments if moment <= now]
