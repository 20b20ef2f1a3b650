"""Statistics of a window against plain counting, and those of merged windows against the rows of all of them."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featurestore.quality.statistics as measuring
from featurestore.declaration.dtypes import parse_dtype, storage_dtype
from featurestore.quality.distinct import RELATIVE_ERROR, DistinctSketch, merged_distinct
from featurestore.quality.frame import (
    READABLE,
    STORED,
    WindowStatistics,
    from_stored_rows,
    readable_rows,
    stored_rows,
)
from featurestore.quality.hashing import hash_values, hash_vectors
from featurestore.quality.quantiles import POINTS, QuantileSketch, merged_quantiles
from featurestore.quality.statistics import FeatureStatistics, merged_statistics, window_statistics
from featurestore.quality.top_values import KEPT, TopValues, merged_top_values
from featurestore.registry.snapshot import RegisteredFeature
from tests.scale import cases

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan])
WORDS = st.text(st.sampled_from("ab\u00e9\U0001f600 "), max_size=4)
ITEMS = {"int64": st.integers(-5, 5), "float64": FLOATS, "string": WORDS}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64": FLOATS,
    "float32": FLOATS,
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "int32": st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3),
    "bool": st.booleans(),
    "string": WORDS,
    "date": st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    "timestamp": st.timedeltas(timedelta(days=-40_000), timedelta(days=30_000)).map(lambda span: START + span),
    "float32[3]": st.lists(st.floats(-100, 100, width=32) | st.just(math.nan), min_size=3, max_size=3),
    **{f"list<{name}>": st.lists(item, max_size=4) for name, item in ITEMS.items()},
}


def columns(dtype: str, most: int = 40) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | VALUES[dtype], max_size=most)


TYPED = st.sampled_from(sorted(VALUES)).flatmap(lambda dtype: st.tuples(st.just(dtype), columns(dtype)))
SEVERAL = st.sampled_from(sorted(VALUES)).flatmap(
    lambda dtype: st.tuples(st.just(dtype), st.lists(columns(dtype), min_size=1, max_size=4))
)


def feature(dtype: str, since: int = 1) -> RegisteredFeature:
    return RegisteredFeature("x", dtype, 32, since)


def statistics(dtype: str, values: Sequence[Any], start: datetime = START) -> FeatureStatistics:
    stored = storage_dtype(parse_dtype(dtype))
    column = pl.Series("x", values, dtype=stored, strict=False)
    rows = pl.DataFrame([pl.repeat(1, len(values), dtype=pl.Int32, eager=True).alias("schema_number"), column])
    [found] = window_statistics([feature(dtype)], rows, start)
    return found


# Plain counting, one value at a time.


def is_nan(dtype: str, value: Any) -> bool:
    if dtype.startswith("float32["):
        return not all(map(math.isfinite, value))
    return isinstance(value, float) and math.isnan(value)


def measured(dtype: str, value: Any) -> float | None:
    if dtype == "string":
        return None
    if dtype.startswith("list"):
        return len(value)
    if dtype.startswith("float32["):
        return math.sqrt(sum(item * item for item in value))
    if dtype == "date":
        return (datetime(value.year, value.month, value.day, tzinfo=UTC) - START) / HOUR
    if dtype == "timestamp":
        return float((value - START) / HOUR)
    return float(value)


def plain(values: Sequence[Any], dtype: str) -> list[Any]:
    return [value for value in values if value is not None and not is_nan(dtype, value)]


def distinct_key(value: Any) -> Any:
    """Equal floats count once, -0.0 and 0.0 too; NaN inside a list equals itself."""
    if isinstance(value, list):
        return tuple(map(distinct_key, value))
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    if math.isnan(expected):
        return math.isnan(found)
    return found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=cases(4000, 400), deadline=None)
@given(TYPED)
def test_statistics_of_every_type_are_what_counting_says(typed: tuple[str, list[Any]]) -> None:
    dtype, values = typed
    found, kept = statistics(dtype, values), plain(values, dtype)
    assert (found.rows, found.nulls) == (len(values), sum(value is None for value in values))
    assert found.nans == len(values) - found.nulls - len(kept)
    assert found.values == len(kept)
    numbers = [number for value in kept if (number := measured(dtype, value)) is not None]
    assert same(found.lowest, min(numbers, default=None))
    assert same(found.highest, max(numbers, default=None))
    if numbers and all(map(math.isfinite, numbers)):
        assert same(found.mean, math.fsum(number / len(numbers) for number in numbers))
    assert found.quantiles.points.tolist() == pytest.approx(sorted(numbers), rel=1e-5, abs=1e-5)
    assert found.quantiles.rank_error == 0, "so few values are all kept"
    assert abs(found.distinct_estimate - len({distinct_key(value) for value in kept})) <= 1
    if found.top is not None:
        texts = Counter(str(value).lower() if dtype == "bool" else str(value) for value in kept)
        assert found.top.counts == dict(texts)
        assert list(found.top.counts) == sorted(texts, key=lambda text: (-texts[text], text))


@settings(max_examples=cases(2000, 200), deadline=None)
@given(SEVERAL)
def test_merged_windows_are_the_window_of_all_their_rows(typed: tuple[str, list[list[Any]]]) -> None:
    dtype, parts = typed
    merged = merged_statistics([statistics(dtype, part) for part in parts])
    whole = statistics(dtype, [value for part in parts for value in part])
    for name in ("rows", "nulls", "nans", "lowest", "highest", "distinct", "top"):
        assert getattr(merged, name) == getattr(whole, name), name
    assert merged.quantiles.points.tolist() == whole.quantiles.points.tolist()
    assert merged.quantiles.rank_error == 0
    if whole.mean is None or math.isfinite(whole.mean):
        assert same(merged.mean, whole.mean)
    if whole.vectors is not None and whole.values:
        assert merged.vectors is not None
        assert merged.vectors.mean.tolist() == pytest.approx(whole.vectors.mean.tolist(), abs=1e-4)


@settings(max_examples=cases(1000, 100), deadline=None)
@given(SEVERAL)
def test_statistics_survive_being_kept(typed: tuple[str, list[list[Any]]]) -> None:
    dtype, parts = typed
    windows = [
        WindowStatistics(START + number * HOUR, (statistics(dtype, part),), number, f"r{number}", START)
        for number, part in enumerate(parts)
    ]
    rows = stored_rows(windows)
    assert rows.schema == STORED
    back = from_stored_rows(rows)
    assert stored_rows(back).equals(rows)
    assert [one.window_start for one in back] == [one.window_start for one in windows]
    assert readable_rows(back).schema == READABLE


KNOWN: dict[str, list[str]] = {
    "string": ["0xe220a8397b1dcdaf", "0xab1cc3d5acc0df0b", "0x18e74efbc28b9cb2", "0x772ad93cf7a72477"],
    "float": ["0xe220a8397b1dcdaf", "0xe220a8397b1dcdaf", "0xd6dab18e1392608a", "0x249e5410c2f97d99"],
    "int": ["0xe220a8397b1dcdaf", "0x910a2dec89025cc1", "0xe4d971771b652c20"],
    "list": ["0xe7bbb445ae1a88e2", "0xe220a8397b1dcdaf", "0x95c121a6d71dd55a"],
    "vector": ["0xdcbf7f9f5cd16e26", "0x97559123ed2cb8a7"],
}

# Sketches of many values.


SHAPES: dict[str, Any] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.lognormal(2, 2, size=size),
    "counts": lambda rng, size: rng.poisson(3, size=size).astype(float),
    "mostly one value": lambda rng, size: np.where(rng.random(size) < 0.8, 0.0, rng.normal(size=size)),
}


def true_shares(values: Any, points: Any) -> Any:
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [199, 200, 201, 350, 5_000, 40_000])
def test_quantile_sketch_keeps_its_rank_error(shape: str, size: int) -> None:
    values = np.sort(SHAPES[shape](np.random.default_rng(size), size))
    sketch = QuantileSketch.of(values)
    assert len(sketch.points) <= POINTS
    check_ranks(sketch, values)


def check_ranks(sketch: QuantileSketch, values: Any) -> None:
    points = np.unique(np.concatenate([values[:: max(1, len(values) // 500)], sketch.points]))
    found = np.array([sketch.share_up_to(point) for point in points])
    assert np.abs(found - true_shares(values, points)).max() <= sketch.rank_error + 1e-9
    ordered = np.sort(values)
    for share in (0.01, 0.25, 0.5, 0.9, 0.99):
        value = sketch.quantile(share)
        assert value is not None
        lowest, highest = (np.searchsorted(ordered, value, side=side) / len(ordered) for side in ("left", "right"))
        assert lowest - sketch.rank_error - 1e-9 <= share <= highest + sketch.rank_error + 1e-9


@settings(max_examples=cases(500, 40), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(SHAPES)), st.integers(0, 3000)), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_merged_quantiles_keep_the_error_that_they_state(parts: list[tuple[str, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [SHAPES[shape](rng, size) for shape, size in parts]
    sketches = [QuantileSketch.of(np.sort(values)) for values in drawn]
    together = np.concatenate(drawn)
    at_once = merged_quantiles(sketches)
    one_by_one = sketches[0]
    for sketch in sketches[1:]:
        one_by_one = merged_quantiles([one_by_one, sketch])
    assert at_once.count == one_by_one.count == len(together)
    if len(together):
        check_ranks(at_once, together)
        check_ranks(one_by_one, together)
        assert at_once.rank_error <= 2 * 0.5 / POINTS + 1e-9, (
            "merging any number of windows at once costs one more half share"
        )


def test_order_of_rows_does_not_change_statistics() -> None:
    values = np.random.default_rng(1).normal(size=3000).tolist()
    assert stored_of(values) == stored_of(values[::-1])


def stored_of(values: list[float]) -> list[Any]:
    row = stored_rows([WindowStatistics(START, (statistics("float64", values),), 1, "r", START)]).row(0, named=True)
    row["mean"] = round(row["mean"], 12)
    return list(row.values())


@pytest.mark.parametrize("size", [0, 1, 10, 100, 1_000, 3_000, 10_000, 100_000])
def test_distinct_estimate_is_within_four_deviations(size: int) -> None:
    values = pl.Series(np.random.default_rng(size).permutation(size).repeat(2))
    found = DistinctSketch.of(hash_values(values)).estimate()
    assert abs(found - size) <= 4 * RELATIVE_ERROR * size + 0.5


def test_distinct_estimates_are_not_off_in_one_direction() -> None:
    """60 disjoint sets of each size: the mean error is within what sixty draws leave of the deviation."""
    for size in (50, 700, 2_500, 20_000):
        estimates = [
            DistinctSketch.of(hash_values(pl.Series(range(n * size, (n + 1) * size)))).estimate() for n in range(60)
        ]
        errors = np.array(estimates) / size - 1
        assert abs(errors.mean()) <= 4 * RELATIVE_ERROR / math.sqrt(60)
        assert errors.std() <= 1.4 * RELATIVE_ERROR


def test_distinct_values_of_two_windows_are_those_of_both() -> None:
    left, right = pl.Series(range(3000)), pl.Series(range(2000, 6000))
    merged = merged_distinct([DistinctSketch.of(hash_values(side)) for side in (left, right)])
    assert merged == DistinctSketch.of(hash_values(pl.concat([left, right])))


def test_hashes_are_the_same_for_ever() -> None:
    """Kept registers are merged with those of later versions: a change of any of these words breaks them."""
    assert [hex(word) for word in hash_values(pl.Series(["", "a", "carrier", "\u00e9"]))] == KNOWN["string"]
    assert [hex(word) for word in hash_values(pl.Series([0.0, -0.0, 1.5, math.inf]))] == KNOWN["float"]
    assert [hex(word) for word in hash_values(pl.Series([0, 1, -1]))] == KNOWN["int"]
    assert [hex(word) for word in hash_values(pl.Series([[1], [], [1, 2]]))] == KNOWN["list"]
    assert [hex(word) for word in hash_vectors(np.array([[1, 0], [0, 1]], dtype=np.float32))] == KNOWN["vector"]


def test_hash_of_a_slice_is_that_of_its_values() -> None:
    texts = pl.Series(["ab", "c", "", "def", "g"])
    assert hash_values(texts[1:4]).tolist() == hash_values(pl.Series(["c", "", "def"])).tolist()


def test_alike_sequences_have_different_hashes() -> None:
    texts = pl.Series(["ab", "ba", "a", "b", "aa", "", "aab", "aba", "a\x00", "\x00a", "\x00"])
    assert len(set(hash_values(texts).tolist())) == len(texts)
    lists = pl.Series([[1, 2], [2, 1], [12], [], [0], [0, 0], [None]], dtype=pl.List(pl.Int64))
    assert len(set(hash_values(lists).tolist())) == len(lists)


@settings(max_examples=cases(500, 50), deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 130), st.integers(1, 9), max_size=130), min_size=1, max_size=4))
def test_merged_top_values_keep_the_error_that_they_state(windows: list[dict[int, int]]) -> None:
    parts = [TopValues.of(pl.Series("x", [v for v, n in one.items() for _ in range(n)], pl.Int64)) for one in windows]
    truth: Counter[str] = Counter()
    for one in windows:
        truth.update({str(value): count for value, count in one.items()})
    for found in (merged_top_values(parts), merged_top_values([merged_top_values(parts[:2]), *parts[2:]])):
        assert len(found.counts) <= KEPT
        for value, count in found.counts.items():
            assert count <= truth[value] <= count + found.short
        assert all(truth[value] <= found.missed for value in truth if value not in found.counts)
    exact = merged_top_values(parts)
    if all(part.is_complete for part in parts):
        assert exact.short == 0


# Features beside each other.

WINDOWS = st.lists(
    st.tuples(st.sampled_from(["float64", "float32", "int64", "string"]), st.sampled_from([1, 2])), max_size=9
)


@settings(max_examples=cases(500, 40), deadline=None)
@given(WINDOWS, st.lists(st.sampled_from([1, 2]), max_size=60), st.data())
def test_features_of_a_window_are_measured_as_each_alone(
    shape: list[tuple[str, int]], numbers: list[int], data: Any
) -> None:
    """However many columns are measured at once."""
    features = [RegisteredFeature(f"x{n}", dtype, 32 + n, since) for n, (dtype, since) in enumerate(shape)]
    values = st.lists(st.none() | FLOATS, min_size=len(numbers), max_size=len(numbers))
    given_values = [pl.Series(one.name, data.draw(values), dtype=pl.Float64) for one in features]
    typed = [
        series.cast(pl.String) if one.dtype == pl.String else series.cast(storage_dtype(one.dtype), strict=False)
        for one, series in zip(features, given_values, strict=True)
    ]
    rows = pl.DataFrame([pl.Series("schema_number", numbers, dtype=pl.Int32), *typed])
    alone = [window_statistics([one], rows, START) for one in features]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measuring, "_VALUES_AT_ONCE", data.draw(st.sampled_from([1, 60, 100_000])))
        together = window_statistics(features, rows, START)
    assert stored_rows([window_of(together)]).equals(stored_rows([window_of([one for [one] in alone])]))


def window_of(found: Sequence[FeatureStatistics]) -> WindowStatistics:
    return WindowStatistics(START, tuple(found), 1, "run", START)


# What is counted at all.


def test_rows_from_before_a_feature_was_declared_are_not_counted() -> None:
    rows = pl.DataFrame({"schema_number": [1, 1, 2], "x": [None, None, 3.0]})
    [found] = window_statistics([feature("float64", since=2)], rows, START)
    assert (found.rows, found.nulls, found.mean) == (1, 0, 3.0)


def test_window_without_rows_has_statistics_of_nothing() -> None:
    for dtype in VALUES:
        found = statistics(dtype, [])
        assert (found.rows, found.values, found.null_fraction, found.lowest, found.mean) == (0, 0, None, None, None)
        assert found.distinct_estimate == 0


def test_vector_of_another_length_counts_as_not_a_vector() -> None:
    found = statistics("float32[3]", [[1.0, 0.0, 0.0], [1.0], None])
    assert (found.rows, found.nulls, found.nans, found.values) == (3, 1, 1, 1)
    assert found.vectors is not None
    assert found.vectors.mean.tolist() == [1.0, 0.0, 0.0]
