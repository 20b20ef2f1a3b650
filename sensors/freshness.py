"""The sensor that watches freshness: it confirms groups that hold everything due, keeps what it finds, tells the readers of the online
store, and reports changes.

What is late, or held by the gate, becomes an alert in the same tick; telling of it is the sensor `alerts`'.
One look every `LOOK_EVERY` at every group of a code location; between looks it keeps what it has read.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence

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
    def freshness(store: StoreResource) -> dg.SensorResult:
        if RegistryHistory(store.settings().root).current() is None:
            return dg.SensorResult(skip_reason="Nothing has been applied yet: featurestore apply.")
        journal = store.settings().freshness_journal(store.clock())
        return dg.SensorResult(asset_events=list(looks.report(groups, store, journal)))

    return freshness


class Looks:
    """Looks at the groups of a code location, one at a time, with what the last one read still in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch: FreshnessWatch | None = None
        self._watched: FeatureStore | None = None

    def report(
        self, groups: Sequence[FeatureGroup], store: StoreResource, journal: FreshnessJournal
    ) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        """Look, keep what was found, and give the events to report: confirmations, and checks of groups whose status changed."""
        features = store.feature_store()
        known = [group for group in groups if group.stored_name in features.registry.groups]
        with self._lock:
            watch, now = self._watch_of(features), features.clock()
            found = watch.look(journal.confirmed(), [group.stored_name for group in known], now)
            due = {name for name, one in found.items() if one.is_refresh_due}
            if due:
                journal.confirm(due, now)
            # A group that is confirmed is as fresh as it is known to be: what is kept of it says so at once.
            after = {name: watch.confirmed(one, now) if name in due else one for name, one in found.items()}
            changed = {change.group for change in journal.record(list(after.values()))}
            for trouble in publish(self._watched.online if self._watched else features.online, after.values()):
                log.warning("Readers are not told of a look at freshness: %s", trouble)
        book_alerts(features.settings, features.registry, late_groups(features.registry, after, now), features.clock)
        yield from self._events(known, after, due, changed)

    def _watch_of(self, features: FeatureStore) -> FreshnessWatch:
        if self._watch is None or self._watched is None or _place(self._watched) != _place(features):
            if self._watched is not None:
                self._watched.close()
            self._watch, self._watched = FreshnessWatch(features.offline, features.online.parts_of), features
        return self._watch

    def _events(
        self,
        groups: Sequence[FeatureGroup],
        found: Mapping[str, GroupFreshness],
        confirmed: set[str],
        changed: set[str],
    ) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        for group in groups:
            one = found[group.stored_name]
            if group.stored_name in confirmed and one.is_served_whole:
                yield confirmation(group, one)
            if group.stored_name in changed:
                yield freshness_evaluation(freshness_spec(group), one)


def _place(features: FeatureStore) -> tuple[str, str]:
    """What a watch is of: another store, or another registry, takes a watch of its own."""
    return features.settings.root.uri, features.registry.digest
