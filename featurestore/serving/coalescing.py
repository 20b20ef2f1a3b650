"""Requests that arrive while a read of the same features is under way wait for it and are then read together.

A store read costs about as much for a hundred entities as for one: joining those who wait is where throughput comes from.
Whoever's time is up gets an answer without values; the read goes on for the others. Not here: what a read is.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class Waiting(Generic[Asked, Answer]):
    """One request on its way."""

    asked: Asked
    size: int
    answer: "asyncio.Future[Answer | None]"
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Lane(Generic[Asked, Answer]):
    """Those who ask for the same features."""

    waiting: "deque[Waiting[Asked, Answer]]" = field(default_factory=deque)
    is_reading: bool = False


class Coalescer(Generic[Asked, Answer]):
    """Joins requests of one kind into reads in worker threads; at most one read of a kind runs at a time.

    Args:
        read: Answers requests of one kind, in their order. Runs in a thread; its time is limited by what it reads.
        threads: Reads of different kinds at one time.
        largest: Sum of sizes in one read; a single larger request is read alone.
    """

    def __init__(
        self,
        read: Callable[[Sequence[Asked]], Sequence[Answer]],
        *,
        threads: int = 4,
        largest: int = 1000,
    ) -> None:
        self._read = read
        self._largest = largest
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._lanes: dict[Hashable, _Lane[Asked, Answer]] = {}
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Take no more; reads under way end by themselves."""
        self._threads.shutdown(wait=False)

    async def ask(self, kind: Hashable, asked: Asked, *, size: int, deadline: float) -> Answer | None:
        """The answer to one request; None if its deadline passes first.

        Args:
            kind: Requests of one kind may be read together.
            asked: The request.
            size: How much of a read it is.
            deadline: By the loop's clock.
        """
        one: Waiting[Asked, Answer] = Waiting(asked, size, self._loop.create_future())
        one.timer = self._loop.call_at(deadline, _give_up, one)
        lane = self._lanes.setdefault(kind, _Lane())
        lane.waiting.append(one)
        if not lane.is_reading:
            lane.is_reading = True
            # Not at once: whoever else has arrived in this turn of the loop comes along.
            self._loop.call_soon(self._start, kind, lane)
        try:
            return await one.answer
        finally:
            one.timer.cancel()

    def _start(self, kind: Hashable, lane: _Lane[Asked, Answer]) -> None:
        batch = self._next_batch(lane)
        if not batch:
            del self._lanes[kind]
            return
        under_way = self._threads.submit(self._read, [one.asked for one in batch])
        under_way.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._finish, kind, lane, batch, done))

    def _next_batch(self, lane: _Lane[Asked, Answer]) -> "list[Waiting[Asked, Answer]]":
        batch: list[Waiting[Asked, Answer]] = []
        size = 0
        while lane.waiting and (not batch or size + lane.waiting[0].size <= self._largest):
            one = lane.waiting.popleft()
            if not one.answer.done():
                batch.append(one)
                size += one.size
        return batch

    def _finish(
        self,
        kind: Hashable,
        lane: _Lane[Asked, Answer],
        batch: "list[Waiting[Asked, Answer]]",
        done: "Future[Sequence[Answer]]",
    ) -> None:
        self._start(kind, lane)
        error = done.exception()
        answers = [None] * len(batch) if error else done.result()
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if error is not None:
                one.answer.set_exception(error)
            else:
                one.answer.set_result(answer)


def _give_up(one: "Waiting[Asked, Answer]") -> None:
    if not one.answer.done():
        one.answer.set_result(None)
