"""One connection to a Redis or Valkey server, and the few of them that a server has. Not here: commands, what failures mean.

redis-py connects: TLS, users, databases and sockets are as it reads them from an address. What is sent and received is packed
and parsed here, by hiredis, so that a whole batch costs a few calls and a deadline holds for all of it, not for each packet.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hiredis
from redis.connection import AbstractConnection

RECEIVED_BYTES = 1 << 16
"""At most this much at once: from 128 KiB on the allocator asks the system for pages each time, which costs more than the copy."""
_NOT_YET = object()


class ServerSaid(Exception):
    """An error that a server answered with; its text begins with the error's code."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class NotRedis(OSError):
    """What answers does not speak Redis's protocol."""


class Line:
    """One connection, in use by one caller at a time.

    Args:
        connection: Of redis-py, not connected yet.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        connection.connect()  # type: ignore[no-untyped-call]
        opened: socket.socket | None = connection._sock  # redis-py has no public name for it
        if opened is None:
            raise ConnectionError("The connection was closed while it was being made.")
        self._connection = connection
        self._socket = opened
        self._reader = hiredis.Reader(protocolError=NotRedis, replyError=ServerSaid, notEnoughData=_NOT_YET)
        self.is_fresh = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, packed: bytes, until: float) -> None:
        """Send commands by a moment of `time.monotonic`.

        Raises:
            OSError: The server is gone, or does not take them in time (TimeoutError).
        """
        self._socket.settimeout(_left(until))
        self._socket.sendall(packed)

    def next_reply(self, until: float) -> Any:
        """The next reply, whole; an error that the server answered is returned, not raised.

        Raises:
            OSError: The server is gone, is none (NotRedis), or does not answer in time (TimeoutError).
        """
        while (reply := self._reader.gets()) is _NOT_YET:
            self.receive(until)
        return reply

    def receive(self, until: float) -> None:
        """Wait for more bytes, of any number of replies."""
        self._socket.settimeout(_left(until))
        received = self._socket.recv(RECEIVED_BYTES)
        if not received:
            raise ConnectionResetError("The server closed the connection.")
        self._reader.feed(received)

    def replies_so_far(self) -> Iterator[Any]:
        """Replies that have arrived whole and were not taken yet.

        Raises:
            NotRedis: It is no reply.
        """
        while (reply := self._reader.gets()) is not _NOT_YET:
            yield reply

    def close(self) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]


class Lines:
    """The connections to one server: idle ones are used again, the last one first.

    Args:
        make: Makes a connection of redis-py, not connected yet.
        most: How many there may be; callers beyond it wait.
    """

    def __init__(self, make: Callable[[], AbstractConnection], most: int) -> None:
        self._make = make
        self._free = threading.BoundedSemaphore(most)
        self._idle: list[Line] = []
        self._process = os.getpid()

    @contextmanager
    def borrowed(self, until: float) -> Iterator[Line]:
        """A line for one conversation, closed if that ends by an error.

        Raises:
            OSError, RedisError: None is free in time, or a new one cannot be made.
        """
        line = self.borrow(until)
        try:
            yield line
        except BaseException:
            self.discard(line)
            raise
        self.give_back(line)

    def borrow(self, until: float) -> Line:
        """A line, to be given back or discarded."""
        if not self._free.acquire(timeout=_left(until)):
            raise BlockingIOError("All connections are in use.")
        try:
            return self._idle_one() or Line(self._make())
        except BaseException:
            self._free.release()
            raise

    def _idle_one(self) -> Line | None:
        if self._process != os.getpid():
            # After a fork the parent speaks on these: they are left to it, unclosed.
            self._idle, self._process = [], os.getpid()
        try:
            line = self._idle.pop()
        except IndexError:
            return None
        line.is_fresh = False
        return line

    def give_back(self, line: Line) -> None:
        self._idle.append(line)
        self._free.release()

    def discard(self, line: Line) -> None:
        """Close a line that may still have something of a conversation on it."""
        line.close()
        self._free.release()

    def drop_idle(self) -> None:
        """Close what is idle: after one of them turned out to be dead, the others are."""
        while (line := self._idle_one()) is not None:
            line.close()

    close = drop_idle


def _left(until: float) -> float:
    """Seconds until a moment; never 0, which would mean: do not wait even for what is there."""
    return max(until - time.monotonic(), 0.001)
