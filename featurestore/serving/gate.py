"""The gate before every path: it counts requests, turns away those that are too many, and answers refusals and what nobody foresaw.

Not here: what a path does (`endpoints.py`), or the paths that have no limit (`app.py`).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

import polars as pl
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurestore.errors import FeatureStoreError
from featurestore.serving.body import Incoming, drop_body
from featurestore.serving.limits import timeout_of
from featurestore.serving.metrics import Metrics
from featurestore.serving.options import Limits
from featurestore.serving.refusal import Refusal, refusal_of
from featurestore.serving.wire import JSON

log = logging.getLogger("featurestore.serving")
OTHER_PATH = "other"
UNFORESEEN = Refusal(
    500,
    "InternalError",
    "This server met an error that it does not know. Its log has the traceback of it, with this path.",
)


@dataclass(slots=True)
class Door:
    """The way to one endpoint, and how many requests are inside.

    Args:
        endpoint: Answers POST.
        most: Requests that may be inside at one time.
        limit: The same in words, for who is turned away.
    """

    endpoint: ASGIApp
    most: int
    limit: str
    inside: int = 0

    async def let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered.

        Raises:
            Refusal: 429, there are as many inside as may be; or the endpoint's own.
        """
        if self.inside >= self.most:
            said = f"This worker {self.limit} at a time, and has them. Come again after a second."
            raise Refusal(429, "TooManyRequests", said)
        self.inside += 1
        try:
            await self.endpoint(scope, receive, send)
        finally:
            self.inside -= 1


class Gate:
    """Reads and pushes go straight to their endpoints, all else through Starlette: its frames would cost as much as a read.

    Rules: each door has a limit of its own, so that pushes, which are slow, never take the places of reads. Who is refused
    holds no place while the rest of the request is awaited. What nobody foresaw is logged with its traceback and answered by 500,
    in the body of every refusal; once an answer has begun, only the server below can end it.

    Args:
        app: Has all other paths, and the other methods of those with a door.
        doors: By path.
        metrics: Counts.
        limits: What a request may cost.
        counted: Paths that are counted by their name; what clients make up is none.
    """

    def __init__(
        self, app: ASGIApp, doors: Mapping[str, Door], metrics: Metrics, limits: Limits, counted: frozenset[str]
    ) -> None:
        self._app, self._doors, self._metrics, self._limits, self._named = app, doors, metrics, limits, counted
        metrics.in_flight = lambda: sum(door.inside for door in doors.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        count = partial(self._metrics.count_request, path if path in self._named else OTHER_PATH)
        incoming = Incoming(receive)
        answer = _Answer(send, count, partial(self._await_end, incoming, scope, monotonic()))
        door = self._doors.get(path) if scope["method"] == "POST" else None
        try:
            await (self._app(scope, incoming, answer) if door is None else _pass(door, scope, incoming, answer))
        except (Exception, pl.exceptions.PanicException):
            if answer.is_begun:
                raise
            log.exception("%s %s failed", scope["method"], path)
            await answer_of(UNFORESEEN)(scope, incoming, answer)
        finally:
            if not answer.is_begun:
                count(500)

    async def _await_end(self, incoming: Incoming, scope: Scope, begun: float) -> None:
        """Let a request that is refused come to its end, within its time."""
        if incoming.is_whole:
            return
        headers = dict(scope["headers"])
        try:
            seconds = timeout_of(headers, self._limits)
        except Refusal:  # of the header itself
            seconds = self._limits.timeout_seconds
        await drop_body(incoming, headers, self._limits, begun + seconds - monotonic())


async def _pass(door: Door, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await door.let_in(scope, receive, send)
    except Refusal as refusal:
        await answer_of(refusal)(scope, receive, send)
    except FeatureStoreError as error:
        await answer_of(refusal_of(error))(scope, receive, send)


class _Answer:
    """Passes an answer on. It is counted first: whoever has an answer finds it counted. A refusal waits for the request's end."""

    __slots__ = ("_await_end", "_count", "_send", "is_begun")

    def __init__(self, send: Send, count: Callable[[int], None], await_end: Callable[[], Awaitable[None]]) -> None:
        self._send, self._count, self._await_end, self.is_begun = send, count, await_end, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                await self._await_end()
            self.is_begun = True
            self._count(message["status"])
        await self._send(message)


def answer_of(refusal: Refusal) -> Response:
    """What a refused request is answered."""
    return Response(refusal.body, refusal.status, headers=dict(refusal.headers), media_type=JSON)
