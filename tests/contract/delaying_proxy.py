"""A TCP proxy on loopback whose answers come as late as it is told. Not here: what it stands in front of."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass

CHUNK_BYTES = 1 << 16


@dataclass
class _Way:
    """One direction of a connection: pieces keep their order, whatever becomes of the delay meanwhile."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    last: float = 0.0

    async def carry(self, proxy: "DelayingProxy | None") -> None:
        """Carry pieces over until the sender ends; without a proxy at once."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while piece := await self.reader.read(CHUNK_BYTES):
                self.last = max(self.last, loop.time() + (proxy.seconds if proxy else 0.0))
                loop.call_at(self.last, self._hand_over, piece)
        loop.call_at(max(self.last, loop.time()), self.writer.close)

    def _hand_over(self, piece: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(piece)


class DelayingProxy:
    """Stands in front of a server of this machine.

    Args:
        target: The server's port; may be set later, before the first connection.

    Attributes:
        seconds: How late answers come; 0: at once. May be set at any time.
        port: Where it listens.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.seconds = 0.0
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._meet, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "DelayingProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            of_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_Way(reader, to_server).carry(None), _Way(of_server, writer).carry(self))
