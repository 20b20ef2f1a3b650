"""The board's application: paths, and what each answers with from what the last look found. `create_app` is the only wiring.

Not here: processes and sockets (`run.py`). Nothing is written, and nobody is asked who they are.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from featurestore.board.metrics import CONTENT_TYPE, board_metrics, process_registry
from featurestore.board.page import Filter, group_page, missing_page, overview_page
from featurestore.board.watching import BoardWatch
from featurestore.cli.tables import json_text

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
JSON = "application/json"


def create_app(watch: BoardWatch) -> Starlette:
    """The application; the watch looks from its start to its end."""
    paths = Paths(watch)
    routes = {
        "/": paths.overview,
        "/group/{name:path}": paths.group,
        "/freshness.json": paths.freshness,
        "/metrics": paths.metrics,
        "/health": paths.health,
        "/ready": paths.ready,
    }

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        watch.start()
        try:
            yield
        finally:
            watch.close()

    return Starlette(routes=[Route(path, answer) for path, answer in routes.items()], lifespan=life)


class Paths:
    """What each path answers. None of it waits for a store."""

    def __init__(self, watch: BoardWatch) -> None:
        self._watch = watch
        self._process = process_registry()

    def overview(self, request: Request) -> Response:
        """Every group."""
        return HTMLResponse(overview_page(self._watch, Filter.of(request.query_params)), headers=HEADERS)

    def group(self, request: Request) -> Response:
        """One group."""
        name = request.path_params["name"]
        if (found := group_page(self._watch, name)) is None:
            return HTMLResponse(missing_page(self._watch, name), 404, headers=HEADERS)
        return HTMLResponse(found, headers=HEADERS)

    def freshness(self, _: Request) -> Response:
        """The documents of `featurestore freshness --json`, and how old they are."""
        standing = self._watch.standing
        look = standing.look
        document: dict[str, Any] = {
            "looked_at": look.at if look else None,
            "is_current": self._watch.is_current(),
            "trouble": standing.trouble,
            "recorded_at": look.recorded_at if look else None,
            "groups": look.documents if look else [],
        }
        return Response(json_text(document), media_type=JSON, headers=HEADERS)

    async def metrics(self, _: Request) -> Response:
        """What Prometheus scrapes. Figures of groups that are too old to be the present are left out."""
        standing, watch = self._watch.standing, self._watch
        own = board_metrics(standing, watch.look_seconds, self._process)
        groups = standing.look.metrics if standing.look and watch.is_current() else b""
        return Response(groups + own, headers={"Content-Type": CONTENT_TYPE})

    async def health(self, _: Request) -> Response:
        """That the process answers."""
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Whether there is a look that is the present; why not, if there is none."""
        if self._watch.is_current():
            return JSONResponse({"ready": True})
        why = self._watch.standing.trouble or "No look has ended lately."
        return JSONResponse({"ready": False, "why": why}, 503)
