"""The hot tier's connections to a real Valkey server: lost, late, restarted, full, hung, and whatever bytes come over them."""

import os
import random
import signal
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import FenceRefused, StoreUnavailable
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.online.tier import Fill
from tests.contract.online_rows import (
    AHEAD,
    GROUP,
    STATE,
    clock,
    decoded,
    key_of,
    messages_of,
    plain,
    write,
)
from tests.scale import cases
from tests.waiting import quickest


@pytest.fixture
def server(valkey_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(valkey_url: str, server: redis.Redis) -> Iterator[RedisOnlineStore]:
    assert server.dbsize() == 0
    made = RedisOnlineStore(redis.Redis.from_url(valkey_url), clock, read_batch_keys=7, write_batch_keys=3)
    yield made
    made.close()


def test_a_restarted_server_is_cold(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        store = RedisOnlineStore(server.url, clock)
        store.set_state(GROUP, STATE, epoch=store.ensure_epoch(), is_rebuild=True)
        assert not store.read(GROUP, [key_of(1)]).unanswered
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        server.stop()
        with EmbeddedValkey(tmp_path, port):
            assert store.read(GROUP, [key_of(1)]).unanswered


def test_what_began_in_one_run_of_the_server_is_refused_in_the_next(tmp_path: Path) -> None:
    """A server that was killed may have lost its last acknowledged writes: a step cannot end as if it had not."""
    with EmbeddedValkey(tmp_path, append_only=True) as server:
        store = RedisOnlineStore(server.url, clock)
        epoch = store.ensure_epoch(GROUP)
        store.set_state(GROUP, STATE, epoch=epoch, is_rebuild=True)
        store.begin_step(GROUP, AHEAD, epoch=epoch)
        store.record_fill(GROUP, Fill(AHEAD, 2, 1, "me"), epoch=epoch, previous=None)
        replies = store.read(GROUP, [key_of(1)])
        port = server.port
        server.stop()
        with EmbeddedValkey(tmp_path, port, append_only=True):
            for late in (
                lambda: store.write(GROUP, [key_of(1)], messages_of([plain(1)]), epoch=epoch, ttl=None),
                lambda: store.set_state(GROUP, AHEAD, epoch=epoch),
                lambda: store.fill(GROUP, [key_of(1)], messages_of([plain(1)]), epoch=epoch, ttl=None, owner="me"),
                lambda: store.record_fill(GROUP, Fill(AHEAD, 2, 2, "me"), epoch=epoch, previous="me"),
            ):
                with pytest.raises(FenceRefused, match="the server was restarted"):
                    late()
            assert store.state(GROUP) == STATE
            assert store.fill_under_way(GROUP) == Fill(AHEAD, 2, 1, "me")
            now = store.ensure_epoch(GROUP)
            store.record_fill(GROUP, Fill(AHEAD, 2, 1, "you"), epoch=now, previous="me")
            store.set_state(GROUP, AHEAD, epoch=now)
            assert store.read(GROUP, [key_of(1)]).state == AHEAD
            assert store.repair(GROUP, replies.marks[0], [key_of(1)], messages_of([plain(1)]), None) == 0
        store.close()


@settings(max_examples=cases(300, 15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.none() | st.integers(0, 40) | st.sampled_from([65_535, 65_536, 300_000]), max_size=40),
    bytes_of=st.binary(min_size=1, max_size=5),
)
def test_misses_empties_and_long_values_come_back_as_they_are(
    store: RedisOnlineStore, server: redis.Redis, lengths: list[int | None], bytes_of: bytes
) -> None:
    """Of any bytes: line ends, and what looks like a reply."""
    server.flushall()
    keys = [key_of(number) for number in range(len(lengths))]
    stored = [None if length is None else (bytes_of * length)[:length] for length in lengths]
    for key, value in zip(keys, stored, strict=True):
        if value is not None:
            server.set(key, value)
    found = store.read_many({GROUP: keys, "other": [*keys[:3], b"other:1"]}, timeout_seconds=5.0)
    assert found[GROUP].messages == stored
    assert found["other"].messages == [*stored[:3], None]
    assert found[GROUP].unanswered == {at for at, value in enumerate(stored) if value is None}


def test_a_read_that_is_late_leaves_nothing_for_the_next_one(valkey_url: str, server: redis.Redis) -> None:
    """Each caller gets its own answer, whatever became of those before, from many threads at once."""
    for number in range(50):
        server.set(key_of(number), b"%d" % number * 1000)
    store = RedisOnlineStore(valkey_url, clock)
    wrong: list[object] = []

    def read(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(cases(500, 60)):
            wanted = order.choices(range(50), k=order.randint(1, 50))
            limit = order.choice([0.0, 0.0005, 0.002, 5.0])
            replies = store.read_many({GROUP: [key_of(n) for n in wanted]}, timeout_seconds=limit)[GROUP]
            expected = [b"%d" % n * 1000 for n in wanted]
            if replies.messages != expected and replies.unanswered != set(range(len(wanted))):
                wrong.append((wanted, replies))

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []
    store.close()


def test_a_server_that_fails_again_and_again_is_left_alone_and_found_again(tmp_path: Path) -> None:
    seconds = [0.0]
    with EmbeddedValkey(tmp_path) as server:
        port = server.port
        store = RedisOnlineStore(server.url, clock, seconds=lambda: seconds[0])
        server.stop()
        causes = [store.read(GROUP, [key_of(1)]).cause for _ in range(7)]
        assert ["left alone" in cause for cause in causes] == [False] * 5 + [True] * 2
        with EmbeddedValkey(tmp_path, port):
            assert "left alone" in store.read(GROUP, [key_of(1)]).cause
            seconds[0] = 1.0
            assert all("holds no copy" in store.read(GROUP, [key_of(1)]).cause for _ in range(2))
        store.close()


def test_a_connection_that_died_is_replaced_within_the_read_and_the_write(
    store: RedisOnlineStore, server: redis.Redis
) -> None:
    write(store, [1])
    assert store.read(GROUP, [key_of(1)]).messages[0] is not None
    for _ in range(3):
        server.client_kill_filter(_type="normal", skipme=True)
        assert store.read(GROUP, [key_of(1)]).messages[0] is not None
        server.client_kill_filter(_type="normal", skipme=True)
        assert store.ensure_epoch(GROUP)


def test_scripts_that_the_server_forgot_are_sent_again(store: RedisOnlineStore, server: redis.Redis) -> None:
    write(store, [1], version=1)
    server.script_flush()
    write(store, [1], version=2)
    assert decoded(store.read(GROUP, [key_of(1)]).messages)["v"].to_list() == [2]


def test_an_unreachable_server_is_named_within_a_second_and_its_password_is_not() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        port = probe.getsockname()[1]
        store = RedisOnlineStore(f"redis://user:hunter2@127.0.0.1:{port}/0", clock)

        def ask() -> None:
            replies = store.read(GROUP, [key_of(1)])
            assert replies.unanswered == {0}
            assert f"127.0.0.1:{port} does not answer" in replies.cause
            with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{port} does not answer") as caught:
                store.ensure_epoch()
            assert "hunter2" not in replies.cause + str(caught.value)

        assert quickest(ask) < 1


class Stranger(socketserver.BaseRequestHandler):
    """Answers whatever it is sent with bytes that are no reply of Redis."""

    said = b""

    def handle(self) -> None:
        while self.request.recv(65_536):
            self.request.sendall(self.said)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46"], ids=["HTTP", "TLS"]
)
def test_what_answers_and_is_no_redis_leaves_keys_unanswered_and_is_told_as_such(said: bytes) -> None:
    handler = type("Handler", (Stranger,), {"said": said})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as stranger:
        threading.Thread(target=stranger.serve_forever, args=(0.01,), daemon=True).start()
        address = f"127.0.0.1:{stranger.server_address[1]}"
        store = RedisOnlineStore(f"redis://{address}/0?socket_timeout=5&socket_connect_timeout=5", clock)
        for _ in range(2):  # the connection is not kept
            replies = store.read(GROUP, [key_of(1)])
            assert replies.unanswered == {0}
            assert f"What answers at {address} does not speak Redis's protocol" in replies.cause
            with pytest.raises(StoreUnavailable, match="rediss://"):
                store.ensure_epoch()
        store.close()
        stranger.shutdown()


def test_a_hung_server_is_given_up_within_a_second(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        store = RedisOnlineStore(server.url.partition("?")[0], clock)
        store.ensure_epoch()
        pid = server.pid
        assert pid is not None

        def read() -> None:
            replies = store.read(GROUP, [key_of(1)])
            assert replies.unanswered == {0}
            assert "does not answer (TimeoutError)" in replies.cause

        os.kill(pid, signal.SIGSTOP)
        try:
            assert quickest(read) < 1
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_full_server_refuses_writes_and_says_so(store: RedisOnlineStore, server: redis.Redis) -> None:
    epoch = store.ensure_epoch()
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="is full"):
            store.write(GROUP, [key_of(1)], messages_of([plain(1)]), epoch=epoch, ttl=None)
    finally:
        server.config_set("maxmemory", 0)
