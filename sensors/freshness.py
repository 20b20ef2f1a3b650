"""The sensor that watches freshness: it confirms groups that hold everything due, keeps what it finds, tells the readers of the online
store, and reports changes.

What is late, or held by the gate, becomes an alert in the same tick; telling of it is the sensor `alerts`'.
One look every `LOOK_EVERY` at every group of a code location; between looks it keeps what it has read.

A tick may die at any point: what it kept and did not report, the next one reports, since the cursor moves only when Dagster has
the events. So an event may come twice, and none is lost.
"""

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from checks.freshness import freshness_evaluation, freshness_spec
from feature_assets.freshness import confirmation
from featurestore.alerts.lateness import late_groups
from featurestore.declaration import Catalog, FeatureGroup
from featurestore.declaration.tier import LOOK_EVERY
from featurestore.freshness.journal import FreshnessJournal
from featurestore.freshness.judgement import GroupFreshness
from featurestore.freshness.publishing import publish
from featurestore.freshness.watch import FreshnessWatch
from featurestore.registry.history import RegistryHistory
from featurestore.store import FeatureStore
from resources.store import StoreResource
from sensors.alerts import book_alerts

log = logging.getLogger("featurestore.freshness")


def freshness_sensor(catalog: Catalog) -> dg.SensorDefinition:
    """The sensor of one code location; it runs from the first start of the daemon."""
    groups = list(catalog.groups)
    looks = Looks()

    @dg.sensor(
        name="freshness",
        minimum_interval_seconds=int(LOOK_EVERY.total_seconds()),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Confirms groups that hold everything due, and reports when one is late, in breach, or well again.",
    )
    def freshness(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
        if RegistryHistory(store.settings().root).current() is None:
            return dg.SensorResult(skip_reason="Nothing has been applied yet: featurestore apply.")
        journal = store.settings().freshness_journal(store.clock())
        found = looks.look(groups, store, journal)
        if found is None:
            return dg.SensorResult(skip_reason="The look before is still going on.", cursor=context.cursor)
        untold, told = Told.from_cursor(context.cursor).next(journal, found)
        events = [event for group in groups if group.stored_name in found for event in untold.events(group, found)]
        return dg.SensorResult(asset_events=events, cursor=told.to_cursor())

    return freshness


@dataclass(frozen=True, slots=True)
class Untold:
    """The groups of which Dagster is to be told: a changed status, or that everything due is there."""

    changed: frozenset[str]
    confirmed: frozenset[str]

    def events(
        self, group: FeatureGroup, found: Mapping[str, GroupFreshness]
    ) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        """The events of one group, by the present look."""
        name = group.stored_name
        if name in self.confirmed:
            yield confirmation(group)
        if name in self.changed:
            yield freshness_evaluation(freshness_spec(group), found[name])


@dataclass(frozen=True, slots=True)
class Told:
    """What Dagster has been told of, as the cursor says it.

    Args:
        change: The number of the last change of status; None: of none.
        confirmed: The instant of the last confirmation; None: of none.
        waiting: Groups with an earlier one that is still to be told.
    """

    change: int | None = None
    confirmed: datetime | None = None
    waiting: frozenset[str] = frozenset()

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Told":
        """What a cursor says; nothing, where there is none."""
        if not cursor:
            return cls()
        kept = json.loads(cursor)
        confirmed = kept["confirmed"] and datetime.fromisoformat(kept["confirmed"])
        return cls(kept["change"], confirmed, frozenset(kept["waiting"]))

    def to_cursor(self) -> str:
        confirmed = self.confirmed and self.confirmed.isoformat()
        return json.dumps({"change": self.change, "confirmed": confirmed, "waiting": sorted(self.waiting)})

    def next(self, journal: FreshnessJournal, found: Mapping[str, GroupFreshness]) -> tuple[Untold, "Told"]:
        """What is to be told by what the journal has, and what will have been told then.

        A confirmation is told of a group that is served whole: it waits for the look at which it is.
        """
        changed, change = self._changed(journal, found)
        # One of an instant to come is of a clock that was set back: it is told when that instant has come.
        confirmed = {name: at for name, at in journal.confirmed().items() if name in found and at <= found[name].at}
        untold = self.waiting & found.keys()
        untold |= {name for name, at in confirmed.items() if self.confirmed is None or at > self.confirmed}
        ready = frozenset(name for name in untold if _is_whole(found[name]))
        told = Told(change, max(confirmed.values(), default=None), untold - ready)
        return Untold(changed, ready), told

    def _changed(self, journal: FreshnessJournal, found: Mapping[str, GroupFreshness]) -> tuple[frozenset[str], int]:
        """The groups that changed since, and the number of the last change; every group where it is not known since when."""
        newest = journal.newest_change()
        if self.change is None or self.change > newest:  # a journal that was begun anew counts from one
            return frozenset(found), newest
        changes = journal.changes(self.change)
        return frozenset(change.group for change in changes), changes[-1].number if changes else self.change


class Looks:
    """Looks at the groups of a code location, one at a time, with what the last one read still in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch: FreshnessWatch | None = None
        self._watched: FeatureStore | None = None

    def look(
        self, groups: Sequence[FeatureGroup], store: StoreResource, journal: FreshnessJournal
    ) -> Mapping[str, GroupFreshness] | None:
        """Look, confirm what holds everything due, keep what was found, book alerts, and tell readers.

        Returns:
            What was found; None if the look before has not ended: ticks that waited for it would take every thread of the server.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._look(groups, store.feature_store(), journal)
        finally:
            self._lock.release()

    def _look(
        self, groups: Sequence[FeatureGroup], features: FeatureStore, journal: FreshnessJournal
    ) -> Mapping[str, GroupFreshness]:
        known = [group.stored_name for group in groups if group.stored_name in features.registry.groups]
        watch, now = self._watch_of(features), features.clock()
        unreadable: dict[str, str] = {}
        found = watch.look(journal.confirmed(), known, now, unreadable)
        for name, why in unreadable.items():
            log.warning("The freshness of group %s cannot be told: %s", name, why)
        due = {name for name, one in found.items() if one.is_refresh_due}
        if due:
            journal.confirm(due, now)
        # A group that is confirmed is as fresh as it is known to be: what is kept of it says so at once.
        after = {name: watch.confirmed(one, now) if name in due else one for name, one in found.items()}
        journal.record(list(after.values()))
        late = late_groups(features.registry, after, now, unreadable)
        book_alerts(features.settings, features.registry, late, features.clock)
        for trouble in publish(self._watched.online if self._watched else features.online, after.values()):
            log.warning("Readers are not told of a look at freshness: %s", trouble)
        return after

    def _watch_of(self, features: FeatureStore) -> FreshnessWatch:
        if self._watch is None or self._watched is None or _place(self._watched) != _place(features):
            if self._watched is not None:
                self._watched.close()
            self._watch, self._watched = FreshnessWatch(features.offline, features.online.parts_of), features
        return self._watch


def _is_whole(found: GroupFreshness) -> bool:
    """Whether what a confirmation says is true of a group now, and of its copy."""
    return found.holds_everything_due and found.is_served_whole


def _place(features: FeatureStore) -> tuple[str, str]:
    """What a watch is of: another store, or another registry, takes a watch of its own."""
    return features.settings.root.uri, features.registry.digest
