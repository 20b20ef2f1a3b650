"""Values of one group's features as arrays, and their way out: Python lists or Polars Series.

Not here: finding out whether bytes are such values (`decode`), or which of them are served (`retrieval`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import polars as pl

from featurestore.online.message.layout import TIMESTAMP, Flags, Numbers, WireField

VERSION = ("event_time", "knowledge_time", "created_at")
_GATHERED_BYTES = 64
"""Up to so many bytes a string on average, NumPy collects them faster than slices of the messages do."""

Array = np.ndarray[Any, np.dtype[Any]]


class Column(Protocol):
    """One feature's values, a place for each reply; what stands where nothing is to be served means nothing."""

    @property
    def field(self) -> WireField: ...

    @property
    def valid(self) -> Flags | None:
        """Which values are not null; None: all."""
        ...

    def to_list(self, keep: Flags | None) -> list[Any]:
        """Python values, as Polars gives them; None where null, or not to be kept (None: keep all)."""
        ...

    def to_series(self, keep: Flags | None) -> pl.Series:
        """The same as a Series of the field's name and dtype."""
        ...


def both(left: Flags | None, right: Flags | None) -> Flags | None:
    """The flags set in both, where None has all set."""
    if left is None or right is None:
        return right if left is None else left
    shared: Flags = left & right
    return shared


def chosen(values: list[Any], keep: Flags | None) -> list[Any]:
    """The values, None where they are not to be kept."""
    if keep is None:
        return values
    return [value if kept else None for value, kept in zip(values, keep.tolist(), strict=True)]


def masked(values: pl.Series, keep: Flags | None) -> pl.Series:
    """The values, null where they are not to be kept."""
    return values if keep is None or keep.all() else values.set(pl.Series(~keep), None)


@dataclass(frozen=True, eq=False)
class NumberBlock:
    """Features of one NumPy type: values of shape (features, rows), and which of them are not null (None: all)."""

    values: Array
    valid: Flags | None

    def to_series(self, keep: Flags | None) -> pl.Series:
        """All features end to end: a Series costs six times as much to build as to cut from another."""
        values = self.values.astype(np.bool_) if self.values.dtype == np.uint8 else self.values
        kept = None if keep is None else np.broadcast_to(keep, values.shape)
        flags = both(self.valid, kept)
        return masked(pl.Series(values.reshape(-1)), None if flags is None else flags.reshape(-1))


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """A feature of fixed width: one row of its block."""

    field: WireField
    block: NumberBlock
    row: int

    @property
    def valid(self) -> Flags | None:
        return None if self.block.valid is None else self.block.valid[self.row]

    def to_list(self, keep: Flags | None) -> list[Any]:
        values = self.block.values[self.row]
        if self.field.dtype in (pl.Date, TIMESTAMP):
            return self.to_series(keep).to_list()
        return chosen((values != 0 if values.dtype == np.uint8 else values).tolist(), both(self.valid, keep))

    def to_series(self, keep: Flags | None) -> pl.Series:
        own = slice(self.row, self.row + 1)
        block = NumberBlock(self.block.values[own], None if self.block.valid is None else self.block.valid[own])
        return self.cut(block.to_series(keep), 0)

    def cut(self, whole: pl.Series, row: int) -> pl.Series:
        """This feature's part of its block's Series."""
        count = self.block.values.shape[1]
        column = whole.slice(row * count, count).alias(self.field.name)
        return column if column.dtype == self.field.dtype else column.cast(self.field.dtype)


@dataclass(frozen=True, eq=False)
class VectorColumn:
    """A feature of fixed length: float32 of shape (rows, length)."""

    field: WireField
    values: Array
    valid: Flags | None

    def to_list(self, keep: Flags | None) -> list[Any]:
        return chosen(self.values.tolist(), both(self.valid, keep))

    def to_series(self, keep: Flags | None) -> pl.Series:
        name, dtype, flags = self.field.name, self.field.dtype, both(self.valid, keep)
        if not len(self.values):
            return pl.Series(name, [], dtype)
        column = pl.Series(name, np.ascontiguousarray(self.values).reshape(-1)).reshape((-1, self.field.width))
        if flags is None or flags.all():
            return column
        return column.zip_with(pl.Series(flags), pl.Series([None], dtype=dtype))


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A string feature: where each string stands among the messages, end to end; nulls have no length, all are UTF-8."""

    field: WireField
    joined: bytes
    starts: Numbers
    sizes: Numbers
    valid: Flags | None

    @cached_property
    def _texts(self) -> list[str]:
        """All strings; if they are short, collected first, and cut from one text."""
        ends = np.cumsum(self.sizes)
        total = int(ends[-1]) if ends.size else 0
        if total <= _GATHERED_BYTES * self.sizes.size:
            spots = np.repeat(self.starts - ends + self.sizes, self.sizes) + np.arange(total)
            utf8 = np.frombuffer(self.joined, np.uint8)[spots].tobytes()
            if utf8.isascii():  # then bytes and characters are counted alike
                text, stops = utf8.decode(), ends.tolist()
                return [text[start:end] for start, end in zip([0, *stops], stops, strict=False)]
        spans = zip(self.starts.tolist(), (self.starts + self.sizes).tolist(), strict=True)
        return [self.joined[start:end].decode() for start, end in spans]

    def first_broken(self, is_ascii: Flags) -> int | None:
        """The first row whose string is not UTF-8, of those that are not known to be ASCII."""
        for row in np.flatnonzero(~is_ascii).tolist():
            start = self.starts[row]
            try:
                self.joined[start : start + self.sizes[row]].decode()
            except UnicodeDecodeError:
                return row
        return None

    def to_list(self, keep: Flags | None) -> list[Any]:
        return chosen(self._texts, both(self.valid, keep))

    def to_series(self, keep: Flags | None) -> pl.Series:
        return masked(pl.Series(self.field.name, self._texts, pl.String), both(self.valid, keep))


@dataclass(frozen=True, eq=False)
class ListColumn:
    """A list feature: a Python list or a NumPy array of each row; None for a null."""

    field: WireField
    values: list[Any]

    @cached_property
    def valid(self) -> Flags | None:
        flags = np.fromiter((value is not None for value in self.values), np.bool_, len(self.values))
        return None if flags.all() else flags

    def to_list(self, keep: Flags | None) -> list[Any]:
        return chosen([one.tolist() if isinstance(one, np.ndarray) else one for one in self.values], keep)

    def to_series(self, keep: Flags | None) -> pl.Series:
        values = chosen(self.values, keep)
        return pl.Series(
            self.field.name, [pl.Series(v) if isinstance(v, np.ndarray) else v for v in values], self.field.dtype
        )


def series_of(columns: Iterable[Column], keep: Flags | None) -> list[pl.Series]:
    """All columns as Series; features of one block are cut from one."""
    wholes: dict[int, pl.Series] = {}
    made = []
    for column in columns:
        if not isinstance(column, NumberColumn):
            made.append(column.to_series(keep))
            continue
        block = column.block
        if id(block) not in wholes:
            wholes[id(block)] = block.to_series(keep)
        made.append(column.cut(wholes[id(block)], column.row))
    return made


def scattered(parts: Sequence[tuple[Numbers, Array]], count: int) -> Array:
    """One array of `count` rows from parts with their positions along the last axis; zeros where no part has any."""
    first = parts[0][1]
    whole = np.zeros((*first.shape[:-1], count), first.dtype)
    for positions, values in parts:
        whole[..., positions] = values
    return whole
