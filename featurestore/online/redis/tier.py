"""The hot tier on one Redis or Valkey server: reading a batch in one round trip.

Not here: how it is written (`part`), expiry as readers see it, statuses, the warm tier, clusters (`cluster`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, Literal

import redis

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.online.breaker import Breaker
from featurestore.online.published import NowAndThen
from featurestore.online.redis.connection import WRITE_TIMEOUT_SECONDS, place_of, place_of_client
from featurestore.online.redis.exchange import Guarded, Question, ask_all, replies_or_cause
from featurestore.online.redis.line import ServerSaid
from featurestore.online.redis.part import RedisPart, WriteLimits, require_batch_size
from featurestore.online.redis.part_replies import FOREIGN, Source, sorted_out, unanswered
from featurestore.online.redis.server import Command, Server
from featurestore.online.tier import Mark, Replies


class RedisOnlineStore(RedisPart):
    """One Redis or Valkey server (7 or later) as the hot tier, and as its only part.

    Rules: nothing is sent before the first call. Reads give up after 50 ms, writes after 5 s; an address with `socket_timeout`
    and a client passed in keep their own limit, for both. A server that failed several reads in a row is not asked for a second.

    Args:
        client_or_url: A redis-py client that returns bytes, or an address as `connection.place_of` takes it.
        clock: The writer's clock; the server's expiry and the refusal of future times follow it.
        allowed_skew: How far beyond the clock a row's event and knowledge time may lie.
        read_batch_keys: Keys in one MGET; longer reads are split, still in one round trip.
        write_batch_keys: Keys in one server-side call; longer writes are split.
        seconds: Clock of the circuit breaker, and of how often reads ask what was published.

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
        write_batch_keys: int = 250,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        require_batch_size(read_batch_keys)
        if isinstance(client_or_url, str):
            place, patient = place_of(client_or_url), place_of(client_or_url, patience_seconds=WRITE_TIMEOUT_SECONDS)
        else:
            place = patient = place_of_client(client_or_url)
        limits = WriteLimits(write_batch_keys, allowed_skew)
        super().__init__(Server(patient), clock, limits)
        self._reader = Guarded(Server(place), Breaker(seconds))
        self._part = RedisPart(self._server, clock, limits)
        self._source = Source(self._part.name, self.address, lambda _: True)
        self._read_batch_keys = read_batch_keys
        self._turns = NowAndThen(seconds)

    @property
    def name(self) -> Literal["hot"]:
        """The tier's name; its part has the address in its own."""
        return "hot"

    def parts(self) -> Sequence[RedisPart]:
        """The server, as what is materialized."""
        return (self._part,)

    def close(self) -> None:
        """Close all connections."""
        self._reader.server.close()
        super().close()

    def read(self, group: str, keys: Sequence[bytes]) -> Replies:
        """Read one group's messages in one round trip; `read_many` has the rules."""
        return self.read_many({group: keys})[group]

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        """Read messages of several groups in one round trip.

        Rules: the epoch and each group's state travel with the keys, so that a server that was emptied, restarted empty, or is
        still being filled for the first time is told apart from one that does not have the entity; once a second also what was
        published of its freshness. A server that does not answer, or not in time, leaves all keys unanswered.

        Args:
            keys_by_group: Keys of each group as `keys.online_keys` builds them; doubles allowed, any number.
            timeout_seconds: Limit on the whole read; None: the limit for reads.

        Returns:
            For each group its replies, in key order.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        told = self._turns.due(keys_by_group)
        states = [self._keys.state(group) for group in keys_by_group]
        first = ["MGET", self._keys.epoch, *states, *[self._keys.freshness(group) for group in told]]
        keys = list(chain.from_iterable(keys_by_group.values()))
        step = self._read_batch_keys
        batches: list[Any] = [(*first, *keys[at : at + step]) for at in range(0, max(1, len(keys)), step)]
        [answer] = ask_all([Question(self._reader, batches)], timeout_seconds)
        said = replies_or_cause(self.address, answer)
        if isinstance(said, str):
            return {group: unanswered(wanted, said) for group, wanted in keys_by_group.items()}
        self._turns.answered(told)
        self._mark_foreign(said, batches, len(first) - 1, until)
        counts = {group: len(wanted) for group, wanted in keys_by_group.items()}
        return sorted_out(self._source, counts, said, step, told)

    def _mark_foreign(self, said: list[Any], batches: Sequence[Command], records: int, until: float | None) -> None:
        """Put FOREIGN where a key holds another type than a message has, for which MGET says nil as for no key at all.

        Only misses are looked at, in one more round trip. A user without the right to `EXISTS` and `TYPE`, or a server that does
        not answer in time, leaves them as they are.
        """
        places = [(i, at) for i, values in enumerate(said) for at in range(records, len(values)) if values[at] is None]
        keys = [batches[i][1 + at] for i, at in places]
        if not keys or self._asked([("EXISTS", *keys)], until) in ([0], []):
            return
        types = self._asked([("TYPE", key) for key in keys], until)
        for (i, at), held in zip(places, types, strict=False):
            if held not in (b"none", b"string"):
                said[i][at] = FOREIGN

    def _asked(self, commands: Sequence[Command], until: float | None) -> list[Any]:
        """The replies; none of them if one is an error, or the server does not answer."""
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return []
        said = replies_or_cause(self.address, ask_all([Question(self._reader, commands)], left)[0])
        return [] if isinstance(said, str) else said

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        """Put back what a read missed, by the fenced write, if the server still says of the group what `mark` says.

        Returns:
            How many keys were written; 0 if the state is another by now, or the server does not answer.
        """
        try:
            return self._part.repair(group, mark, keys, messages, ttl)
        except (FeatureStoreError, ServerSaid):
            return 0
