"""One part of a tier in memory: the shortest telling of what a part does.

It writes by the rule of `write.lua`, fences fills, and judges repairs as the servers do. It can be emptied, made to evict keys,
or to stop answering, as servers do by themselves. Not here: the whole tier (`memory`), persistence, or other processes.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import uuid4
from zlib import crc32

import numpy as np
import polars as pl

from featurestore.clock import Clock, microseconds
from featurestore.declaration.online import TierName
from featurestore.errors import FenceRefused, StoreUnavailable
from featurestore.online.advance import furthest, is_behind, require_forward, require_owner
from featurestore.online.batch import WriteBatch, prepare_batch
from featurestore.online.message.header import with_fence_of, write_order
from featurestore.online.message.layout import VERSION_SLICE, Flags
from featurestore.online.published import Published, newer
from featurestore.online.tier import Fill, Mark, MaterializationState, Replies, WriteResult

ALLOWED_SKEW = timedelta(minutes=5)
_VERSION_BYTES = VERSION_SLICE.stop - VERSION_SLICE.start


@dataclass(slots=True)
class _Entry:
    """A stored message, and when it is dropped: microseconds since 1970, None for never."""

    message: bytes
    expires: int | None


@dataclass(slots=True)
class _Copy:
    """What a part holds of one group under one epoch."""

    epoch: str
    entries: dict[bytes, _Entry] = field(default_factory=dict)
    state: MaterializationState | None = None
    reached: MaterializationState | None = None
    fill: Fill | None = None

    @property
    def record(self) -> bytes:
        return repr((self.epoch, self.state, self.reached)).encode()


class MemoryPart:
    """One part of a tier in memory; `TierPart` has the rules.

    Args:
        tier: Which tier it is part of.
        name: For people.
        clock: Refuses future times, sets expiries, and judges them.
        can_resume: Whether another may go on with a fill.
        place: Its number, and how many parts share the keys.
    """

    def __init__(
        self, tier: TierName, name: str, clock: Clock, *, can_resume: bool = True, place: tuple[int, int] = (0, 1)
    ) -> None:
        self._tier = tier
        self._name = name
        self._clock = clock
        self._can_resume = can_resume
        self._place = place
        self._lock = threading.RLock()
        self._copies: dict[str, _Copy] = {}
        self._published: dict[str, Published] = {}
        self._fault = ""

    @property
    def tier(self) -> TierName:
        return self._tier

    @property
    def name(self) -> str:
        return self._name

    @property
    def can_resume(self) -> bool:
        return self._can_resume

    def owns(self, keys: Sequence[bytes]) -> Flags | None:
        """Keys are spread over the parts by their hash."""
        number, count = self._place
        return None if count == 1 else np.array([crc32(key) % count == number for key in keys], np.bool_)

    def lose_everything(self) -> None:
        """What a restart without persistence, or a FLUSHALL, does: data, states and epochs are gone."""
        with self._lock:
            self._copies.clear()
            self._published.clear()

    def evict(self, keys: Iterable[bytes]) -> None:
        """What a server short of memory does: some keys are gone, and nothing else."""
        with self._lock:
            for copy in self._copies.values():
                for key in keys:
                    copy.entries.pop(key, None)

    def fail(self, cause: str) -> None:
        """Answer nobody from now on; an empty cause ends that."""
        self._fault = cause

    def remaining(self, group: str, key: bytes) -> timedelta | None:
        """How long a stored key still lives; None for ever.

        Raises:
            KeyError: it is not stored.
        """
        expires = self._copies[group].entries[key].expires
        return None if expires is None else timedelta(microseconds=expires - self._now_us())

    def read(self, group: str, keys: Sequence[bytes]) -> Replies:
        """One group's messages, and what can be said of the others."""
        with self._lock:
            if self._fault:
                cause = f"{self.name}: {self._fault}"
                return Replies([None] * len(keys), frozenset(range(len(keys))), cause=cause, has_failed=True)
            return replace(self._read(group, keys), published=self._published.get(group))

    def _read(self, group: str, keys: Sequence[bytes]) -> Replies:
        copy = self._copies.get(group) or _Copy("")
        messages = [self._live(copy, key) for key in keys]
        missed = [position for position, message in enumerate(messages) if message is None]
        if copy.state is None or copy.reached is None:
            cause = f"{self.name} holds no copy of {group}"
            return Replies(messages, frozenset(missed), cause=cause if missed else "")
        marks = (Mark(self.name, missed, copy.record, copy.reached),) if missed else ()
        return Replies(messages, marks=marks, state=copy.state)

    def ensure_epoch(self, group: str) -> str:
        with self._working():
            return self._copies.setdefault(group, _Copy(uuid4().hex)).epoch

    def state(self, group: str) -> MaterializationState | None:
        with self._working():
            copy = self._copies.get(group)
            return copy.state if copy else None

    def begin_step(self, group: str, target: MaterializationState, *, epoch: str) -> None:
        """The mark never moves back: of several steps under way the furthest counts, for each of version and instant."""
        with self._working():
            copy = self._current(group, epoch)
            require_forward(f"in {self.name}", group, copy.state, target)
            copy.reached = furthest(copy.reached or copy.state, target)

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        removed: pl.DataFrame | None = None,
        basis: MaterializationState | None = None,
    ) -> WriteResult:
        batch = self._prepared(group, keys, messages, ttl, removed)
        with self._working():
            copy = self._current(group, epoch)
            return self._write(copy, batch, is_behind=is_behind(basis, copy.reached))

    def set_state(self, group: str, state: MaterializationState, *, epoch: str, is_rebuild: bool = False) -> None:
        with self._working():
            copy = self._current(group, epoch)
            require_forward(f"in {self.name}", group, copy.state, state, begins=is_rebuild)
            copy.reached = furthest(copy.reached, state)
            copy.state = state
            copy.fill = None if is_rebuild else copy.fill

    def start_over(self, group: str, *, epoch: str) -> str:
        with self._working():
            self._current(group, epoch)
            self._copies[group] = _Copy(uuid4().hex)
            return self._copies[group].epoch

    def publish(self, records: Mapping[str, Published]) -> None:
        with self._working():
            for group, record in records.items():
                self._published[group] = newer(self._published.get(group), record) or record

    def fill_under_way(self, group: str) -> Fill | None:
        with self._working():
            copy = self._copies.get(group)
            return copy.fill if copy else None

    def record_fill(self, group: str, fill: Fill, *, epoch: str, previous: str | None) -> None:
        with self._working():
            copy = self._current(group, epoch)
            require_owner(f"in {self.name}", group, copy.fill, previous)
            copy.fill = fill

    def fill(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        owner: str,
    ) -> None:
        batch = self._prepared(group, keys, messages, ttl, None)
        with self._working():
            copy = self._current(group, epoch)
            require_owner(f"in {self.name}", group, copy.fill, owner)
            for index, (key, message) in enumerate(zip(keys, messages, strict=True)):
                copy.entries[key] = _Entry(message, self._expiry(batch, index))

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        """The write rule, if the record is still what the mark says."""
        batch = self._prepared(group, keys, messages, ttl, None)
        with self._lock:
            copy = self._copies.get(group)
            if self._fault or copy is None or copy.record != mark.record:
                return 0
            return self._write(copy, batch, is_behind=False).written

    def _working(self) -> threading.RLock:
        if self._fault:
            raise StoreUnavailable(f"{self.name} does not answer: {self._fault}. Check that it runs.")
        return self._lock

    def _current(self, group: str, epoch: str) -> _Copy:
        copy = self._copies.get(group)
        if copy is None or copy.epoch != epoch:
            raise FenceRefused(
                f"Group {group!r}, or all of {self.name}, was emptied since this writer began: the epoch is another. Nothing of "
                "this batch was written. Read the epoch and the state again; an unknown state means rebuild."
            )
        return copy

    def _live(self, copy: _Copy, key: bytes) -> bytes | None:
        entry = copy.entries.get(key)
        if entry is not None and entry.expires is not None and entry.expires <= self._now_us():
            del copy.entries[key]
            return None
        return entry.message if entry else None

    def _prepared(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        ttl: timedelta | None,
        removed: pl.DataFrame | None,
    ) -> WriteBatch:
        return prepare_batch(group, keys, messages, ttl, removed, self._clock(), ALLOWED_SKEW)

    def _write(self, copy: _Copy, batch: WriteBatch, *, is_behind: bool) -> WriteResult:
        written = left = 0
        refused = []
        for index in range(len(batch.keys)):
            outcome = self._write_one(copy, batch, index, is_behind=is_behind)
            written, left = written + (outcome == "written"), left + (outcome == "left")
            refused += [index] if outcome == "refused" else []
        return WriteResult(written, left, tuple(refused))

    def _write_one(self, copy: _Copy, batch: WriteBatch, index: int, *, is_behind: bool) -> str:
        """The rule of `write.lua`."""
        key, message, expires = batch.keys[index], batch.messages[index], self._expiry(batch, index)
        versions, longest = batch.removed.get(index, (b"", 0))
        if self._live(copy, key) is None:
            if is_behind:
                return "refused"
            copy.entries[key] = _Entry(message, expires)
            return "written"
        entry = copy.entries[key]
        (stored_fence, stored), (fence, offered) = write_order(entry.message), write_order(message)
        if stored_fence > fence:
            return "refused"
        if stored < offered or entry.message[VERSION_SLICE] in _cut(versions):
            kept = expires if stored_fence == 0 else _later(entry.expires, expires)
            copy.entries[key] = _Entry(message, kept)
            return "written"
        entry.message = with_fence_of(entry.message, message)
        if longest:
            entry.expires = _later(entry.expires, self._now_us() + 1000 * longest)
        return "left"

    def _expiry(self, batch: WriteBatch, index: int) -> int | None:
        milliseconds = int.from_bytes(batch.expiries[8 * index : 8 * index + 8], "little", signed=True)
        return self._now_us() + 1000 * milliseconds if milliseconds else None

    def _now_us(self) -> int:
        return microseconds(self._clock())


def _cut(versions: bytes) -> list[bytes]:
    return [versions[at : at + _VERSION_BYTES] for at in range(0, len(versions), _VERSION_BYTES)]


def _later(one: int | None, other: int | None) -> int | None:
    """The later of two expiries; None is never."""
    return None if one is None or other is None else max(one, other)
