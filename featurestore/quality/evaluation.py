"""What the windows of a group are held against: read from what was kept, chosen by declaration, compared.

The comparison itself is in `drift.py`, the choice in `reference.py`; both are pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from featurestore.declaration.windows import Daily, Hourly
from featurestore.offline.store import OfflineStore
from featurestore.quality.deployed import DeployedSet, deployed_set
from featurestore.quality.drift import WindowDrift, window_drift
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.recording import production_statistics
from featurestore.quality.reference import REACH, Reference, TrainingWindows, reference_starts, references
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

LATELY = {"hourly": 48, "daily": 14}
"""How many of a group's newest windows count as lately: two days, two weeks."""


class ChosenReferences:
    """What windows of one group are held against.

    Args:
        store: Where statistics and training sets lie.
        group: As registered.
        known: Windows in production; more may join.
        features: Those to compare.
    """

    def __init__(
        self,
        store: OfflineStore,
        group: RegisteredGroup,
        known: Iterable[WindowStatistics],
        features: Sequence[RegisteredFeature],
    ) -> None:
        self._group, self._features = group, features
        self._known = {one.window_start: one for one in known}
        trains = any(feature.drift is not None and feature.drift.reference == "training" for feature in features)
        self._trained = trained_windows(store, group) if trains else {}

    def add(self, window: WindowStatistics) -> None:
        """Let a window stand as a reference of later ones."""
        self._known[window.window_start] = window

    def drift_of(self, window: WindowStatistics) -> WindowDrift:
        return window_drift(self._features, window, lambda feature: self._references(feature, window.window_start))

    def _references(self, feature: RegisteredFeature, start: datetime) -> list[Reference]:
        if feature.drift is None:
            return []
        trained = self._trained.get(feature.name, [])
        is_hourly = self._group.cadence == "hourly"
        return references(feature.drift.reference, start, self._known, trained, is_hourly=is_hourly)


@dataclass(frozen=True, slots=True)
class Lately:
    """The newest windows of a group that are in production, oldest first, and how far each is from its references."""

    statistics: tuple[WindowStatistics, ...]
    drift: tuple[WindowDrift, ...]


def lately(store: OfflineStore, group_name: str, *, most: int | None = None, is_kept: bool = False) -> Lately:
    """Evaluate the newest windows of a group.

    Args:
        most: How many; default two days of hourly windows, two weeks of daily ones.
        is_kept: Keep statistics that were found lacking.
    """
    group = store.registry.group(group_name)
    if not group.has_windows:
        return Lately((), ())
    starts = store.ledger(group_name).in_production()["window_start"].sort().to_list()
    asked = starts[-(most or LATELY[group.cadence]) :]
    if not asked:
        return Lately((), ())
    known = production_statistics(store, group_name, since=asked[0] - REACH, is_kept=is_kept)
    shown = tuple(one for one in known if one.window_start >= asked[0])
    return Lately(shown, tuple(evaluate(store, group, known, shown)))


def evaluate(
    store: OfflineStore, group: RegisteredGroup, known: Iterable[WindowStatistics], windows: Iterable[WindowStatistics]
) -> list[WindowDrift]:
    """Hold windows against the references of their features, one after the other."""
    features = [feature for feature in group.features if feature.drift is not None]
    chosen = ChosenReferences(store, group, known, features)
    return [chosen.drift_of(window) for window in windows]


def trained_windows(store: OfflineStore, group: RegisteredGroup) -> dict[str, list[TrainingWindows]]:
    """By feature, the windows of every deployed training set of a service that reads it; features that none reads are left out."""
    found: dict[str, list[TrainingWindows]] = {}
    for service in store.registry.services.values():
        pairs = [reference.split(":") for reference in service.references]
        names = [feature for name, feature in pairs if name == group.name]
        chosen = deployed_set(store.root, service.name) if names else None
        if chosen is None:
            continue
        windows = _training_windows(store, group, chosen)
        for name in names:
            found.setdefault(name, []).append(windows)
    return found


def _training_windows(store: OfflineStore, group: RegisteredGroup, chosen: DeployedSet) -> TrainingWindows:
    name = f"training set {chosen.name[:8]} of {chosen.service}"
    counted: Mapping[str, Any] | None = chosen.manifest.get("windows", {}).get(group.name)
    if not counted:
        return TrainingWindows(name, {}, "the training set does not say of which windows it was made; build it anew")
    cadence = (Hourly if group.cadence == "hourly" else Daily)(date.fromisoformat(group.start[:10]))
    version = chosen.manifest["table_versions"].get(group.name)
    promoted = store.ledger(group.name).in_production(version)["window_start"]
    starts = sorted({cadence.window_of(key).start for key in counted}.intersection(promoted))
    if not starts:
        return TrainingWindows(name, {}, "the windows that the training set was made of are gone")
    wanted = reference_starts(starts, is_hourly=group.cadence == "hourly")
    since, until = min(wanted), max(wanted) + cadence.length
    known = production_statistics(store, group.name, since=since, until=until, starts=wanted, table_version=version)
    return TrainingWindows(name, {one.window_start: one for one in known}, starts=starts)
