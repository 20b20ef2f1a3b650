"""Windows held against references by what was kept of them: no value is lost, and what is shared is what each pair alone says."""

import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.declaration import Drift
from featurestore.gate.comparison import apart, bound_of
from featurestore.gate.drift import Distance, Measure, distances, share_rise
from featurestore.gate.profile import FeatureProfile, pooled_profile
from featurestore.quality.drift import FeatureDrift, window_drift
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.profile import profile_of_statistics
from featurestore.quality.reference import Reference, TrainingWindows, reference_starts, training
from featurestore.quality.statistics import window_statistics
from featurestore.registry.snapshot import RegisteredFeature
from tests.catalogs import DAY, HOUR, T0
from tests.scale import cases

COLOUR = RegisteredFeature("colour", "string", 32, 1, drift=Drift())


def kept(features: list[RegisteredFeature], columns: dict[str, Any], day: int = 0) -> WindowStatistics:
    start = T0 + day * DAY
    rows = pl.DataFrame(columns).with_columns(schema_number=pl.lit(1))
    return WindowStatistics(start, tuple(window_statistics(features, rows, start)), None, "", T0)


def colours(others: int, *, seed: int) -> WindowStatistics:
    """A thousand values: so many '(other)', and sixty more categories, of which fewer are kept."""
    named = [f"c{n}" for n in np.random.default_rng(seed).integers(0, 60, size=1000 - others)]
    return kept([COLOUR], {"colour": ["(other)"] * others + named})


def test_a_category_that_is_called_other_drifts_by_its_own_count() -> None:
    """Of sixty-one categories fifty are kept, so that there is a rest as well."""
    calm, far = colours(100, seed=1), colours(700, seed=2)
    reference = Reference("last week", tuple(colours(100, seed=n) for n in (3, 4, 5)))
    drifts = [window_drift([COLOUR], window, lambda _: [reference]) for window in (calm, far)]
    assert [drift.status for drift in drifts] == ["pass", "warn"]
    [found] = drifts[1].features
    own = next(row for row in found.shares if row["values"] == "(other)")
    assert (own["reference"], own["window"]) == (0.1, 0.7)
    assert sum(row["window"] for row in found.shares) == pytest.approx(1, abs=0.01)


# The oracle: one pair of windows at a time, each from the start.

FEATURES = [
    RegisteredFeature(
        name, dtype, number, 1, drift=Drift(psi=0.02, ks=0.02, chi_square=0.02, cosine=0.001, null_rise=0.001)
    )
    for number, (name, dtype) in enumerate(
        {"amount": "float64", "count": "int64", "colour": "string", "flag": "bool", "vector": "float32[4]"}.items(),
        start=32,
    )
]
UTMOST = {"psi": 5.0, "cosine": 1.0}


def plain_apart(reference: FeatureProfile, sample: FeatureProfile) -> dict[Measure, Distance]:
    found: dict[Measure, Distance] = {}
    if min(reference.rows, sample.rows) >= 1:
        found["null_rise"] = share_rise((reference.missing, reference.rows), (sample.missing, sample.rows))
    if min(reference.sample.count, sample.sample.count) >= 1:
        found |= distances(reference.sample, sample.sample)
    return found


def plain_change(measure: Measure, distance: float) -> float:
    return math.sqrt(distance) if measure in UTMOST else 2 * NormalDist().inv_cdf((1 + min(distance, 1 - 1e-9)) / 2)


def plain_usual(measure: Measure, parts: Sequence[FeatureProfile]) -> float:
    found = [plain_apart(left, right) for left, right in combinations(parts, 2)]
    pairs = [(abs(one[measure].value), one[measure].chance) for one in found if measure in one]
    changes = sorted(
        math.sqrt(max(0.0, plain_change(measure, value) ** 2 - plain_change(measure, chance) ** 2 / 4))
        for value, chance in pairs
    )
    if not changes:
        return 0.0
    change = 3 * changes[(len(changes) - 1) // 2]
    return min(change**2, UTMOST[measure]) if measure in UTMOST else 2 * NormalDist().cdf(change / 2) - 1


def plain_excesses(
    feature: RegisteredFeature, window: WindowStatistics, windows: Sequence[WindowStatistics]
) -> dict[Measure, tuple[float, float]]:
    """Distance and limit of each measure that is too far."""
    profile, *parts = [
        profile_of_statistics(feature, own)
        for one in (window, *windows)
        if (own := one.feature(feature.name)) is not None
    ]
    found: dict[Measure, tuple[float, float]] = {}
    for measure, distance in apart(pooled_profile(parts), profile).items():
        bound = bound_of(feature, measure)
        each = [one[measure].value for part in parts if measure in (one := plain_apart(part, profile))]
        limit = max(bound or 0.0, distance.chance, plain_usual(measure, parts))
        if bound is not None and sum(value > bound for value in each) * 2 > len(each) and distance.value > limit:
            found[measure] = (distance.value, limit)
    return found


def drawn(rng: Any, day: int) -> WindowStatistics:
    """A window of another size, place and spread than the one before: with ties, with hardly a value, or with none."""
    rows = int(rng.choice([0, 3, 150, 260, 900], p=[0.05, 0.05, 0.1, 0.3, 0.5]))
    shift, categories = rng.normal(scale=0.4), rng.choice([3, 15, 70])
    amounts = (rng.normal(size=rows) + shift).round(int(rng.choice([0, 1, 12])))
    nulls = rng.choice([0.0, 0.1, 1.0], p=[0.5, 0.4, 0.1])
    there = pl.Series(rng.random(rows) >= nulls)
    columns = {
        "amount": pl.Series(amounts).zip_with(there, pl.Series([None] * rows, dtype=pl.Float64)),
        "count": pl.Series(rng.poisson(2 + abs(shift), size=rows)),
        "colour": pl.Series([f"c{n}" for n in rng.zipf(1.6 + abs(shift), size=rows) % categories], dtype=pl.String),
        "flag": pl.Series(rng.random(rows) < 0.3 + shift / 5, dtype=pl.Boolean),
        "vector": pl.Series(rng.normal((1, shift, 0, 0), size=(rows, 4)).tolist(), dtype=pl.List(pl.Float32)),
    }
    return kept(FEATURES, columns, day)


def beyond(found: FeatureDrift) -> dict[Measure, tuple[float, float]]:
    return {name: (one.value, one.limit) for name, one in found.measures.items() if one.is_beyond}


@pytest.mark.parametrize("windows", [1, 2, 7, 28])
def test_windows_with_the_same_references_are_held_as_each_pair_alone_says(windows: int) -> None:
    rng = np.random.default_rng(windows)
    told: list[bool] = []
    for _ in range(cases(40, 4)):
        reference = Reference("x", tuple(drawn(rng, day) for day in range(windows)))
        for day in range(windows, windows + 4):
            window = drawn(rng, day)
            found = window_drift(FEATURES, window, lambda _, chosen=reference: [chosen])
            expected = [plain_excesses(feature, window, reference.windows) for feature in FEATURES]
            assert [beyond(one) for one in found.features] == expected
            told += map(bool, expected)
    assert any(told)
    assert not all(told)


# Which windows of a training set are read at all.


def test_of_a_long_training_set_a_few_windows_an_hour_are_wanted_and_the_choice_stays_the_same() -> None:
    nothing = {start: kept([], {}) for start in (T0 + n * HOUR for n in range(24 * 365))}
    wanted = reference_starts(list(nothing), is_hourly=True)
    assert len(wanted) == 24 * 28
    whole = TrainingWindows("x", nothing)
    part = TrainingWindows("x", {start: nothing[start] for start in wanted}, starts=list(nothing))
    for hour in range(24):
        [left, right] = [training(T0 + 400 * DAY + hour * HOUR, one, is_hourly=True) for one in (whole, part)]
        assert left is not None
        assert left == right


@pytest.mark.parametrize("is_hourly", [False, True])
@pytest.mark.parametrize("hours", [1, 3, 24, 90, 700])
def test_every_window_that_something_is_compared_with_is_wanted(hours: int, *, is_hourly: bool) -> None:
    starts = [T0 + n * (HOUR if is_hourly else DAY) for n in range(hours)]
    of_all = TrainingWindows("x", {start: kept([], {}) for start in starts})
    late = [starts[-1] + n * HOUR for n in range(1, 25)]
    chosen = [training(window, of_all, is_hourly=is_hourly) for window in late]
    used = {one.window_start for reference in chosen if reference is not None for one in reference.windows}
    assert used <= reference_starts(starts, is_hourly=is_hourly)


def test_windows_of_one_hour_share_what_is_worked_out_of_their_training_set() -> None:
    rng = np.random.default_rng(0)
    trained = TrainingWindows("x", {one.window_start: one for one in (drawn(rng, day) for day in range(30))})
    first, next_day, later = (
        training(T0 + DAY * 40 + after, trained, is_hourly=True) for after in (timedelta(0), DAY, HOUR)
    )
    assert first is not None
    assert first is next_day
    assert first is not later
    assert first.profiles(FEATURES[0]) is first.profiles(FEATURES[0])
