"""What each path does: from a request to the bytes of its answer. Refusals are raised; `gate.py` and `app.py` make answers of them."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from featurestore.auth.authenticator import Authenticates
from featurestore.auth.caller import Caller
from featurestore.errors import NotFresh, UnknownName
from featurestore.push import Destination, PushResult
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot
from featurestore.serving.asked import ONLINE_REQUEST, PUSH_REQUEST, WRITE_REQUEST, OnlineRequest, parse
from featurestore.serving.body import read_body
from featurestore.serving.coalescing import Coalescer
from featurestore.serving.limits import Headers, check_values, freshness_of, idempotency_key_of, timeout_of
from featurestore.serving.metrics import CONTENT_TYPE, Metrics
from featurestore.serving.negotiation import MEDIA_TYPES, format_of, require_json
from featurestore.serving.options import Limits
from featurestore.serving.prepared import PreparedRead, check, prepare, take_entities
from featurestore.serving.pushing import passed_over, passed_over_text, pushed_rows
from featurestore.serving.readiness import Readiness
from featurestore.serving.reading import Answered, Ask, Reader
from featurestore.serving.registry_watch import CurrentStore
from featurestore.serving.wire import JSON, STATE_HEADER

MOST_PREPARED = 1024
PUSHES_AT_ONCE = 4
PreparedKey = tuple[str | tuple[str, ...], bool, bool]
_STATE_HEADER = STATE_HEADER.lower().encode()


class Endpoints:
    """The server's paths, over a store that may change under them.

    Args:
        stores: The store as the newest registry has it.
        authenticator: Says who calls.
        limits: What a request may cost.
        metrics: Counts.
        readiness: Says whether requests can be answered.
    """

    def __init__(
        self,
        stores: CurrentStore,
        authenticator: Authenticates,
        limits: Limits,
        metrics: Metrics,
        readiness: Readiness,
    ) -> None:
        self._stores, self._authenticator = stores, authenticator
        self._limits, self._metrics, self._readiness = limits, metrics, readiness
        self._reader = Reader(metrics)
        self._coalescer: Coalescer[Ask, Answered | NotFresh] | None = None
        self._push_threads = ThreadPoolExecutor(PUSHES_AT_ONCE, thread_name_prefix="push")
        self._prepared: dict[PreparedKey, PreparedRead] = {}

    def open(self) -> None:
        """Start the worker threads; in the loop that will serve."""
        self._coalescer = Coalescer(self._reader)

    def close(self) -> None:
        """Let the worker threads end."""
        if self._coalescer is not None:
            self._coalescer.close()
        self._push_threads.shutdown(wait=True)

    def forget_prepared(self) -> None:
        """Make every request ready anew: there is another registry."""
        self._prepared.clear()

    async def get_online_features(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `POST /get-online-features`; plain ASGI, since every microsecond of it counts."""
        started = monotonic()
        headers: Headers = dict(scope["headers"])
        caller = self._caller(scope, headers)
        body_format = format_of(headers.get(b"accept"))
        require_json(headers.get(b"content-type"), headers.get(b"content-encoding"))
        timeout = timeout_of(headers, self._limits)
        asked = parse(await read_body(receive, headers, self._limits, timeout), ONLINE_REQUEST)
        freshness = asked.freshness or freshness_of(headers)
        prepared = await self._prepare(asked, timeout, caller, serves_old=freshness == "stale_ok")
        prepared.require(caller)
        entities = take_entities(asked.entities or {name: [] for name in prepared.keys}, prepared.key_kinds)
        check_values(entities.count, len(prepared.columns), self._limits)
        ask = Ask(
            prepared,
            started + timeout,
            entities,
            body_format,
            asked.include_feature_view_version_metadata,
            asked.include_serving_metadata,
            freshness,
        )
        answer = await self._answer(ask)
        await send(_start(MEDIA_TYPES[body_format], answer))
        await send({"type": "http.response.body", "body": answer.body})
        self._metrics.observe_latency(prepared.service, monotonic() - started)

    async def _answer(self, ask: Ask) -> Answered:
        assert self._coalescer is not None, "open() comes first"
        deadline = asyncio.get_running_loop().time() + ask.deadline - monotonic()
        size = ask.entities.count
        answer = await self._coalescer.ask(ask.prepared, ask, size=size, deadline=deadline)
        if isinstance(answer, NotFresh):
            raise answer
        return self._reader.without_values(ask) if answer is None else answer

    async def _prepare(self, asked: OnlineRequest, seconds: float, caller: Caller, *, serves_old: bool) -> PreparedRead:
        """The request made ready: once for all that ask the same of one registry."""
        request = asked.feature_service or tuple(asked.features or ())
        key = (request, asked.full_feature_names, serves_old)
        prepared = self._prepared.get(key)
        if prepared is not None:
            return prepared
        store = self._stores.get()
        prepared = prepare(store, request, caller, full_feature_names=asked.full_feature_names, serves_old=serves_old)
        with suppress(TimeoutError):  # then the read will not be in time either, and its values INVALID
            await asyncio.wait_for(asyncio.to_thread(check, prepared), seconds)
            self._keep(key, prepared)
        return prepared

    def _keep(self, key: PreparedKey, prepared: PreparedRead) -> None:
        if prepared.store is self._stores.get():
            if len(self._prepared) >= MOST_PREPARED:
                self._prepared.clear()
            self._prepared[key] = prepared

    async def push(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `POST /push`. Once its body is there it is not given up at a deadline: whether it was made must be known."""
        headers: Headers = dict(scope["headers"])
        caller = self._caller(scope, headers)
        require_json(headers.get(b"content-type"), headers.get(b"content-encoding"))
        asked = parse(await self._long_body(receive, headers), PUSH_REQUEST)
        key = idempotency_key_of(headers)
        answer = await self._push(asked.push_source_name, asked.df, asked.to, caller, key)
        await answer(scope, receive, send)

    async def write_to_online_store(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `POST /write-to-online-store`: a push to online alone, as Feast's remote online store sends it."""
        headers: Headers = dict(scope["headers"])
        caller = self._caller(scope, headers)
        require_json(headers.get(b"content-type"), headers.get(b"content-encoding"))
        asked = parse(await self._long_body(receive, headers), WRITE_REQUEST)
        answer = await self._push(asked.feature_view_name, asked.df, "online", caller, None, has_feast_times=True)
        await answer(scope, receive, send)

    async def _long_body(self, receive: Receive, headers: Headers) -> bytes:
        timeout = timeout_of(headers, self._limits, self._limits.longest_timeout_seconds)
        return await read_body(receive, headers, self._limits, timeout)

    async def _push(
        self,
        name: str,
        df: Mapping[str, Sequence[Any]],
        to: Destination,
        caller: Caller,
        key: str | None,
        *,
        has_feast_times: bool = False,
    ) -> Response:
        store = self._stores.get()
        group = _group_of(store.registry, name, caller)
        caller.require("push", groups=[group.name])
        check_values(max(map(len, df.values()), default=0), len(df), self._limits)
        pushed = await asyncio.get_running_loop().run_in_executor(
            self._push_threads,
            lambda: store.push(
                group.name, pushed_rows(group, df, has_feast_times=has_feast_times), to, idempotency_key=key
            ),
        )
        self._metrics.count_pushed(group.name, pushed.rows)
        return Response(_pushed_body(pushed, passed_over(group, df)), media_type=JSON)

    async def health(self, _: Request) -> Response:
        """Answer `GET /health`: whether the process lives and knows a registry."""
        self._stores.get()
        return _probe("")

    async def ready(self, _: Request) -> Response:
        """Answer `GET /ready`: whether requests can be answered."""
        return _probe(await self._readiness.trouble())

    async def metrics(self, request: Request) -> Response:
        """Answer `GET /metrics`; with auth on, to callers with any key."""
        self._caller(request.scope, dict(request.scope["headers"]))
        return Response(await asyncio.to_thread(self._metrics.text), media_type=CONTENT_TYPE)

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        authorization = headers.get(b"authorization")
        said = None if authorization is None else authorization.decode("latin-1")
        host = scope["client"][0] if scope.get("client") else "someone"
        asked = f"{host} asked for {scope['path']}"
        return self._authenticator.authenticate(said, now=self._stores.get().clock(), asked=asked)


def _group_of(registry: RegistrySnapshot, name: str, caller: Caller) -> RegisteredGroup:
    """A group by its name; where there is none, the refusal has the names alone that the caller may push to."""
    try:
        return registry.group(name)
    except UnknownName:
        return caller.seen_of(registry, "push").group(name)


def _pushed_body(pushed: PushResult, left_out: Sequence[str]) -> bytes:
    names = ("group", "rows", "table_version", "was_repeated", "is_online", "waiting")
    note = " ".join(text for text in (pushed.told, passed_over_text(left_out)) if text)
    return msgspec.json.encode({**{name: getattr(pushed, name) for name in names}, "note": note})


def _start(media_type: str, answer: Answered) -> dict[str, object]:
    length = b"%d" % len(answer.body)
    headers = [(b"content-type", media_type.encode()), (b"content-length", length), (_STATE_HEADER, answer.state)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _probe(trouble: str) -> Response:
    body = {"status": "unavailable", "message": trouble} if trouble else {"status": "ok"}
    return Response(msgspec.json.encode(body), 503 if trouble else 200, media_type=JSON)
