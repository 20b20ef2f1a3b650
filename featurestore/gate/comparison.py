"""What is too far: a window's profile held against those of the windows that it is compared with.

Pure. A distance counts if it is above the declared bound, above what chance brings about at these sizes, above the
bound for more than half of the reference windows one by one (a bad one among them spoils the pool, not the majority),
and above three times what the reference windows are usually apart themselves: delays differ from day to day, and no
bound in a declaration knows by how much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featurestore.declaration.feature import Drift
from featurestore.gate.drift import Distance, Measure, distances, share_rise
from featurestore.gate.profile import FeatureProfile, Profile
from featurestore.gate.reference_profiles import ReferenceProfiles
from featurestore.registry.snapshot import RegisteredFeature

MIN_ROWS = 200
"""With fewer rows on either side a distance is mostly chance, and nothing is judged."""


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
        if not references:
            unjudged[feature.name] = "there is no reference window"
            continue
        theirs = ReferenceProfiles([reference[feature.name] for reference in references])
        found = compare_feature(feature, profile[feature.name], theirs)
        beyond += found.beyond
        unjudged |= found.unjudged
    return Comparison(tuple(beyond), unjudged)


def compare_feature(feature: RegisteredFeature, mine: FeatureProfile, references: ReferenceProfiles) -> Comparison:
    """Hold one feature of a window against the same one in reference windows, which other windows may be held against as well."""
    pool = references.pool
    judged = {name: d for name, d in apart(pool, mine).items() if bound_of(feature, name) is not None}
    lacking = _lacking(feature, mine, pool, len(references.parts))
    beyond = [
        Excess(feature, name, distance.value, limit, mine.rows)
        for name, distance in judged.items()
        if (limit := _limit(feature, name, distance, mine, references)) is not None
    ]
    return Comparison(tuple(beyond), {feature.name: lacking} if lacking else {})


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


def apart(reference: FeatureProfile, sample: FeatureProfile) -> dict[Measure, Distance]:
    """Every distance of two profiles that have at least `MIN_ROWS` rows, or for distributions as many values, each."""
    found: dict[Measure, Distance] = {}
    if min(reference.rows, sample.rows) >= MIN_ROWS:
        found["null_rise"] = share_rise((reference.missing, reference.rows), (sample.missing, sample.rows))
    if min(reference.sample.count, sample.sample.count) >= MIN_ROWS:
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
    references: ReferenceProfiles,
) -> float | None:
    """The limit that a distance is beyond; None if it is within. The dear part is done only beyond the cheap bounds."""
    limit = max(bound_of(feature, measure) or 0.0, distance.chance)
    if distance.value <= limit:
        return None
    each = references.each(measure, mine)
    if sum(one.value > (bound_of(feature, measure) or 0.0) for one in each) * 2 <= len(each):
        return None
    limit = max(limit, references.usual(measure))
    return limit if distance.value > limit else None
