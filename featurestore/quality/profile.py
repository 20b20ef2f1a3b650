"""What the gate's comparison needs of a window, from what was kept of it. Pure."""

from featurestore.gate.drift import Categories, Numbers, Sample
from featurestore.gate.profile import FeatureProfile, is_category
from featurestore.quality.statistics import FeatureStatistics
from featurestore.registry.snapshot import RegisteredFeature


def profile_of_statistics(feature: RegisteredFeature, kept: FeatureStatistics) -> FeatureProfile:
    """One feature of a window, without its rows."""
    return FeatureProfile(kept.rows, kept.nulls + kept.nans, _sample(feature, kept))


def _sample(feature: RegisteredFeature, kept: FeatureStatistics) -> Sample:
    if kept.vectors is not None:
        return kept.vectors
    if is_category(feature) and kept.top is not None:
        rest = max(0, kept.values - sum(kept.top.counts.values()))
        return Categories(kept.top.counts, rest, max(kept.top.missed, kept.top.short))
    return Numbers(kept.quantiles.points, kept.quantiles.count, kept.quantiles.rank_error)
