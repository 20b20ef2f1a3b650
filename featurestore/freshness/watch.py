"""Watching every group of a store: one look gives the freshness of each.

A watch is kept from look to look, and then only reads what was written since. Not here: what is kept of a look (`journal.py`).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Protocol

from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.freshness.copies import Copies, Parts, Served
from featurestore.freshness.facts import GroupFacts, OnlineFacts, WindowFacts
from featurestore.freshness.follow import SourceFollower, TableFollower, window_facts, window_follower
from featurestore.freshness.held import Held, HeldFindings
from featurestore.freshness.judgement import GroupFreshness, judge
from featurestore.offline.follower import LedgerFollower
from featurestore.offline.raw import raw_location
from featurestore.offline.storage import Storage
from featurestore.offline.store import OfflineStore
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import Origin, RegisteredGroup

READERS = 16
Follower = LedgerFollower | TableFollower
Speaker = SourceFollower | TableFollower
"""What knows the newest event of a source or a pushed group."""

log = logging.getLogger("featurestore.freshness")


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
        self._copies = None if parts_of is None else Copies(parts_of)
        self._groups: dict[str, Follower] = {
            group.name: self._follower(group) for group in self.registry.groups.values()
        }
        self._speakers = {name: one for name, one in self._groups.items() if isinstance(one, TableFollower)}
        self._findings = HeldFindings(store)
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
        unreadable: dict[str, str] | None = None,
    ) -> dict[str, GroupFreshness]:
        """Look once.

        Args:
            confirmed: When each group was last confirmed to hold everything due; groups may be missing.
            groups: Only these; default every group.
            now: Look as of this instant; default what the store's clock says.
            unreadable: Where it is given, it gets the groups that rest on something that cannot be read, and why, and the others
                are looked at all the same.

        Returns:
            The freshness of each, in the registry's order, but for those that are unreadable. An online part that does not answer
            shows in the facts.

        Raises:
            StoreUnavailable: nothing can be read at all, or something cannot and `unreadable` is not given.
        """
        now = now or self._store.clock()
        names = list(self._groups) if groups is None else [self.registry.group(name).name for name in groups]
        troubles = self._follow(names)
        if unreadable is None and troubles:
            raise StoreUnavailable(
                f"The freshness of {', '.join(troubles)} cannot be told: {next(iter(troubles.values()))}"
            )
        if unreadable is not None:
            unreadable |= troubles
        readable = [name for name in names if name not in troubles]
        self._findings.look({name: held for name in readable if (held := _newest_held(self._groups[name]))})
        online = self._online(readable, now)
        return {
            name: self._freshness(self.registry.groups[name], confirmed or {}, online.get(name), now)
            for name in readable
        }

    def confirmed(self, found: GroupFreshness, at: datetime) -> GroupFreshness:
        """What a look found of a group, judged anew as of an instant at which it was confirmed to hold everything due."""
        facts = replace(found.facts, confirmed_at=at)
        return judge(found.group, self.registry.origins_of(found.group.name), facts, found.at)

    def _follower(self, group: RegisteredGroup) -> Follower:
        if group.has_windows:
            return window_follower(group, self._store.ledger(group.name))
        return TableFollower(self._store.table(group.name))

    def _speaker(self, origin: Origin) -> Speaker:
        return self._speakers[origin.name] if isinstance(origin, RegisteredGroup) else self._sources[origin.name]

    def _follow(self, names: Sequence[str]) -> dict[str, str]:
        """Read what was written since; the groups of which not all could be read, and why."""
        origins = {name: self.registry.origins_of(name) for name in names}
        followed: dict[str, Look] = {f"offline/{name}": self._groups[name] for name in names}
        followed |= {_asset(origin): self._speaker(origin) for of in origins.values() for origin in of}
        troubles = self._each(followed)
        rests_on = {name: [f"offline/{name}", *map(_asset, origins[name])] for name in names}
        found = {
            name: [f"{asset}: {troubles[asset]}" for asset in assets if asset in troubles]
            for name, assets in rests_on.items()
        }
        return {name: "; ".join(told) for name, told in found.items() if told}

    def _each(self, followed: Mapping[str, Look]) -> dict[str, FeatureStoreError]:
        """Look at each, whatever becomes of the others; by name what could not be read. If none could, that is raised."""
        if self._store.root.is_local:
            looks = [_looked(one) for one in followed.values()]
        else:
            with ThreadPoolExecutor(READERS) as readers:
                looks = list(readers.map(_looked, followed.values()))
        troubles = {name: error for name, error in zip(followed, looks, strict=True) if error is not None}
        if troubles and len(troubles) == len(followed):
            raise next(iter(troubles.values()))
        return troubles

    def _online(self, names: Sequence[str], now: datetime) -> dict[str, OnlineFacts]:
        if self._copies is None:
            return {}
        groups = [self.registry.groups[name] for name in names]
        return self._copies.look([Served(one, self._groups[one.name].written) for one in groups if one.is_online], now)

    @cached_property
    def _declared_since(self) -> Mapping[str, datetime]:
        try:
            return RegistryHistory(self._store.root).declared_since()
        except FeatureStoreError as error:
            log.warning("Since when groups and sources are declared cannot be told: %s", error)
            return {}

    def _freshness(
        self, group: RegisteredGroup, confirmed: Mapping[str, datetime], online: OnlineFacts | None, now: datetime
    ) -> GroupFreshness:
        follower, origins = self._groups[group.name], self.registry.origins_of(group.name)
        spoken: Sequence[Origin] = [group] if group.kind == "pushed" else origins
        last_events = {one.name: self._speaker(one).last_event for one in spoken}
        silent = [one for one in spoken if last_events[one.name] is None]
        declared = self._declared_since if silent else {}
        facts = GroupFacts(
            materialized_at=follower.materialized_at,
            confirmed_at=confirmed.get(group.name),
            last_events=last_events,
            declared_since={one.name: declared[key] for one in silent if (key := _declared_as(one)) in declared},
            windows=self._windows(group, follower, now) if isinstance(follower, LedgerFollower) else None,
            online=online,
        )
        return judge(group, origins, facts, now)

    def _windows(self, group: RegisteredGroup, follower: LedgerFollower, now: datetime) -> WindowFacts:
        is_empty = follower.newest < 0
        since = self._declared_since.get(f"group {group.name}") if is_empty else None
        held = _newest_held(follower)
        found = self._findings.of(group.name, held) if held else None
        return replace(window_facts(group, follower, now, since), held_for=found or "")


def _newest_held(follower: Follower) -> Held | None:
    if not isinstance(follower, LedgerFollower) or not follower.held:
        return None
    start = max(follower.held)
    return start, follower.held[start].recorded_at


def _asset(origin: Origin) -> str:
    return f"offline/{origin.name}" if isinstance(origin, RegisteredGroup) else f"raw/{origin.name}"


def _declared_as(origin: Origin) -> str:
    """How the registry's history names it."""
    return f"group {origin.name}" if isinstance(origin, RegisteredGroup) else f"source {origin.name}"


def _looked(one: Look) -> FeatureStoreError | None:
    try:
        one.look()
    except FeatureStoreError as error:
        return error
    return None
