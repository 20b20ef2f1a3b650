"""Measures of drift against plain readings of their formulas, and what the default bounds do on unchanged and on changed data."""

import json
import math
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from featurestore.declaration import Catalog, Drift
from featurestore.errors import DeclarationError
from featurestore.gate.comparison import compare
from featurestore.gate.drift import (
    BINS,
    CATEGORIES,
    CHANCE,
    SMOOTHING,
    Categories,
    Numbers,
    bin_counts,
    bin_edges,
    chi_square,
    common_categories,
    distances,
    kolmogorov_smirnov,
    mean_cosine,
    pooled,
    population_stability,
    share_rise,
    vectors_of,
)
from featurestore.gate.profile import Profile, profile_of
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.diff import changes
from featurestore.registry.snapshot import RegisteredFeature, RegistrySnapshot
from tests.catalogs import HOUR, SOURCES, T0, shop_sales_daily
from tests.scale import cases

FEW_VALUES = st.sampled_from([-3.0, 0.0, 0.5, 1.0, 2.0, math.inf, -math.inf])
SAMPLES = st.lists(FEW_VALUES | st.floats(allow_nan=False, width=32), min_size=1, max_size=60).map(
    lambda values: np.sort(np.array(values, dtype=np.float64))
)
CATEGORY_COUNTS = st.dictionaries(
    st.sampled_from([*(f"c{n:02}" for n in range(40)), "(other)"]), st.integers(1, 50), min_size=1
)
COUNTS = st.builds(Categories, CATEGORY_COUNTS)


# Each measure by its formula, one value or one bin at a time.


@pytest.mark.filterwarnings("ignore::RuntimeWarning:scipy")
@settings(max_examples=cases(2000, 150), deadline=None)
@given(SAMPLES, SAMPLES)
def test_ks_is_the_largest_gap_that_scipy_finds(reference: Any, sample: Any) -> None:
    found = kolmogorov_smirnov(reference, sample).value
    assert found == pytest.approx(stats.ks_2samp(reference, sample, method="asymp").statistic)


def shares(values: list[float], edges: list[float]) -> list[float]:
    inside = [sum(low < v <= high for v in values) for low, high in pairwise([-math.inf, *edges, math.inf])]
    return [(count + SMOOTHING) / (len(values) + SMOOTHING * len(inside)) for count in inside]


@settings(max_examples=cases(2000, 150), deadline=None)
@given(
    st.lists(st.integers(-4, 4) | st.floats(-10, 10, width=32), min_size=1, max_size=60),
    st.lists(st.integers(-4, 4) | st.floats(-10, 10, width=32), min_size=1, max_size=60),
)
def test_psi_is_its_formula_over_the_quantile_bins(reference: list[float], sample: list[float]) -> None:
    ordered = sorted(map(float, reference))
    ranks = [max(0, math.ceil(k * len(ordered) / BINS) - 1) for k in range(1, BINS)]
    edges = sorted({ordered[rank] for rank in ranks})
    if edges[0] == ordered[0]:
        edges.insert(0, math.nextafter(edges[0], -math.inf))
    q, p = shares(reference, edges), shares(sample, edges)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(q, p, strict=True))
    found = population_stability(np.array(ordered), np.sort(np.array(sample, dtype=np.float64)))
    assert found.value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=cases(500, 50), deadline=None)
@given(SAMPLES, SAMPLES)
def test_every_value_lies_in_one_bin(reference: Any, sample: Any) -> None:
    edges = bin_edges(reference)
    assert bin_counts(sample, edges).sum() == len(sample)
    assert len(edges) <= BINS
    assert (bin_counts(sample, edges) >= 0).all()


@settings(max_examples=cases(1000, 100), deadline=None)
@given(COUNTS, COUNTS)
def test_chi_square_is_cramers_v_of_the_balanced_table(reference: Categories, sample: Categories) -> None:
    table = common_categories(reference, sample)
    q, p = (np.array([row[side] for row in table]) / sum(row[side] for row in table) for side in (1, 2))
    found = chi_square(reference, sample).value
    if len(table) == 1:
        assert found == 0
        return
    statistic = stats.chi2_contingency(np.array([q, p]) * 1000, correction=False).statistic
    assert found == pytest.approx(math.sqrt(statistic / 2000), abs=1e-9)


@settings(max_examples=cases(500, 50), deadline=None)
@given(COUNTS, COUNTS)
def test_chi_square_does_not_grow_with_the_rows(reference: Categories, sample: Categories) -> None:
    larger = [Categories({name: 1000 * count for name, count in side.counts.items()}) for side in (reference, sample)]
    assert chi_square(*larger).value == pytest.approx(chi_square(reference, sample).value, abs=1e-12)


RESTS = st.sampled_from([0, 0, 7, 60])


@settings(max_examples=cases(500, 50), deadline=None)
@given(CATEGORY_COUNTS, CATEGORY_COUNTS, RESTS, RESTS)
def test_rare_categories_are_counted_together_and_none_is_lost(
    reference: dict[str, int], sample: dict[str, int], rest: int, sample_rest: int
) -> None:
    sides = (Categories(reference, rest), Categories(sample, sample_rest))
    table = common_categories(*sides)
    assert tuple(sum(row[place] for row in table) for place in (1, 2)) == tuple(side.count for side in sides)
    assert len(table) <= CATEGORIES + 1
    total = {name: reference.get(name, 0) + sample.get(name, 0) for name in {*reference, *sample}}
    kept = {name: row for name, *row in table if name is not None}
    assert kept == {name: [reference.get(name, 0), sample.get(name, 0)] for name in kept}
    assert sorted(total.values(), reverse=True)[: len(kept)] == [sum(row) for row in kept.values()]
    assert (None in {name for name, *_ in table}) == bool(rest or sample_rest or len(kept) < len(total))


def test_a_category_that_is_called_other_is_none_of_those_that_were_not_kept() -> None:
    before, after = (Categories({"(other)": called, "red": 300}, 300) for called in (100, 900))
    assert common_categories(before, after) == [("(other)", 100, 900), ("red", 300, 300), (None, 300, 300)]
    assert chi_square(before, after).value > 0.15
    assert pooled([before, after]) == Categories({"(other)": 1000, "red": 600}, 600)


VECTORS = arrays(np.float32, st.tuples(st.integers(2, 12), st.just(3)), elements=st.floats(-5, 5, width=16))


@settings(max_examples=cases(500, 50), deadline=None)
@given(VECTORS, VECTORS)
def test_cosine_is_that_of_the_mean_vectors(left: Any, right: Any) -> None:
    a, b = left.astype(np.float64).mean(axis=0), right.astype(np.float64).mean(axis=0)
    lengths = math.sqrt(sum(a * a)) * math.sqrt(sum(b * b))
    expected = 1 - sum(a * b) / lengths if lengths else 0.0
    assert mean_cosine(vectors_of(left), vectors_of(right)).value == pytest.approx(expected, abs=1e-6)


@settings(max_examples=cases(500, 50), deadline=None)
@given(VECTORS)
def test_spread_of_vectors_is_that_of_their_covariance(matrix: Any) -> None:
    covariance = np.cov(matrix.astype(np.float64), rowvar=False, bias=True)
    found = vectors_of(matrix)
    assert found.variance == pytest.approx(np.trace(covariance), abs=1e-4)
    assert found.variance_squared == pytest.approx(np.trace(covariance @ covariance), rel=1e-3, abs=1e-3)


@settings(max_examples=cases(500, 50), deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=5))
def test_pooled_numbers_are_all_of_them_in_order(samples: list[Any]) -> None:
    together = pooled([Numbers(values) for values in samples])
    assert isinstance(together, Numbers)
    assert together.values.tolist() == sorted(np.concatenate(samples).tolist())


def test_what_chance_brings_about_is_what_the_tables_say() -> None:
    rng = np.random.default_rng(0)
    reference, sample = np.sort(rng.normal(size=900)), np.sort(rng.normal(size=300))
    noise = 1 / 900 + 1 / 300
    assert population_stability(reference, sample).chance == pytest.approx(
        stats.chi2.isf(CHANCE, BINS - 1) * noise, rel=0.02
    )
    assert kolmogorov_smirnov(reference, sample).chance == pytest.approx(
        stats.kstwobign.isf(CHANCE) * math.sqrt(noise), rel=0.001
    )
    assert share_rise((45, 900), (30, 300)).chance == pytest.approx(
        stats.norm.isf(CHANCE) * math.sqrt(0.0625 * 0.9375 * noise), rel=1e-6
    )


def test_constant_is_told_from_a_smaller_constant() -> None:
    zeros, less = np.zeros(300), np.full(300, -1.0)
    assert population_stability(zeros, less).value > 1
    assert kolmogorov_smirnov(zeros, less).value == 1
    assert population_stability(zeros, zeros).value == 0


def test_vectors_around_the_origin_have_no_direction_to_turn() -> None:
    rng = np.random.default_rng(1)
    left, right = (vectors_of(rng.normal(size=(500, 8))) for _ in range(2))
    turned = mean_cosine(left, right)
    assert turned.value < turned.chance


def test_samples_of_two_kinds_have_no_distance() -> None:
    with pytest.raises(TypeError, match="no distance"):
        distances(Numbers(np.zeros(1)), vectors_of(np.zeros((1, 2))))


@pytest.mark.parametrize("bounds", [{"psi": 0}, {"ks": 1.5}, {"cosine": math.nan}, {"null_rise": -0.1}])
def test_impossible_bound_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(DeclarationError, match="None switches it off"):
        Drift(**bounds)


# The default bounds, on data that did not change and on data that did.

FEATURES = [
    RegisteredFeature(name, dtype, number, 1)
    for number, (name, dtype) in enumerate(
        {
            "normal": "float64",
            "skewed": "float64",
            "count": "int64",
            "colour": "string",
            "flag": "bool",
            "gappy": "float64",
            "vector": "float32[8]",
            "seen": "timestamp",
            "names": "list<string>",
        }.items(),
        start=32,
    )
]
MIX = (0.5, 0.3, 0.15, 0.05)
TURN = 0.5


def window_rows(
    rng: Any, rows: int, *, shift: float = 0.0, nulls: float = 0.05, mix: Any = MIX, turn: float = 0.0
) -> pl.DataFrame:
    normal = rng.normal(size=rows) + shift
    cloud = rng.normal(size=(rows, 8)) + 2 * np.eye(8)[0]
    rotation = np.eye(8)
    rotation[:2, :2] = [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    drawn = {
        "schema_number": np.ones(rows, dtype=np.int64),
        "normal": normal,
        "skewed": np.exp(normal),
        "count": rng.poisson(2, size=rows),
        "colour": rng.choice(["red", "blue", "green", "grey"], size=rows, p=mix),
        "flag": rng.random(rows) < 0.3,
        "vector": (cloud @ rotation).astype(np.float32),
        "age": rng.integers(1, 100_000, size=rows),
        "size": rng.integers(0, 5, size=rows),
        "is_there": rng.random(rows) >= nulls,
    }
    return pl.DataFrame(drawn).select(
        "schema_number",
        "normal",
        "skewed",
        "count",
        "colour",
        "flag",
        gappy=pl.when("is_there").then("normal"),
        vector=pl.col("vector").arr.to_list(),
        seen=pl.lit(T0).cast(pl.Datetime("us", "UTC")) - pl.duration(seconds="age"),
        names=pl.lit("x").repeat_by("size"),
    )


def unchanged(rng: Any, rows: int, windows: int) -> list[Profile]:
    return [profile_of(FEATURES, window_rows(rng, rows), T0) for _ in range(windows)]


@pytest.mark.parametrize(("rows", "windows"), [(200, 1), (200, 7), (1000, 4), (1000, 7)])
def test_windows_of_unchanged_data_are_hardly_ever_held(rows: int, windows: int) -> None:
    """200 resamplings in full, each held against the ones before it: of all nine features, at most one window is held."""
    resamplings = cases(200, 15)
    drawn = unchanged(np.random.default_rng(rows + windows), rows, windows + resamplings)
    held = [bool(compare(FEATURES, drawn[n], drawn[n - windows : n]).beyond) for n in range(windows, len(drawn))]
    print(f"{sum(held)} of {resamplings} windows of {rows} rows held against {windows} unchanged ones")
    assert sum(held) <= 1


CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "mean moved by half a deviation": ({"shift": 0.5}, {"normal", "skewed", "gappy"}),
    "nulls doubled": ({"nulls": 0.1}, {"gappy"}),
    "mix of categories changed": ({"mix": (0.3, 0.5, 0.15, 0.05)}, {"colour"}),
    "vectors turned": ({"turn": TURN}, {"vector"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_real_drift_is_caught_and_named(change: str) -> None:
    how, features = CHANGES[change]
    rng, resamplings = np.random.default_rng(5), cases(200, 8)
    references = unchanged(rng, 1000, 7 + resamplings)
    named = 0
    for n in range(resamplings):
        changed = profile_of(FEATURES, window_rows(rng, 1000, **how), T0)
        beyond = compare(FEATURES, changed, references[n : n + 7]).beyond
        named += {excess.feature.name for excess in beyond} == features
    print(f"{change}: named, and nothing else, in {named} of {resamplings} windows of 1,000 rows")
    assert named >= 0.9 * resamplings


def profiles(values: list[Any]) -> list[Profile]:
    one = [RegisteredFeature("x", "float64", 32, 1)]
    return [profile_of(one, pl.DataFrame({"schema_number": 1, "x": part}), T0) for part in values]


def excesses(window: Any, references: list[Any], drift: Drift | None = None) -> list[str]:
    feature = RegisteredFeature("x", "float64", 32, 1, drift=drift or Drift())
    [mine] = profiles([window])
    return [excess.measure for excess in compare([feature], mine, profiles(references)).beyond]


def test_bad_neighbours_neither_excuse_a_bad_window_nor_convict_a_good_one() -> None:
    rng = np.random.default_rng(2)
    good, bad = ([rng.normal(size=500) + move for _ in range(9)] for move in (0, 3))
    assert excesses(good[0], good[1:7] + bad[:2]) == []
    assert excesses(bad[0], good[1:7] + bad[1:3]) == ["psi", "ks"]


def test_feature_that_moves_by_itself_from_window_to_window_is_allowed_to() -> None:
    rng = np.random.default_rng(3)
    restless = [rng.normal(size=500) + move for move in (-1.0, 0.5, 1.0, -0.5, 0.2, 1.2, -0.9)]
    assert excesses(rng.normal(size=500) + 0.8, restless) == []
    assert excesses(rng.normal(size=500) + 9.0, restless) == ["psi", "ks"]


def test_bound_that_is_switched_off_finds_nothing() -> None:
    rng = np.random.default_rng(4)
    calm = [rng.normal(size=500) for _ in range(4)]
    assert excesses(rng.normal(size=500) + 2, calm, Drift(psi=None)) == ["ks"]
    assert excesses(rng.normal(size=500) + 2, calm, Drift(psi=None, ks=None)) == []


@pytest.mark.parametrize(("mine", "theirs", "is_judged"), [(200, 200, True), (199, 900, False), (900, 199, False)])
def test_under_200_rows_on_either_side_nothing_is_judged_and_that_is_said(
    mine: int, theirs: int, is_judged: bool
) -> None:
    feature = RegisteredFeature("x", "float64", 32, 1)
    [window, reference] = profiles([np.zeros(mine), np.ones(theirs)])
    found = compare([feature], window, [reference])
    assert bool(found.beyond) == is_judged
    assert found.unjudged == ({} if is_judged else {"x": f"{mine} rows, {theirs} in 1 reference window"})


def test_rows_from_before_a_feature_was_declared_are_no_reference_for_it() -> None:
    feature = RegisteredFeature("x", "float64", 32, since=2)
    old = pl.DataFrame({"schema_number": 1, "x": [None] * 500}, schema_overrides={"x": pl.Float64})
    new = pl.DataFrame({"schema_number": 2, "x": np.arange(500.0)})
    reference, window = (profile_of([feature], rows, T0) for rows in (old, new))
    found = compare([feature], window, [reference])
    assert found.beyond == ()
    assert found.unjudged == {"x": "500 rows, 0 in 1 reference window"}


def test_times_are_compared_by_how_long_before_their_window_they_lie() -> None:
    feature = RegisteredFeature("seen", "timestamp", 32, 1)
    ages = [timedelta(minutes=n) for n in range(300)]
    starts = [T0 + n * 24 * HOUR for n in range(3)]
    frames = [
        pl.DataFrame({"schema_number": 1, "seen": [start - age for age in ages]}).with_columns(
            pl.col("seen").cast(pl.Datetime("us", "UTC"))
        )
        for start in starts
    ]
    first, second, third = (profile_of([feature], rows, start) for rows, start in zip(frames, starts, strict=True))
    assert compare([feature], third, [first, second]).beyond == ()
    stale = profile_of([feature], frames[0], starts[2])
    assert {e.measure for e in compare([feature], stale, [first, second]).beyond} == {"psi", "ks"}


# What the registry keeps.


def snapshot_with(drift: Drift | None) -> RegistrySnapshot:
    features = tuple(replace(feature, drift=drift) for feature in shop_sales_daily.features)
    return compile_snapshot(Catalog(SOURCES, [replace(shop_sales_daily, features=features)]), None)


def test_bounds_survive_the_registry() -> None:
    for drift in (None, Drift(), Drift(psi=None, ks=0.4)):
        snapshot = snapshot_with(drift)
        assert RegistrySnapshot.from_json(snapshot.to_json()) == snapshot
        assert {feature.drift for feature in snapshot.group("shop_sales_daily").features} == {drift}


def test_snapshot_from_before_there_were_bounds_has_the_default_ones() -> None:
    body = json.loads(snapshot_with(Drift()).to_json())
    for feature in body["groups"]["shop_sales_daily"]["features"]:
        del feature["drift"]
    assert RegistrySnapshot.from_json(json.dumps(body)) == snapshot_with(Drift())


def test_changed_bound_is_shown_and_is_compatible() -> None:
    found = changes(snapshot_with(Drift()), snapshot_with(Drift(ks=0.3)))
    assert all(change.is_compatible for change in found)
    assert [str(change).split(" -> ")[1] for change in found] == [
        "psi 0.2, ks 0.3, chi_square 0.15, cosine 0.05, null_rise 0.03"
    ] * 2
    assert "-> none" in str(changes(snapshot_with(Drift()), snapshot_with(None))[0])
