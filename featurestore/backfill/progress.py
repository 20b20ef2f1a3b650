"""How far a backfill is, and how long it will still take: the arithmetic. Where the numbers come from is not here.

Windows are recorded run by run, up to 31 days at once. So the pace is that of the windows that have ended, up to the moment at
which the last of them did, and what has passed since then counts for those to come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Basis = Literal["pace", "estimate", "nothing is left", "nothing is known"]


@dataclass(frozen=True, slots=True)
class EndedWindow:
    """A window that a backfill has computed.

    Args:
        ended_at: When its end was recorded.
        is_promoted: It passed its gate; else it is held in quarantine.
        rows: Computed for it.
    """

    ended_at: datetime
    is_promoted: bool
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is.

    Args:
        windows: Asked for.
        promoted: Of these, computed and promoted.
        held: Of these, computed and held by their gate.
        rows: In promoted windows.
        written_bytes: Files that its commits added.
        seconds: From the start of its first run (since it was resumed) to now, or to its end; None before that.
        seconds_left: None if it cannot be told.
        rests_on: What `seconds_left` is told from.
        current: Windows that it has looked at and left as they were, as there was nothing better to compute.
    """

    windows: int
    promoted: int
    held: int
    rows: int
    written_bytes: int
    seconds: float | None
    seconds_left: float | None
    rests_on: Basis
    current: int = 0

    @property
    def done(self) -> int:
        return self.promoted + self.held + self.current

    @property
    def waiting(self) -> int:
        """Windows that are not done; of a backfill that is over, those that it did not come to."""
        return self.windows - self.done

    @property
    def fraction(self) -> float:
        """The share of windows that are done.

        >>> Progress(8, 5, 1, 0, 0, None, None, "nothing is known").fraction
        0.75
        """
        return self.done / self.windows if self.windows else 1.0


def progress_of(
    windows: int,
    ended: Sequence[EndedWindow],
    *,
    began_at: datetime | None,
    now: datetime,
    over_at: datetime | None = None,
    estimated_seconds: float | None = None,
    written_bytes: int = 0,
    current: int = 0,
) -> Progress:
    """How far a backfill is.

    Args:
        windows: How many were asked for; if more have ended, those count.
        ended: The last end of each window that the backfill computed, in any order.
        began_at: When its first run started, or the first one since it was resumed; None if none has. Windows that ended
            before then are done, and say nothing of the pace.
        now: The present.
        over_at: When it ended, whether or not every window was computed.
        estimated_seconds: What it was estimated to take, all windows together.
        written_bytes: Passed on.
        current: How many it left as they were; they say nothing of the pace.
    """
    promoted = [window for window in ended if window.is_promoted]
    asked = max(windows, len(ended) + current)
    waiting = asked - len(ended) - current
    left, basis = _left(asked, waiting, ended, began_at, now, over_at is not None, estimated_seconds)
    until = now if over_at is None else over_at
    return Progress(
        asked,
        len(promoted),
        len(ended) - len(promoted),
        sum(window.rows for window in promoted),
        written_bytes,
        None if began_at is None else max(0.0, (until - began_at).total_seconds()),
        left,
        basis,
        current,
    )


def _left(
    windows: int,
    waiting: int,
    ended: Sequence[EndedWindow],
    began_at: datetime | None,
    now: datetime,
    is_over: bool,
    estimated_seconds: float | None,
) -> tuple[float | None, Basis]:
    if is_over or not waiting:
        return 0.0, "nothing is left"
    recent = [] if began_at is None else [window for window in ended if window.ended_at >= began_at]
    if recent and began_at is not None:
        return _by_pace(waiting, recent, began_at, now), "pace"
    if estimated_seconds is None:
        return None, "nothing is known"
    passed = 0.0 if began_at is None else (now - began_at).total_seconds()
    return max(0.0, estimated_seconds * waiting / windows - passed), "estimate"


def _by_pace(waiting: int, ended: Sequence[EndedWindow], began_at: datetime, now: datetime) -> float:
    """What the windows to come take at the pace of those that have ended, less what has passed since the last of those."""
    last = max(window.ended_at for window in ended)
    seconds_a_window = (last - began_at).total_seconds() / len(ended)
    return max(0.0, waiting * seconds_a_window - max(0.0, (now - last).total_seconds()))
