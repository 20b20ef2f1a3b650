"""What was tried of a group's windows, and what may be launched now. Pure.

Nothing is given up: a window whose runs end without a word of it in the ledger is launched again after a minute, then after
four times as long each time, at most six hours. The longer a window fails, the fewer are launched with it, down to it alone:
one that takes its run's process down holds back only itself.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from featurestore.declaration.windows import TimeWindow

FIRST_WAIT = timedelta(minutes=1)
FACTOR = 4
LONGEST_WAIT = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Tried:
    """How often something was launched, and when last."""

    times: int
    last: datetime

    def again(self, at: datetime) -> "Tried":
        return Tried(self.times + 1, max(self.last, at))

    @property
    def waits_until(self) -> datetime:
        return self.last + wait_after(self.times)


def wait_after(times: int) -> timedelta:
    """How long to wait after so many launches that came to nothing.

    >>> [str(wait_after(times)) for times in (1, 2, 3, 10)]
    ['0:01:00', '0:04:00', '0:16:00', '6:00:00']
    """
    factor: int = FACTOR ** min(times - 1, 9)
    return min(FIRST_WAIT * factor, LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The launches of one group: windows of runs that have not ended, and of ended runs how often each was tried.

    Args:
        busy: Starts of the windows in a run that waits in the queue or is under way, whoever launched it.
        tried: By window start.
        is_under_way: Whether a run of the schedule's own has not ended: younger windows wait for it.
    """

    busy: AbstractSet[datetime] = frozenset()
    tried: Mapping[datetime, Tried] = field(default_factory=dict)
    is_under_way: bool = False


def launchable(windows: Sequence[TimeWindow], attempts: Attempts, now: datetime, limit: int) -> tuple[TimeWindow, ...]:
    """The oldest windows that follow each other without a gap and may be launched now, in one run.

    Args:
        windows: Ready ones, the oldest first.
        limit: The most windows of a run.
    """
    free = [window for window in windows if window.start not in attempts.busy and not _waits(window, attempts, now)]
    if attempts.is_under_way or not free:
        return ()
    first = attempts.tried.get(free[0].start)
    most = max(1, limit >> (first.times if first else 0))
    together = 1
    while together < min(most, len(free)) and free[together].start == free[together - 1].end:
        together += 1
    return tuple(free[:together])


def _waits(window: TimeWindow, attempts: Attempts, now: datetime) -> bool:
    tried = attempts.tried.get(window.start)
    return tried is not None and now < tried.waits_until
