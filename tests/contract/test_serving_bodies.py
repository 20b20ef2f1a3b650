"""Bodies that come late, are too long, or belong to a request that is refused: who holds what, and who gets an answer."""

import asyncio
import http.client
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featurestore.auth.authenticator import authenticator_of
from featurestore.clock import system_clock
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.serving.options import Limits
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.contract.asgi import Answer, call
from tests.contract.couriers import MEMORY, PATIENT, WHOLE, clock, deploy, environment
from tests.contract.serving_process import Server, running
from tests.contract.test_serving_limits import ONLINE, PATIENCE, SPEED, served

BODY_BYTES = 4_000_000
PUSH = "/push"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return deploy(environment(tmp_path_factory.mktemp("couriers"), MEMORY))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    with EmbeddedValkey(folder / "valkey") as valkey:
        variables = environment(folder, valkey.url)
        deploy(variables, system_clock).close()
        with running(variables, "--max-body-bytes", str(BODY_BYTES), "--max-in-flight", "2") as made:
            yield made


@pytest.mark.parametrize("path", [ONLINE, PUSH])
def test_a_body_that_never_comes_is_given_up_and_holds_no_place(store: FeatureStore, path: str) -> None:
    async def main() -> list[Answer]:
        limits = Limits(in_flight=1, pushes_in_flight=1, timeout_seconds=PATIENCE, longest_timeout_seconds=PATIENCE)
        async with served(store, limits=limits) as app:
            soon = {"x-request-timeout-ms": "50"}
            late = await asyncio.wait_for(
                call(app, path, chunks=[b"{"], never_ends=True, headers={**soon, "content-length": "1000"}), PATIENCE
            )
            return [late, await call(app, path, {} if path == PUSH else SPEED)]

    late, after = asyncio.run(main())
    assert (late.status, late.json["error"]) == (408, "BodyTooLate")
    assert "had not come whole after 0.05 s" in late.json["message"]
    assert "X-Request-Timeout-Ms" in late.json["message"]
    assert after.status == (422 if path == PUSH else 200), "and not 429"


def test_a_push_that_says_nothing_has_the_longest_time_for_its_body(store: FeatureStore) -> None:
    async def main() -> Answer:
        async with served(store, limits=Limits(timeout_seconds=0.01, longest_timeout_seconds=0.03)) as app:
            return await asyncio.wait_for(call(app, PUSH, chunks=[b"{"], never_ends=True), PATIENCE)

    assert "after 0.03 s" in asyncio.run(main()).json["message"]


def test_connections_that_send_one_byte_and_no_more_let_others_in_again(server: Server) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(2)]
    head = f"POST {ONLINE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nx-request-timeout-ms: 200\r\n\r\n{{"
    for one in held:
        one.sendall(head.encode())
    try:
        assert [one.recv(4096).split(b" ")[1] for one in held] == [b"408", b"408"]
        body = {"feature_service": "courier_v1", "entities": {"courier": [WHOLE]}}
        assert server.ask(ONLINE, body)[0] == 200
    finally:
        for one in held:
            one.close()


def refused(path: str, **given: Any) -> dict[str, Any]:
    """A request that is refused before its body is looked at."""
    return {"path": path, "chunks": [b" " * 60] * 3, **given}


REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "no key": (401, refused(ONLINE)),
    "no key to push": (401, refused(PUSH)),
    "too long by what it says": (413, refused(ONLINE, headers={"content-length": "180"})),
    "too long by what comes": (413, refused(PUSH)),
    "no JSON": (415, refused(ONLINE, headers={"content-type": "text/csv"})),
    "no time": (400, refused(ONLINE, headers={"x-request-timeout-ms": "soon"})),
    "another method": (405, refused(ONLINE, method="PUT")),
    "nowhere": (404, refused("/nowhere")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_answered_when_the_body_has_come(store: FeatureStore, tmp_path: Path, what: str) -> None:
    status, asked = REFUSED[what]
    on = Settings.from_env({**environment(tmp_path, MEMORY), "FEATURESTORE_AUTH": "on"})
    (tmp_path / "store").mkdir()
    on.key_book(clock).prepare()
    options = {"authenticator": authenticator_of(on, clock)} if status == 401 else {}
    taken: list[bytes] = []
    begun: list[int] = []

    async def main() -> Answer:
        async with served(store, limits=replace(PATIENT, body_bytes=100), **options) as app:
            return await call(app, **asked, on_receive=taken.append, on_answer=lambda: begun.append(len(taken)))

    answer = asyncio.run(main())
    assert (answer.status, begun) == (status, [len(asked["chunks"])])
    assert answer.json["message"]


def test_a_body_far_too_long_is_not_waited_for(store: FeatureStore) -> None:
    async def main() -> Answer:
        async with served(store, limits=replace(PATIENT, body_bytes=100)) as app:
            headers = {"content-length": "401"}
            asked = call(app, ONLINE, chunks=[b" "], never_ends=True, headers=headers)
            return await asyncio.wait_for(asked, PATIENT.timeout_seconds / 2)

    assert asyncio.run(main()).status == 413


def test_a_client_that_sends_all_of_its_body_first_reads_why_it_was_refused(server: Server) -> None:
    for path in (ONLINE, PUSH, "/nowhere"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        connection.request("POST", path, b" " * (3 * BODY_BYTES), {"content-type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (
            (404, "NotFound") if path == "/nowhere" else (413, "BodyTooLong")
        )
        connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, for HTTP/2")
@pytest.mark.parametrize(("kind", "status"), [("text/csv", 415), ("application/json", 413)])
def test_a_refusal_arrives_over_http_2(server: Server, tmp_path: Path, kind: str, status: int) -> None:
    (tmp_path / "body").write_bytes(b" " * (2 * BODY_BYTES))
    command = ["curl", "--silent", "--show-error", "--http2-prior-knowledge", "--write-out", "\n%{http_code}"]
    command += ["--header", f"content-type: {kind}", "--data-binary", f"@{tmp_path / 'body'}", server.url + ONLINE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout.rsplit("\n", 1)[1]) == (0, str(status)), done.stderr
    assert json.loads(done.stdout.rsplit("\n", 1)[0])["message"]


def test_pushes_that_wait_leave_reads_their_places(store: FeatureStore) -> None:
    go = threading.Event()

    class SlowPushes(type(store)):  # type: ignore[misc]
        """Pushes wait until they are let go."""

        def push(self, *given: Any, **more: Any) -> Any:
            assert go.wait(PATIENCE)
            return super().push(*given, **more)

    slow = SlowPushes(store.settings, clock=clock)
    slow.online = store.online
    row = {"courier": [5], "event_timestamp": ["2026-03-01T11:00:00Z"], "score": [1], "speed": [1]}
    body = {"push_source_name": "courier_score", "df": row, "to": "offline"}

    async def main() -> tuple[Answer, Answer, list[Answer]]:
        async with served(slow, limits=replace(PATIENT, in_flight=1, pushes_in_flight=2)) as app:
            pushes = [asyncio.create_task(call(app, PUSH, body)) for _ in range(2)]
            await asyncio.sleep(0)
            beyond, read = await call(app, PUSH, body), await call(app, ONLINE, SPEED)
            go.set()
            return beyond, read, [await one for one in pushes]

    beyond, read, pushed = asyncio.run(main())
    assert (beyond.status, beyond.headers["retry-after"]) == (429, "1")
    assert "takes 2 pushes at a time" in beyond.json["message"]
    assert (read.status, [one.status for one in pushed]) == (200, [200, 200])
