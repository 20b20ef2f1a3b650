"""Which windows a window is compared with: the last alike ones before it, or its neighbours on both sides.

Pure: it knows starts of windows and the calendar, not what the windows hold.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime

ALIKE = 4
PREVIOUS = 7
EACH_SIDE = 4

Slot = Callable[[datetime], Hashable]


def _any(_: datetime) -> Hashable:
    return None


def _hour(start: datetime) -> Hashable:
    return start.hour


def _hour_of_week(start: datetime) -> Hashable:
    return start.weekday(), start.hour


@dataclass(frozen=True, slots=True)
class Chosen:
    """Starts of the windows to compare with, and whether as many rows as theirs are to be expected.

    An hour is not expected to have as many rows as the hours just before it, only as the same hour of other days.
    """

    starts: tuple[datetime, ...]
    is_alike: bool


class Candidates:
    """Starts of the windows that others may be compared with; more may join."""

    def __init__(self, starts: Iterable[datetime], *, is_hourly: bool) -> None:
        self.is_hourly = is_hourly
        self._slots: tuple[Slot, ...] = (_hour_of_week, _hour, _any) if is_hourly else (_hour_of_week, _any)
        self._by_slot: dict[tuple[Slot, Hashable], list[datetime]] = {}
        for start in sorted(set(starts)):
            for slot in self._slots:
                self._by_slot.setdefault((slot, slot(start)), []).append(start)

    def add(self, start: datetime) -> None:
        for slot in self._slots:
            known = self._by_slot.setdefault((slot, slot(start)), [])
            if start not in known:
                insort(known, start)

    def before(self, start: datetime) -> Chosen:
        """The last four of the same weekday (and hour) where there are four; of hourly windows else the last seven of the
        same hour where there are four; else the last seven."""
        for slot in self._slots:
            known = self._of(slot, start)
            earlier = known[: bisect_left(known, start)]
            if len(earlier) >= ALIKE or slot is _any:
                taken = earlier[-ALIKE:] if slot is _hour_of_week else earlier[-PREVIOUS:]
                return Chosen(tuple(taken), slot is not _any or not self.is_hourly)
        raise AssertionError("the last slot takes any window")

    def around(self, start: datetime) -> Chosen:
        """The nearest four on each side, itself left out; of hourly windows those of the same hour, where there are four."""
        alike = self._nearest(_hour, start) if self.is_hourly else ()
        if len(alike) >= ALIKE:
            return Chosen(alike, True)
        return Chosen(self._nearest(_any, start), not self.is_hourly)

    def _nearest(self, slot: Slot, start: datetime) -> tuple[datetime, ...]:
        known = self._of(slot, start)
        left, right = bisect_left(known, start), bisect_right(known, start)
        return tuple(known[max(0, left - EACH_SIDE) : left] + known[right : right + EACH_SIDE])

    def _of(self, slot: Slot, start: datetime) -> list[datetime]:
        return self._by_slot.get((slot, slot(start)), [])
