"""The client's parts without a feature server: when a request is sent again, and what answers and refusals become.

What is sent again is tested over real connections, to a server that follows a script.
"""

import asyncio
import io
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest

from featurestore import errors
from featurestore.client import AsyncFeatureClient, FeatureClient
from featurestore.client.answer import read_answer, read_pushed
from featurestore.client.attempts import LONGEST_PAUSE_SECONDS, Attempts
from featurestore.client.question import push_body, read_body
from featurestore.client.refusal import refused
from featurestore.client.server import Reply
from featurestore.errors import (
    FeatureStoreError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFresh,
    SchemaMismatch,
    StoreUnavailable,
    UnknownName,
)
from featurestore.freshness.read_state import Freshness, GroupState
from featurestore.store import FeatureStore

ROWS = pl.DataFrame({"plane": ["N1", None, "N3"]})
SEEN = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "5e" * 32
KEY = f"fs_{'0' * 12}_{SECRET}"


FRESHNESS = Freshness(
    SEEN, (GroupState("plane_state", "BREACH", timedelta(hours=2), timedelta(hours=1), SEEN, "late"),)
)


def body_of(
    names: tuple[str, ...] = ("delay",),
    rows: pl.DataFrame = ROWS,
    freshness: bytes = json.dumps(FRESHNESS.document()).encode(),
    **other: Any,
) -> bytes:
    """An answer as the server writes it."""
    columns: dict[str, Any] = rows.to_dict()
    for name in names:
        columns |= {
            name: pl.Series([1, None, None], dtype=pl.Int64),
            f"{name}__status": ["PRESENT", "NOT_FOUND", "INVALID"],
            f"{name}__event_time": pl.Series([SEEN, None, None], dtype=pl.Datetime("us", "UTC")),
            f"{name}__age_seconds": [1.5, None, None],
            f"{name}__tier": pl.Series(["warm", None, None], dtype=pl.String),
        }
    table = pl.DataFrame({**columns, **other}).to_arrow(compat_level=pl.CompatLevel.oldest())
    return stream_of(table.replace_schema_metadata({"freshness": freshness} if freshness else None))


def stream_of(table: pa.Table) -> bytes:
    written = io.BytesIO()
    with pa.ipc.new_stream(written, table.schema) as stream:
        stream.write_table(table)
    return written.getvalue()


# --- answers


def test_an_answer_has_the_rows_asked_and_what_is_told_of_each_value() -> None:
    rows = ROWS.with_columns(pl.lit([1, 2]).alias("mood"))
    answer = read_answer(body_of(("delay", "taxi_out")), rows)
    assert answer.frame.columns == ["plane", "mood", "delay", "taxi_out"]
    assert answer.statuses["delay"].to_list() == ["PRESENT", "NOT_FOUND", "UNAVAILABLE"]
    assert answer.event_times["taxi_out"].to_list() == [SEEN, None, None]
    assert answer.tiers["delay"].to_list() == ["warm", None, None]
    assert (answer.freshness, answer.is_degraded) == (FRESHNESS, True)


@pytest.mark.parametrize(
    ("body", "rows", "error"),
    [
        (b"", ROWS, StoreUnavailable),
        (b'{"metadata": {}}', ROWS, StoreUnavailable),
        (body_of()[:-100], ROWS, StoreUnavailable),
        (body_of(freshness=b""), ROWS, StoreUnavailable),
        (body_of(freshness=b"{}"), ROWS, StoreUnavailable),
        (body_of(freshness=b'{"at": "soon", "groups": []}'), ROWS, StoreUnavailable),
        (body_of(()), ROWS, StoreUnavailable),
        (body_of(extra=[1, 2, 3]), ROWS, StoreUnavailable),
        (body_of(), ROWS.head(2), StoreUnavailable),
        (body_of(), ROWS.with_columns(delay=1), InvalidInput),
        (body_of(rows=pl.DataFrame({"plane": [1, 2, 3]})), ROWS, SchemaMismatch),
    ],
    ids=[
        "empty",
        "JSON",
        "cut off",
        "no freshness",
        "half a freshness",
        "no time",
        "no features",
        "other columns",
        "other rows",
        "a taken name",
        "another key",
    ],
)
def test_an_answer_to_something_else_is_never_taken_for_one(
    body: bytes, rows: pl.DataFrame, error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_answer(body, rows)


def test_a_refusal_for_freshness_has_its_groups_and_is_not_tried_again() -> None:
    groups = [{"group": "plane_state", "state": "BREACH"}]
    body = json.dumps({"error": "NotFresh", "message": "late", "groups": groups}).encode()
    error = refused(503, body, "http://x")
    assert isinstance(error, NotFresh)
    assert (str(error), list(error.groups)) == ("late", groups)
    client = FeatureClient("http://127.0.0.1:1", timeout_seconds=30)
    with pytest.raises(NotFresh):
        client.pause(Reply(503, httpx.Headers(), body), Attempts(30, lambda: 0.0))
    client.close()


def test_every_cut_of_an_answer_is_refused_or_lacks_nothing() -> None:
    whole = body_of()
    expected, refusals = read_answer(whole, ROWS), 0
    for length in range(len(whole)):
        try:
            found = read_answer(whole[:length], ROWS)
        except StoreUnavailable:
            refusals += 1
        else:
            assert found.to_dict() == expected.to_dict()
            assert found.feature_columns() == expected.feature_columns()
    assert refusals > 0.9 * len(whole)


def test_an_answer_to_a_push_has_every_field_or_is_refused() -> None:
    said = {
        "group": "g",
        "rows": 1,
        "table_version": None,
        "was_repeated": False,
        "is_online": True,
        "waiting": 0,
        "note": "",
    }
    assert read_pushed(json.dumps({**said, "more": 1}).encode()).is_online
    for wrong in (b"", b"[]", b"null", json.dumps({k: v for k, v in said.items() if k != "note"}).encode()):
        with pytest.raises(StoreUnavailable):
            read_pushed(wrong)


# --- questions


def test_values_that_json_has_no_form_for_are_sent_as_text() -> None:
    rows = pl.DataFrame(
        {"id": [2**62], "at": [SEEN], "day": [SEEN.date()], "x": [float("-inf")], "y": [float("nan")], "v": [[1.5]]}
    )
    assert json.loads(push_body("g", rows, "online"))["df"] == {
        "id": [2**62],
        "at": ["2026-03-01T00:00:00+00:00"],
        "day": ["2026-03-01"],
        "x": ["-Infinity"],
        "y": ["NaN"],
        "v": [[1.5]],
    }
    asked = json.loads(read_body(["g:f"], rows, full_feature_names=True))
    assert asked["entities"] == {
        "id": [2**62],
        "at": [None],
        "day": ["2026-03-01"],
        "x": [None],
        "y": [None],
        "v": [None],
    }
    for wrong in ([float("nan")], [b"bytes"]):
        with pytest.raises(InvalidInput, match="cannot be sent"):
            push_body("g", pl.DataFrame({"v": [wrong]}), "online")


# --- refusals


def test_a_refusal_is_the_error_that_it_names_and_else_the_one_of_its_status() -> None:
    body = json.dumps({"error": "SchemaMismatch", "message": "Key 'a' is text."}).encode()
    assert (type(refused(422, body, "u")), str(refused(422, body, "u"))) == (SchemaMismatch, "Key 'a' is text.")
    by_status = {
        301: InvalidInput,
        400: InvalidInput,
        401: NotAuthenticated,
        403: NotAllowed,
        404: UnknownName,
        413: InvalidInput,
        422: InvalidInput,
        429: StoreUnavailable,
        500: StoreUnavailable,
        502: StoreUnavailable,
        503: StoreUnavailable,
    }
    for said in (
        b"",
        b"<html>",
        b"[1]",
        b'{"error": "difflib"}',
        b'{"error": "unknown_name"}',
        b'{"error": 7, "message": {}}',
    ):
        assert {status: type(refused(status, said, "u")) for status in by_status} == by_status
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, FeatureStoreError):
            assert type(refused(409, json.dumps({"error": name}).encode(), "u")) is kind


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("features.example.com", None),
        ("ftp://host", None),
        ("http://", None),
        (f"http://user:{SECRET}@host", None),
        (f"http://host:{SECRET}", None),
        *((f"http://user:12{mark}{SECRET}@host", None) for mark in "/?#"),
        ("http://host", f"{KEY}\n"),
        ("http://host", f"{KEY} "),
        ("http://host", f"{KEY}\r\nX: 1"),
        ("http://host", f"ключ{SECRET}"),
        ("http://host", ""),
    ],
)
def test_an_address_or_key_that_cannot_be_is_refused_at_once_and_not_repeated(url: str, key: str | None) -> None:
    for client in (FeatureClient, AsyncFeatureClient):
        with pytest.raises(InvalidInput) as refusal:
            client(url, key)
        assert SECRET not in "".join(traceback.format_exception(refusal.value))


# --- attempts


def test_pauses_grow_and_end_with_the_time() -> None:
    pauses: list[float] = []
    attempts = Attempts(10.0, lambda: sum(pauses))

    def go_on() -> None:
        while True:
            pauses.append(attempts.pause(StoreUnavailable("down"), is_retried=True))

    with pytest.raises(StoreUnavailable, match="down"):
        go_on()
    assert 10.0 - LONGEST_PAUSE_SECONDS <= sum(pauses) <= 10.0
    assert pauses[0] <= 0.02
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert len(pauses) > 10


def test_what_is_not_retried_and_what_the_server_wants_too_late_is_raised_at_once() -> None:
    attempts = Attempts(1.0, lambda: 0.0)
    for options in ({"is_retried": False}, {"is_retried": True, "at_least": 1.0}):
        with pytest.raises(StoreUnavailable):
            attempts.pause(StoreUnavailable("x"), **options)
    assert attempts.pause(StoreUnavailable("x"), is_retried=True, at_least=0.5) == 0.5


# --- over connections


class Script:
    """A server that gives each request the next reply of a script, and keeps what it was asked."""

    def __init__(self, *replies: Callable[[socket.socket], None]) -> None:
        self.requests: list[bytes] = []
        self._replies = list(replies)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        for reply in self._replies:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                request = _whole_request(connection)
                if request:
                    self.requests.append(request)
                    reply(connection)

    @contextmanager
    def running(self) -> Iterator["Script"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join()


def _whole_request(connection: socket.socket) -> bytes:
    """A request; nothing of a client that left before it had sent all of it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        if not (more := connection.recv(65536)):
            return b""
        body += more
    return head + b"\r\n\r\n" + body


def reply(status: int, body: bytes = b"", **headers: str) -> Callable[[socket.socket], None]:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def hang_up(connection: socket.socket) -> None:
    """Close without an answer."""


def keep_silent(connection: socket.socket) -> None:
    """Say nothing until the client leaves."""
    with suppress(OSError):
        connection.recv(1)


def drip(connection: socket.socket) -> None:
    """An answer that comes byte by byte, each in time, and never ends."""
    connection.sendall(b"HTTP/1.1 200 x\r\nContent-Length: 100000\r\n\r\n")
    try:
        for _ in range(1000):
            connection.sendall(b"x")
            time.sleep(0.02)
    except OSError:
        return


def ask(script: Script, how: str, seconds: float = 30.0, **options: Any) -> Any:
    return ask_at(script.url, how, seconds, **options)


def ask_at(url: str, how: str, seconds: float, **options: Any) -> Any:
    if how == "sync":
        with FeatureClient(url, KEY, timeout_seconds=seconds) as client:
            return client.get_online_features(["g:delay"], ROWS, **options)

    async def once() -> Any:
        async with AsyncFeatureClient(url, KEY, timeout_seconds=seconds) as client:
            return await client.get_online_features(["g:delay"], ROWS, **options)

    return asyncio.run(once())


both = pytest.mark.parametrize("how", ["sync", "async"])


def server_ms(request: bytes) -> int:
    return int(request.lower().split(b"x-request-timeout-ms: ")[1].split(b"\r\n")[0])


@both
def test_a_read_may_have_a_time_of_its_own(how: str) -> None:
    script = Script(reply(200, body_of()))
    with script.running():
        ask(script, how, seconds=60.0, timeout_seconds=10.0)
    assert server_ms(script.requests[0]) <= 10_000


def test_reads_take_what_the_stores_own_take() -> None:
    wanted = list(signature(FeatureStore.get_online_features).parameters)
    for one in (FeatureClient.get_online_features, AsyncFeatureClient.get_online_features):
        assert list(signature(one).parameters) == wanted
    assert list(signature(FeatureStore.get_online_features_async).parameters) == wanted


@both
def test_a_lost_connection_and_a_busy_server_are_tried_again(how: str) -> None:
    script = Script(hang_up, reply(503), reply(429, Retry_After="0"), hang_up, reply(200, body_of()))
    with script.running():
        assert ask(script, how).frame["delay"].to_list() == [1, None, None]
    assert len(script.requests) == 5
    assert len({request.partition(b"\r\n\r\n")[2] for request in script.requests}) == 1
    limits = list(map(server_ms, script.requests))
    assert limits == sorted(limits, reverse=True)
    assert 0 < limits[-1] <= limits[0] <= 30_000


@both
@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422, 500, 502])
def test_what_would_fail_again_is_sent_once_and_a_redirection_is_not_followed(how: str, status: int) -> None:
    script = Script(reply(status, b"{}", Location="http://127.0.0.1:1/"), reply(200, body_of()))
    with script.running(), pytest.raises(FeatureStoreError) as refusal:
        ask(script, how)
    assert (len(script.requests), str(status) in str(refusal.value)) == (1, True)
    assert SECRET not in str(refusal.value)


@both
def test_a_server_that_wants_more_time_than_there_is_is_not_waited_for(how: str) -> None:
    script = Script(reply(429, b'{"message": "Come again."}', Retry_After="60"), reply(200, body_of()))
    began = time.monotonic()
    with script.running(), pytest.raises(StoreUnavailable, match="Come again"):
        ask(script, how)
    assert time.monotonic() - began < 20, "and not the 30 s that it has"
    assert len(script.requests) == 1


@both
@pytest.mark.parametrize("never", [drip, keep_silent], ids=["byte by byte", "nothing"])
def test_an_answer_that_does_not_end_is_given_up_when_its_time_is(how: str, never: Any) -> None:
    script = Script(never)
    began = time.monotonic()
    with script.running(), pytest.raises(StoreUnavailable, match="did not answer in time"):
        ask(script, how, 0.3)
    assert time.monotonic() - began < 10, "and not the 20 s that it drips"


@both
def test_a_server_that_is_not_there_is_tried_until_the_time_is_up(how: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        # The last attempt may have no time left to be told so.
        with pytest.raises(StoreUnavailable, match=r"cannot be reached.*Check the URL|did not answer in time"):
            ask_at(url, how, 0.3)
        assert 0.1 < time.monotonic() - began < 10


def test_all_attempts_of_a_push_carry_one_key_and_two_pushes_carry_two() -> None:
    done = json.dumps(
        {
            "group": "g",
            "rows": 1,
            "table_version": 1,
            "was_repeated": False,
            "is_online": True,
            "waiting": 0,
            "note": "",
        }
    )
    script = Script(hang_up, reply(503), reply(200, done.encode()), reply(200, done.encode()))
    with script.running(), FeatureClient(script.url) as client:
        client.push("g", {"a": [1]})
        client.push("g", {"a": [1]})
    keys = [request.lower().split(b"idempotency-key: ")[1].split(b"\r\n")[0] for request in script.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize("name", ["a b", "ключ", "x" * 201, "line\n"])
def test_a_name_of_a_push_that_no_server_takes_is_refused_before_it_is_sent(name: str) -> None:
    with (
        FeatureClient("http://127.0.0.1:9") as client,
        pytest.raises(InvalidInput, match="Give 1 to 200 letters, digits"),
    ):
        client.push("g", {"a": [1]}, idempotency_key=name)


def test_the_client_needs_neither_redis_nor_dagster_nor_a_web_framework() -> None:
    import subprocess
    import sys

    code = (
        "import sys, featurestore.client\n"
        "print([name for name in ('redis', 'hiredis', 'dagster', 'boto3', 'starlette', 'granian', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    alone = (
        "import sys, featurestore, featurestore.store; print([n for n in ('httpx', 'sqlalchemy') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True).stdout == "[]\n"
