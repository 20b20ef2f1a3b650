"""Following the ledger of one group: how each of its windows last ended and what is in production, two bytes a window.

Whoever keeps a follower reads a ledger once, and after that only what was written since: an idle group costs a look for the next
commit. A year of hourly windows takes 18 kB, so a thousand groups can be followed. Not here: what is owed (`schedule`), and how fresh a
group is (`freshness`).
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from featurestore.clock import instant_of, microseconds
from featurestore.declaration.windows import TimeWindow
from featurestore.offline.journal import UNREAD
from featurestore.offline.ledger import Ledger, LedgerEntry

NOTHING, PROMOTED, TAKEN_BACK, QUARANTINED = range(4)
CODES = {"promoted": PROMOTED, "rolled_back": TAKEN_BACK, "quarantined": QUARANTINED}

Numbers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

HELD_WINDOWS = 31
"""So many quarantined windows, the newest ones, are kept with their entries; older ones are a person's."""
REMEMBERED = 64
"""Versions of a table that an online copy may lack and be told since when."""


@dataclass(frozen=True, slots=True)
class Written:
    """A version of a group's table: the starts of its first and last window (of a load or push: its instant), and when it was recorded."""

    version: int
    first: datetime
    last: datetime
    recorded_at: datetime


@dataclass(slots=True)
class LedgerFollower:
    """The windows of one group, as far as its ledger was read. They are numbered from the start of its cadence.

    Args:
        ledger: Of the group.
        origin: Start of the first window that there can be.
        length: Of a window.
    """

    ledger: Ledger
    origin: datetime
    length: timedelta
    version: int = UNREAD
    first_scheduled: int | None = None
    """The oldest window that was computed outside of a backfill; None while there is none."""
    held: dict[datetime, LedgerEntry] = field(default_factory=dict)
    """The newest windows in quarantine, by their start."""
    materialized_at: datetime | None = None
    """When the newest promoted window was first promoted; None while none is in production."""
    written: deque[Written] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """The last versions of the group's table, as far as a promotion made them."""
    newest: int = -1
    """The newest window in production; -1 while there is none."""
    holes: int = 0
    """Windows between the first one in production and the newest that are neither in production, taken back nor in quarantine."""
    _said: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), repr=False)
    _failed: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), repr=False)

    def look(self) -> None:
        """Take in what the ledger has since the last look.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        entries, self.version = self.ledger.read_on(self.version)
        self.note(entries)

    def note(self, entries: pl.DataFrame) -> None:
        """Take in entries of the ledger, in the order in which they were written; those before the first window count for nothing."""
        if entries.is_empty():
            return
        numbers, codes = self._numbers(entries), _codes(entries)
        if numbers.min() < 0:
            entries = entries.filter(pl.Series(numbers >= 0))
            numbers, codes = numbers[numbers >= 0], codes[numbers >= 0]
        if not len(numbers):
            return
        self._grow(int(numbers.max()) + 1)
        for part in _between_rollbacks(codes):
            self._promote(entries, numbers, codes, part)
            self._settle(numbers[part], codes[part])
        self._hold(entries, numbers, codes)
        self._begin(entries, numbers)
        self._remember(entries, numbers, codes)
        self._count()

    def status(self, number: int) -> int:
        """How a window last ended; `NOTHING` for one that the ledger does not have."""
        if not 0 <= number < len(self._said):
            return NOTHING
        return QUARANTINED if self._failed[number] else int(self._said[number])

    def is_promoted(self, start: datetime) -> bool:
        """Whether the last computation of a window was promoted."""
        return self.status(self.number_at(start)) == PROMOTED

    def missing(self, after: int, until: int) -> list[int]:
        """Numbers of the windows in [after, until) without an entry, the oldest first."""
        until = max(after, until)
        return self._of_none((self._said[after:until] == NOTHING) & ~self._failed[after:until], after, until)

    def awaited(self, after: int, until: int) -> list[int]:
        """Numbers of the windows in [after, until) that are neither in production nor taken back, the oldest first."""
        until = max(after, until)
        return self._of_none(self._said[after:until] == NOTHING, after, until)

    @property
    def quarantined(self) -> int:
        """How many windows failed their gate when they were last computed."""
        return int(np.count_nonzero(self._failed))

    def number_at(self, instant: datetime) -> int:
        """How many windows lie between the first one's start and an instant; negative before it."""
        return (instant - self.origin) // self.length

    def window(self, number: int) -> TimeWindow:
        start = self.origin + number * self.length
        return TimeWindow(start, start + self.length)

    def _of_none(self, is_none: npt.NDArray[np.bool_], after: int, until: int) -> list[int]:
        """The numbers at which a part from `after` on says so, and those beyond what was read."""
        return [*(np.flatnonzero(is_none) + after).tolist(), *range(max(after, len(self._said)), until)]

    def _numbers(self, entries: pl.DataFrame) -> npt.NDArray[np.int64]:
        since = entries["window_start"].to_physical().to_numpy() - microseconds(self.origin)
        return since // (self.length // timedelta(microseconds=1))

    def _grow(self, length: int) -> None:
        if length > len(self._said):
            more = length - len(self._said)
            self._said, self._failed = np.pad(self._said, (0, more)), np.pad(self._failed, (0, more))

    def _promote(self, entries: pl.DataFrame, numbers: Numbers, codes: Codes, part: slice) -> None:
        """When the newest window came: the last entry of those that promoted one which was not there, above all that were."""
        is_new = (codes[part] == PROMOTED) & (self._said[numbers[part]] != PROMOTED)
        found = np.flatnonzero(is_new) + part.start
        if not len(found):
            return
        above = np.maximum.accumulate(np.append(self._newest(), numbers[found]))[:-1]
        leading = found[numbers[found] > above]
        if len(leading):
            self.materialized_at = entries["recorded_at"][int(leading[-1])]

    def _settle(self, numbers: Numbers, codes: Codes) -> None:
        """What a quarantine withholds stays as it was in production. Of entries for one window the last is assigned last."""
        is_failed = codes == QUARANTINED
        self._said[numbers[~is_failed]] = codes[~is_failed]
        self._failed[numbers] = is_failed

    def _begin(self, entries: pl.DataFrame, numbers: Numbers) -> None:
        scheduled = numbers[(entries["backfill_id"] == "").to_numpy()]
        if len(scheduled):
            oldest = int(scheduled.min())
            self.first_scheduled = oldest if self.first_scheduled is None else min(self.first_scheduled, oldest)

    def _hold(self, entries: pl.DataFrame, numbers: Numbers, codes: Codes) -> None:
        for start in [start for start in self.held if not self._failed[self.number_at(start)]]:
            del self.held[start]
        is_failed = (codes == QUARANTINED) & self._failed[numbers]
        newest = np.unique(numbers[is_failed])[-HELD_WINDOWS:]
        if len(newest):
            rows = entries.filter(pl.Series(is_failed & np.isin(numbers, newest)))
            self.held |= {row["window_start"]: LedgerEntry(**row) for row in rows.to_dicts()}
        for start in sorted(self.held)[:-HELD_WINDOWS]:
            del self.held[start]

    def _remember(self, entries: pl.DataFrame, numbers: Numbers, codes: Codes) -> None:
        versions = entries["table_version"].fill_null(UNREAD).to_numpy()
        recorded = entries["recorded_at"].to_physical().to_numpy()
        is_made = (codes == PROMOTED) & (versions != UNREAD)
        for version in np.unique(versions[is_made])[-REMEMBERED:].tolist():
            of = is_made & (versions == version)
            ends = (int(numbers[of].min()), int(numbers[of].max()))
            first, last = (self.origin + number * self.length for number in ends)
            self.written.append(Written(version, first, last, instant_of(int(recorded[of].max()))))

    def _newest(self) -> int:
        found = np.flatnonzero(self._said == PROMOTED)
        return int(found[-1]) if len(found) else -1

    def _count(self) -> None:
        self.newest = self._newest()
        if self.newest < 0:
            self.materialized_at = None
        oldest = int(np.argmax(self._said == PROMOTED)) if self.newest >= 0 else 0
        between = slice(oldest, max(self.newest, 0))
        self.holes = int(np.count_nonzero((self._said[between] == NOTHING) & ~self._failed[between]))


def _codes(entries: pl.DataFrame) -> Codes:
    return np.fromiter(map(CODES.__getitem__, entries["status"].to_list()), np.uint8, entries.height)


def _between_rollbacks(codes: Codes) -> list[slice]:
    """Entries in parts that hold rollbacks alone, or none; as a rule one part."""
    is_back = codes == TAKEN_BACK
    cuts = (np.flatnonzero(is_back[1:] != is_back[:-1]) + 1).tolist()
    return [slice(first, end) for first, end in zip([0, *cuts], [*cuts, len(codes)], strict=True)]
