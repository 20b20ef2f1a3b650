"""Holding requests to what they may cost: bytes, values and time. Not here: the limits themselves (`options.py`)."""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from featurestore.serving.options import Limits
from featurestore.serving.refusal import Refusal
from featurestore.serving.wire import TIMEOUT_HEADER

_TIMEOUT_HEADER = TIMEOUT_HEADER.lower().encode()
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")
_MOST_DIGITS = 15

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Mapping[bytes, bytes]
"""By lower-case name."""


def timeout_of(headers: Headers, limits: Limits) -> float:
    """Seconds that a request may take, from its header.

    Raises:
        Refusal: 400, the header is no whole number of milliseconds above 0.
    """
    value = headers.get(_TIMEOUT_HEADER)
    if value is None:
        return limits.timeout_seconds
    if not _MILLISECONDS.fullmatch(value) or not int(value):
        said = value.decode("latin-1")
        raise Refusal(
            400,
            "InvalidHeader",
            f"Header {TIMEOUT_HEADER} is {said!r}. Give whole milliseconds from 1 on, or leave it out.",
        )
    return min(int(value) / 1000, limits.longest_timeout_seconds)


async def read_body(receive: Receive, headers: Headers, limits: Limits) -> bytes:
    """The whole body of a request.

    Raises:
        Refusal: 413, it is too long; what is left of it is not read.
    """
    said = headers.get(b"content-length", b"")
    if said.isdigit() and (len(said) > _MOST_DIGITS or int(said) > limits.body_bytes):
        raise _too_long(said.decode()[:_MOST_DIGITS], limits)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return _checked(body, limits)
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body_bytes:
            raise _too_long(f"at least {size:,}", limits)
    return _checked(b"".join(parts), limits)


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


def check_values(entities: int, features: int, limits: Limits) -> None:
    """Refuse a request for more values than the server gives at once.

    Raises:
        Refusal: 413.
    """
    if entities * features > limits.values:
        raise Refusal(
            413,
            "BatchTooLarge",
            f"{entities:,} entities of {features:,} features are {entities * features:,} values; this server gives "
            f"{limits.values:,} at once. Ask for {max(1, limits.values // features):,} entities at a time.",
        )
