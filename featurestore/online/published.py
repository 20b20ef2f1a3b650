"""What was published of a group's freshness: the small record that each part of the online store keeps for readers.

It belongs to no epoch and no state: it tells of the group, and a copy that is built anew changes nothing of that. A part that was
emptied has lost it, as it has lost the values; the next look brings it again. Where several are found, the newest look counts.
Not here: what it means at a read (`freshness.on_read`), or who publishes it (`freshness.publishing`).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from featurestore.clock import instant_of, microseconds

LEARN_SECONDS = 1.0
"""How often readers ask a tier what was published, in the round trip that they make anyway."""
KEPT = timedelta(days=31)
"""How long a record outlives its look: that of a group which nobody declares any more is gone after it."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a look found of a group.

    Args:
        looked_at: The instant of the look.
        status: As `freshness.judgement` has it: OK, WARN, BREACH or NEVER.
        last_materialized_at: When the group was last known to hold everything due; None: never.
        newest_event: Of its sources the oldest one's newest event; of a pushed group its newest row's event time.
        behind_since: When the oldest row that is due online and not there was to be served; None: all are there.
        since: Since when the worst cause holds; None if there is none.
        cause: The worst cause's kind, in a word; "" if there is none.
    """

    looked_at: datetime
    status: str
    last_materialized_at: datetime | None = None
    newest_event: datetime | None = None
    behind_since: datetime | None = None
    since: datetime | None = None
    cause: str = ""

    def record(self) -> str:
        """As parts keep it: JSON, times in microseconds since 1970 UTC; what is not there is left out."""
        told = {name: getattr(self, name) for name in _TIMES}
        times = {name: microseconds(instant) for name, instant in told.items() if instant is not None}
        return json.dumps({**times, "status": self.status, "cause": self.cause})


_TIMES = ("looked_at", "last_materialized_at", "newest_event", "behind_since", "since")


def read_published(record: object) -> Published | None:
    """What `record` wrote; None for nothing, and for what is no such record: the next look writes over it."""
    if not isinstance(record, bytes | str):
        return None
    try:
        stored = json.loads(record)
        times = {name: instant_of(stored[name]) for name in _TIMES if name in stored}
        return Published(status=str(stored["status"]), cause=str(stored["cause"]), **times)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def newer(one: Published | None, other: Published | None) -> Published | None:
    """That of the newer look; the first where both are of one instant."""
    if one is None or other is None:
        return other if one is None else one
    return other if other.looked_at > one.looked_at else one


class KnownFreshness:
    """What a process has learned of groups, from whichever part. Threads may share it."""

    def __init__(self) -> None:
        self._known: dict[str, Published] = {}
        self._lock = Lock()

    def __call__(self, group: str) -> Published | None:
        """What is known of a group; None: nobody has published anything, or no part could say."""
        return self._known.get(group)

    def learn(self, group: str, found: Published) -> None:
        """Take in what a part has; an older look changes nothing."""
        if self._known.get(group) is found:
            return
        with self._lock:
            latest = newer(self._known.get(group), found)
            if latest is not None:
                self._known[group] = latest


class NowAndThen:
    """Which names are to be asked for along with what is asked anyway: each, once it was answered, not again for a while.

    Threads may share it; those that ask at one time may all ask for a name.

    Args:
        monotonic: Seconds on a clock that never goes back.
        seconds: How long a while is.
    """

    def __init__(self, monotonic: Callable[[], float], seconds: float = LEARN_SECONDS) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._next: dict[str, float] = {}

    def due(self, names: Iterable[str]) -> list[str]:
        """The names to ask for, in their order."""
        now, turns = self._monotonic(), self._next
        return [name for name in names if turns.get(name, now) <= now]

    def answered(self, names: Iterable[str]) -> None:
        """These were answered, whatever was said."""
        after = self._monotonic() + self._seconds
        self._next |= dict.fromkeys(names, after)
