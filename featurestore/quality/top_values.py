"""The most frequent values of a category, with their counts: exact in one window, within a stated error when merged."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

KEPT = 50


@dataclass(frozen=True, slots=True)
class TopValues:
    """Counts by value, the most frequent first, ties by value; `missed` is the most that a value left out can count.

    After a merge a value's count may be too low by `short` at most, and is never too high.
    """

    counts: dict[str, int]
    missed: int = 0
    short: int = 0

    @classmethod
    def of(cls, values: pl.Series) -> "TopValues":
        """Those of values without nulls; a boolean is 'true' or 'false'."""
        counted = values.value_counts(name="n")
        return cls.of_counted(counted[values.name], counted["n"])

    @classmethod
    def of_counted(cls, values: pl.Series, counts: pl.Series) -> "TopValues":
        """Those of values that are counted already, each once."""
        pairs = zip(map(_text, values.to_list()), counts.to_list(), strict=True)
        ordered = heapq.nsmallest(KEPT + 1, pairs, key=lambda pair: (-pair[1], pair[0]))
        return cls(dict(ordered[:KEPT]), ordered[KEPT][1] if len(ordered) > KEPT else 0)

    @property
    def is_complete(self) -> bool:
        """Whether no value was left out."""
        return self.missed == 0


def _text(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def merged_top_values(parts: Sequence[TopValues]) -> TopValues:
    """Those of several windows together: the error of each count is what windows that left the value out may have had."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.counts)
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    short = sum(max(part.short, part.missed) for part in parts)
    dropped = ordered[KEPT][1] + short if len(ordered) > KEPT else 0
    return TopValues(dict(ordered[:KEPT]), max(dropped, sum(part.missed for part in parts)), short)
