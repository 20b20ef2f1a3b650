"""What is too far: a window's profile held against those of the windows that it is compared with.

Pure. A distance counts if it is above the declared bound, above what chance brings about at these sizes, above the
bound for more than half of the reference windows one by one (a bad one among them spoils the pool, not the majority),
and above three times what the reference windows are usually apart themselves: delays differ from day to day, and no
bound in a declaration knows by how much.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import NormalDist

from featurestore.declaration.feature import Drift
from featurestore.gate.drift import Distance, Measure, distances, share_rise
from featurestore.gate.profile import FeatureProfile, Profile, pooled_profile
from featurestore.registry.snapshot import RegisteredFeature

MIN_ROWS = 200
"""With fewer rows on either side a distance is mostly chance, and nothing is judged."""
SPREADS = 3.0
UTMOST: dict[Measure, float] = {"psi": 5.0, "cosine": 1.0}
"""Measures that grow with the square of a change, and beyond what they are too far however restless the references are.
The others grow with the change, up to 1."""
NORMAL = NormalDist()
ALMOST_ONE = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Excess:
    """One distance beyond its limit; `limit` is the bound that ruled, `rows` how many of the window were compared."""

    feature: RegisteredFeature
    measure: Measure
    value: float
    limit: float
    rows: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is too far, and by feature why something could not be judged."""

    beyond: tuple[Excess, ...] = ()
    unjudged: Mapping[str, str] = field(default_factory=dict)


def compare(features: Sequence[RegisteredFeature], profile: Profile, references: Sequence[Profile]) -> Comparison:
    """Hold a window against reference windows, feature by feature.

    Args:
        features: Those that have a `drift`.
        profile: The window.
        references: The windows that it is compared with; none is no reference.
    """
    beyond: list[Excess] = []
    unjudged: dict[str, str] = {}
    for feature in features:
        parts = [reference[feature.name] for reference in references]
        if not parts:
            unjudged[feature.name] = "there is no reference window"
            continue
        mine, pool = profile[feature.name], pooled_profile(parts)
        judged = {name: d for name, d in apart(pool, mine).items() if bound_of(feature, name) is not None}
        if lacking := _lacking(feature, mine, pool, len(parts)):
            unjudged[feature.name] = lacking
        beyond += [
            Excess(feature, name, distance.value, limit, mine.rows)
            for name, distance in judged.items()
            if (limit := _limit(feature, name, distance, mine, parts)) is not None
        ]
    return Comparison(tuple(beyond), unjudged)


def moved(features: Sequence[RegisteredFeature], profile: Profile, promoted: Profile) -> Comparison:
    """Hold a window against its own promoted version. The same entities at the same time: there is no chance in it."""
    beyond: list[Excess] = []
    unjudged: dict[str, str] = {}
    for feature in features:
        mine, theirs = profile[feature.name], promoted[feature.name]
        if lacking := _lacking(feature, mine, theirs, 1):
            unjudged[feature.name] = lacking
        for name, distance in apart(theirs, mine).items():
            limit = bound_of(feature, name)
            if limit is not None and abs(distance.value) > limit:
                beyond.append(Excess(feature, name, distance.value, limit, mine.rows))
    return Comparison(tuple(beyond), unjudged)


def bound_of(feature: RegisteredFeature, measure: Measure) -> float | None:
    """The declared bound of a measure; None if it is switched off."""
    drift = feature.drift or Drift(None, None, None, None, None)
    bound: float | None = getattr(drift, measure)
    return bound


def apart(reference: FeatureProfile, sample: FeatureProfile, least: int = MIN_ROWS) -> dict[Measure, Distance]:
    """Every distance of two profiles that have at least so many rows, or for distributions so many values, each."""
    found: dict[Measure, Distance] = {}
    if min(reference.rows, sample.rows) >= least:
        found["null_rise"] = share_rise((reference.missing, reference.rows), (sample.missing, sample.rows))
    if min(reference.sample.count, sample.sample.count) >= least:
        found |= distances(reference.sample, sample.sample)
    return found


def _lacking(feature: RegisteredFeature, mine: FeatureProfile, pool: FeatureProfile, windows: int) -> str:
    """Why something declared was not judged; empty if all was."""
    wanted = [name for name in ("psi", "ks", "chi_square", "cosine") if bound_of(feature, name) is not None]
    has_values = min(mine.sample.count, pool.sample.count) >= MIN_ROWS
    has_rows = min(mine.rows, pool.rows) >= MIN_ROWS
    if has_rows and (has_values or not wanted):
        return ""
    what = "values" if has_rows else "rows"
    counts = (mine.sample.count, pool.sample.count) if has_rows else (mine.rows, pool.rows)
    return f"{counts[0]} {what}, {counts[1]} in {windows} reference window{'s' if windows > 1 else ''}"


def _limit(
    feature: RegisteredFeature,
    measure: Measure,
    distance: Distance,
    mine: FeatureProfile,
    parts: Sequence[FeatureProfile],
) -> float | None:
    """The limit that a distance is beyond; None if it is within. The dear part is done only beyond the cheap bounds."""
    limit = max(bound_of(feature, measure) or 0.0, distance.chance)
    if distance.value <= limit:
        return None
    each = [found[measure].value for part in parts if measure in (found := apart(part, mine, least=1))]
    if sum(value > (bound_of(feature, measure) or 0.0) for value in each) * 2 <= len(each):
        return None
    limit = max(limit, _usual(measure, parts))
    return limit if distance.value > limit else None


def _usual(measure: Measure, parts: Sequence[FeatureProfile]) -> float:
    """Three times the change by which reference windows usually differ, beyond chance: the lower median over their pairs."""
    pairs = [
        _beyond_chance(measure, found[measure])
        for left, right in combinations(parts, 2)
        if measure in (found := apart(left, right, least=1))
    ]
    return _as_distance(measure, SPREADS * sorted(pairs)[(len(pairs) - 1) // 2]) if pairs else 0.0


def _beyond_chance(measure: Measure, distance: Distance) -> float:
    """The change behind a distance, less what is usual by chance: about half of what is rare by chance."""
    change, rare = (_as_change(measure, value) for value in (abs(distance.value), distance.chance))
    return math.sqrt(max(0.0, change**2 - rare**2 / 4))


def _as_change(measure: Measure, distance: float) -> float:
    """A distance as the shift, in deviations, of a normal value that it stands for.

    A distance that ends at 1 cannot grow threefold; the shift behind it can.
    """
    if measure in UTMOST:
        return math.sqrt(distance)
    return 2 * NORMAL.inv_cdf((1 + min(distance, ALMOST_ONE)) / 2)


def _as_distance(measure: Measure, change: float) -> float:
    return min(change**2, UTMOST[measure]) if measure in UTMOST else 2 * NORMAL.cdf(change / 2) - 1
