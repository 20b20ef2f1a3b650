"""What the client sends: requests as the server's JSON. Not here: sending them.

Values that JSON has no form of their own for go as the server takes them: dates and times in ISO 8601, NaN and the infinities
as text.
"""

import json
import math
from typing import Any

import polars as pl

from featurestore.declaration.service import FeatureService
from featurestore.errors import InvalidInput
from featurestore.freshness.read_state import Mode, check_mode
from featurestore.references import Request

NON_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def read_body(features: Request, rows: pl.DataFrame, *, full_feature_names: bool, freshness: Mode = "degrade") -> bytes:
    """The body of a read.

    The client knows no registry, so it sends every column that could be a key. One that is of no key's type goes as nulls;
    if it turns out to be a key, the answer says which type that has, and is refused here.

    Args:
        features: References, or a service or its name.
        rows: The entity rows.
        freshness: What is wanted of groups that are late.

    Raises:
        InvalidInput: there are rows, and no columns; or `freshness` is no mode.
    """
    check_mode(freshness)
    if rows.height and not rows.columns:
        raise InvalidInput("The entity rows have no columns. Give each the keys of its entity.")
    body = {
        **_asked(features),
        "entities": {series.name: _key_values(series) for series in rows},
        "full_feature_names": full_feature_names,
        "include_serving_metadata": True,
        "freshness": freshness,
    }
    return _as_json(body)


def push_body(group: str, rows: pl.DataFrame, to: str) -> bytes:
    """The body of a push.

    Raises:
        InvalidInput: a column is of a type that cannot be sent, or a list holds what JSON has no number for.
    """
    return _as_json(
        {"push_source_name": group, "to": to, "df": {series.name: _pushed_values(series) for series in rows}}
    )


def _asked(features: Request) -> dict[str, Any]:
    if isinstance(features, str):
        return {"feature_service": features}
    return {"features": list(features.references if isinstance(features, FeatureService) else features)}


def _as_json(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The request cannot be sent as JSON: {error}.") from error


def _key_values(series: pl.Series) -> list[Any]:
    dtype = series.dtype
    if dtype == pl.Date():
        return series.dt.to_string("iso").to_list()
    if dtype.is_integer() or dtype in (pl.String(), pl.Boolean(), pl.Null()):
        return series.to_list()
    return [None] * len(series)


def _pushed_values(series: pl.Series) -> list[Any]:
    dtype = series.dtype
    if isinstance(dtype, pl.Date | pl.Datetime):
        return [None if value is None else value.isoformat() for value in series.to_list()]
    if dtype.is_float():
        return [_finite(value) for value in series.to_list()]
    return series.to_list()


def _finite(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return NON_FINITE.get(value, "NaN")
