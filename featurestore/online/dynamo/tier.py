"""The warm tier: one DynamoDB table for all groups, and reads of it.

Rules: a read takes the group's record (R and generation, at most a second old) and then values under that generation, in batches of
100 keys, all at once. Records and values are read strongly consistent: a value found here may be put back into the hot tier, as
one that reflects at least R, and an older replica's would not. Where reads are `eventual`, or DAX answers them, they give no R,
and nothing is repaired. Expired rows are left to whoever reads: the server drops them when it likes.

Not here: writes (`part`), how items look (`items`), what is read first (the hot tier).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from featurestore.clock import Clock, system_clock
from featurestore.declaration.online import TierName
from featurestore.errors import InvalidInput
from featurestore.online.dynamo.failures import FAILURES
from featurestore.online.dynamo.items import Place
from featurestore.online.dynamo.part import DynamoPart
from featurestore.online.dynamo.record import CACHE_SECONDS, GroupRecord, RecordBook
from featurestore.online.dynamo.requests import Requests
from featurestore.online.dynamo.url import TableAddress, parse_url
from featurestore.online.dynamo.values import Found, ItemKey, read_values, result_of
from featurestore.online.tier import Mark, Replies


class DynamoTier:
    """The warm tier; `Tier` has the rules. Nothing is sent before the first call.

    Args:
        url: As `url.parse_url` takes it.
        clock: The writer's; see `DynamoPart`.
        session: A boto3 session with credentials; None: what the environment, or the address's profile, gives.
        allowed_skew: How far beyond the clock a row's event and knowledge time may lie.
        cache_seconds: How old the record of a group may be that reads rely on.
        server_clock: Which DynamoDB's expiry follows.
        monotonic: Seconds of a clock that only rises; deadlines and the cache go by it.
        sleep: Waits between tries.

    Raises:
        InvalidInput: `url` is not readable.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        session: Any = None,
        allowed_skew: timedelta = timedelta(minutes=5),
        cache_seconds: float = CACHE_SECONDS,
        server_clock: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = Requests(parse_url(url), session, monotonic=monotonic, sleep=sleep)
        self._records = RecordBook(self._requests, cache_seconds, server_clock)
        self._part = DynamoPart(
            self._requests, self._records, clock, allowed_skew=allowed_skew, server_clock=server_clock
        )

    @property
    def name(self) -> TierName:
        return "warm"

    @property
    def address(self) -> TableAddress:
        """The table, and how it is asked."""
        return self._requests.address

    def open(self) -> None:
        """Make the clients of reads: a quarter of a second that no read should have to wait for within its deadline.

        Nothing is sent. What keeps a client from being made, the first request says.
        """
        with suppress(*FAILURES, InvalidInput):
            self._requests.reader()
            self._requests.value_reader()

    def parts(self) -> list[DynamoPart]:
        return [self._part]

    def repair(
        self,
        group: str,  # noqa: ARG002
        mark: Mark,  # noqa: ARG002
        keys: Sequence[bytes],  # noqa: ARG002
        messages: Sequence[bytes],  # noqa: ARG002
        ttl: timedelta | None,  # noqa: ARG002
    ) -> int:
        """Nothing: a table evicts no keys, and there is no tier behind it."""
        return 0

    def close(self) -> None:
        self._requests.close()

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        """Read messages of several groups, all batches at once.

        Rules: where a record must be read again, the values are asked for at the same time, under the generation known last; if that
        has changed, once more. Doubled keys are asked for once.

        Args:
            keys_by_group: Keys of each group as `keys.online_keys` builds them; doubles allowed, any number.
            timeout_seconds: When to give up; None: as the address says.

        Returns:
            For each group its replies, in key order.

        Raises:
            InvalidInput: a key is of another group.
        """
        seconds = self.address.timeout_seconds if timeout_seconds is None else timeout_seconds
        until = self._requests.monotonic() + seconds
        known, old = self._records.recall(list(keys_by_group))
        renew = partial(self._records.refresh, old, until, with_freshness=True)
        renewing = self._requests.readers.submit(renew) if old else None
        answers = self._read(keys_by_group, known, until)
        if renewing is None:
            return answers
        renewed, cause = result_of(self._requests, renewing, until, dict[str, GroupRecord | None])
        moved = [group for group in old if group in renewed and _basis(renewed, group) != _basis(known, group)]
        lost = [group for group in old if group not in renewed]
        answers |= self._read({group: keys_by_group[group] for group in moved}, renewed, until)
        answers |= {group: _unanswered(keys_by_group[group], cause) for group in lost}
        return answers | {
            group: replace(answers[group], published=self._records.published(group))
            for group in old
            if group in renewed
        }

    def _read(
        self, keys_by_group: Mapping[str, Sequence[bytes]], records: Mapping[str, GroupRecord | None], until: float
    ) -> dict[str, Replies]:
        """Read under these records; a group without one is cold."""
        wanted = {group: self._item_keys(group, keys, records.get(group)) for group, keys in keys_by_group.items()}
        found = read_values(self._requests, [key for keys in wanted.values() for key in keys], until)
        return {
            group: self._replies(group, len(keys), wanted[group], records.get(group), found)
            for group, keys in keys_by_group.items()
        }

    def _item_keys(self, group: str, keys: Sequence[bytes], record: GroupRecord | None) -> list[ItemKey]:
        """Where the values are. A cold group's are read too, unless that would make DAX remember that they are not there."""
        if record is None or (record.state is None and self.address.dax):
            return []
        place = Place(group, record.generation)
        return [place.item_key(key) for key in keys]

    def _replies(
        self, group: str, count: int, keys: Sequence[ItemKey], record: GroupRecord | None, found: Found
    ) -> Replies:
        messages = [found.messages.get(key) for key in keys] or [None] * count
        missed = [position for position, message in enumerate(messages) if message is None]
        if record is None or record.state is None:
            cause = f"{self._part.name} holds no copy of {group}"
            return Replies(messages, frozenset(missed), cause=cause if missed else "")
        causes = {position: found.causes[keys[position]] for position in missed if keys[position] in found.causes}
        cause = "; ".join(dict.fromkeys(causes.values()))
        state = record.state if self.address.is_consistent else None
        return Replies(messages, frozenset(causes), cause=cause, state=state, has_failed=bool(causes))


def _basis(records: Mapping[str, GroupRecord | None], group: str) -> tuple[int, bool] | None:
    """What a read of values rests on: their generation, and whether an absent one says that there is none."""
    record = records.get(group)
    return None if record is None else (record.generation, record.state is not None)


def _unanswered(keys: Sequence[bytes], cause: str) -> Replies:
    return Replies([None] * len(keys), frozenset(range(len(keys))), cause=cause if keys else "", has_failed=True)
