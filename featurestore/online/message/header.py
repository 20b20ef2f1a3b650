"""The order in which a key's messages replace each other, read from one message's header.

Not here: headers of whole batches (`batch.read_headers`), or decoding a message's values (`decode`).
"""

import struct

from featurestore.online.message.layout import FENCE_SLICE, HEADER_AT

_VERSION = struct.Struct(f"<{HEADER_AT['event_time']}xq2xq2xq")
_FENCE = struct.Struct(f"<{HEADER_AT['fence']}xq")

WriteOrder = tuple[int, tuple[int, int, int]]
"""Fence and version: of one key's messages the write rule lets the higher one in, unless a rewind removed it."""


def write_order(message: bytes) -> WriteOrder:
    """Fence and version triple of a message that `encode` made; the version in microseconds since 1970."""
    return _FENCE.unpack_from(message)[0], _VERSION.unpack_from(message)


def with_fence_of(message: bytes, other: bytes) -> bytes:
    """A message as the write rule leaves it: its own row, under another's fence."""
    return message[: FENCE_SLICE.start] + other[FENCE_SLICE] + message[FENCE_SLICE.stop :]
