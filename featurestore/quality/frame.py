"""Statistics as rows: the form in which they are kept, and the one that people read.

A stored row is one feature in one window. What is kept of sketches is bytes and lists; readers get quantiles and a count instead.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.gate.drift import Vectors
from featurestore.quality.distinct import DistinctSketch
from featurestore.quality.quantiles import QuantileSketch
from featurestore.quality.statistics import FeatureStatistics
from featurestore.quality.top_values import TopValues

COUNTED = pl.List(pl.Struct({"value": pl.String(), "count": pl.Int64()}))
FLOATS = pl.List(pl.Float64())

STORED: dict[str, pl.DataType] = {
    "window_start": TIMESTAMP,
    "feature": pl.String(),
    "dtype": pl.String(),
    "count": pl.Int64(),
    "nulls": pl.Int64(),
    "nans": pl.Int64(),
    "min": pl.Float64(),
    "max": pl.Float64(),
    "mean": pl.Float64(),
    "points": FLOATS,
    "points_of": pl.Int64(),
    "rank_error": pl.Float64(),
    "registers": pl.Binary(),
    "top_values": COUNTED,
    "top_missed": pl.Int64(),
    "top_short": pl.Int64(),
    "vector_mean": FLOATS,
    "vector_variance": pl.Float64(),
    "vector_variance_squared": pl.Float64(),
    "table_version": pl.Int64(),
    "run_id": pl.String(),
    "recorded_at": TIMESTAMP,
}
QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
SHOWN_TOP = 20

READABLE: dict[str, pl.DataType] = {
    "window_start": TIMESTAMP,
    "feature": pl.String(),
    "dtype": pl.String(),
    "count": pl.Int64(),
    "null_fraction": pl.Float64(),
    "nan_fraction": pl.Float64(),
    "min": pl.Float64(),
    "max": pl.Float64(),
    "mean": pl.Float64(),
    **dict.fromkeys(QUANTILES, pl.Float64()),
    "distinct": pl.Int64(),
    "top_values": COUNTED,
    "vector_mean": FLOATS,
    "table_version": pl.Int64(),
    "run_id": pl.String(),
    "recorded_at": TIMESTAMP,
}


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """The statistics of one window as it was promoted: its features, the table's version that has the rows, the run that computed them."""

    window_start: datetime
    features: tuple[FeatureStatistics, ...]
    table_version: int | None
    run_id: str
    recorded_at: datetime

    def feature(self, name: str) -> FeatureStatistics | None:
        """Of one feature; None if it was not there yet."""
        return next((one for one in self.features if one.feature == name), None)


def stored_rows(windows: Iterable[WindowStatistics]) -> pl.DataFrame:
    """Rows as they are kept: `STORED`, in the order given."""
    return pl.DataFrame([_row(w, one) for w in windows for one in w.features], schema=STORED, orient="row")


def from_stored_rows(rows: pl.DataFrame) -> list[WindowStatistics]:
    """What `stored_rows` made, oldest window first; rows of one window have one version, run and time."""
    found: list[WindowStatistics] = []
    for (start,), part in rows.sort("window_start", maintain_order=True).group_by("window_start", maintain_order=True):
        records = part.to_dicts()
        last = records[-1]
        statistics = tuple(_statistics(record) for record in records)
        assert isinstance(start, datetime)
        found.append(WindowStatistics(start, statistics, last["table_version"], last["run_id"], last["recorded_at"]))
    return found


def readable_rows(windows: Iterable[WindowStatistics]) -> pl.DataFrame:
    """One row a window and feature for people: `READABLE`. Counts, shares and values are null where there is nothing to tell."""
    rows = [_readable(w, one) for w in windows for one in w.features]
    return pl.DataFrame(rows, schema=READABLE, orient="row")


def _row(window: WindowStatistics, one: FeatureStatistics) -> tuple[Any, ...]:
    top, vectors = one.top, one.vectors
    return (
        window.window_start,
        one.feature,
        one.dtype_name,
        one.rows,
        one.nulls,
        one.nans,
        one.lowest,
        one.highest,
        one.mean,
        one.quantiles.points.tolist(),
        one.quantiles.count,
        one.quantiles.rank_error,
        one.distinct.registers,
        None if top is None else _counted(top.counts),
        None if top is None else top.missed,
        None if top is None else top.short,
        None if vectors is None else vectors.mean.tolist(),
        None if vectors is None else vectors.variance,
        None if vectors is None else vectors.variance_squared,
        window.table_version,
        window.run_id,
        window.recorded_at,
    )


def _counted(counts: dict[str, int], most: int | None = None) -> list[dict[str, Any]]:
    return [{"value": value, "count": count} for value, count in list(counts.items())[:most]]


def _statistics(row: dict[str, Any]) -> FeatureStatistics:
    values = row["count"] - row["nulls"] - row["nans"]
    counts = None if row["top_values"] is None else {item["value"]: item["count"] for item in row["top_values"]}
    points = np.array(row["points"] or [], dtype=np.float64)
    mean = row["vector_mean"]
    vectors = None
    if mean is not None:
        moments = (row["vector_variance"], row["vector_variance_squared"])
        vectors = Vectors(values, np.array(mean, dtype=np.float64), *moments)
    return FeatureStatistics(
        row["feature"],
        row["dtype"],
        row["count"],
        row["nulls"],
        row["nans"],
        row["min"],
        row["max"],
        row["mean"],
        QuantileSketch(points, row["points_of"], row["rank_error"]),
        DistinctSketch(row["registers"]),
        None if counts is None else TopValues(counts, row["top_missed"], row["top_short"]),
        vectors,
    )


def _readable(window: WindowStatistics, one: FeatureStatistics) -> tuple[Any, ...]:
    quantiles = [one.quantiles.quantile(share) for share in QUANTILES.values()]
    return (
        window.window_start,
        one.feature,
        one.dtype_name,
        one.rows,
        one.null_fraction,
        one.nan_fraction,
        one.lowest,
        one.highest,
        one.mean,
        *quantiles,
        one.distinct_estimate,
        None if one.top is None else _counted(one.top.counts, SHOWN_TOP),
        None if one.vectors is None else one.vectors.mean.tolist(),
        window.table_version,
        window.run_id,
        window.recorded_at,
    )


def top_text(counts: Sequence[dict[str, Any]], rows: int, most: int = 3) -> str:
    """The first few top values with their shares, on one line.

    >>> top_text([{"value": "red", "count": 6}, {"value": "blue", "count": 2}], 8)
    'red 75%, blue 25%'
    """
    return ", ".join(f"{item['value']} {item['count'] / max(rows, 1):.0%}" for item in counts[:most])


def finite_or_none(value: float | None) -> float | None:
    """None for what JSON and plots cannot hold."""
    return value if value is not None and math.isfinite(value) else None
