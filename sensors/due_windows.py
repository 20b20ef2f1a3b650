"""The sensor that computes what is due: every due window that a group's ledger does not have, the oldest first.

It asks the ledgers, never Dagster's latest partition, so windows that were missed while the daemon was down are caught up.
A group whose ledger or inputs cannot be read is named in the log and by the tick, and stops no other.
It keeps no cursor: what was launched, and how often, Dagster's runs say. `docs/schedules.md` has the rules.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from threading import Lock

import dagster as dg

from feature_assets.catalogue import offline_key
from featurestore.declaration import Catalog, FeatureGroup, Source, TimeWindow
from featurestore.declaration.windows import Windowless
from featurestore.errors import FeatureStoreError, InvalidInput
from featurestore.registry.history import RegistryHistory
from featurestore.schedule.attempts import Attempts, Tried, launchable
from featurestore.schedule.due import Owed
from featurestore.schedule.landings import Holds, Landings
from featurestore.schedule.watch import Watch
from resources.run_tags import OFFLINE
from resources.store import StoreResource
from sensors.launches import SWITCHED_OFF, Run, ended_runs, request, unfinished_runs

NAME = "due_windows"
MINIMUM_INTERVAL_SECONDS = 30
GROUPS_A_RUN = 50
GROUPS_TOLD = 10
PRIORITY = 10
"""Above backfills, which are below 0, and a person's own runs, at 0."""

Launch = tuple[FeatureGroup, tuple[TimeWindow, ...]]


def due_windows(catalog: Catalog, landings: Landings) -> list[dg.SensorDefinition]:
    """The sensor of one code location; none where no group has windows.

    Args:
        catalog: The declarations of the location.
        landings: Shared with the sensor of landing files.
    """
    groups = [group for group in catalog.groups if not isinstance(group.cadence, Windowless)]
    schedule = _Schedule(catalog, landings)

    @dg.sensor(
        name=NAME,
        asset_selection=dg.AssetSelection.assets(*(offline_key(group) for group in groups)),
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Computes every window that is due and that its group's ledger does not have, the oldest first.",
    )
    def due(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        return schedule.tick(context, store)

    return [due] if groups else []


@dataclass
class _Schedule:
    catalog: Catalog
    landings: Landings
    watch: Watch = field(init=False)
    holds: Holds = field(default_factory=Holds)
    lock: Lock = field(default_factory=Lock)
    is_applied: bool = False

    def __post_init__(self) -> None:
        self.watch = Watch(self.catalog)

    def tick(self, context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        with self.lock:
            settings, now = store.settings(), store.clock()()
            if not settings.schedule:
                return dg.SkipReason(SWITCHED_OFF)
            self.is_applied = self.is_applied or RegistryHistory(settings.root).current() is not None
            if not self.is_applied:
                return dg.SkipReason("Nothing has been applied yet: run `featurestore apply`.")
            owed = self.watch.owed(settings.root, now, store.offline)
            for name, error in self.watch.unreadable.items():
                context.log.error(f"What {name!r} owes cannot be told, and is asked again: {error}")
            if not owed:
                return dg.SkipReason(self._with_unreadable("Nothing is due."))
            launches = list(self._launches(context, owed, store, now))
            self.holds.keep(owed.keys() - {group for group, _ in launches})
            if not launches:
                return dg.SkipReason(self._with_unreadable(_why(owed)))
            return dg.SensorResult(run_requests=list(_requests(launches, now)))

    def _with_unreadable(self, why: str) -> str:
        names = sorted(self.watch.unreadable)
        told = ", ".join(names[:GROUPS_TOLD]) + (
            f" and {len(names) - GROUPS_TOLD} more" if len(names) > GROUPS_TOLD else ""
        )
        return f"{why} Not looked at, since they cannot be read: {told}." if names else why

    def _launches(
        self,
        context: dg.SensorEvaluationContext,
        owed: Mapping[FeatureGroup, Owed],
        store: StoreResource,
        now: datetime,
    ) -> Iterator[Launch]:
        unread = cache(lambda source: self._unread(context, store, source, now))
        ended = ended_runs(context.instance, OFFLINE, NAME)
        unfinished = unfinished_runs(context.instance, OFFLINE, NAME)
        for group, work in owed.items():
            attempts = _attempts(group, unfinished, ended)
            windows = launchable(work.ready, attempts, now, self.watch.windows_a_run(group))
            # A run that ended between the look at the ledger and the one at the runs has written to the ledger.
            if windows and self._is_current(group) and not self.holds.is_held(self.catalog, group, unread, now):
                yield group, windows

    def _is_current(self, group: FeatureGroup) -> bool:
        """Whether nothing was written to a group's ledger since; False if that cannot be read, which the next look tells."""
        try:
            return self.watch.is_current(group)
        except FeatureStoreError:
            return False

    def _unread(
        self, context: dg.SensorEvaluationContext, store: StoreResource, source: Source, now: datetime
    ) -> dict[str, str]:
        """The files that windows may wait for; none where the landing zone cannot be looked at, or all would wait with it."""
        settings = store.settings()
        try:
            return self.landings.unread(settings.root, settings.landing, source, now.date())
        except FeatureStoreError:
            context.log.exception(
                f"Landing files of source {source.name!r} cannot be looked at; no window waits for them."
            )
            return {}


def _attempts(group: FeatureGroup, unfinished: Sequence[Run], ended: Sequence[Run]) -> Attempts:
    open_runs = [run for run in unfinished if group.stored_name in run.names]
    tried: dict[datetime, Tried] = {}
    for run in ended:
        at = run.launched_at
        if at is not None and group.stored_name in run.names:
            tried |= {
                start: tried[start].again(at) if start in tried else Tried(1, at) for start in _starts(group, run)
            }
    busy = {start for run in open_runs for start in _starts(group, run)}
    return Attempts(frozenset(busy), tried, any(run.is_own for run in open_runs))


def _starts(group: FeatureGroup, run: Run) -> list[datetime]:
    """The starts of a run's windows; none if its keys are not this group's."""
    cadence = group.cadence
    if run.keys is None or isinstance(cadence, Windowless):
        return []
    try:
        first, last = (cadence.window_of(key) for key in run.keys)
    except InvalidInput:
        return []
    return [window.start for window in cadence.windows_between(first.start, last.end)]


def _requests(launches: Iterable[Launch], now: datetime) -> Iterator[dg.RunRequest]:
    """One run for the groups of one cadence that are to compute the same windows; Dagster gives a run one range of keys."""
    together: dict[tuple[str, str], list[FeatureGroup]] = {}
    for group, windows in launches:
        if not isinstance(group.cadence, Windowless):
            keys = (group.cadence.key_of(windows[0]), group.cadence.key_of(windows[-1]))
            together.setdefault(keys, []).append(group)
    for keys, groups in together.items():
        for first in range(0, len(groups), GROUPS_A_RUN):
            some = groups[first : first + GROUPS_A_RUN]
            yield request([offline_key(group) for group in some], keys, NAME, now, PRIORITY)


def _why(owed: Mapping[FeatureGroup, Owed]) -> str:
    ready, blocked = (sum(len(getattr(work, name)) for work in owed.values()) for name in ("ready", "blocked"))
    return (
        f"{ready + blocked} windows of {len(owed)} groups are due: {blocked} wait for upstream windows, the others for a run "
        "that is under way, for files that have landed, or for their next try."
    )
