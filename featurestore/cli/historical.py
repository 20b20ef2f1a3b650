"""`get-historical`: a training set from a file of labels to another file."""

from pathlib import Path
from typing import Any

import polars as pl

from featurestore.cli.requests import parse_request
from featurestore.cli.spines import check_out, read_spine, write_set
from featurestore.cli.tables import table_text
from featurestore.cli.times import instant_text
from featurestore.pit import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT
from featurestore.quantities import count_text
from featurestore.references import resolve
from featurestore.store import FeatureStore

STATUSES = (PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE)


def write_historical(
    store: FeatureStore,
    asked: str,
    spine: Path,
    out: Path,
    *,
    label_time: str,
    with_status: bool,
    full_feature_names: bool,
    min_correctness: str | None = None,
) -> dict[str, Any]:
    """Add features to a spine, as production could have served them at each label time, and write the result.

    Args:
        store: The tables to read.
        asked: A service, or references with commas between them.
        spine: A .parquet or .csv of keys, label times and any other columns.
        out: A .parquet or .csv; written whole or not at all, over what was there.
        label_time: Name of the time column.
        with_status: Add '{feature}__status'; the report counts them.
        full_feature_names: Name columns 'group__feature'.
        min_correctness: Refuse labels whose values come from windows below this class; nothing is written then.

    Returns:
        A report: `rows`, first and last label time, and for each feature how many rows have a value or each status.
    """
    request = parse_request(store.registry, asked)
    requested = resolve(store.registry, request, full_feature_names=full_feature_names)
    check_out(out, spine, requested)
    rows = read_spine(spine, requested, label_time)
    found = store.get_historical_features(
        rows,
        request,
        label_time=label_time,
        full_feature_names=full_feature_names,
        with_status=with_status,
        min_correctness=min_correctness,
    ).to_polars()
    write_set(found, out)
    columns = [column for wanted in requested for _, column in wanted.features]
    return {
        "out": str(out),
        "rows": found.height,
        "columns": found.width,
        "first_label_time": found[label_time].min(),
        "last_label_time": found[label_time].max(),
        "features": {column: _counts(found, column, with_status=with_status) for column in columns},
    }


def _counts(rows: pl.DataFrame, column: str, *, with_status: bool) -> dict[str, int]:
    if not with_status:
        return {"values": rows.height - rows[column].null_count(), "nulls": rows[column].null_count()}
    statuses = rows[f"{column}__status"]
    return {status: int((statuses == status).sum()) for status in STATUSES}


def historical_text(report: dict[str, Any]) -> str:
    """What was written, and how full each feature is."""
    span = f"labels from {instant_text(report['first_label_time'])} to {instant_text(report['last_label_time'])}"
    head = f"{count_text(report['rows'], 'row')}, {count_text(report['columns'], 'column')} in {report['out']}; {span}."
    return f"{head}\n\n{_table(report['features'])}"


def _table(features: dict[str, dict[str, int]]) -> str:
    counted = list(next(iter(features.values())))
    lines = [[name, *(f"{count:,}" for count in counts.values())] for name, counts in features.items()]
    return table_text(["feature", *counted], lines, right=counted)
