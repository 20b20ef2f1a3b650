"""One hash for the content of rows, the same on every machine and in every release.

Columns are hashed one after another as name, dtype and little-endian values, with nulls marked apart; list columns as
lengths and items. Floats that compare equal are equal content: -0.0 hashes as 0.0, and every NaN as one NaN.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl


def content_hash(rows: pl.DataFrame, *, order: Sequence[str], leave_out: Sequence[str] = ("created_at",)) -> str:
    """SHA-256 of rows, whatever order they come in.

    Args:
        rows: Columns of stored types; nulls are content, apart from any value.
        order: Columns that together tell every row from every other.
        leave_out: Columns that are not content.
    """
    digest = hashlib.sha256(f"{rows.height}".encode())
    ordered = rows.sort(order, nulls_last=True)
    for column in ordered.drop(leave_out, strict=False).iter_columns():
        digest.update(f"\n{column.name} {column.dtype!r}\n".encode())
        for part in _parts(column):
            digest.update(part)
    return digest.hexdigest()


def _parts(column: pl.Series) -> Iterator[bytes]:
    yield np.packbits(column.is_null().to_numpy()).tobytes()
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().fill_null(0)
        yield _little_endian(lengths.cast(pl.Int64))
        yield from _parts(column.filter(lengths > 0).explode())
    elif column.dtype == pl.String:
        text = column.fill_null("")
        yield _little_endian(text.str.len_bytes().cast(pl.Int64))
        yield text.str.join("").item().encode()
    elif column.dtype.is_float():
        yield _little_endian(_one_nan(column.fill_null(0.0)))
    else:
        plain = column.cast(pl.UInt8) if column.dtype == pl.Boolean else column.to_physical()
        yield _little_endian(plain.fill_null(0))


def _one_nan(column: pl.Series) -> pl.Series:
    """Adding 0.0 turns -0.0 into 0.0; filling replaces whatever bits a NaN had."""
    return (column + 0.0).fill_nan(float("nan"))


def _little_endian(column: pl.Series) -> bytes:
    values = column.to_numpy()
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
