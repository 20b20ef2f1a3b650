"""Online reads and writes against the same bytes moved by the same server without any work on them.

Run it with `python benchmarks/online_read.py`. Every repeat measures all contenders in turn, and only ratios within a repeat
are compared; the spread over repeats is printed, and the client's CPU time, which other load disturbs less.
The limit of a read is a prepacked MGET on a bare socket whose replies are
received and dropped; that of a write is prepacked, pipelined SET EX.
"""

import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import polars as pl
import redis

from featurestore.online.codec import MessageLayout, WireField, decode, encode
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.redis import RedisOnlineStore
from featurestore.online.valkey import HOST, EmbeddedValkey

REPEATS = 7
SECONDS = 0.25
ENTITIES = 20_000
TTL = timedelta(days=7)
NOW = datetime.now(UTC)
SHAPES = ((1, 1), (1, 100), (1, 500), (3, 100))
TIME_NAMES = ("event_time", "knowledge_time", "created_at")
LAYOUT = MessageLayout(tuple(WireField(32 + i, f"dep_delay_mean_{i}d", pl.Float64()) for i in range(20)))
FEW = [field.name for field in LAYOUT.fields[:3]]


def rows_of(group_number: int) -> pl.DataFrame:
    """Latest rows of one group: 20 doubles and an integer key."""
    random = np.random.default_rng(group_number)
    times = {name: pl.repeat(NOW, ENTITIES, dtype=pl.Datetime("us", "UTC"), eager=True) for name in TIME_NAMES}
    values = {field.name: random.normal(size=ENTITIES) for field in LAYOUT.fields}
    return pl.DataFrame({"id": range(ENTITIES), **times, **values}).with_columns(is_deleted=pl.lit(False))


def pack(*parts: bytes) -> bytes:
    """One command as the server reads it."""
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])


def exchange(connection: socket.socket, request: bytes, answer_size: int) -> None:
    """Send, and receive as many bytes as the answer has."""
    connection.sendall(request)
    while answer_size > 0:
        answer_size -= len(connection.recv(1 << 20))


def measure(work: Callable[[], object], units: int) -> tuple[float, float]:
    """Units per second of `work` over about SECONDS, and this process's CPU time per unit in microseconds."""
    work()
    count, started, cpu_started = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < SECONDS:
        work()
        count += 1
    cpu_us = (time.process_time() - cpu_started) * 1e6
    return count * units / (time.perf_counter() - started), cpu_us / (count * units)


def compare(title: str, contenders: Mapping[str, Callable[[], object]], units: int) -> None:
    """Measure all contenders in each repeat; print rates, and ratios to the first one with their spread."""
    runs = [{name: measure(work, units) for name, work in contenders.items()} for _ in range(REPEATS)]
    print(f"\n{title}")
    for name in contenders:
        ratios = sorted(run[name][0] / next(iter(run.values()))[0] for run in runs)
        per_second, cpu_us = (statistics.median(run[name][i] for run in runs) for i in (0, 1))
        spread = f"{statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"  {name:<36} {per_second:>11,.0f} /s   ratio {spread}   client CPU {cpu_us:8.2f} us each")


def compare_reads(
    store: RedisOnlineStore, client: redis.Redis, connection: socket.socket, keys: list[list[bytes]]
) -> None:
    """Reads of `groups` x `entities` keys."""
    for groups, entities in SHAPES:
        start = 1_000
        wanted = {f"g{n}": keys[n][start : start + entities] for n in range(groups)}
        flat = [key for group_keys in wanted.values() for key in group_keys]
        request = pack(b"MGET", *flat)
        answer: Sequence[bytes] = client.mget(flat)  # type: ignore[assignment]
        size = len(b"*%d\r\n" % len(flat)) + sum(len(b"$%d\r\n" % len(value)) + len(value) + 2 for value in answer)
        contenders: dict[str, Callable[[], object]] = {
            "limit: bare socket, not decoded": partial(exchange, connection, request, size),
            "redis-py MGET, not decoded": partial(client.mget, flat),
            "store.read_many, not decoded": partial(store.read_many, wanted),
            "store.read_many + decode": partial(read_decoded, store, wanted, None),
            "  the same, 3 of 20 features": partial(read_decoded, store, wanted, FEW),
        }
        compare(f"read {groups} x {entities}, keys", contenders, len(flat))


def read_decoded(
    store: RedisOnlineStore, wanted: dict[str, list[bytes]], features: list[str] | None
) -> list[pl.DataFrame]:
    """What serving does for one request."""
    return [decode({1: LAYOUT}, replies.messages, features) for replies in store.read_many(wanted).values()]


def compare_writes(
    store: RedisOnlineStore, client: redis.Redis, connection: socket.socket, frame: pl.DataFrame, epoch: str
) -> None:
    """Writes of one group's latest rows."""
    keys = online_keys("g0", entity_ids(frame, ["id"]))
    messages = encode(LAYOUT, frame, schema_number=1, fence=0)
    seconds = b"604800"
    requests = [
        b"".join(
            pack(b"SET", key, value, b"EX", seconds)
            for key, value in zip(keys[at : at + 500], messages[at : at + 500], strict=True)
        )
        for at in range(0, len(keys), 500)
    ]

    def bare() -> None:
        for request in requests:
            exchange(connection, request, 5 * 500)

    def pipelined() -> None:
        for at in range(0, len(keys), 500):
            pipeline = client.pipeline(transaction=False)
            for key, value in zip(keys[at : at + 500], messages[at : at + 500], strict=True):
                pipeline.set(key, value, ex=604800)
            pipeline.execute()

    def fill() -> None:
        client.delete(*keys)
        store.write("g0", keys, messages, epoch=epoch, ttl=TTL)

    def from_frame() -> None:
        ready = online_keys("g0", entity_ids(frame, ["id"]))
        store.write("g0", ready, encode(LAYOUT, frame, schema_number=1, fence=0), epoch=epoch, ttl=TTL)

    contenders = {
        "limit: prepacked SET EX, bare socket": bare,
        "redis-py pipelined SET EX": pipelined,
        "store.write, nothing newer": lambda: store.write("g0", keys, messages, epoch=epoch, ttl=TTL),
        "DEL + store.write of all keys": fill,
        "keys + encode + store.write": from_frame,
    }
    compare("write, rows", contenders, len(keys))
    compare(
        "encode only, rows",
        {
            "keys + encode": lambda: (
                online_keys("g0", entity_ids(frame, ["id"])),
                encode(LAYOUT, frame, schema_number=1, fence=0),
            )
        },
        len(keys),
    )


def main() -> int:
    """Start a server, fill three groups, compare."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(folder) as server:
        client = redis.Redis.from_url(server.url)
        store = RedisOnlineStore(server.url, lambda: NOW)
        epoch = store.ensure_epoch()
        keys = []
        for number in range(3):
            frame = rows_of(number)
            keys.append(online_keys(f"g{number}", entity_ids(frame, ["id"])))
            store.write(f"g{number}", keys[-1], encode(LAYOUT, frame, schema_number=1, fence=0), epoch=epoch, ttl=TTL)
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        with socket.create_connection((HOST, port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            compare_reads(store, client, connection, keys)
            compare_writes(store, client, connection, rows_of(0), epoch)
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
