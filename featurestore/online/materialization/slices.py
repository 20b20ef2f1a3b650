"""Slices of a group's keys, so that a copy of millions of entities is built in bounded memory. Not here: rows, or any store."""

import hashlib
from functools import cache, reduce
from operator import xor

import polars as pl

from featurestore.registry.snapshot import RegisteredGroup

SLICE_BYTES = 256 * 2**20
"""What the rows of one slice may take as columns, counting every stored row as if it were served. Reading, choosing and encoding
a slice takes a few times as much at its peak, whatever the size of the table."""
_TEXT_BYTES, _LONGEST_GUESS = 48, 64


def row_bytes(group: RegisteredGroup) -> int:
    """About what one row of a group takes as columns; strings and lists are guessed, not looked at."""
    stored = [_width(dtype, None) for name, dtype in group.stored_schema.items() if name not in group.feature_names]
    return sum(stored) + sum(_width(feature.dtype, feature.max_length) for feature in group.features)


def _width(dtype: pl.DataType, max_length: int | None) -> int:
    if isinstance(dtype, pl.Array):
        return 4 * int(dtype.shape[0])
    if isinstance(dtype, pl.List):
        return min(max_length or _LONGEST_GUESS, _LONGEST_GUESS) * (_TEXT_BYTES if dtype.inner == pl.String else 8)
    return _TEXT_BYTES if dtype == pl.String else 8


def rows_in_a_slice(group: RegisteredGroup, slice_bytes: int) -> int:
    """How many rows of a group a slice may hold."""
    return max(1, slice_bytes // row_bytes(group))


def slice_count(rows: int, group: RegisteredGroup, slice_bytes: int) -> int:
    """How many slices so many rows are cut into; at least one."""
    return max(1, -(-rows // rows_in_a_slice(group, slice_bytes)))


def in_slice(group: RegisteredGroup, number: int, count: int) -> pl.Expr | None:
    """Which rows lie in slice `number` of `count`: all rows of an entity lie in the same one. None: all rows."""
    return None if count == 1 else _hash_of(group.key_names) % count == number


def _hash_of(columns: tuple[str, ...]) -> pl.Expr:
    return reduce(xor, (pl.col(name).hash(seed=place) for place, name in enumerate(columns)))


@cache
def slicing() -> str:
    """A mark of how keys are cut into slices here: Polars' hash is the same within a version and a kind of processor only.

    Whoever goes on with another's slices compares marks first.
    """
    probe = pl.DataFrame({"a": [0, 1, 2**40], "b": ["", "N104UW", "Zürich Flughafen, 8058"], "c": [True, False, True]})
    numbers = probe.select(_hash_of(("a", "b", "c")), pl.col("b").hash(seed=0).alias("alone")).rows()
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:8]
