"""The ASGI application: paths, the gate before them, and what becomes of refusals. `create_app` is the only wiring.

Not here: processes, sockets and TLS (`run.py`), or what a path does (`endpoints.py`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from featurestore.auth.authenticator import Authenticates, OpenAuthenticator
from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.online.stores import OnlineStores
from featurestore.serving.endpoints import Endpoints
from featurestore.serving.gate import Door, Gate, answer_of
from featurestore.serving.metrics import Metrics
from featurestore.serving.openapi import openapi
from featurestore.serving.options import Limits
from featurestore.serving.readiness import Readiness
from featurestore.serving.refusal import Refusal, refusal_of
from featurestore.serving.registry_watch import CurrentStore
from featurestore.serving.wire import JSON
from featurestore.store import FeatureStore

log = logging.getLogger("featurestore.serving")
ONLINE, PUSH, WRITE = "/get-online-features", "/push", "/write-to-online-store"
COUNTED = frozenset((ONLINE, PUSH, WRITE, "/health", "/ready", "/metrics", "/openapi.json"))
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
    readiness = Readiness(stores, serving.authenticator, serving.is_draining)
    endpoints = Endpoints(stores, serving.authenticator, serving.limits, metrics, readiness)
    metrics.online = lambda: _online_of(stores)
    document = msgspec.json.encode(openapi(version("featurestore")))

    async def describe(_: Request) -> Response:
        return Response(document, media_type=JSON)

    starlette = Starlette(
        routes=[
            *[Route(path, _answered_at_the_gate, methods=["POST"]) for path in (ONLINE, PUSH, WRITE)],
            Route("/health", endpoints.health),
            Route("/ready", endpoints.ready),
            Route("/metrics", endpoints.metrics),
            Route("/openapi.json", describe),
        ],
        exception_handlers={
            Refusal: _refused,
            FeatureStoreError: _failed,
            HTTPException: _unrouted,
            Exception: _left_to_the_gate,
        },
        lifespan=lambda _: _life(serving, stores, readiness, endpoints, metrics),
    )
    starlette.router.redirect_slashes = False  # a redirect has no body that says why
    limits = serving.limits
    doors = {
        ONLINE: Door(endpoints.get_online_features, limits.in_flight, f"answers {limits.in_flight} requests"),
        PUSH: Door(endpoints.push, limits.pushes_in_flight, f"takes {limits.pushes_in_flight} pushes"),
        WRITE: Door(
            endpoints.write_to_online_store, limits.pushes_in_flight, f"takes {limits.pushes_in_flight} writes"
        ),
    }
    return Gate(starlette, doors, metrics, limits, COUNTED)


async def _sample(metrics: Metrics) -> None:
    """Keep what other workers' scrapes see of this one fresh."""
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        metrics.sample()


async def _answered_at_the_gate(_: Request) -> Response:
    """Stands in the table of routes so that other methods are told which one is allowed."""
    raise AssertionError("The gate hands POST to its endpoint itself.")


def _online_of(stores: CurrentStore) -> OnlineStores | None:
    with suppress(StoreUnavailable):
        return stores.get().online
    return None


async def _tell_unready(readiness: Readiness) -> None:
    """Say what is missing; nobody waits for it."""
    if trouble := await readiness.trouble():
        log.warning("Not ready yet: %s", trouble)


@asynccontextmanager
async def _life(
    serving: Serving, stores: CurrentStore, readiness: Readiness, endpoints: Endpoints, metrics: Metrics
) -> AsyncIterator[None]:
    """Read the registry, follow it, and end what was begun. A registry that cannot be read yet is looked at again."""
    endpoints.open()
    with suppress(FeatureStoreError):
        await asyncio.to_thread(stores.refresh)
    await asyncio.to_thread(serving.authenticator.start)
    tasks = [
        asyncio.create_task(_tell_unready(readiness)),
        asyncio.create_task(stores.follow(serving.registry_seconds, endpoints.forget_prepared)),
        asyncio.create_task(_sample(metrics)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        readiness.close()
        endpoints.close()
        serving.authenticator.close()
        stores.close()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer_of(error)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, FeatureStoreError)
    return answer_of(refusal_of(error))


async def _left_to_the_gate(_: Request, error: Exception) -> Response:
    """What nobody foresaw is told in one place; Starlette would answer it in a text of its own."""
    raise error


async def _unrouted(request: Request, error: Exception) -> Response:
    """Paths and methods that are not there, in the same body as every refusal."""
    assert isinstance(error, HTTPException)
    refusal = Refusal(
        error.status_code, "NotFound" if error.status_code == 404 else "NotAllowedHere", _unrouted_text(request)
    )
    answer = answer_of(refusal)
    answer.headers.update(error.headers or {})
    return answer


def _unrouted_text(request: Request) -> str:
    return f"{request.method} {request.url.path} is not served. GET /openapi.json lists what is."
