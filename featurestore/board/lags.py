"""The lags of a day, for pictures: of each group the highest in every quarter of an hour.

Not here: where lags come from (the journal, and each look), or how they are drawn.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from threading import Lock

from featurestore.freshness.judgement import GroupFreshness
from featurestore.freshness.lags import EPOCH, USUAL_DISTANCE, Lag

DAY = timedelta(days=1)
STEP = USUAL_DISTANCE
"""What the journal thins old lags to."""
STEPS = DAY // STEP

Lags = tuple[float | None, float | None, float | None]
"""Materialization, data and online lag in seconds; None where there was nothing to measure by."""
NONE: Lags = (None, None, None)


class DayOfLags:
    """The lags of every group over the last day. One thread takes them in while others read."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._groups: dict[str, dict[int, Lags]] = {}

    def take_kept(self, name: str, lags: Iterable[Lag]) -> None:
        """Take in what the journal kept of a group."""
        with self._lock:
            for lag in lags:
                self._take(name, lag.at, (lag.materialization_seconds, lag.data_seconds, lag.online_seconds))

    def take_look(self, found: Iterable[GroupFreshness]) -> None:
        """Take in what a look found, and forget what is older than a day before it."""
        with self._lock:
            for one in found:
                lags = (one.materialization_lag, one.data_lag, one.online_lag)
                name = one.group.name
                self._take(name, one.at, _seconds(lags))
                self._forget(name, _step(one.at) - STEPS)

    def series(self, name: str, until: datetime) -> list[Lags]:
        """The last day of a group in steps, the oldest first and that of `until` last; a step without a look has no lags."""
        last = _step(until)
        with self._lock:
            steps = self._groups.get(name, {})
            return [steps.get(step, NONE) for step in range(last - STEPS + 1, last + 1)]

    def _take(self, name: str, at: datetime, lags: Lags) -> None:
        steps, step = self._groups.setdefault(name, {}), _step(at)
        materialization, data, online = steps.get(step, NONE)
        steps[step] = (_higher(materialization, lags[0]), _higher(data, lags[1]), _higher(online, lags[2]))

    def _forget(self, name: str, until: int) -> None:
        steps = self._groups[name]
        for step in [step for step in steps if step <= until]:
            del steps[step]


def _step(at: datetime) -> int:
    return (at - EPOCH) // STEP


def _higher(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)


def _seconds(lags: tuple[timedelta | None, timedelta | None, timedelta | None]) -> Lags:
    first, second, third = (None if lag is None else lag.total_seconds() for lag in lags)
    return (first, second, third)
