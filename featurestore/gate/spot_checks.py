"""Spot checks: values that the owner of a group is sure of, held against the rows of the window that they name. Pure."""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from featurestore.declaration.backfill import KnownValue
from featurestore.frames import plain_rows
from featurestore.gate.quality import Finding
from featurestore.registry.snapshot import RegisteredGroup

NO_ROW = "no row"


def spot_check(group: RegisteredGroup, known_values: Sequence[KnownValue], rows: pl.DataFrame) -> tuple[Finding, ...]:
    """A finding for each known value that the rows of its window do not give.

    Of several events of one entity the last counts. A value may also be missing: then null or NaN is expected.

    Args:
        group: The group as registered.
        known_values: Those of this window.
        rows: The window's rows.
    """
    return tuple(finding for known in known_values if (finding := _checked(group, known, rows)) is not None)


def _checked(group: RegisteredGroup, known: KnownValue, rows: pl.DataFrame) -> Finding | None:
    named = [pl.col(key).eq_missing(pl.lit(value, dtype=group.key_schema[key])) for key, value in known.keys.items()]
    found = rows.filter(named).sort("event_time")
    if found.height and _agree(found[known.feature].to_list()[-1], known.value, known.tolerance):
        return None
    observed = _shown(found[known.feature].to_list()[-1]) if found.height else NO_ROW
    tolerance = f" within {known.tolerance:g}" if known.tolerance else ""
    entity = ", ".join(f"{key}={value}" for key, value in known.keys.items())
    example = plain_rows(found.select(*group.key_names, "event_time", known.feature).tail(1))
    return Finding(
        "known_value",
        known.feature,
        f"{observed} for {entity}",
        f"{_shown(known.value)}{tolerance}",
        found.height,
        example,
    )


def _agree(value: Any, expected: Any, tolerance: float) -> bool:
    if _is_missing(value) or _is_missing(expected):
        return _is_missing(value) and _is_missing(expected)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return len(value) == len(expected) and all(map(_agree, value, expected, [tolerance] * len(value)))
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return bool(value == expected or abs(value - expected) <= tolerance)
    return bool(value == expected)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: Any) -> str:
    return "null" if _is_missing(value) else str(value)
