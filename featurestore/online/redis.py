"""The hot tier: one group's messages in Redis or Valkey, and what keeps them right.

Here: reading a batch in one round trip, the epoch, the materialization state, and the conditional write (its rule
is `write.lua`). Not here: which rows go online (materialization), expiry as readers see it, statuses, the warm tier, clusters
(a batch here needs one node).

Keys of this module's own start with `@`, which no group name does.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha1
from importlib.resources import files
from itertools import chain
from typing import Any
from uuid import uuid4

import polars as pl
import redis
from redis.exceptions import NoScriptError, ResponseError

from featurestore.clock import Clock
from featurestore.errors import InvalidInput, StaleWriter
from featurestore.online.batch import WriteBatch, prepare_batch
from featurestore.online.connection import WRITE_TIMEOUT_SECONDS, address_of, answering, connect, refusal_in, send
from featurestore.online.tier import MaterializationState, Replies, WriteResult

EPOCH_KEY = b"@epoch"
EPOCH_LENGTH = 32
LARGEST_BATCH_KEYS = 4000
"""What one server-side call may hold: a longer one would make the server's other clients wait."""


class RedisOnlineStore:
    """One Redis or Valkey server as an online tier.

    Rules: nothing is sent before the first call. Reads give up after 50 ms and one retry, writes after 5 s; a client passed in
    keeps its own limits, for both. A write may be repeated: the rule decides by version and fence, so that nothing changes.

    Args:
        client_or_url: A redis-py client that returns bytes, or an address as `connect` takes it.
        clock: The writer's clock; the server's expiry and the refusal of future times follow it.
        allowed_skew: How far beyond the clock a row's event and knowledge time may lie.
        read_batch_keys: Keys in one MGET; longer reads are split, still in one round trip.
        write_batch_keys: Keys in one server-side call; longer writes are split.

    Raises:
        InvalidInput: The address is unreadable, the client decodes its answers, or a batch is out of range.
    """

    def __init__(
        self,
        client_or_url: redis.Redis | str,
        clock: Clock,
        *,
        allowed_skew: timedelta = timedelta(minutes=5),
        read_batch_keys: int = 1000,
        write_batch_keys: int = 500,
    ) -> None:
        if isinstance(client_or_url, str):
            self._reader = connect(client_or_url)
            self._writer = connect(client_or_url, timeout_seconds=WRITE_TIMEOUT_SECONDS)
        else:
            self._reader = self._writer = client_or_url
        if self._reader.get_encoder().decode_responses:
            raise InvalidInput(
                "The Redis client decodes its answers to text; messages are bytes. Build it without decode_responses."
            )
        if not (1 <= read_batch_keys <= LARGEST_BATCH_KEYS and 1 <= write_batch_keys <= LARGEST_BATCH_KEYS):
            raise InvalidInput(
                f"Batches of {read_batch_keys} and {write_batch_keys} keys must be 1 to {LARGEST_BATCH_KEYS}."
            )
        self._clock = clock
        self._allowed_skew = allowed_skew
        self._read_batch_keys = read_batch_keys
        self._write_batch_keys = write_batch_keys

    @property
    def address(self) -> str:
        """Host and port, or socket path; never the password."""
        return address_of(self._reader)

    def close(self) -> None:
        """Close all connections."""
        self._reader.close()
        self._writer.close()

    def read(self, group: str, keys: Sequence[bytes]) -> Replies:
        """Read one group's messages in one round trip; `read_many` has the rules."""
        return self.read_many({group: keys})[group]

    def read_many(self, keys_by_group: Mapping[str, Sequence[bytes]]) -> dict[str, Replies]:
        """Read messages of several groups in one round trip.

        Rules: the epoch and each group's state travel with the keys, so that a server that was emptied, restarted empty, or is
        still being filled for the first time is told apart from one that does not have the entity.

        Args:
            keys_by_group: Keys of each group as `keys.online_keys` builds them; doubles allowed, any number.

        Returns:
            For each group its replies, in key order.

        Raises:
            StoreUnavailable: The server does not answer, or answers that it cannot.
        """
        states = [_state_key(group) for group in keys_by_group]
        keys = list(chain.from_iterable(keys_by_group.values()))
        step = self._read_batch_keys
        batches = [[EPOCH_KEY, *states, *keys[at : at + step]] for at in range(0, max(1, len(keys)), step)]
        with answering(self.address):
            answers = self._read_batches(batches)
        messages = iter([message for answer in answers for message in answer[1 + len(states) :]])
        found = {}
        for i, (group, wanted) in enumerate(keys_by_group.items()):
            own = [next(messages) for _ in range(len(wanted))]
            is_cold = not all(_is_warm(answer[0], answer[1 + i]) for answer in answers)
            unanswered = frozenset(at for at, message in enumerate(own) if is_cold and message is None)
            found[group] = Replies(own, unanswered, cause=f"{self.address} holds no copy of {group}" if is_cold else "")
        return found

    def _read_batches(self, batches: list[list[bytes]]) -> list[list[bytes | None]]:
        if len(batches) == 1:
            return [send(self._reader, "MGET", *batches[0])]
        pipeline = self._reader.pipeline(transaction=False)
        for batch in batches:
            send(pipeline, "MGET", *batch)
        answers: list[list[bytes | None]] = pipeline.execute()
        return answers

    def epoch(self) -> str | None:
        """The server's epoch; None if it was emptied or never used."""
        with answering(self.address):
            stored: bytes | None = send(self._writer, "GET", EPOCH_KEY)
        return stored.decode() if stored else None

    def ensure_epoch(self, group: str | None = None) -> str:
        """The epoch that writes and states of a group carry, begun now if the server has none.

        Rules: it is the server's epoch, followed by the group's generation once the group was started over. Without a
        group it is the server's alone, which serves groups never started over.
        """
        with answering(self.address):
            pipeline = self._writer.pipeline(transaction=True)
            send(pipeline, "SET", EPOCH_KEY, uuid4().hex, "NX")
            send(pipeline, "MGET", EPOCH_KEY, *([] if group is None else [_generation_key(group)]))
            stored: list[bytes | None] = pipeline.execute()[1]
        return b"".join(part for part in stored if part).decode()

    def start_over(self, group: str, *, epoch: str) -> str:
        """Remove every message of a group, to build its copy anew.

        Rules: the group is cold at once. It gets another epoch, so that no writer from before writes again: without the stored
        fences nothing else would hold it back.

        Returns:
            The group's epoch from now on, for the writes and the state that follow.

        Raises:
            FenceRefused: The group's epoch is another, or becomes another meanwhile because someone else starts over too.
            StoreUnavailable: The server does not answer; the group is cold, or untouched.
        """
        server_epoch, generation = epoch[:EPOCH_LENGTH], uuid4().hex
        own = [EPOCH_KEY, _generation_key(group), _state_key(group)]
        self._run("clear.lua", own, [epoch, generation])
        cursor: int | bytes = 0
        while True:
            with answering(self.address):
                cursor, keys = send(self._writer, "SCAN", cursor, "MATCH", f"{group}:*", "COUNT", LARGEST_BATCH_KEYS)
            self._run("clear.lua", [*own, *keys], [server_epoch + generation, ""])
            if int(cursor) == 0:
                return server_epoch + generation

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        removed: pl.DataFrame | None = None,
    ) -> WriteResult:
        """Write messages by the rule of versions and fences, atomically per key.

        Rules, per key: a stored fence above the message's refuses it. Else the message is stored if nothing is, if what is
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

        Returns:
            How many keys were written and left, and which were refused for their fence.

        Raises:
            InvalidInput: A time beyond the clock and `allowed_skew`, a message without header, a key that holds something
                else, or arguments of unequal length. Times and arguments are refused before anything is sent.
            FenceRefused: The group has another epoch: it, or the server, was emptied since. Later batches were not sent.
            StoreUnavailable: The server does not answer, is full, or is a replica. Some batches may have been written.
        """
        batch = prepare_batch(group, keys, messages, ttl, removed, self._now(), self._allowed_skew)
        written, left, refused = 0, 0, []
        for start in range(0, len(keys), self._write_batch_keys):
            one = batch.cut(start, start + self._write_batch_keys)
            counts = self._write_one(group, one, epoch)
            written, left = written + counts[0], left + counts[1]
            refused += [start + index - 1 for index in counts[2:]]
        return WriteResult(written, left, tuple(refused))

    def _write_one(self, group: str, batch: WriteBatch, epoch: str) -> list[int]:
        arguments = [epoch, batch.expiries, *batch.messages, *batch.removed_arguments()]
        try:
            counts: list[int] = self._run("write.lua", [EPOCH_KEY, _generation_key(group), *batch.keys], arguments)
        except ResponseError as error:
            refusal = refusal_in(error, "FSFOREIGN")
            if refusal is None:
                raise
            key = batch.keys[int(refusal) - 1]
            raise InvalidInput(
                f"Key {key!r} at {self.address} holds something that is not a message of group {group!r}. "
                "Another program uses that key: delete it, or give this store a server or database of its own."
            ) from error
        return counts

    def state(self, group: str) -> MaterializationState | None:
        """R: up to where the group is materialized here; None (rebuild) if that is unknown or of another epoch."""
        with answering(self.address):
            epoch, record = send(self._writer, "MGET", EPOCH_KEY, _state_key(group))
        if not _is_warm(epoch, record):
            return None
        stored = json.loads(record)
        as_of = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stored["as_of"])
        return MaterializationState(stored["table_id"], stored["version"], as_of, stored["contract"])

    def set_state(self, group: str, state: MaterializationState, *, epoch: str, is_rebuild: bool = False) -> None:
        """Record R after the last key of a step was written.

        Rules: R never moves backwards, neither version nor instant, and stays with its table; only a rebuild starts anew.

        Raises:
            StaleWriter: R is gone, of another table, or ahead of `state`, and this is not a rebuild.
            FenceRefused: The group has another epoch.
            StoreUnavailable: The server does not answer.
        """
        record = {
            "epoch": epoch,
            "table_id": state.table_id,
            "version": state.version,
            "as_of": _microseconds(state.as_of),
            "contract": state.contract,
        }
        arguments = [epoch, json.dumps(record), "1" if is_rebuild else "0"]
        try:
            self._run("state.lua", [EPOCH_KEY, _generation_key(group), _state_key(group)], arguments)
        except ResponseError as error:
            refusal = refusal_in(error, "FSSTATE")
            if refusal is None:
                raise
            raise StaleWriter(
                f"The online state of group {group!r} at {self.address} cannot move to version {state.version} as of "
                f"{state.as_of.isoformat()}: {refusal}. Read the state again and take the step from there, or rebuild."
            ) from error

    def _run(self, script: str, keys: Sequence[bytes], arguments: Sequence[str | bytes]) -> Any:
        text, digest = _script(script)
        with answering(self.address):
            try:
                return send(self._writer, "EVALSHA", digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return send(self._writer, "EVAL", text, len(keys), *keys, *arguments)

    def _now(self) -> datetime:
        now = self._clock()
        if now.tzinfo is None:
            raise InvalidInput(
                f"The store's clock gave {now}, a time without zone. Give one in UTC, such as clock.system_clock."
            )
        return now


def _state_key(group: str) -> bytes:
    return f"@state:{group}".encode()


def _generation_key(group: str) -> bytes:
    return f"@generation:{group}".encode()


def _is_warm(epoch: bytes | None, record: bytes | None) -> bool:
    """Whether a group's state was recorded under this epoch; `set_state` writes it first, `start_over` removes the state."""
    return epoch is not None and record is not None and record.startswith(b'{"epoch": "' + epoch)


def _microseconds(instant: datetime) -> int:
    if instant.tzinfo is None:
        raise InvalidInput(f"The instant {instant} has no zone. Give it in UTC.")
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@cache
def _script(name: str) -> tuple[str, str]:
    text = files("featurestore.online").joinpath(name).read_text(encoding="utf-8")
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()
