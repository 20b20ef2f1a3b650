"""What the ledger tells of a group's past windows: how many rows they gave, and how long their transform took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import polars as pl

from featurestore.declaration.windows import TimeWindow
from featurestore.launch import Strategy
from featurestore.offline.ledger import Ledger

REPLAYS: tuple[Strategy, ...] = ("full", "incremental")
"""Strategies that run the transform over the sources, and so take the same time."""


@dataclass(frozen=True, slots=True)
class History:
    """Past windows of a group.

    Args:
        rows: Of the promoted windows, by window start, how many rows they gave.
        seconds: Of those computed in the same way, how long each took, where that was measured.
    """

    rows: Mapping[datetime, int]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, ledger: Ledger, strategy: Strategy) -> "History":
        promoted = ledger.latest().filter(pl.col("status") == "promoted")
        alike = REPLAYS if strategy in REPLAYS else (strategy,)
        timed = promoted.filter(pl.col("strategy").is_in(alike) & (pl.col("compute_seconds") > 0))
        return cls(dict(promoted.select("window_start", "rows").rows()), tuple(timed["compute_seconds"]))

    @property
    def newest(self) -> datetime | None:
        """The start of the newest promoted window."""
        return max(self.rows, default=None)

    @property
    def mean_rows(self) -> float:
        return sum(self.rows.values()) / len(self.rows) if self.rows else 0.0

    @property
    def median_seconds(self) -> float:
        return median(self.seconds) if self.seconds else 0.0

    def has(self, windows: Sequence[TimeWindow]) -> int:
        """How many of some windows are promoted."""
        return sum(window.start in self.rows for window in windows)

    def rows_in(self, windows: Sequence[TimeWindow]) -> float:
        """Rows to expect of some windows: each as it was promoted, those that never were at the mean."""
        return sum(self.rows.get(window.start, self.mean_rows) for window in windows)
