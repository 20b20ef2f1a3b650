"""Putting back into the hot tier what a read missed there and the warm tier had, off the request path.

Here: a queue that never makes a read wait, and the one thread that works it off. Not here: whether a value may be put back
(`reading` decides by what both tiers said, the hot part once more by its record).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import compress

from featurestore.errors import FeatureStoreError
from featurestore.online.message.integrity import are_intact
from featurestore.online.tier import Mark, Tier

MOST_WAITING_KEYS = 20_000
"""At 1 kB a message, 20 MB; a hot tier that takes 50,000 a second is through with them in less than half of one."""
STOP_SECONDS = 10.0
"""What a repair that is under way when the store is closed may still take: a write gives up after 5 s and one retry."""


@dataclass(frozen=True, slots=True)
class Repair:
    """Messages of one group for one part; `Tier.repair` has the rules.

    Args:
        group: Name of the group.
        message_name: What its messages' checksums start from.
        mark: What the part said when it was read.
        keys: Keys that it missed.
        messages: One per key, from the warm tier.
        ttl: The group's.
    """

    group: str
    message_name: str
    mark: Mark
    keys: Sequence[bytes]
    messages: Sequence[bytes]
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class RepairCounts:
    """Keys since the store was opened.

    Args:
        written: Put back.
        refused: Not put back: the part had moved on, held something newer, or did not answer, or the message was not as it was
            written.
        dropped: Never tried, because too many were waiting or the store was closed.
        waiting: Still to be tried.
    """

    written: int = 0
    refused: int = 0
    dropped: int = 0
    waiting: int = 0


class Repairs:
    """A bounded queue of repairs and the thread behind it, which starts with the first.

    Args:
        tier: Gives the tier that is repaired.
        most_waiting_keys: What does not fit is dropped: the next read that misses the key finds it again.
    """

    def __init__(self, tier: Callable[[], Tier], *, most_waiting_keys: int = MOST_WAITING_KEYS) -> None:
        self._tier = tier
        self._most_waiting_keys = most_waiting_keys
        self._changed = threading.Condition()
        self._queue: deque[Repair] = deque()
        self._thread: threading.Thread | None = None
        self._counts = RepairCounts()
        self._is_closed = False

    @property
    def counts(self) -> RepairCounts:
        """What became of the keys so far."""
        return self._counts

    def offer(self, repair: Repair) -> None:
        """Queue a repair, or drop it; never waits."""
        size = len(repair.keys)
        with self._changed:
            if self._is_closed or self._counts.waiting + size > self._most_waiting_keys:
                self._count(dropped=size)
                return
            self._queue.append(repair)
            self._count(waiting=size)
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():  # in a forked child it is not
                self._thread = threading.Thread(target=self._work, name="featurestore repairs", daemon=True)
                self._thread.start()

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing waits any more; False if that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._counts.waiting, timeout_seconds)

    def close(self) -> None:
        """Drop what waits, and stop the thread after the repair that it is at."""
        with self._changed:
            self._is_closed = True
            while self._queue:
                size = len(self._queue.popleft().keys)
                self._count(dropped=size, waiting=-size)
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS)

    def _work(self) -> None:
        while (repair := self._next()) is not None:
            written = 0
            try:
                sound = _sound(repair)
                if sound.keys:
                    written = self._tier().repair(sound.group, sound.mark, sound.keys, sound.messages, sound.ttl)
            except FeatureStoreError:
                pass  # counted as refused: a repair that cannot be made is not missed, the warm tier still has the value
            finally:
                self._done(repair, written)

    def _next(self) -> Repair | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed)
            return self._queue.popleft() if self._queue else None

    def _done(self, repair: Repair, written: int) -> None:
        size = len(repair.keys)
        with self._changed:
            self._count(written=written, refused=size - written, waiting=-size)
            self._changed.notify_all()

    def _count(self, *, written: int = 0, refused: int = 0, dropped: int = 0, waiting: int = 0) -> None:
        old = self._counts
        self._counts = RepairCounts(
            old.written + written, old.refused + refused, old.dropped + dropped, old.waiting + waiting
        )


def _sound(repair: Repair) -> Repair:
    """What of a repair is as it was written: nothing else is spread further."""
    flags = are_intact(repair.messages, repair.message_name)
    if flags.all():
        return repair
    sound = flags.tolist()
    mark = replace(repair.mark, positions=list(compress(repair.mark.positions, sound)))
    return replace(
        repair,
        mark=mark,
        keys=list(compress(repair.keys, sound)),
        messages=list(compress(repair.messages, sound)),
    )
