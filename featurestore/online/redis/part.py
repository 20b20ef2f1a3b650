"""One part of the hot tier, as materialization writes it: a server, or a node of a cluster.

Here: the conditional write (its rule is `write.lua`), the unconditional fill, and starting over. Not here: records (`part_book`),
reads, or which rows go online (materialization). What rights a user of the
server needs, `docs/online.md` says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import polars as pl

from featurestore.clock import Clock, microseconds, zoned
from featurestore.errors import InvalidInput, StaleWriter
from featurestore.online.batch import WriteBatch, prepare_batch
from featurestore.online.message.layout import Flags
from featurestore.online.published import Published
from featurestore.online.records import Ownership, PartKeys, read_state
from featurestore.online.redis.connection import refusal_in
from featurestore.online.redis.line import ServerSaid
from featurestore.online.redis.part_book import PartBook
from featurestore.online.redis.server import Server
from featurestore.online.tier import Fill, Mark, MaterializationState, WriteResult

LARGEST_BATCH_KEYS = 4000
"""What one server-side call may hold: a longer one would make the server's other clients wait."""


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """How a part's writes are cut and checked.

    Args:
        batch_keys: Keys in one server-side call; longer writes are split.
        allowed_skew: How far beyond the clock a row's event and knowledge time may lie.
    """

    batch_keys: int = 250
    allowed_skew: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        require_batch_size(self.batch_keys)


def require_batch_size(keys: int) -> None:
    """Refuse a number of keys that one call may not hold."""
    if not 1 <= keys <= LARGEST_BATCH_KEYS:
        raise InvalidInput(f"A batch of {keys} keys is out of range: it must be 1 to {LARGEST_BATCH_KEYS}.")


class RedisPart:
    """One Redis or Valkey server as a part of the hot tier.

    Rules: nothing is sent before the first call. A write may be repeated: the rule decides by version and fence, so that
    nothing changes. What began in one run of the server is refused in another, which may have lost acknowledged writes.

    Args:
        server: The server.
        clock: The writer's clock; the server's expiry and the refusal of future times follow it.
        limits: How writes are cut and checked.
        keys: Where the part keeps its own records.
        ownership: Of a node of a cluster, what it owns.
    """

    def __init__(
        self,
        server: Server,
        clock: Clock,
        limits: WriteLimits | None = None,
        keys: PartKeys | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        self._server = server
        self._clock = clock
        self._limits = limits or WriteLimits()
        self._keys = keys or PartKeys()
        self._book = PartBook(server, self._keys, ownership)

    @property
    def tier(self) -> Literal["hot"]:
        return "hot"

    @property
    def address(self) -> str:
        """Host and port, or socket path; never the password."""
        return self._server.address

    @property
    def name(self) -> str:
        return f"hot {self.address}"

    @property
    def can_resume(self) -> bool:
        return True

    def owns(self, keys: Sequence[bytes]) -> Flags | None:  # noqa: ARG002 - of one server it is known without a look
        """Which keys lie in this part; None: all of them."""
        return None

    def epoch(self) -> str | None:
        """The server's epoch; None if it was emptied or never used."""
        return self._book.epoch()

    def ensure_epoch(self, group: str | None = None) -> str:
        """The epoch that writes and states of a group carry, begun now if the server has none; `PartBook` says what is in it.

        Without a group it is the server's, which serves groups never started over.
        """
        return self._book.ensure_epoch(group)

    def state(self, group: str) -> MaterializationState | None:
        """R: up to where the group is materialized here; None (rebuild) if that is unknown or of another epoch."""
        return self._book.state(group)

    def begin_step(self, group: str, target: MaterializationState, *, epoch: str) -> None:
        """Say what a step moves to; `PartBook.begin_step` has the rules."""
        self._book.begin_step(group, target, epoch=epoch)

    def set_state(self, group: str, state: MaterializationState, *, epoch: str, is_rebuild: bool = False) -> None:
        """Record R; `PartBook.set_state` has the rules."""
        self._book.set_state(group, state, epoch=epoch, is_rebuild=is_rebuild)

    def fill_under_way(self, group: str) -> Fill | None:
        """The fill that was begun and not ended under the group's epoch."""
        return self._book.fill_under_way(group)

    def record_fill(self, group: str, fill: Fill, *, epoch: str, previous: str | None) -> None:
        """Begin a fill, take it over, or note a slice done; `PartBook.record_fill` has the rules."""
        self._book.record_fill(group, fill, epoch=epoch, previous=previous)

    def publish(self, records: Mapping[str, Published]) -> None:
        """Keep what a look found of groups; `PartBook.publish` has the rules."""
        self._book.publish(records)

    def start_over(self, group: str, *, epoch: str) -> str:
        """Remove every message of a group, to build its copy anew.

        Rules: the group is unknown at once. It gets another epoch, so that no writer from before writes again: without the stored
        fences nothing else would hold it back.

        Returns:
            The group's epoch from now on, for the writes and the state that follow.

        Raises:
            FenceRefused: The group's epoch is another, or becomes another meanwhile because someone else starts over too.
            StoreUnavailable: The server does not answer; the group is unknown there, or untouched.
        """
        after = self._book.start_over(group, epoch=epoch)
        for keys in self._scan(group):
            if keys:
                self._book.run("clear.lua", group, after, [["", b"", b"", *keys]])
        return after

    def _scan(self, group: str) -> Iterator[list[bytes]]:
        cursor: bytes = b"0"
        while True:
            cursor, keys = self._server.call("SCAN", cursor, "MATCH", f"{group}:*", "COUNT", LARGEST_BATCH_KEYS)
            yield keys
            if int(cursor) == 0:
                return

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
        """Write messages by the rule of versions and fences, atomically per key.

        Rules, per key: a stored fence above the message's refuses it, and so does nothing stored while the part has, or is moving
        to, more than the messages reflect: the key may have been evicted. Else the message is stored if nothing is, if what is
        stored has a lower version, or if its version was removed; otherwise the value stays; in both cases the stored fence
        becomes the message's. What is stored lives until event time + `ttl`, or the removed versions' if later, by the
        writer's clock and a minute more: the reader's clock decides. Repeating a write changes nothing.

        Args:
            group: Name of the group; for messages.
            keys: One key per message.
            messages: Rows or tombstones as `codec.encode` makes them; the fence is in each.
            epoch: The group's epoch as the writer saw it before it read the state, or as `start_over` gave it.
            ttl: The group's; None keeps messages for ever (static groups).
            removed: Versions that the table lost in (R, V]: columns `key` (Binary), `event_time`, `knowledge_time`,
                `created_at` (Datetime us UTC), any number of rows per key; each key must be among `keys`.
            basis: What the messages reflect; None: nothing is known to be more.

        Returns:
            How many keys were written and left, and which were refused.

        Raises:
            InvalidInput: A time beyond the clock and the allowed skew, a message without header, a key that holds something
                else, or arguments of unequal length. Times and arguments are refused before anything is sent.
            FenceRefused: The group has another epoch: it, or the server, was emptied since.
            StoreUnavailable: The server does not answer, is full, or is a replica. Some batches may have been written.
        """
        batch = prepare_batch(group, keys, messages, ttl, removed, zoned(self._clock), self._limits.allowed_skew)
        reflects = [b"", b""] if basis is None else [b"%d" % basis.version, b"%d" % microseconds(basis.as_of)]
        return self._write(group, batch, epoch, [b"", *reflects])

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        """Write messages by the same rule, if the state is still byte for byte what `mark` says; how many were written.

        Raises:
            StaleWriter: The state is another by now.
            FenceRefused, StoreUnavailable, InvalidInput: As `write`.
        """
        batch = prepare_batch(group, keys, messages, ttl, None, zoned(self._clock), self._limits.allowed_skew)
        return self._write(group, batch, read_state(mark.record).epoch, [mark.record, b"", b""]).written

    def _write(self, group: str, batch: WriteBatch, epoch: str, conditions: list[bytes]) -> WriteResult:
        step = self._limits.batch_keys
        cuts = [batch.cut(start, start + step) for start in range(0, len(batch.keys), step)]
        calls = [[self._keys.state(group), *conditions, *cut.arguments(), *cut.removed_arguments()] for cut in cuts]
        try:
            counts: list[Any] = self._book.run("write.lua", group, epoch, calls)
        except ServerSaid as said:
            raise self._refusal(said, group) from said
        refused = [step * i + at - 1 for i, one in enumerate(counts) for at in one[2:]]
        return WriteResult(sum(one[0] for one in counts), sum(one[1] for one in counts), tuple(refused))

    def _refusal(self, said: ServerSaid, group: str) -> Exception:
        if said.code == "FSMARK":
            return StaleWriter(f"The state of group {group!r} at {self.address} has moved since it was read.")
        place = refusal_in(said, "FSFOREIGN")
        if place is None:
            return said
        return InvalidInput(
            f"Key {place!r} at {self.address} holds something that is not a message of group {group!r}. "
            "Another program uses that key: delete it, or give this store a server or database of its own."
        )

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
        """Write messages without looking at what is stored: only while no reader uses the group, and only by the fill's owner.

        Args:
            group: Name of the group.
            keys: One key per message; no doubles.
            messages: Rows or tombstones as `codec.encode` makes them.
            epoch: The group's epoch.
            ttl: The group's; None keeps messages for ever.
            owner: Token of the fill's owner.

        Raises:
            FenceRefused: Another has taken the fill over, the group has another epoch, or the server was restarted since.
            InvalidInput: As `write`, before anything is sent.
            StoreUnavailable: The server does not answer or is full. Some batches may have been written.
        """
        batch = prepare_batch(group, keys, messages, ttl, None, zoned(self._clock), self._limits.allowed_skew)
        step = self._limits.batch_keys
        cuts = [batch.cut(start, start + step) for start in range(0, len(keys), step)]
        own: list[str | bytes] = [self._keys.fill(group), owner]
        self._book.run("fill.lua", group, epoch, [[*own, *cut.arguments()] for cut in cuts])

    def close(self) -> None:
        """Close all connections."""
        self._server.close()
