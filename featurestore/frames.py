"""Frames in and out: what callers hand over becomes Polars, and results leave as what they ask for.

pandas and pyarrow are imported only when a caller brings or asks for one of theirs.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from featurestore.errors import InvalidInput

SHOWN_CHARACTERS = 200
_NOT_A_TABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Polars raises for values that it has no type for; a missing package or a full memory is something else."""
Rows = Any
"""A Polars frame, pyarrow table, pandas frame, list of dicts or dict of lists."""


def as_polars(rows: Rows, name: str) -> pl.DataFrame:
    """Take rows in any of the accepted forms.

    Args:
        rows: A Polars (lazy) frame, pyarrow table, pandas frame, sequence of dicts, or dict of lists.
        name: What the rows are, for the message.

    Raises:
        InvalidInput: the rows are of no form known here, hold values that no frame can, or their columns differ in length.
    """
    if isinstance(rows, pl.DataFrame | pl.LazyFrame):
        return rows.lazy().collect()
    module = type(rows).__module__.partition(".")[0]
    try:
        if module in ("pandas", "pyarrow"):
            converted = pl.from_pandas(rows) if module == "pandas" else pl.from_arrow(rows)
            return converted if isinstance(converted, pl.DataFrame) else converted.to_frame()
        if isinstance(rows, Mapping):
            return pl.DataFrame(dict(rows))
        if isinstance(rows, Sequence) and not isinstance(rows, str) and all(isinstance(row, Mapping) for row in rows):
            return pl.DataFrame([dict(row) for row in rows], infer_schema_length=None)
    except _NOT_A_TABLE as error:
        raise InvalidInput(
            f"{name} cannot be read as a table: {error}. Give every column one type and all columns one length."
        ) from error
    raise InvalidInput(
        f"{name} is a {type(rows).__name__}. Pass a Polars, Arrow or pandas frame, a list of dicts or a dict of lists."
    )


def plain_rows(rows: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    """A few rows as values that JSON and a message can hold: times as text, also those that Python has no value for, and long text cut."""
    texts = [_iso(column) for column in rows if isinstance(column.dtype, pl.Datetime | pl.Date)]
    return tuple({name: _cut(value) for name, value in row.items()} for row in rows.with_columns(texts).to_dicts())


def _iso(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Date:
        return column.dt.to_string("%Y-%m-%d")
    return column.dt.to_string("%Y-%m-%dT%H:%M:%S%.f" + ("%:z" if getattr(column.dtype, "time_zone", None) else ""))


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) <= SHOWN_CHARACTERS:
        return value
    return f"{value[:SHOWN_CHARACTERS]}... ({len(value)} characters)"


@dataclass(frozen=True)
class FeatureFrame:
    """A retrieval's result: one row for each row asked, in that order."""

    frame: pl.DataFrame

    def to_polars(self) -> pl.DataFrame:
        return self.frame

    def to_arrow(self) -> Any:
        """A pyarrow.Table."""
        return self.frame.to_arrow()

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with Arrow-backed columns, so that an integer column with a miss stays one.

        Raises:
            InvalidInput: pandas is not installed.
        """
        try:
            importlib.import_module("pandas")
        except ImportError as error:
            raise InvalidInput(
                "to_pandas() needs pandas, which is not installed: pip install pandas. Or use to_polars()."
            ) from error
        return self.frame.to_pandas(use_pyarrow_extension_array=True)

    to_df = to_pandas

    def to_dict(self) -> dict[str, list[Any]]:
        """One list a column."""
        return self.frame.to_dict(as_series=False)
