"""Asking several servers at once: everything is sent first, then awaited, and a server that fails costs only its own answers.

Not here: what is asked, or what the answers mean.
"""

import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from featurestore.errors import StoreUnavailable
from featurestore.online.breaker import Breaker
from featurestore.online.redis.connection import meaning_of
from featurestore.online.redis.line import Line, ServerSaid
from featurestore.online.redis.server import Command, Server, pack

_LEAST_PATIENCE_SECONDS = 0.01
"""A server that got less time than this to answer has not failed."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server, and the breaker that says whether to ask it."""

    server: Server
    breaker: Breaker


@dataclass(frozen=True, slots=True)
class Question:
    """Commands for one server; each reply counts by itself."""

    to: Guarded
    commands: Sequence[Command]


Answer = list[Any] | StoreUnavailable


def ask_all(questions: Sequence[Question], seconds: float | None = None) -> list[Answer]:
    """Put questions to servers at the same time.

    Rules: no failure of a server raises. A connection that was dead before is replaced once.

    Args:
        questions: At most one a server.
        seconds: Limit on the whole; None: each server's patience.

    Returns:
        For each question the replies, among which an error of the server stands as `ServerSaid`; or why there are none.
    """
    talks = [_Talk(question, _limit(question, seconds)) for question in questions]
    for talk in talks:
        talk.start()
    waiting = [talk for talk in talks if talk.is_waiting]
    if len(waiting) > 1:
        _await_all(waiting)
    for talk in waiting:
        talk.finish()
    return [talk.answer for talk in talks]


def _limit(question: Question, seconds: float | None) -> float:
    patience = question.to.server.place.patience_seconds
    return time.monotonic() + (patience if seconds is None else min(seconds, patience))


def _await_all(talks: Sequence["_Talk"]) -> None:
    """Receive from whoever has something, until all are done or late."""
    poll = select.poll()
    by_file = {talk.fileno(): talk for talk in talks}
    for file in by_file:
        poll.register(file, select.POLLIN)
    until = max(talk.until for talk in talks)
    while by_file and (left := until - time.monotonic()) > 0:
        for file, _ in poll.poll(left * 1000):
            if not by_file[file].receive():
                poll.unregister(file)
                del by_file[file]


class _Talk:
    """One question under way."""

    def __init__(self, question: Question, until: float) -> None:
        self.until = until
        self._question = question
        self._started = time.monotonic()
        self._line: Line | None = None
        self._replies: list[Any] = []
        self._failure: StoreUnavailable | None = None

    @property
    def is_waiting(self) -> bool:
        return self._line is not None

    @property
    def answer(self) -> Answer:
        return self._replies if self._failure is None else self._failure

    def fileno(self) -> int:
        return -1 if self._line is None else self._line.fileno()

    def start(self) -> None:
        """Send, unless the breaker is open."""
        server = self._question.to.server
        if not self._question.to.breaker.allows():
            self._failure = StoreUnavailable(
                f"Redis at {server.address} did not answer several times in a row and is left alone for a moment."
            )
            return
        try:
            self._send(server)
        except (OSError, RedisError) as error:
            self._fail(error)

    def _send(self, server: Server) -> None:
        packed = pack(self._question.commands)
        self._line = server.lines.borrow(self.until)
        try:
            self._line.send(packed, self.until)
        except ConnectionError:
            self._renew(server)
            self._line.send(packed, self.until)

    def _renew(self, server: Server) -> None:
        """Take a new line for one that was dead; others that were idle as long are dead too."""
        line, self._line = self._line, None
        if line is not None:
            server.lines.discard(line)
            if line.is_fresh:
                raise ConnectionResetError("The server closed a new connection.")
        server.lines.drop_idle()
        self._line = server.lines.borrow(self.until)

    def receive(self) -> bool:
        """Take in what has arrived; whether there is more to wait for."""
        if self._line is None:
            return False
        try:
            self._line.receive(self.until)
            self._replies += self._line.replies_so_far()
        except OSError:
            return False  # `finish` meets it again, and knows what to do
        return len(self._replies) < len(self._question.commands)

    def finish(self) -> None:
        """Wait for the rest, if there is time."""
        try:
            self._take_rest()
        except (OSError, RedisError) as error:
            self._fail(error)
            return
        if self._line is not None:
            self._question.to.server.lines.give_back(self._line)
        self._question.to.breaker.succeeded()

    def _take_rest(self) -> None:
        try:
            self._take()
        except ConnectionError:
            if self._replies:
                raise
            server = self._question.to.server
            self._renew(server)
            if self._line is not None:
                self._line.send(pack(self._question.commands), self.until)
            self._take()

    def _take(self) -> None:
        while self._line is not None and len(self._replies) < len(self._question.commands):
            self._replies.append(self._line.next_reply(self.until))

    def _fail(self, error: Exception) -> None:
        server, line = self._question.to.server, self._line
        if line is not None:
            server.lines.discard(line)
            self._line = None
        meaning = meaning_of(server.address, error)
        self._failure = meaning if isinstance(meaning, StoreUnavailable) else StoreUnavailable(str(meaning))
        is_crowded = isinstance(error, BlockingIOError)
        is_hurried = (
            isinstance(error, TimeoutError | RedisTimeout) and self.until - self._started < _LEAST_PATIENCE_SECONDS
        )
        if not (is_crowded or is_hurried):
            self._question.to.breaker.failed()


def replies_or_cause(address: str, answer: Answer) -> list[Any] | str:
    """The replies; or, if there are none or one of them is an error, why, for people."""
    if isinstance(answer, StoreUnavailable):
        return str(answer)
    fault = next((reply for reply in answer if isinstance(reply, ServerSaid)), None)
    return answer if fault is None else str(meaning_of(address, fault))


def error_codes(answer: Answer) -> set[str]:
    """Codes of the errors among the replies."""
    return {reply.code for reply in answer if isinstance(reply, ServerSaid)} if isinstance(answer, list) else set()
