"""What comparing windows needs of one: for each feature how many rows and nulls, and its values as a sample.

Pure: it is handed rows. How far two samples are apart is said by `drift.py`, what is too far by `comparison.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from featurestore.declaration.dtypes import NUMERIC, TIMESTAMP
from featurestore.gate.drift import Categories, Numbers, Sample, pooled, vectors_of
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

SAMPLE_ROWS = 5_000
"""About as many rows of a window are looked at: beyond that, chance is far below any bound."""
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class FeatureProfile:
    """One feature in one window; `rows` counts those computed since the feature was declared."""

    rows: int
    missing: int
    sample: Sample


Profile = Mapping[str, FeatureProfile]


def compared_features(group: RegisteredGroup) -> tuple[RegisteredFeature, ...]:
    """The features whose distribution is compared."""
    return tuple(feature for feature in group.features if feature.drift is not None)


def profile_of(features: Sequence[RegisteredFeature], rows: pl.DataFrame, start: datetime) -> Profile:
    """The profile of the rows of the window that starts at `start`; a feature not yet known to some rows leaves them out."""
    return {feature.name: _feature_profile(feature, rows, start) for feature in features}


def pooled_profile(profiles: Sequence[FeatureProfile]) -> FeatureProfile:
    """One feature in several windows taken together; at least one."""
    rows, missing = sum(part.rows for part in profiles), sum(part.missing for part in profiles)
    return FeatureProfile(rows, missing, pooled([part.sample for part in profiles]))


def sampled(group: RegisteredGroup) -> pl.Expr:
    """The rows of each window to look at, about `SAMPLE_ROWS` of them: equal rows of equal windows, in whatever order."""
    every = (pl.len().over("window_start") // SAMPLE_ROWS).clip(1)
    return pl.struct(*group.key_names, "event_time").hash() % every == 0


def _feature_profile(feature: RegisteredFeature, rows: pl.DataFrame, start: datetime) -> FeatureProfile:
    is_known = rows["schema_number"] >= feature.since
    values = rows[feature.name] if is_known.all() else rows.filter(is_known)[feature.name]
    present = _present(feature, values)
    return FeatureProfile(len(values), len(values) - len(present), _sample(feature, present, start))


def _present(feature: RegisteredFeature, values: pl.Series) -> pl.Series:
    present = values.drop_nulls()
    return present.drop_nans() if feature.dtype.is_float() else present


def _sample(feature: RegisteredFeature, present: pl.Series, start: datetime) -> Sample:
    if isinstance(feature.dtype, pl.Array):
        return vectors_of(as_matrix(feature, present)[1])
    if is_category(feature):
        return Categories(dict(present.cast(pl.String).value_counts().rows()))
    return Numbers(np.sort(as_numbers(feature, present, start).to_numpy()))


def is_category(feature: RegisteredFeature) -> bool:
    return feature.dtype_name in ("bool", "string")


def as_numbers(feature: RegisteredFeature, values: pl.Series, start: datetime) -> pl.Series:
    """Values of a feature that has an order as floats: of lists their lengths, of dates and times the hours since `start`.

    Times move with the windows; how long before its window each lies need not.
    """
    if feature.dtype_name in NUMERIC:
        return values.cast(pl.Float64)
    if isinstance(feature.dtype, pl.List):
        return values.list.len().cast(pl.Float64)
    micros = values.cast(TIMESTAMP if values.dtype == TIMESTAMP else pl.Datetime("us")).dt.timestamp("us")
    return (micros - round(start.timestamp() * 1e6)) / HOUR_US


def as_matrix(feature: RegisteredFeature, values: pl.Series) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Which values (none of them null) are finite vectors of the declared length, and those, one a row."""
    size = feature.dtype.size if isinstance(feature.dtype, pl.Array) else 0
    places = np.flatnonzero((values.list.len() == size).to_numpy())
    flat = values.gather(places).explode().cast(pl.Float32).to_numpy() if len(places) else np.empty(0, np.float32)
    matrix = flat.reshape(-1, size)
    is_finite = np.isfinite(matrix).all(axis=1)
    return places[is_finite], matrix[is_finite]
