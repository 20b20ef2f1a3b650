"""A bounded cache of raw messages in this process, for keys that are asked for again and again. Off unless configured.

It shortens no rule of a read. A message is kept for a short time only, and its expiry and age are judged by the reader's clock
when it is decoded, like those of any other. It is never replaced by one that the write rule would refuse beside it, and
one that is not as it was written is not kept. All of
a group's messages go as soon as a read shows that the group's copy has moved. Misses are not kept. Not here: any tier.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple

from featurestore.online.message.header import write_order
from featurestore.online.message.integrity import are_intact
from featurestore.online.tier import MaterializationState, Replies

ENTRY_BYTES = 300
"""What Python keeps of an entry beside key and message, about."""


@dataclass(frozen=True, slots=True)
class HotKeyCounts:
    """Keys since the store was opened.

    Args:
        hits: Answered from here.
        misses: Asked of the tiers.
        entries: Held now.
        size_bytes: What they take, about.
    """

    hits: int
    misses: int
    entries: int
    size_bytes: int


class _Entry(NamedTuple):
    message: bytes
    is_warm: bool
    until: float
    turn: int


@dataclass(slots=True)
class _Group:
    """What reads have shown of a group's copy; entries of an earlier turn are gone."""

    turn: int = 0
    seen: dict[str, MaterializationState] = field(default_factory=dict)


class HotKeys:
    """The cache. Threads may share it.

    Args:
        max_entries: How many messages it holds; the one used longest ago leaves first.
        max_bytes: What keys, messages and their bookkeeping may take together.
        ttl_seconds: How long after a read its message is used, and so how long a change may go unseen here.
        monotonic: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 2**20,
        ttl_seconds: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_seconds = ttl_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._groups: dict[str, _Group] = {}
        self._size_bytes = self._hits = self._misses = 0

    @property
    def counts(self) -> HotKeyCounts:
        """How it is used."""
        with self._lock:
            return HotKeyCounts(self._hits, self._misses, len(self._entries), self._size_bytes)

    def lookup(self, group: str, keys: Sequence[bytes]) -> Replies:
        """The messages held of some keys; the positions of all others are `unanswered`."""
        now, messages, warm, unknown = self._monotonic(), list[bytes | None](), set[int](), set[int]()
        with self._lock:
            turn = self._group(group).turn
            for position, key in enumerate(keys):
                entry = self._live(key, turn, now)
                messages.append(entry.message if entry else None)
                (unknown if entry is None else warm if entry.is_warm else set()).add(position)
            self._hits, self._misses = self._hits + len(keys) - len(unknown), self._misses + len(unknown)
        return Replies(messages, frozenset(unknown), frozenset(warm))

    def store(self, group: str, tier: str, keys: Sequence[bytes], replies: Replies, message_name: str) -> None:
        """Keep the messages that one tier gave, unless its copy is known to have moved on since.

        Args:
            group: Name of the group.
            tier: Which tier was read; each shows its own state.
            keys: The keys read.
            replies: What it said.
            message_name: What the group's checksums start from.
        """
        until, is_warm = self._monotonic() + self._ttl_seconds, tier == "warm"
        found = _intact(message_name, keys, replies.messages)
        with self._lock:
            known = self._group(group)
            are_current = [_is_current(known, name, state) for name, state in _said(tier, replies)]
            if not all(are_current):
                return
            for key, message in found:
                self._put(key, _Entry(message, is_warm, until, known.turn))
            self._shrink()

    def _group(self, group: str) -> _Group:
        return self._groups.setdefault(group, _Group())

    def _live(self, key: bytes, turn: int, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None or entry.turn != turn or entry.until <= now:
            return None
        self._entries.move_to_end(key)
        return entry

    def _put(self, key: bytes, entry: _Entry) -> None:
        held = self._live(key, entry.turn, entry.until - self._ttl_seconds)
        if held is not None and write_order(held.message) > write_order(entry.message):
            return
        self._drop(key)
        self._entries[key] = entry
        self._size_bytes += _size(key, entry)

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size_bytes -= _size(key, entry)

    def _shrink(self) -> None:
        while len(self._entries) > self._max_entries or self._size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))


def _intact(
    message_name: str, keys: Sequence[bytes], messages: Sequence[bytes | None]
) -> Iterator[tuple[bytes, bytes]]:
    """Keys with their messages, where there is one as it was written."""
    found = [(key, message) for key, message in zip(keys, messages, strict=True) if message is not None]
    return compress(found, are_intact([message for _, message in found], message_name).tolist())


def _said(tier: str, replies: Replies) -> list[tuple[str, MaterializationState]]:
    """What a read shows of a group's copy: the tier's state, or where that has many parts, those of the parts that missed."""
    states = [(tier, replies.state)] if replies.state is not None else []
    return [*states, *((mark.part, mark.reached) for mark in replies.marks)]


def _is_current(known: _Group, name: str, state: MaterializationState) -> bool:
    """Whether a state is not behind the one seen last; one that is ahead begins the group's next turn."""
    last = known.seen.get(name)
    if state == last:
        return True
    if last is not None and state.table_id == last.table_id and _is_behind(state, last):
        return False
    known.seen[name] = state
    known.turn += last is not None
    return True


def _is_behind(state: MaterializationState, other: MaterializationState) -> bool:
    return state.version < other.version or state.as_of < other.as_of


def _size(key: bytes, entry: _Entry) -> int:
    return len(key) + len(entry.message) + ENTRY_BYTES
