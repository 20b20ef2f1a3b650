"""Sending requests to DynamoDB: bounded connections, repeated within a time, many at once.

Not here: what is asked (`tier`, `part`), or what failures mean (`failures`).
"""

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import count
from threading import Lock
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from featurestore.online.dynamo.dax import dax_client
from featurestore.online.dynamo.failures import FAILURES, code_of, is_passing, response_of, translated
from featurestore.online.dynamo.url import TableAddress

CONNECT_TIMEOUT_SECONDS = 1.0
WRITE_TIMEOUT_SECONDS = 5.0
FILL_TIMEOUT_SECONDS = 30.0
"""Long, since a batch write whose answer does not come spoils its whole fill."""
PATIENCE_SECONDS = 30.0
"""How long a write is tried again: an on-demand table that grows throttles for a while."""
FILL_PATIENCE_SECONDS = 300.0
"""Longer: a fill that gives up starts over."""
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0

Work = TypeVar("Work")
Result = TypeVar("Result")


class Requests:
    """A table's clients and threads; nothing is opened before the first request.

    Args:
        address: Of the table.
        session: Where credentials come from; None: a new one, of the address's profile.
        monotonic: Seconds of a clock that only rises.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        address: TableAddress,
        session: Any = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self.monotonic = monotonic
        self._given_session = session
        self._sleep = sleep
        self._jitter = random.Random()
        self._opening = Lock()
        self._clients: dict[str, Any] = {}

    @cached_property
    def readers(self) -> ThreadPoolExecutor:
        """Threads of reads: writes never keep them waiting."""
        return ThreadPoolExecutor(self.address.max_connections, thread_name_prefix="warm-read")

    @cached_property
    def writers(self) -> ThreadPoolExecutor:
        """Threads of writes and fills."""
        return ThreadPoolExecutor(self.address.max_connections, thread_name_prefix="warm-write")

    def reader(self) -> Any:
        """The client of reads that must see the newest: states."""
        return self._client("reader", lambda: self._boto(self.address.timeout_seconds))

    def value_reader(self) -> Any:
        """The client of reads of values: DAX where there is one."""
        if not self.address.dax:
            return self.reader()
        return self._client("dax", lambda: dax_client(self.address, self._session))

    def writer(self) -> Any:
        """The client of conditional writes."""
        return self._client("writer", lambda: self._boto(WRITE_TIMEOUT_SECONDS))

    def filler(self) -> Any:
        """The client of unconditional batch writes, and of administration."""
        return self._client("filler", lambda: self._boto(FILL_TIMEOUT_SECONDS))

    def ask(
        self,
        client: Callable[[], Any],
        operation: str,
        parameters: Mapping[str, Any],
        until: float,
        *,
        may_repeat: Callable[[Exception], bool] = is_passing,
        answers: Collection[str] = (),
    ) -> dict[str, Any]:
        """Send one request, again and again until it is answered or the time is up.

        Args:
            client: One of this object's methods.
            operation: boto3's method.
            parameters: Its arguments.
            until: When to give up, by `monotonic`.
            may_repeat: After which failures it is sent again; by default the request may take effect twice.
            answers: Codes of errors that are an answer: their response is returned, which has "Error".

        Raises:
            StoreUnavailable: no answer in time, or another failure.
            InvalidInput: DynamoDB does not understand the request.
        """
        for attempt in count():
            try:
                answer: dict[str, Any] = getattr(client(), operation)(**parameters)
                return answer
            except FAILURES as error:
                if code_of(error) in answers:
                    return response_of(error)
                if not may_repeat(error) or not self.pause(attempt, until):
                    raise translated(error, self.address.table) from error
        raise AssertionError("count() does not end")

    def pause(self, attempt: int, until: float) -> bool:
        """Wait a random while that grows with `attempt`; False, at once, if the time would be up."""
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10))
        seconds = self._jitter.uniform(0, longest)
        if self.monotonic() + seconds >= until:
            return False
        self._sleep(seconds)
        return True

    def each(self, work: Sequence[Work], do: Callable[[Work], Result]) -> list[Result]:
        """Do all work, so much at once as there are connections; the first failure ends it, when what is under way has ended."""
        results: list[Any] = [None] * len(work)
        waiting = deque(range(len(work)))

        def take_turns() -> None:
            while waiting:
                try:
                    index = waiting.popleft()
                except IndexError:
                    return
                results[index] = do(work[index])

        lanes = [self.writers.submit(take_turns) for _ in range(min(len(work), self.address.max_connections))]
        _, unfinished = wait(lanes, return_when=FIRST_EXCEPTION)
        if unfinished:
            waiting.clear()
            wait(lanes)
        _raise_first(lanes)
        return results

    def close(self) -> None:
        """Close all connections; requests under way end, those waiting do not begin."""
        for name in ("readers", "writers"):
            if name in self.__dict__:
                getattr(self, name).shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def _client(self, name: str, make: Callable[[], Any]) -> Any:
        found = self._clients.get(name)
        if found is not None:
            return found
        with self._opening:
            if name not in self._clients:
                self._clients[name] = make()
            return self._clients[name]

    def _boto(self, read_timeout_seconds: float) -> Any:
        config = Config(
            connect_timeout=min(CONNECT_TIMEOUT_SECONDS, read_timeout_seconds),
            read_timeout=read_timeout_seconds,
            max_pool_connections=self.address.max_connections,
            retries={"mode": "standard", "total_max_attempts": 1},  # repeated here, within the caller's time
            tcp_keepalive=True,
        )
        region, endpoint = self.address.region or None, self.address.endpoint or None
        return self._session.client("dynamodb", region_name=region, endpoint_url=endpoint, config=config)

    @cached_property
    def _session(self) -> Any:
        return self._given_session or boto3.Session(profile_name=self.address.profile or None)


def _raise_first(lanes: list[Future[None]]) -> None:
    for lane in lanes:
        lane.result()
