"""One Redis or Valkey server, to send commands and scripts to. Not here: keys and what they mean, asking several at once."""

import time
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError

from featurestore.online.redis.connection import MOST_LINES, Place, answering
from featurestore.online.redis.line import Lines, ServerSaid
from featurestore.online.redis.scripts import script

Command = tuple[str | bytes | int, ...]


class Server:
    """A server's connections, and how it is asked.

    Rules: nothing is sent before the first call. A connection that turns out to be dead is replaced once and the commands are
    sent again: everything sent here may be repeated.

    Args:
        place: Where it is; its patience is the limit on each answer.
        most_lines: Connections at the same time; callers beyond wait as long as for an answer.
    """

    def __init__(self, place: Place, *, most_lines: int = MOST_LINES) -> None:
        self.place = place
        self.lines = Lines(place.connection, most_lines)

    @property
    def address(self) -> str:
        """Host and port, or socket path; never the password."""
        return self.place.address

    def call(self, *command: str | bytes | int) -> Any:
        """Send one command; what comes back depends on it."""
        return self.call_all([command])[0]

    def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go and wait for all replies.

        Raises:
            StoreUnavailable: The server does not answer, or cannot do its work.
            FenceRefused: One of our scripts refused the epoch or the owner.
            ServerSaid: One of our scripts said something else.
        """
        with answering(self.address):
            return self._said([commands])

    def run(self, name: str, key: bytes, calls: Sequence[Sequence[str | bytes]]) -> list[Any]:
        """Run a script once for each list of arguments, sent one after the other without waiting; their replies.

        Raises:
            StoreUnavailable, FenceRefused, ServerSaid: As `call_all`; what was sent behind a refused call was sent.
        """
        text, digest = script(name)
        chunks: list[Sequence[Command]] = [[("EVALSHA", digest, 1, key, *arguments)] for arguments in calls]
        with answering(self.address):
            try:
                return self._said(chunks)
            except ServerSaid as said:
                if said.code != "NOSCRIPT":
                    raise
                self._said([[("SCRIPT", "LOAD", text)]])
                return self._said(chunks)

    def close(self) -> None:
        """Close all connections."""
        self.lines.close()

    def _said(self, chunks: Sequence[Sequence[Command]]) -> list[Any]:
        try:
            replies = self._exchange(chunks)
        except (ConnectionError, RedisConnectionError):
            self.lines.drop_idle()
            replies = self._exchange(chunks)
        for reply in replies:
            if isinstance(reply, ServerSaid):
                raise reply
        return replies

    def _exchange(self, chunks: Sequence[Sequence[Command]]) -> list[Any]:
        """Send all chunks, then take the replies: while the server works on one, the next is packed."""
        with self.lines.borrowed(self._limit()) as line:
            for chunk in chunks:
                line.send(pack(chunk), self._limit())
            return [line.next_reply(self._limit()) for chunk in chunks for _ in chunk]

    def _limit(self) -> float:
        return time.monotonic() + self.place.patience_seconds


def pack(commands: Sequence[Command]) -> bytes:
    """Commands as the server reads them."""
    packed: list[bytes] = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]  # it takes any length
    return packed[0] if len(packed) == 1 else b"".join(packed)
