"""Files of labels in, training sets out: Parquet as it is, CSV with its text read strictly.

A CSV says no types. Keys are read by the dtype that their entity declares, the label time as ISO 8601 with a zone, and a
column that the store does not know as integers, numbers or booleans only if no text is lost by it ("007" stays text).
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP, dtype_name
from featurestore.errors import InvalidInput
from featurestore.references import RequestedGroup

DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
BEYOND_FLOAT = r"^-?[0-9]{16,}$"
INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%S%.6f%:z"
KEY_FORMS = {
    "int64": r"^-?(0|[1-9][0-9]*)$",
    "int32": r"^-?(0|[1-9][0-9]*)$",
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "bool": r"^(true|false)$",
}
FORMS = (".parquet", ".csv")


def read_spine(file: Path, requested: Sequence[RequestedGroup], label_time: str) -> pl.DataFrame:
    """The rows of a Parquet or CSV file, in their order.

    Args:
        file: Named .parquet or .csv; a CSV has a header line.
        requested: Groups asked, whose keys decide the dtypes of key columns in a CSV; null where nothing is written.
        label_time: Name of the time column.

    Raises:
        InvalidInput: the file is of another kind or unreadable, a key is not of its dtype, or a time is naive or no time.
    """
    is_csv = form_of(file) == ".csv"
    try:
        rows = pl.read_csv(file, infer_schema=False) if is_csv else pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"{file} cannot be read as {form_of(file)[1:]}: {error}.") from error
    return _typed(rows, requested, label_time) if is_csv else rows


def form_of(file: Path) -> str:
    """'.parquet' or '.csv', by the file's name.

    Raises:
        InvalidInput: it is named otherwise.
    """
    form = file.suffix.lower()
    if form not in FORMS:
        raise InvalidInput(
            f"{file} is named {form or 'without a suffix'}. Spines and training sets are .parquet or .csv."
        )
    return form


def _typed(rows: pl.DataFrame, requested: Sequence[RequestedGroup], label_time: str) -> pl.DataFrame:
    keys = {key: dtype for wanted in requested for key, dtype in wanted.group.key_schema.items()}
    return rows.with_columns(
        _typed_column(rows[name], keys.get(name), is_time=name == label_time) for name in rows.columns
    )


def _typed_column(text: pl.Series, key_dtype: pl.DataType | None, *, is_time: bool) -> pl.Series:
    if is_time:
        return pl.Series(text.name, [_instant(text.name, at, value) for at, value in enumerate(text)], dtype=TIMESTAMP)
    return _guessed(text) if key_dtype is None else _key_column(text, key_dtype)


def _instant(name: str, at: int, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidInput(
            f"Column {name!r}, row {at + 1}: {text!r} is no time. Write ISO 8601, as 2026-03-01T12:00:00Z."
        ) from error
    if instant.tzinfo is None:
        raise InvalidInput(
            f"Column {name!r}, row {at + 1}: {text!r} has no time zone, and none is guessed. Write {text.strip()}Z if it is UTC, "
            f"else its offset, as {text.strip()}-05:00."
        )
    return instant


def _key_column(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.String():
        return text
    is_read = text.str.contains(KEY_FORMS[dtype_name(dtype)])
    read = _read_as(text, dtype)
    if not (bad := text.filter((~is_read | read.is_null()).fill_null(False))).is_empty():
        raise InvalidInput(
            f"Column {text.name!r}: {bad[0]!r} is no {dtype_name(dtype)}, which the key is declared to be. Correct it in the file."
        )
    return read.alias(text.name)


def _read_as(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.Boolean():
        return text == "true"
    return text.str.to_date("%Y-%m-%d", strict=False) if dtype == pl.Date() else text.cast(dtype, strict=False)


def _guessed(text: pl.Series) -> pl.Series:
    """Integers, numbers or booleans if every value is one, and reads the same as one; else the text."""
    values = text.drop_nulls()
    if values.is_empty():
        return text
    if values.is_in(["true", "false"]).all():
        return (text == "true").alias(text.name)
    if not values.str.contains(DECIMAL).all():
        return text
    whole = text.cast(pl.Int64, strict=False)
    if whole.drop_nulls().cast(pl.String).to_list() == values.to_list():
        return whole
    is_exact = values.str.contains(r"[.eE]").any() and not values.str.contains(BEYOND_FLOAT).any()
    return text.cast(pl.Float64) if is_exact else text


def check_out(file: Path, spine: Path, requested: Sequence[RequestedGroup]) -> None:
    """Refuse, before any work, a file that the result cannot be written to.

    Raises:
        InvalidInput: it is the spine itself, its folder is missing, or a CSV is to hold lists.
    """
    is_csv = form_of(file) == ".csv"
    if file.resolve() == spine.resolve():
        raise InvalidInput(f"--out {file} is the spine itself. Give the training set a name of its own.")
    if not file.parent.is_dir():
        raise InvalidInput(f"There is no folder {file.parent}. Make it, or write elsewhere.")
    lists = [
        f"{wanted.group.name}:{feature.name}"
        for wanted in requested
        for feature, _ in wanted.features
        if feature.dtype.is_nested()
    ]
    if is_csv and lists:
        raise InvalidInput(
            f"A CSV cannot hold the lists and vectors of {lists}. Write to {file.with_suffix('.parquet')}."
        )


def write_set(rows: pl.DataFrame, file: Path) -> None:
    """Write a training set: whole under its name, or not at all. CSV times are ISO 8601 with their zone.

    Raises:
        InvalidInput: the file cannot be written, or a column of the spine does not fit into a CSV.
    """
    part = file.with_name(f".{file.name}.{uuid4().hex}.tmp")
    try:
        _write(rows, part, is_csv=form_of(file) == ".csv")
        part.replace(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"{file} cannot be written: {error}. Write elsewhere, or to .parquet.") from error
    finally:
        part.unlink(missing_ok=True)


def _write(rows: pl.DataFrame, file: Path, *, is_csv: bool) -> None:
    if is_csv:
        rows.write_csv(file, datetime_format=INSTANT_FORMAT)
    else:
        rows.write_parquet(file)
