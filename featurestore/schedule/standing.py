"""How every window of a group last ended, a byte a window: small enough to be kept of a thousand groups.

A year of hourly windows takes 9 kB. Reading the ledger is the caller's (`watch`).
"""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from featurestore.declaration.windows import Daily, Hourly, TimeWindow
from featurestore.offline.ledger import LedgerEntry

NOTHING, PROMOTED, QUARANTINED, ROLLED_BACK = range(4)
CODES = {"promoted": PROMOTED, "quarantined": QUARANTINED, "rolled_back": ROLLED_BACK}

HELD_WINDOWS = 31
"""So many quarantined windows, the newest ones, are looked at again by the schedule; older ones are a person's."""


@dataclass
class Standing:
    """The last entry of each window of one group, as far as its ledger was read.

    Args:
        cadence: Cuts the windows; they are counted from its start.
    """

    cadence: Hourly | Daily
    held: dict[datetime, LedgerEntry] = field(default_factory=dict)
    """The newest windows in quarantine, by their start."""
    _codes: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), repr=False)
    _first: int | None = None

    @property
    def first(self) -> int | None:
        """The oldest window that was computed outside of a backfill; None while there is none."""
        return self._first

    def note(self, entries: pl.DataFrame) -> None:
        """Take in entries of the ledger, in the order in which they were written."""
        if entries.is_empty():
            return
        numbers = self._numbers(entries)
        counted = entries.with_columns(number=numbers).filter(pl.col("number") >= 0)
        if counted.is_empty():
            return
        self._grow(int(counted["number"].to_numpy().max()) + 1)
        last = counted.unique("number", keep="last", maintain_order=True)
        codes = last["status"].replace_strict(CODES, return_dtype=pl.UInt8)
        self._codes[last["number"].to_numpy()] = codes.to_numpy()
        scheduled = counted.filter(pl.col("backfill_id") == "")["number"]
        if len(scheduled):
            oldest = int(scheduled.to_numpy().min())
            self._first = oldest if self._first is None else min(self._first, oldest)
        self._hold(last.drop("number"))

    def status(self, number: int) -> int:
        """The code of a window by its number; `NOTHING` for one that the ledger does not have."""
        return int(self._codes[number]) if 0 <= number < len(self._codes) else NOTHING

    def is_promoted(self, start: datetime) -> bool:
        return self.status(self.number_at(start)) == PROMOTED

    def missing(self, after: int, until: int) -> list[int]:
        """Numbers of the windows in [after, until) without an entry, the oldest first."""
        known = np.flatnonzero(self._codes[after:until] == NOTHING) + after
        return [*known.tolist(), *range(max(after, len(self._codes)), until)]

    def number_at(self, start: datetime) -> int:
        """How many windows lie between the cadence's start and an instant; negative before it."""
        return (start - self.cadence.origin) // self.cadence.length

    def window(self, number: int) -> TimeWindow:
        start = self.cadence.origin + number * self.cadence.length
        return TimeWindow(start, start + self.cadence.length)

    def _numbers(self, entries: pl.DataFrame) -> pl.Series:
        since = entries["window_start"] - self.cadence.origin
        return since.dt.total_seconds() // int(self.cadence.length.total_seconds())

    def _grow(self, length: int) -> None:
        if length > len(self._codes):
            self._codes = np.pad(self._codes, (0, length - len(self._codes)))

    def _hold(self, last: pl.DataFrame) -> None:
        for row in last.filter(pl.col("status") != "quarantined")["window_start"]:
            self.held.pop(row, None)
        newest = last.filter(pl.col("status") == "quarantined").top_k(HELD_WINDOWS, by="window_start")
        self.held |= {row["window_start"]: LedgerEntry(**row) for row in newest.to_dicts()}
        for start in sorted(self.held)[:-HELD_WINDOWS]:
            del self.held[start]
