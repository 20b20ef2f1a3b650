"""Materialization of a whole group, from its Delta table to the server, against the same bytes written without any rule.

Run it with `python -m benchmarks.materialization [--rows 200000] [--features 20] [--windows 1] [--repeats 5]`. Every repeat
measures all contenders in turn on one server, and only ratios within a repeat are compared: to `SET EX`, pipelined by
redis-py, of the very keys and messages that materialization writes. `--windows` is how many windows of history the table
has, of which each key's newest row is chosen. CPU is this process's, which other load disturbs less than the clock.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import redis

from featurestore.declaration.windows import TimeWindow
from featurestore.location import Location
from featurestore.offline.intake import row_schema
from featurestore.offline.table import FeatureTable
from featurestore.online.encode import encode
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.materialization import materialize
from featurestore.online.redis import RedisOnlineStore
from featurestore.online.schema import layout_of
from featurestore.online.valkey import EmbeddedValkey
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

NOW = datetime(2026, 3, 20, tzinfo=UTC)
DAY = timedelta(days=1)
TTL = timedelta(days=7)
PIPELINE_KEYS = 500
LIMIT = "limit: pipelined SET EX, redis-py"


def group_of(features: int) -> RegisteredGroup:
    """A daily group of doubles with an integer key."""
    return RegisteredGroup(
        name="plane_profile_daily",
        version=1,
        kind="windowed",
        cadence="daily",
        start="2026-01-01",
        entity="plane",
        keys=(("plane", "int64"),),
        features=tuple(
            RegisteredFeature(f"dep_delay_mean_{n}d", "float64", number=32 + n, since=1) for n in range(features)
        ),
        schema_number=1,
        retired_numbers=(),
        retired_columns=(),
        inputs=(),
        delay_us=0,
        publish_us=0,
        lookback_us=0,
        freshness_us=None,
        max_age_us=TTL // timedelta(microseconds=1),
        is_online=True,
        ttl_us=TTL // timedelta(microseconds=1),
        min_coverage=None,
        owner="team:benchmarks",
        description="",
    )


def fill(table: FeatureTable, rows: int, windows: int) -> None:
    """One row per key and window; the last window ends now."""
    for number in range(windows):
        window = TimeWindow(NOW - (windows - number) * DAY, NOW - (windows - number - 1) * DAY)
        promote(table, rows, window, seed=number, transaction=f"window {number}")


def promote(table: FeatureTable, rows: int, window: TimeWindow, *, seed: int, transaction: str) -> None:
    """Put `rows` rows in the place of what a window holds."""
    random = np.random.default_rng(seed)
    stamps = {"event_time": window.end, "knowledge_time": window.end, "window_start": window.start, "is_deleted": False}
    frame = pl.DataFrame({"plane": np.arange(rows, dtype=np.int64)}).with_columns(
        **{name: pl.lit(value) for name, value in stamps.items()},
        schema_number=pl.lit(1, dtype=pl.Int32),
        **{name: pl.Series(random.normal(size=rows)) for name in table.group.feature_names},
    )
    schema = row_schema(table.group)
    exact = frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    table.overwrite_windows(exact, [window], seen_version=table.version(), transaction=transaction, metadata={})


@dataclass(frozen=True, slots=True)
class Pass:
    """One measurement: rows per second by the clock, and the process's CPU time per row."""

    rows_per_second: float
    cpu_us: float


class Bench:
    """The contenders, on one table and one server."""

    def __init__(self, table: FeatureTable, url: str) -> None:
        self.table, self.client = table, redis.Redis.from_url(url)
        self.online = RedisOnlineStore(url, lambda: NOW)
        self.frontier = table.scan().collect().sort("event_time").unique("plane", keep="last", maintain_order=True)
        self.keys, self.messages = self.keys_of(), self.encoded()

    def keys_of(self) -> list[bytes]:
        return online_keys(self.table.group.name, entity_ids(self.frontier, self.table.group.key_names))

    def encoded(self) -> list[bytes]:
        return encode(layout_of(self.table.group), self.frontier, schema_number=1, fence=0)

    def limit(self) -> None:
        seconds = int(TTL.total_seconds())
        for at in range(0, len(self.keys), PIPELINE_KEYS):
            pipeline = self.client.pipeline(transaction=False)
            for key, value in zip(
                self.keys[at : at + PIPELINE_KEYS], self.messages[at : at + PIPELINE_KEYS], strict=True
            ):
                pipeline.set(key, value, ex=seconds)
            pipeline.execute()

    def write(self) -> None:
        """The conditional write of messages that are there already."""
        epoch = self.online.ensure_epoch(self.table.group.name)
        self.online.write(self.table.group.name, self.keys, self.messages, epoch=epoch, ttl=TTL)

    def encode_and_write(self) -> None:
        epoch = self.online.ensure_epoch(self.table.group.name)
        self.online.write(self.table.group.name, self.keys_of(), self.encoded(), epoch=epoch, ttl=TTL)

    def rebuild(self) -> None:
        step = materialize(self.table, self.online, lambda: NOW)
        if not step.was_rebuilt or step.written != len(self.keys):
            raise RuntimeError(f"Not the rebuild that was to be measured: {step}")

    def contenders(self) -> dict[str, Callable[[], None]]:
        return {
            LIMIT: self.limit,
            "conditional write": self.write,
            "keys + encode + conditional write": self.encode_and_write,
            "rebuild from the Delta table": self.rebuild,
        }


def measure(work: Callable[[], None], rows: int) -> Pass:
    """Run once, with the garbage of others collected before."""
    gc.collect()
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return Pass(rows / (time.perf_counter() - begun), 1e6 * (time.process_time() - cpu) / rows)


def compare(bench: Bench, repeats: int) -> None:
    """Each repeat runs every contender on an emptied server."""
    passes: list[dict[str, Pass]] = []
    for _ in range(repeats):
        one = {}
        for name, work in bench.contenders().items():
            bench.client.flushdb()
            one[name] = measure(work, len(bench.keys))
        passes.append(one)
    for name in passes[0]:
        show(
            name,
            [one[name] for one in passes],
            [one[name].rows_per_second / one[LIMIT].rows_per_second for one in passes],
        )


def show(name: str, passes: list[Pass], ratios: list[float]) -> None:
    speed = statistics.median(one.rows_per_second for one in passes)
    cpu_us = statistics.median(one.cpu_us for one in passes)
    spread = f"min {min(ratios):.2f}  median {statistics.median(ratios):.2f}  max {max(ratios):.2f}"
    print(f"  {name:<36} {speed:>9,.0f} rows/s   of the limit: {spread}   client CPU {cpu_us:5.2f} us/row")


def steps(bench: Bench, rows: int) -> None:
    """What an incremental step costs when 1 % of the keys, or nothing, changed."""
    bench.client.flushdb()
    bench.rebuild()
    few, old = max(1, rows // 100), TimeWindow(NOW - DAY, NOW)
    stored = bench.table.scan(windows=[old]).drop("created_at").collect()
    name = bench.table.group.feature_names[0]
    changed = stored.with_columns(
        pl.when(pl.col("plane") < few).then(pl.col(name) + 1).otherwise(pl.col(name)).alias(name)
    )
    bench.table.overwrite_windows(changed, [old], seen_version=bench.table.version(), transaction="few", metadata={})
    for what in ("1 % of the keys changed", "nothing changed"):
        begun = time.perf_counter()
        step = materialize(bench.table, bench.online, lambda: NOW)
        print(
            f"  step, {what}: {1000 * (time.perf_counter() - begun):.0f} ms, {step.written:,} of {step.keys:,} keys written"
        )


def main() -> int:
    """Fill a table, start a server, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for option, default in {"--rows": 200_000, "--features": 20, "--windows": 1, "--repeats": 5}.items():
        parser.add_argument(option, type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "server") as server:
        table = FeatureTable(Location(str(Path(folder) / "store")), group_of(given.features), lambda: NOW)
        fill(table, given.rows, given.windows)
        bench = Bench(table, server.url)
        print(
            f"{given.rows:,} keys, {given.features} doubles, {len(bench.messages[0])} bytes a message, "
            f"{given.windows} window(s) in the table, {given.repeats} repeats"
        )
        compare(bench, given.repeats)
        steps(bench, given.rows)
        bench.online.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
