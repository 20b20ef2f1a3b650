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
from typing import Any

import numpy as np
import polars as pl

from featurestore.gate.drift import Vectors, pooled, vectors_of
from featurestore.gate.profile import as_matrix, as_numbers
from featurestore.quality.distinct import DistinctSketch, merged_distinct
from featurestore.quality.hashing import Words, hash_floats, hash_values, hash_vectors
from featurestore.quality.quantiles import Floats, QuantileSketch, merged_quantiles
from featurestore.quality.top_values import TopValues, merged_top_values
from featurestore.registry.snapshot import RegisteredFeature

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
    return [_of_feature(feature, _known(feature, rows, oldest), start) for feature in features]


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
        **_summary(measured.numbers),
        distinct=DistinctSketch.of(measured.words),
        top=measured.top,
        vectors=measured.vectors,
    )


def _measured(feature: RegisteredFeature, values: pl.Series, start: datetime) -> _Measured:
    """Floats in NumPy alone, and categories counted once: a call into Polars for each step would cost more than the step."""
    if feature.dtype.is_float():
        given = values.to_numpy()
        floats = given[~np.isnan(given)].astype(np.float64, copy=False)
        return _Measured(len(floats), floats, hash_floats(floats))
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


def _summary(numbers: Floats) -> dict[str, Any]:
    """Values that may be infinite; of none there is no summary."""
    ordered = np.sort(numbers)
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
