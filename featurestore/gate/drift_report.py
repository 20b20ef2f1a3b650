"""Findings of a comparison in words: which feature, how far, against what, and the ten rows that are furthest out. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from featurestore.gate.comparison import Excess
from featurestore.gate.drift import Categories, Numbers, Vectors, bin_counts, bin_edges, common_categories
from featurestore.gate.profile import FeatureProfile, as_matrix, as_numbers
from featurestore.gate.quality import EXAMPLES, Finding, example_rows
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

OTHER = "(other)"
"""What a reader sees where all other categories are counted together."""


def drift_finding(
    group: RegisteredGroup,
    excess: Excess,
    rows: pl.DataFrame,
    start: datetime,
    mine: FeatureProfile,
    pool: FeatureProfile,
) -> Finding:
    """One excess as a finding.

    Args:
        group: The group as registered.
        excess: What is too far.
        rows: All rows of the window.
        start: When the window starts.
        mine: The feature in the window.
        pool: The feature in the reference windows, together.
    """
    return Finding(
        excess.measure,
        excess.feature.name,
        f"{excess.value:.4g} ({_contrast(excess, mine, pool)})",
        f"{excess.limit:.4g}",
        excess.rows,
        _furthest(group, excess, rows, start, pool),
        () if excess.measure == "null_rise" else share_table(mine, pool),
    )


def share_table(mine: FeatureProfile, pool: FeatureProfile) -> tuple[dict[str, Any], ...]:
    """Shares of the window and of its reference by bin or category; none of vectors."""
    if isinstance(mine.sample, Numbers) and isinstance(pool.sample, Numbers):
        edges = bin_edges(pool.sample.values)
        names = [*(f"to {edge:.6g}" for edge in edges), f"above {edges[-1]:.6g}"]
        theirs, ours = (bin_counts(sample.values, edges).tolist() for sample in (pool.sample, mine.sample))
        return _table(list(zip(names, theirs, ours, strict=True)))
    if isinstance(mine.sample, Categories) and isinstance(pool.sample, Categories):
        return _table(
            [
                (OTHER if name is None else name, theirs, ours)
                for name, theirs, ours in common_categories(pool.sample, mine.sample)
            ]
        )
    return ()


def _table(counts: Sequence[tuple[str, int, int]]) -> tuple[dict[str, Any], ...]:
    reference = max(1, sum(theirs for _, theirs, _ in counts))
    window = max(1, sum(mine for _, _, mine in counts))
    return tuple(
        {"values": name, "reference": round(theirs / reference, 4), "window": round(mine / window, 4)}
        for name, theirs, mine in counts
    )


def _contrast(excess: Excess, mine: FeatureProfile, pool: FeatureProfile) -> str:
    """Both sides in a few words."""
    if excess.measure == "null_rise":
        return f"{_missing_share(mine)} missing, reference {_missing_share(pool)}"
    if isinstance(mine.sample, Numbers) and isinstance(pool.sample, Numbers):
        return f"median {_median(mine.sample)}, reference {_median(pool.sample)}"
    if isinstance(mine.sample, Categories):
        most = max(share_table(mine, pool), key=lambda row: float(abs(row["window"] - row["reference"])))
        return f"share of {most['values']!r} {most['window']:.4g}, reference {most['reference']:.4g}"
    return "the mean vector has turned"


def _missing_share(profile: FeatureProfile) -> str:
    return f"{profile.missing / max(1, profile.rows):.4g}"


def _median(sample: Numbers) -> str:
    return f"{np.median(sample.values):.6g}"


def _furthest(
    group: RegisteredGroup, excess: Excess, rows: pl.DataFrame, start: datetime, pool: FeatureProfile
) -> tuple[dict[str, Any], ...]:
    feature = excess.feature
    if excess.measure == "null_rise":
        column = rows[feature.name]
        missing = column.is_null() | column.is_nan() if feature.dtype.is_float() else column.is_null()
        return example_rows(group, rows.filter(missing), feature.name)
    present = rows.drop_nulls(feature.name)
    out = _distance_out(feature, present[feature.name], start, pool)
    order = np.argsort(-np.nan_to_num(out, nan=-np.inf), kind="stable")[:EXAMPLES]
    return example_rows(group, present[order], feature.name)


def _distance_out(
    feature: RegisteredFeature, values: pl.Series, start: datetime, pool: FeatureProfile
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How far out each value is: from the reference's median, by how rare its category was there, by its angle."""
    if isinstance(pool.sample, Vectors):
        places, matrix = as_matrix(feature, values)
        lengths = np.maximum(np.linalg.norm(matrix, axis=1), np.finfo(np.float32).tiny)
        out = np.full(len(values), np.nan)
        out[places] = -(matrix @ pool.sample.mean) / lengths
        return out
    if isinstance(pool.sample, Categories):
        now = dict(values.cast(pl.String).value_counts().rows())
        gained = {name: count / len(values) - _share_of(pool.sample, name) for name, count in now.items()}
        return np.array([gained[name] for name in values.cast(pl.String)])
    return np.abs(as_numbers(feature, values, start).to_numpy() - np.median(pool.sample.values))


def _share_of(sample: Categories, name: str) -> float:
    return sample.counts.get(name, 0) / max(1, sample.count)
