"""`FeatureClient` and `AsyncFeatureClient`: the two differ in how they wait, and in nothing else."""

import asyncio
import time
from typing import Any, Literal, Self

import httpx

from featurestore.client.answer import Pushed, read_answer, read_pushed
from featurestore.client.attempts import Attempts
from featurestore.client.server import Call, Reply, Server, request_of, require_time
from featurestore.frames import Rows, as_polars
from featurestore.freshness.read_state import Mode
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.references import Request

Destination = Literal["online_and_offline", "online", "offline"]


class FeatureClient(Server):
    """The online half of `FeatureStore` over HTTP. Threads may share one; it keeps its connections until it is closed.

    `Server` says what it takes.
    """

    _http: httpx.Client

    def _open(self, options: dict[str, Any]) -> None:
        self._http = httpx.Client(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get_online_features(
        self,
        features: Request,
        entity_rows: Rows,
        *,
        full_feature_names: bool = False,
        timeout_seconds: float | None = None,
        freshness: Mode = "degrade",
    ) -> OnlineFeatures:
        """The newest values, for each entity row: exactly what `FeatureStore.get_online_features` gives.

        Args:
            features: References 'group:feature', or a feature service or its name.
            entity_rows: Entity keys of every group asked; list of dicts, dict of lists, Polars, Arrow or pandas.
            full_feature_names: Name columns 'group__feature'.
            timeout_seconds: How long this read may take, with every attempt; by default as the client was made.
            freshness: As of `FeatureStore.get_online_features`.

        Raises:
            UnknownName: a group, feature or service is not registered.
            NotFresh: `freshness` is "strict", and a group is in breach, or nobody knows that it is not.
            InvalidInput: a group is not served online, a key column is missing, a column has a feature's name, or the server
                does not take that many rows at once.
            SchemaMismatch: a key has another dtype than its entity.
            NotAllowed: the key is not good, or does not allow it.
            StoreUnavailable: the server does not answer in time, or has too much to do.
        """
        rows = as_polars(entity_rows, "entity_rows")
        call = self.read_call(features, rows, full_feature_names, timeout_seconds, freshness)
        return read_answer(self._send(call), rows)

    def push(
        self, group: str, rows: Rows, to: Destination = "online_and_offline", *, idempotency_key: str | None = None
    ) -> Pushed:
        """Push rows to a group; `FeatureStore.push` has the rules.

        Args:
            idempotency_key: Names this push, so that a repeat adds no rows. Without one it is named anew: then only this
                call's own attempts are known to be the same. 1 to 200 letters, digits and characters of '_.:-'.

        Raises:
            UnknownName, SchemaMismatch, InvalidInput: as `FeatureStore.push`.
            NotAllowed: the key is not good, or does not allow it.
            StoreUnavailable: the server does not answer in time; the push may have been taken all the same.
        """
        return read_pushed(self._send(self.push_call(group, rows, to, idempotency_key)))

    def _send(self, call: Call) -> bytes:
        attempts = Attempts(call.seconds, time.monotonic)
        while True:
            reply = self._attempt(call, attempts)
            if isinstance(reply, Reply) and reply.status == httpx.codes.OK:
                return reply.body
            time.sleep(self.pause(reply, attempts))

    def _attempt(self, call: Call, attempts: Attempts) -> Reply | httpx.TransportError:
        try:
            with self._http.stream(**request_of(call, attempts.left)) as response:
                chunks = []
                for chunk in response.iter_raw():
                    chunks.append(chunk)
                    require_time(attempts)
                return Reply(response.status_code, response.headers, b"".join(chunks))
        except httpx.TransportError as error:
            return error


class AsyncFeatureClient(Server):
    """`FeatureClient` for asyncio: the same arguments, and methods to await."""

    _http: httpx.AsyncClient

    def _open(self, options: dict[str, Any]) -> None:
        self._http = httpx.AsyncClient(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get_online_features(
        self,
        features: Request,
        entity_rows: Rows,
        *,
        full_feature_names: bool = False,
        timeout_seconds: float | None = None,
        freshness: Mode = "degrade",
    ) -> OnlineFeatures:
        """As `FeatureClient.get_online_features`."""
        rows = as_polars(entity_rows, "entity_rows")
        call = self.read_call(features, rows, full_feature_names, timeout_seconds, freshness)
        return read_answer(await self._send(call), rows)

    async def push(
        self, group: str, rows: Rows, to: Destination = "online_and_offline", *, idempotency_key: str | None = None
    ) -> Pushed:
        """As `FeatureClient.push`."""
        return read_pushed(await self._send(self.push_call(group, rows, to, idempotency_key)))

    async def _send(self, call: Call) -> bytes:
        attempts = Attempts(call.seconds, time.monotonic)
        while True:
            reply = await self._attempt(call, attempts)
            if isinstance(reply, Reply) and reply.status == httpx.codes.OK:
                return reply.body
            await asyncio.sleep(self.pause(reply, attempts))

    async def _attempt(self, call: Call, attempts: Attempts) -> Reply | httpx.TransportError:
        try:
            async with self._http.stream(**request_of(call, attempts.left)) as response:
                chunks = []
                async for chunk in response.aiter_raw():
                    chunks.append(chunk)
                    require_time(attempts)
                return Reply(response.status_code, response.headers, b"".join(chunks))
        except httpx.TransportError as error:
            return error
