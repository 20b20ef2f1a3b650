"""How far two samples of one feature are apart: PSI and KS for numbers, chi-square for categories, cosine for vectors.

Pure arithmetic on NumPy arrays: no rows, stores or thresholds are known here. Every measure says how far, on a scale that
does not grow with the number of rows, and beside it how far apart two samples of unchanged data come once in ten
thousand times at these sizes. Only what lies beyond both a bound and chance is a change.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from featurestore.quality.quantiles import Floats, QuantileSketch, merged_quantiles

Measure = Literal["psi", "ks", "chi_square", "cosine", "null_rise"]
Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")

BINS = 10
SMOOTHING = 0.5
"""Added to the count of each bin, so that an empty one has a share: the Jeffreys prior."""
CATEGORIES = 20
CHANCE = 1e-4
SPREAD_ROWS = 256
POOL_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two samples are apart, and what unchanged data of these sizes exceed with a probability of `CHANCE`."""

    value: float
    chance: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """Values of a number in ascending order, neither null nor NaN.

    Where a window is known by the sketch that was kept of it, each stands for an equal share of `of` values, and a share
    of values below a point may be off by `rank_error`.
    """

    values: Floats
    of: int | None = None
    rank_error: float = 0.0

    @property
    def count(self) -> int:
        return len(self.values) if self.of is None else self.of


@dataclass(frozen=True, slots=True)
class Categories:
    """How often each value of a category occurs.

    Where only the most frequent were kept, `rest` counts all others, and of it up to `short` may be of any one category.
    """

    counts: Mapping[str, int]
    rest: int = 0
    short: int = 0

    @property
    def count(self) -> int:
        return sum(self.counts.values()) + self.rest


@dataclass(frozen=True, slots=True)
class Vectors:
    """Moments of a cloud of vectors: its mean, the trace of its covariance, and the trace of the covariance squared."""

    count: int
    mean: Floats
    variance: float
    variance_squared: float


Sample = Numbers | Categories | Vectors


def vectors_of(matrix: npt.NDArray[Any]) -> Vectors:
    """The moments of finite vectors, one a row; the covariance squared is taken from at most 256 of them, evenly spaced."""
    if not len(matrix):
        return Vectors(0, np.zeros(matrix.shape[1]), 0.0, 0.0)
    mean = matrix.mean(axis=0, dtype=np.float64)
    few = matrix[:: -(-len(matrix) // SPREAD_ROWS)] - mean
    # The products of rows have the same squared norm as the covariance, and there are few rows where dimensions are many.
    gram = few @ few.T / len(few)
    variance = float(matrix.var(axis=0, dtype=np.float64).sum())
    return Vectors(len(matrix), mean, variance, float(np.square(gram).sum()))


def pooled(samples: Sequence[Sample]) -> Sample:
    """Samples of one feature as one; at least one, all of a kind."""
    numbers = [sample for sample in samples if isinstance(sample, Numbers)]
    if numbers:
        return _pooled_numbers(numbers)
    vectors = [sample for sample in samples if isinstance(sample, Vectors)]
    if vectors:
        return _pooled_vectors(vectors)
    counts: Counter[str] = Counter()
    categories = [sample for sample in samples if isinstance(sample, Categories)]
    for sample in categories:
        counts.update(sample.counts)
    return Categories(counts, sum(sample.rest for sample in categories), sum(sample.short for sample in categories))


def _pooled_numbers(samples: Sequence[Numbers]) -> Numbers:
    if all(sample.of is None for sample in samples):
        # A stable sort merges runs that are in order already.
        return Numbers(np.sort(np.concatenate([sample.values for sample in samples]), kind="stable"))
    sketches = [QuantileSketch(sample.values, sample.count, sample.rank_error) for sample in samples]
    merged = merged_quantiles(sketches, most=POOL_POINTS)
    return Numbers(merged.points, merged.count, merged.rank_error)


def _pooled_vectors(samples: Sequence[Vectors]) -> Vectors:
    count = sum(sample.count for sample in samples)
    shares = [sample.count / max(count, 1) for sample in samples]
    mean = np.sum([share * sample.mean for share, sample in zip(shares, samples, strict=True)], axis=0)
    variance = sum(share * sample.variance for share, sample in zip(shares, samples, strict=True))
    squared = sum(share * sample.variance_squared for share, sample in zip(shares, samples, strict=True))
    return Vectors(count, mean, variance, squared)


def distances(reference: Sample, sample: Sample) -> dict[Measure, Distance]:
    """Every measure that fits a pair of samples; both have values."""
    if isinstance(reference, Numbers) and isinstance(sample, Numbers):
        sizes = (reference.count, sample.count)
        ks = kolmogorov_smirnov(reference.values, sample.values, sizes)
        unsure = Distance(ks.value, ks.chance + reference.rank_error + sample.rank_error)
        return {"psi": population_stability(reference.values, sample.values, sizes), "ks": unsure}
    if isinstance(reference, Categories) and isinstance(sample, Categories):
        return {"chi_square": chi_square(reference, sample)}
    if isinstance(reference, Vectors) and isinstance(sample, Vectors):
        return {"cosine": mean_cosine(reference, sample)}
    raise TypeError(f"A sample of {type(sample).__name__} has no distance from one of {type(reference).__name__}.")


def bin_edges(reference: Floats) -> Floats:
    """Upper edges, inclusive, of at most ten bins of about equal shares of the reference; the last bin is open.

    Ties make fewer bins. Where the lowest edge is the smallest value, what lies below it has a bin of its own, so that
    a constant is told from a smaller constant.

    Args:
        reference: Values in ascending order; at least one.
    """
    ranks = np.ceil(np.arange(1, BINS) * len(reference) / BINS).astype(np.int64) - 1
    edges = np.unique(reference[np.maximum(ranks, 0)])
    return np.concatenate([[np.nextafter(edges[0], -np.inf)], edges]) if edges[0] == reference[0] else edges


def bin_counts(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """How many values (in ascending order) lie in each bin: one more than there are edges; of many rows of edges as many rows."""
    below = np.searchsorted(values, edges, side="right")
    return np.diff(below, prepend=0, append=len(values))


def population_stability(reference: Floats, sample: Floats, sizes: tuple[int, int] | None = None) -> Distance:
    """The population stability index over the reference's quantile bins: sum of (p - q) ln(p / q).

    Shares are smoothed by half a count a bin. On unchanged data the index is about (1/n + 1/m) times a chi-square of
    as many degrees of freedom as there are bins, less one.

    Args:
        reference: Values in ascending order; at least one.
        sample: Values in ascending order.
        sizes: How many values each stands for; default itself.
    """
    n, m = sizes or (len(reference), len(sample))
    edges = bin_edges(reference)
    index = stability_index(bin_shares(reference, edges, n), bin_shares(sample, edges, m))
    return Distance(float(index), stability_chance(len(edges), n, m))


def bin_shares(values: Floats, edges: Floats, size: int) -> Floats:
    """Smoothed shares of values (in ascending order) by bin, of `size` values in all; of many rows of edges as many rows."""
    counts = bin_counts(values, edges)
    raised = counts * (size / np.maximum(1, counts.sum(axis=-1, keepdims=True))) + SMOOTHING
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float64)


def stability_index(reference: Floats, sample: Floats) -> Floats:
    """The index of shares by bin; of rows of shares as many."""
    return np.asarray(np.sum((sample - reference) * np.log(sample / reference), axis=-1), dtype=np.float64)


def stability_chance(edges: int, n: int, m: int) -> float:
    """What the index of unchanged data exceeds once in ten thousand times."""
    return _chi_square_quantile(edges) * _noise(n, m)


def kolmogorov_smirnov(reference: Floats, sample: Floats, sizes: tuple[int, int] | None = None) -> Distance:
    """The two-sample Kolmogorov-Smirnov statistic: the largest gap between the two distribution functions.

    Args:
        reference: Values in ascending order; at least one.
        sample: Values in ascending order; at least one.
        sizes: How many values each stands for; default itself.
    """
    # Between two points of the sample its own function stands still, so the gap is largest at one of them, on either side.
    gaps = [share_below(reference, sample, side) - share_below(sample, sample, side) for side in SIDES]
    return Distance(float(np.abs(gaps).max()), gap_chance(*(sizes or (len(reference), len(sample)))))


def share_below(values: Floats, points: Floats, side: Side) -> Floats:
    """The share of values (in ascending order) below each point; on its right side those at the point are among them."""
    return np.asarray(np.searchsorted(values, points, side=side) / len(values), dtype=np.float64)


def gap_chance(n: int, m: int) -> float:
    """The gap that unchanged data exceed once in ten thousand times."""
    return math.sqrt(-math.log(CHANCE / 2) / 2 * _noise(n, m))


def common_categories(reference: Categories, sample: Categories) -> list[tuple[str | None, int, int]]:
    """Category, count in the reference, count in the sample.

    Beyond the twenty most frequent, and where a side has a rest, the last row is of all others together; it has no name.
    """
    total = Counter(reference.counts) + Counter(sample.counts)
    names = [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
    is_whole = len(names) <= CATEGORIES + 1 and not (reference.rest or sample.rest)
    kept, left = (names, []) if is_whole else (names[:CATEGORIES], names[CATEGORIES:])
    table: list[tuple[str | None, int, int]] = [
        (name, reference.counts.get(name, 0), sample.counts.get(name, 0)) for name in kept
    ]
    return table if is_whole else [*table, (None, _count_of(reference, left), _count_of(sample, left))]


def _count_of(sample: Categories, names: Sequence[str]) -> int:
    """Of some categories and of those that were not kept."""
    return sum(sample.counts.get(name, 0) for name in names) + sample.rest


def chi_square(reference: Categories, sample: Categories) -> Distance:
    """Cramér's V of the chi-square of two samples by category, each given the same weight: from 0, equal, to 1, disjoint.

    The statistic itself grows with the rows, and would call any change of a large table significant; V does not. Where
    counts may be too low, the difference being in the rest, the tables nearest to each other that this allows are compared.

    Args:
        reference: At least one value.
        sample: At least one value.
    """
    named = common_categories(reference, sample)
    table = np.array([counts for _, *counts in named], dtype=np.float64)
    n, m = table.sum(axis=0)
    q, p = (table / table.sum(axis=0)).T
    if (reference.short or sample.short) and named[-1][0] is None:
        q, p = _nearer(q, p, reference.short / n), _nearer(p, q, sample.short / m)
    chance = 0.5 * math.sqrt(_chi_square_quantile(len(table) - 1) * _noise(n, m))
    return Distance(float(np.sqrt(0.5 * np.sum(np.square(p - q) / (p + q)))), chance)


def _nearer(shares: Floats, others: Floats, short: float) -> Floats:
    """Shares with those of named categories raised towards others, by at most `short` each, from what the last one has."""
    raised = np.clip(others[:-1] - shares[:-1], 0, short)
    raised *= min(1.0, shares[-1] / raised.sum()) if raised.sum() else 0.0
    return np.append(shares[:-1] + raised, shares[-1] - raised.sum())


def mean_cosine(reference: Vectors, sample: Vectors) -> Distance:
    """One less the cosine between the mean vectors: 0 for one direction, 1 for a right angle, 2 for opposite ones.

    The mean of a cloud around the origin has no direction of its own; there the bound of chance is above any distance.
    """
    lengths = float(np.linalg.norm(reference.mean) * np.linalg.norm(sample.mean))
    value = 1 - float(np.clip(reference.mean @ sample.mean / lengths, -1, 1)) if lengths else 0.0
    return Distance(value, _cosine_by_chance(reference, sample, lengths))


def _cosine_by_chance(reference: Vectors, sample: Vectors, lengths: float) -> float:
    """Half the squared error of the means, of which the mean and the variance are known, over their squared length."""
    variance = (reference.variance + sample.variance) / 2
    squared = (reference.variance_squared + sample.variance_squared) / 2
    if not variance:
        return 0.0
    freedom = max(variance**2 / squared, 1.0) if squared else 1.0
    error = variance * _noise(reference.count, sample.count) * _chi_square_quantile(freedom) / freedom
    return 0.5 * error / lengths if lengths else math.inf


def share_rise(reference: tuple[int, int], sample: tuple[int, int]) -> Distance:
    """How much larger a share is in a sample than in its reference; negative where it fell.

    Args:
        reference: How many of how many; at least one.
        sample: The same.
    """
    (hits, rows), (sample_hits, sample_rows) = reference, sample
    share = (hits + sample_hits) / (rows + sample_rows)
    error = math.sqrt(share * (1 - share) * _noise(rows, sample_rows))
    return Distance(sample_hits / sample_rows - hits / rows, NormalDist().inv_cdf(1 - CHANCE) * error)


def _noise(rows: float, other_rows: float) -> float:
    return 1 / max(rows, 1) + 1 / max(other_rows, 1)


def _chi_square_quantile(freedom: float) -> float:
    """What a chi-square exceeds with a probability of `CHANCE`, by Wilson and Hilferty's cube root; never below, at most 7 % above."""
    if freedom <= 0:
        return 0.0
    spread = 2 / (9 * freedom)
    cube: float = (1 - spread + NormalDist().inv_cdf(1 - CHANCE) * math.sqrt(spread)) ** 3
    return freedom * cube
