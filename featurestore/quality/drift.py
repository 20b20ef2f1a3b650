"""How far a window is from its chosen references, feature by feature, and whether that is too far.

Pure. The distances and the rule for too far are the gate's own (`featurestore/gate/comparison.py`), on what was kept of the windows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from featurestore.declaration.feature import DEFAULT_DRIFT, DriftPolicy
from featurestore.gate.comparison import MIN_ROWS, apart, bound_of, compare_feature
from featurestore.gate.drift import Measure
from featurestore.gate.drift_report import share_table
from featurestore.gate.profile import FeatureProfile
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.profile import profile_of_statistics
from featurestore.quality.reference import Reference
from featurestore.quality.statistics import FeatureStatistics
from featurestore.registry.snapshot import RegisteredFeature

Status = Literal["pass", "warn", "block", "unjudged"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One distance, and the limit that ruled: the declared bound, what chance brings about, or what is usual between windows."""

    value: float
    limit: float

    @property
    def is_beyond(self) -> bool:
        return self.value > self.limit


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature of a window beside one reference.

    Args:
        feature: Its name.
        policy: What follows if it is too far.
        reference: Of what, for people.
        windows: Of how many windows the reference consists.
        measures: Every distance that is switched on and could be taken.
        unjudged: Why something could not be judged; empty if all was.
        shares: By bin or category, of both sides; only where something is too far.
    """

    feature: str
    policy: DriftPolicy
    reference: str
    windows: int
    measures: Mapping[Measure, Measured]
    unjudged: str = ""
    shares: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_beyond(self) -> bool:
        return any(measured.is_beyond for measured in self.measures.values())

    @property
    def worst(self) -> tuple[Measure, Measured] | None:
        """The measure that comes nearest to its limit, or is furthest beyond."""
        return max(self.measures.items(), key=lambda item: item[1].value / item[1].limit, default=None)


@dataclass(frozen=True, slots=True)
class WindowDrift:
    """Every compared feature of one window."""

    window_start: datetime
    features: tuple[FeatureDrift, ...]

    @property
    def beyond(self) -> list[FeatureDrift]:
        """Those that are too far, the furthest first."""
        return sorted((one for one in self.features if one.is_beyond), key=_excess, reverse=True)

    @property
    def status(self) -> Status:
        if found := self.beyond:
            return "block" if any(one.policy == "block" for one in found) else "warn"
        return "pass" if any(one.measures for one in self.features) else "unjudged"


def window_drift(
    features: Sequence[RegisteredFeature],
    window: WindowStatistics,
    references_of: Callable[[RegisteredFeature], Sequence[Reference]],
) -> WindowDrift:
    """Hold a window against the references of each feature.

    Args:
        features: Those that have a `drift`.
        window: What was kept of it.
        references_of: What a feature of this window is held against.
    """
    found = [
        _feature_drift(feature, mine, reference)
        for feature in features
        if (mine := window.feature(feature.name)) is not None
        for reference in references_of(feature)
    ]
    return WindowDrift(window.window_start, tuple(found))


def _feature_drift(feature: RegisteredFeature, mine: FeatureStatistics, reference: Reference) -> FeatureDrift:
    policy = (feature.drift or DEFAULT_DRIFT).policy
    theirs = reference.profiles(feature)
    if theirs is None:
        lacking = reference.lacking or "the reference windows are older than the feature"
        return FeatureDrift(feature.name, policy, reference.name, 0, {}, lacking)
    if mine.rows < MIN_ROWS:
        return FeatureDrift(feature.name, policy, reference.name, len(theirs.parts), {}, f"{mine.rows} rows")
    profile = profile_of_statistics(feature, mine)
    compared = compare_feature(feature, profile, theirs)
    limits = {excess.measure: excess.limit for excess in compared.beyond}
    measures = _measures(feature, profile, theirs.pool, limits)
    shares = share_table(profile, theirs.pool) if limits else ()
    unjudged = compared.unjudged.get(feature.name, "")
    return FeatureDrift(feature.name, policy, reference.name, len(theirs.parts), measures, unjudged, shares)


def _measures(
    feature: RegisteredFeature, mine: FeatureProfile, pool: FeatureProfile, limits: Mapping[Measure, float]
) -> dict[Measure, Measured]:
    """Every distance with the limit that ruled; one that the gate's rule lets pass is never above its own."""
    found: dict[Measure, Measured] = {}
    for name, distance in apart(pool, mine).items():
        if (bound := bound_of(feature, name)) is None:
            continue
        limit = limits.get(name, max(bound, distance.chance))
        found[name] = Measured(distance.value, limit if name in limits else max(limit, distance.value))
    return found


def _excess(one: FeatureDrift) -> float:
    worst = one.worst
    return 0.0 if worst is None else worst[1].value / worst[1].limit
