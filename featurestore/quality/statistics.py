"""What is kept of one feature in one window, computed from its rows, and of several windows together.

How a feature is measured depends on its type:

| dtype | scale of min, max, mean and quantiles | top values | distinct |
|---|---|---|---|
| numbers | the value | of integers | yes |
| bool | 0 and 1: the mean is the share of true | yes | yes |
| date, timestamp | hours from the window's start, as the gate compares them | no | yes |
| string | none | yes | yes |
| list | its length | no | yes |
| vector | its norm; beside it the mean vector | no | yes |

An int64 beyond 2^53 is rounded to a float in min, max, mean and quantiles, and exact in top values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from featurestore.gate.drift import Vectors, pooled, vectors_of
from featurestore.gate.profile import as_matrix, as_numbers
from featurestore.quality.distinct import DistinctSketch, distinct_sketches, merged_distinct
from featurestore.quality.hashing import Words, hash_floats, hash_values, hash_vectors
from featurestore.quality.quantiles import Floats, QuantileSketch, merged_quantiles
from featurestore.quality.top_values import TopValues, merged_top_values
from featurestore.registry.snapshot import RegisteredFeature

_VALUES_AT_ONCE = 1 << 13
"""Of float columns: so many that a call of NumPy costs little of each, and so few that its cache holds them."""
WITH_TOP_VALUES = ("string", "bool", "int64", "int32")


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """One feature in one window, or in several.

    Args:
        feature: Its name.
        dtype_name: Its declared type.
        rows: Rows computed since the feature was declared; others are not counted at all.
        nulls: Of them without a value.
        nans: Of them NaN; of vectors those with an item that is not finite, or of another length than declared.
        lowest, highest: On the scale of the type; None without values, and of strings.
        mean: The same; NaN where +inf meets -inf.
        quantiles: The same scale.
        distinct: Of values neither null nor NaN.
        top: None for types without.
        vectors: Mean and spread of vectors; None for other types.
    """

    feature: str
    dtype_name: str
    rows: int
    nulls: int
    nans: int
    lowest: float | None
    highest: float | None
    mean: float | None
    quantiles: QuantileSketch
    distinct: DistinctSketch
    top: TopValues | None = None
    vectors: Vectors | None = None

    @property
    def values(self) -> int:
        """Rows with a value: neither null nor NaN."""
        return self.rows - self.nulls - self.nans

    @property
    def null_fraction(self) -> float | None:
        """None without rows."""
        return self.nulls / self.rows if self.rows else None

    @property
    def nan_fraction(self) -> float | None:
        """None without rows."""
        return self.nans / self.rows if self.rows else None

    @property
    def distinct_estimate(self) -> int:
        """Exact where every value is among the top ones; else as `DistinctSketch.estimate`, never above the values there are."""
        if self.top is not None and self.top.is_complete:
            return len(self.top.counts)
        return min(self.values, round(self.distinct.estimate()))


def window_statistics(
    features: Sequence[RegisteredFeature], rows: pl.DataFrame, start: datetime
) -> list[FeatureStatistics]:
    """The statistics of the rows of one window, a feature after the other.

    Args:
        features: Of the group.
        rows: Stored rows: `schema_number`, and a column for each feature in its stored dtype, any order of rows.
        start: When the window starts.
    """
    numbers = rows["schema_number"]
    oldest = numbers.min() if len(numbers) else None
    columns = [_known(feature, rows, oldest) for feature in features]
    found: dict[int, FeatureStatistics] = {}
    for places in _batches(features, columns):
        together = _of_floats([features[place] for place in places], [columns[place] for place in places])
        found |= zip(places, together, strict=True)
    return [
        found[place] if place in found else _of_feature(feature, columns[place], start)
        for place, feature in enumerate(features)
    ]


def merged_statistics(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    """One feature in several windows taken together; at least one, all of one type. Times stay relative to their own windows."""
    first = parts[0]
    lows = [part.lowest for part in parts if part.lowest is not None]
    highs = [part.highest for part in parts if part.highest is not None]
    tops = [part.top for part in parts if part.top is not None]
    return FeatureStatistics(
        first.feature,
        first.dtype_name,
        sum(part.rows for part in parts),
        sum(part.nulls for part in parts),
        sum(part.nans for part in parts),
        min(lows, default=None),
        max(highs, default=None),
        _merged_mean(parts),
        merged_quantiles([part.quantiles for part in parts]),
        merged_distinct([part.distinct for part in parts]),
        merged_top_values(tops) if tops else None,
        _merged_vectors([part.vectors for part in parts if part.vectors is not None]),
    )


def _known(feature: RegisteredFeature, rows: pl.DataFrame, oldest: Any) -> pl.Series:
    """The column, without rows from before the feature was declared."""
    if oldest is None or oldest >= feature.since:
        return rows[feature.name]
    return rows.filter(pl.col("schema_number") >= feature.since)[feature.name]


def _batches(features: Sequence[RegisteredFeature], columns: Sequence[pl.Series]) -> list[list[int]]:
    """The places of the float columns, those of one length together, as many as are measured at once."""
    batches: list[list[int]] = []
    for length, places in groupby(
        (place for place, feature in enumerate(features) if feature.dtype.is_float()), key=lambda at: len(columns[at])
    ):
        size, alike = max(1, _VALUES_AT_ONCE // max(1, length)), list(places)
        batches += [alike[first : first + size] for first in range(0, len(alike), size)]
    return batches


def _of_floats(features: Sequence[RegisteredFeature], columns: Sequence[pl.Series]) -> list[FeatureStatistics]:
    """Columns of one length; nulls are NaN in NumPy, and both are sorted to the end."""
    given = np.stack([column.to_numpy() for column in columns]).astype(np.float64, copy=False)
    is_there = ~np.isnan(given)
    sketches, counts = distinct_sketches(hash_floats(given), is_there), is_there.sum(axis=1).tolist()
    return [
        FeatureStatistics(
            feature.name,
            feature.dtype_name,
            len(column),
            nulls,
            len(column) - nulls - count,
            **_summary(ordered[:count]),
            distinct=sketch,
        )
        for feature, column, nulls, count, ordered, sketch in zip(
            features, columns, (c.null_count() for c in columns), counts, np.sort(given, axis=1), sketches, strict=True
        )
    ]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is left of a column: its values on the scale of the type, in any order, and words for those that differ."""

    count: int
    numbers: Floats
    words: Words
    top: TopValues | None = None
    vectors: Vectors | None = None


def _of_feature(feature: RegisteredFeature, values: pl.Series, start: datetime) -> FeatureStatistics:
    measured, nulls = _measured(feature, values, start), values.null_count()
    return FeatureStatistics(
        feature.name,
        feature.dtype_name,
        len(values),
        nulls,
        len(values) - nulls - measured.count,
        **_summary(np.sort(measured.numbers)),
        distinct=DistinctSketch.of(measured.words),
        top=measured.top,
        vectors=measured.vectors,
    )


def _measured(feature: RegisteredFeature, values: pl.Series, start: datetime) -> _Measured:
    """Any but a float; categories are counted once."""
    present = values.drop_nulls() if values.null_count() else values
    if feature.dtype_name in WITH_TOP_VALUES:
        counted = present.value_counts(name="n")
        each, counts = counted[present.name], counted["n"]
        return _Measured(
            len(present), _numbers(feature, present), hash_values(each), TopValues.of_counted(each, counts)
        )
    if isinstance(feature.dtype, pl.Array):
        _, matrix = as_matrix(feature, present)
        norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
        return _Measured(len(matrix), norms, hash_vectors(matrix), vectors=vectors_of(matrix))
    return _Measured(len(present), as_numbers(feature, present, start).to_numpy(), hash_values(present))


def _numbers(feature: RegisteredFeature, present: pl.Series) -> Floats:
    """Integers and booleans as floats; text has no scale."""
    return np.empty(0) if feature.dtype_name == "string" else present.to_numpy().astype(np.float64)


def _summary(ordered: Floats) -> dict[str, Any]:
    """Values in ascending order, which may be infinite; of none there is no summary."""
    if not len(ordered):
        return {"lowest": None, "highest": None, "mean": None, "quantiles": QuantileSketch(ordered, 0)}
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float(ordered.mean())
    return {
        "lowest": float(ordered[0]),
        "highest": float(ordered[-1]),
        "mean": mean,
        "quantiles": QuantileSketch.of(ordered),
    }


def _merged_mean(parts: Sequence[FeatureStatistics]) -> float | None:
    counted = [(part.mean, part.quantiles.count) for part in parts if part.mean is not None]
    if not counted:
        return None
    total = sum(count for _, count in counted)
    return float(sum(mean * (count / total) for mean, count in counted))


def _merged_vectors(parts: Sequence[Vectors]) -> Vectors | None:
    """The mean is exact; spreads are those within windows, as the gate pools them."""
    if not parts:
        return None
    together = pooled(parts)
    return together if isinstance(together, Vectors) else None
