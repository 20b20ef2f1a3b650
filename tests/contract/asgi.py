"""Talks to an ASGI application in this process, as a server would: its life, and requests to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def alive(app: ASGIApp) -> AsyncIterator[None]:
    """The application between its start and its end."""
    events: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    life: asyncio.Future[None] = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, events.get, said.put)
    )
    await events.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await events.put({"type": "lifespan.shutdown"})
        assert (await said.get())["type"] == "lifespan.shutdown.complete"
        await life


async def call(
    app: ASGIApp,
    path: str,
    body: Any = None,
    *,
    method: str = "",
    headers: Mapping[str, str] | None = None,
    chunks: list[bytes] | None = None,
    never_ends: bool = False,
    on_receive: Callable[[bytes], None] = lambda _: None,
    on_answer: Callable[[], None] = lambda: None,
) -> Answer:
    """One request; a body that is no bytes is sent as JSON, `chunks` one after the other.

    Args:
        never_ends: What is sent is not all of the body, and the rest does not come.
        on_receive: Called with each part that is asked for.
        on_answer: Called when the answer begins.
    """
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    parts = [raw] if chunks is None else chunks
    address, _, query = path.partition("?")
    given = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method or ("GET" if body is None and chunks is None else "POST"),
        "scheme": "http",
        "path": unquote(address),
        "raw_path": address.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 6566),
        "state": {},
    }
    incoming: Iterator[Message] = iter(
        [
            {"type": "http.request", "body": one, "more_body": never_ends or i + 1 < len(parts)}
            for i, one in enumerate(parts)
        ]
    )
    sent: list[Message] = []

    async def receive() -> Message:
        for message in incoming:
            on_receive(message["body"])
            return message
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def send(message: Message) -> None:
        if not sent:
            on_answer()
        sent.append(message)

    await app(scope, receive, send)
    whole = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(sent[0]["status"], {n.decode(): v.decode() for n, v in sent[0]["headers"]}, whole)
