"""A request's body: taken whole within its size and its time, or dropped so that a refusal reaches who still sends.

Not here: what a body says (`asked.py`), or the limits themselves (`options.py`).
"""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive

from featurestore.serving.limits import Headers
from featurestore.serving.options import Limits
from featurestore.serving.refusal import Refusal
from featurestore.serving.wire import TIMEOUT_HEADER

DROPPED_BODIES = 4
"""Of the longest body that is taken, how many are dropped at most to tell a client that its own is too long."""
_MOST_DIGITS = 15


class Incoming:
    """What comes of one request: an ASGI `receive` that knows whether all of it has come."""

    __slots__ = ("_receive", "is_whole")

    def __init__(self, receive: Receive) -> None:
        self._receive, self.is_whole = receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.is_whole = not message.get("more_body")
        return message


async def read_body(receive: Receive, headers: Headers, limits: Limits, seconds: float) -> bytes:
    """The whole body of a request.

    Args:
        seconds: When it must have come.

    Raises:
        Refusal: 413, it is too long; 408, it did not come in time. What is left of it is not read.
    """
    said = _said_size(headers)
    if said is not None and said > limits.body_bytes:
        raise _too_long(f"{said:,}", limits)
    try:
        async with asyncio.timeout(seconds):
            return await _whole(receive, limits)
    except TimeoutError as error:
        raise _too_late(seconds, limits) from error


async def drop_body(incoming: Incoming, headers: Headers, limits: Limits, seconds: float) -> None:
    """Read what is left of a body and forget it, before a refusal is answered.

    A client that is still sending may not see the answer: HTTP/2 then ends the request with an error, HTTP/1.1 the
    connection. A body that is longer than a few of the longest ones, or does not come in time, is left where it is.
    """
    most = DROPPED_BODIES * limits.body_bytes
    if seconds <= 0 or (_said_size(headers) or 0) > most:
        return
    dropped = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not incoming.is_whole and dropped <= most:
                dropped += len((await incoming()).get("body", b""))


async def _whole(receive: Receive, limits: Limits) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return _checked(body, limits)
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body_bytes:
            raise _too_long(f"at least {size:,}", limits)
    return _checked(b"".join(parts), limits)


def _said_size(headers: Headers) -> int | None:
    """What `Content-Length` says; of a number longer than any body, its first digits."""
    said = headers.get(b"content-length", b"")
    return int(said[:_MOST_DIGITS]) if said.isdigit() else None


def _checked(body: bytes, limits: Limits) -> bytes:
    if len(body) > limits.body_bytes:
        raise _too_long(f"{len(body):,}", limits)
    return body


def _too_long(size: str, limits: Limits) -> Refusal:
    return Refusal(
        413,
        "BodyTooLong",
        f"The body has {size} bytes; this server takes {limits.body_bytes:,}. Send fewer entities at a time.",
    )


def _too_late(seconds: float, limits: Limits) -> Refusal:
    return Refusal(
        408,
        "BodyTooLate",
        f"The body had not come whole after {seconds:g} s. Send it at once, or allow more in {TIMEOUT_HEADER}: at most "
        f"{limits.longest_timeout_seconds * 1000:.0f}.",
    )
