"""The ASGI application: paths, the gate before them, and what becomes of refusals. `create_app` is the only wiring.

Not here: processes, sockets and TLS (`run.py`), or what a path does (`endpoints.py`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurestore.auth.authenticator import Authenticates, OpenAuthenticator
from featurestore.errors import FeatureStoreError
from featurestore.serving.endpoints import Endpoints
from featurestore.serving.metrics import Metrics
from featurestore.serving.openapi import openapi
from featurestore.serving.options import Limits
from featurestore.serving.readiness import unready
from featurestore.serving.refusal import Refusal, refusal_of
from featurestore.serving.registry_watch import CurrentStore
from featurestore.serving.wire import JSON
from featurestore.store import FeatureStore

log = logging.getLogger("featurestore.serving")
ONLINE, PUSH = "/get-online-features", "/push"
LIMITED = frozenset((ONLINE, PUSH))
COUNTED = LIMITED | {"/health", "/ready", "/metrics", "/openapi.json"}
OTHER_PATH = "other"
SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Serving:
    """What an application is made of.

    Args:
        open_store: Makes a store that reads the newest registry; called again when that has changed.
        authenticator: Says who calls.
        limits: What a request may cost.
        registry_seconds: How often the registry is looked at.
        is_draining: Whether the server is about to end.
    """

    open_store: Callable[[], FeatureStore]
    authenticator: Authenticates = field(default_factory=OpenAuthenticator)
    limits: Limits = field(default_factory=Limits)
    registry_seconds: float = 2.0
    is_draining: Callable[[], bool] = bool


def create_app(serving: Serving) -> ASGIApp:
    """The application of one worker process."""
    metrics, stores = Metrics(), CurrentStore(serving.open_store)
    endpoints = Endpoints(stores, serving.authenticator, serving.limits, metrics, serving.is_draining)
    document = msgspec.json.encode(openapi(version("featurestore")))

    async def describe(_: Request) -> Response:
        return Response(document, media_type=JSON)

    starlette = Starlette(
        routes=[
            Route(ONLINE, describe, methods=["POST"]),  # reads never come here; other methods are refused
            Route(PUSH, endpoints.push, methods=["POST"]),
            Route("/health", endpoints.health),
            Route("/ready", endpoints.ready),
            Route("/metrics", endpoints.metrics),
            Route("/openapi.json", describe),
        ],
        exception_handlers={Refusal: _refused, FeatureStoreError: _failed, HTTPException: _unrouted},
        lifespan=lambda _: _life(serving, stores, endpoints, metrics),
    )
    return Gate(starlette, endpoints.get_online_features, metrics, serving.limits)


async def _sample(metrics: Metrics) -> None:
    """Keep what other workers' scrapes see of this one fresh."""
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        metrics.sample()


class _Counted:
    """Passes an answer on, and counts it first: whoever has an answer finds it counted."""

    __slots__ = ("_count", "_send", "is_answered")

    def __init__(self, send: Send, count: Callable[[int], None]) -> None:
        self._send, self._count, self.is_answered = send, count, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_answered = True
            self._count(message["status"])
        await self._send(message)


@asynccontextmanager
async def _life(serving: Serving, stores: CurrentStore, endpoints: Endpoints, metrics: Metrics) -> AsyncIterator[None]:
    """Read the registry, follow it, and end what was begun. A registry that cannot be read yet is looked at again."""
    endpoints.open()
    with suppress(FeatureStoreError):
        await asyncio.to_thread(stores.refresh)
    await asyncio.to_thread(serving.authenticator.start)
    # Opens what the first request would wait for.
    if trouble := await asyncio.to_thread(unready, stores, serving.authenticator, serving.is_draining):
        log.warning("Not ready yet: %s", trouble)
    tasks = [
        asyncio.create_task(stores.follow(serving.registry_seconds, endpoints.forget_prepared)),
        asyncio.create_task(_sample(metrics)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        endpoints.close()
        serving.authenticator.close()
        stores.close()


class Gate:
    """Counts requests, and turns away those that are too many. Probes and scrapes always pass.

    Reads go straight to their endpoint: the frames around it would cost as much again. All else goes through Starlette.
    """

    def __init__(self, app: ASGIApp, online: ASGIApp, metrics: Metrics, limits: Limits) -> None:
        self._app, self._online, self._metrics, self._limits = app, online, metrics, limits
        self._inside = 0
        metrics.in_flight = lambda: self._inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        count = partial(self._metrics.count_request, path if path in COUNTED else OTHER_PATH)
        counted = _Counted(send, count)
        try:
            await (self._let_in if path in LIMITED else self._app)(scope, receive, counted)
        finally:
            if not counted.is_answered:
                count(500)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inside >= self._limits.in_flight:
            await _answer(self._too_many())(scope, receive, send)
            return
        self._inside += 1
        try:
            is_read = scope["path"] == ONLINE and scope["method"] == "POST"
            await (self._online if is_read else self._app)(scope, receive, send)
        except Refusal as refusal:
            await _answer(refusal)(scope, receive, send)
        except FeatureStoreError as error:
            await _answer(refusal_of(error))(scope, receive, send)
        finally:
            self._inside -= 1

    def _too_many(self) -> Refusal:
        return Refusal(
            429,
            "TooManyRequests",
            f"This worker answers {self._limits.in_flight} requests at a time, and has them. Come again after a second.",
        )


def _answer(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, headers=dict(refusal.headers), media_type=JSON)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, FeatureStoreError)
    return _answer(refusal_of(error))


async def _unrouted(request: Request, error: Exception) -> Response:
    """Paths and methods that are not there, in the same body as every refusal."""
    assert isinstance(error, HTTPException)
    refusal = Refusal(
        error.status_code, "NotFound" if error.status_code == 404 else "NotAllowedHere", _unrouted_text(request)
    )
    answer = _answer(refusal)
    answer.headers.update(error.headers or {})
    return answer


def _unrouted_text(request: Request) -> str:
    return f"{request.method} {request.url.path} is not served. GET /openapi.json lists what is."
