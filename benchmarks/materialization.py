"""Materialization of a whole group, from its Delta table to the server, against the same bytes written without any rule.

Run it with `python -m benchmarks.materialization [--rows 200000] [--features 20] [--windows 1] [--repeats 7] [--feast-rows 20000]`.
Every repeat measures all contenders in turn on one server, and only ratios within a repeat are compared: to `SET EX`,
pipelined by redis-py, of the very keys and messages that materialization writes. `--windows` is how many windows of history
the table has, of which each key's newest row is chosen. CPU is that of this process and of the server, which other load
disturbs less than the clock.

Feast's `materialize` of fewer rows of the same table, on the same server, runs in a virtual environment that is made here, or
in the one that `--feast-folder` names; `--feast-rows 0` leaves it out. Then the size of a value beside named JSON of the same fields,
the goals with each figure's spread over the repeats, and where the CPU time of a fill and of a write of all rows goes.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import redis

from benchmarks import cpu_shares, goals
from benchmarks.goals import Found, Goal
from benchmarks.online_read import feast_python
from featurestore.declaration.windows import TimeWindow
from featurestore.location import Location
from featurestore.offline.intake import row_schema
from featurestore.offline.table import FeatureTable
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.materialization.materialize import materialize
from featurestore.online.message.encode import encode
from featurestore.online.message.schema import layout_of
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

NOW = datetime(2026, 3, 20, tzinfo=UTC)
DAY = timedelta(days=1)
TTL = timedelta(days=7)
PIPELINE_KEYS = 500
PROFILED_SECONDS = 10.0
LIMIT = "limit: pipelined SET EX, redis-py"
FILL = "fill of an empty group from its table"
WRITES = "fenced newest-wins writes"
TEXT = "Newark Liberty International"


def group_of(features: int, dtypes: Sequence[str] = ("float64",)) -> RegisteredGroup:
    """A daily group with an integer key; its features have the dtypes in turn."""
    return RegisteredGroup(
        name="plane_profile_daily",
        version=1,
        kind="windowed",
        cadence="daily",
        start="2026-01-01",
        entity="plane",
        keys=(("plane", "int64"),),
        features=tuple(
            RegisteredFeature(f"dep_delay_mean_{n}d", dtypes[n % len(dtypes)], number=32 + n, since=1)
            for n in range(features)
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
    """One measurement: rows per second by the clock, and CPU time per row of this process and of the server."""

    rows_per_second: float
    cpu_us: float
    server_us: float


class Bench:
    """The contenders, on one table and one server."""

    def __init__(self, table: FeatureTable, url: str) -> None:
        self.table, self.client = table, redis.Redis.from_url(url)
        self.online = RedisOnlineStore(url, lambda: NOW)
        self.part = self.online.parts()[0]
        self.frontier = table.scan().collect().sort("event_time").unique("plane", keep="last", maintain_order=True)
        self.keys, self.messages = self.keys_of(), self.encoded(self.frontier)
        self.older = self.encoded(self.frontier.with_columns(pl.col("event_time") - DAY))

    def keys_of(self) -> list[bytes]:
        return online_keys(self.table.group.name, entity_ids(self.frontier, self.table.group.key_names))

    def encoded(self, rows: pl.DataFrame) -> list[bytes]:
        return encode(layout_of(self.table.group), rows, schema_number=1, fence=0)

    def limit(self) -> None:
        seconds = int(TTL.total_seconds())
        for at in range(0, len(self.keys), PIPELINE_KEYS):
            pipeline = self.client.pipeline(transaction=False)
            for key, value in zip(
                self.keys[at : at + PIPELINE_KEYS], self.messages[at : at + PIPELINE_KEYS], strict=True
            ):
                pipeline.set(key, value, ex=seconds)
            pipeline.execute()

    def put(self, messages: Sequence[bytes]) -> int:
        """The conditional write; how many keys took their message."""
        name = self.table.group.name
        epoch = self.part.ensure_epoch(name)
        return self.part.write(name, self.keys, messages, epoch=epoch, ttl=TTL).written

    def write(self) -> None:
        """Every key is there with a lower version, and is compared and replaced."""
        if self.put(self.messages) != len(self.keys):
            raise RuntimeError("Not every message took the place of an older one.")

    def fill(self) -> None:
        step = materialize(self.table, [self.part], lambda: NOW)
        if not step.was_rebuilt or step.written != len(self.keys):
            raise RuntimeError(f"Not the rebuild that was to be measured: {step}")

    def contenders(self) -> dict[str, tuple[Callable[[], object], Callable[[], None]]]:
        """What is made ready on an emptied server, and what is measured then."""
        return {
            LIMIT: (lambda: None, self.limit),
            FILL: (lambda: None, self.fill),
            WRITES: (lambda: self.put(self.older), self.write),
        }

    def server_seconds(self) -> float:
        used: dict[str, Any] = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def measure(self, work: Callable[[], None]) -> Pass:
        """Run once, with the garbage of others collected before."""
        gc.collect()
        server, begun, cpu = self.server_seconds(), time.perf_counter(), time.process_time()
        work()
        seconds, used, rows = time.perf_counter() - begun, time.process_time() - cpu, len(self.keys)
        return Pass(rows / seconds, 1e6 * used / rows, 1e6 * (self.server_seconds() - server) / rows)


def compare(bench: Bench, repeats: int) -> dict[str, list[Pass]]:
    """Each repeat runs every contender on an emptied server."""
    passes: dict[str, list[Pass]] = {name: [] for name in bench.contenders()}
    for _ in range(repeats):
        for name, (prepare, work) in bench.contenders().items():
            bench.client.flushdb()
            prepare()
            passes[name].append(bench.measure(work))
    for name, made in passes.items():
        show(
            name,
            made,
            [one.rows_per_second / two.rows_per_second for one, two in zip(made, passes[LIMIT], strict=True)],
        )
    return passes


def show(name: str, passes: list[Pass], ratios: list[float]) -> None:
    speed = statistics.median(one.rows_per_second for one in passes)
    cpu_us, server_us = (statistics.median(getattr(one, part) for one in passes) for part in ("cpu_us", "server_us"))
    spread = f"min {min(ratios):.2f}  median {statistics.median(ratios):.2f}  max {max(ratios):.2f}"
    print(
        f"  {name:<38} {speed:>9,.0f} rows/s   of the limit: {spread}   "
        f"CPU us/row: client {cpu_us:5.2f}, server {server_us:5.2f}"
    )


def steps(bench: Bench, rows: int) -> None:
    """What an incremental step costs when 1 % of the keys, or nothing, changed."""
    bench.client.flushdb()
    bench.fill()
    few, old = max(1, rows // 100), TimeWindow(NOW - DAY, NOW)
    stored = bench.table.scan(windows=[old]).drop("created_at").collect()
    name = bench.table.group.feature_names[0]
    changed = stored.with_columns(
        pl.when(pl.col("plane") < few).then(pl.col(name) + 1).otherwise(pl.col(name)).alias(name)
    )
    bench.table.overwrite_windows(changed, [old], seen_version=bench.table.version(), transaction="few", metadata={})
    for what in ("1 % of the keys changed", "nothing changed"):
        begun = time.perf_counter()
        step = materialize(bench.table, [bench.part], lambda: NOW)
        print(
            f"  step, {what}: {1000 * (time.perf_counter() - begun):.0f} ms, {step.written:,} of {step.keys:,} keys written"
        )


def beside_feast(bench: Bench, fills: list[Pass], folder: Path, environment: Path, rows: int) -> list[float]:
    """Feast's `materialize` of fewer rows, as its time grows with their number: how many times as fast ours is."""
    python = feast_python(environment)
    features = list(bench.table.group.feature_names)
    given = bench.frontier.head(rows).select(
        id="plane", event_timestamp=pl.col("event_time"), **{name: pl.col(name) for name in features}
    )
    given.write_parquet(folder / "rows.parquet")
    place = bench.client.connection_pool.connection_kwargs
    address = f"{place['host']}:{place['port']},db=1"
    script = Path(__file__).with_name("materialization_feast.py")
    command: list[str | Path] = [python, "-W", "ignore", script, folder / "rows.parquet", address, str(len(fills))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    speeds = [given.height / seconds for seconds in json.loads(done.stdout.splitlines()[-1])]
    ratios = [ours.rows_per_second / theirs for ours, theirs in zip(fills, speeds, strict=True)]
    print(
        f"  Feast's materialize of {given.height:,} rows: {statistics.median(speeds):,.0f} rows/s; ours is faster by "
        f"min {min(ratios):.0f}  median {statistics.median(ratios):.0f}  max {max(ratios):.0f}"
    )
    return ratios


def sizes() -> list[Found]:
    """Bytes of a value, and of named JSON with the same fields, version and fence included: by how much ours is smaller."""
    found: list[Found] = []
    catalogues = {
        "20 doubles": group_of(20),
        "10 mixed (double, int, bool, string)": group_of(10, ["float64", "int64", "bool", "string", "float32"]),
        "128-vector": group_of(1, ["float32[128]"]),
    }
    for name, group in catalogues.items():
        rows = sample(group)
        ours = encode(layout_of(group), rows, schema_number=1, fence=7)
        header = {"schema_number": 1, "fence": 7}
        spelled = [
            json.dumps({**header, **one}, separators=(",", ":"), default=datetime.isoformat) for one in rows.to_dicts()
        ]
        mine, theirs = (statistics.mean(map(len, values)) for values in (ours, spelled))
        print(f"  a value of {name}: {mine:.0f} bytes, as named JSON {theirs:.0f}: {100 * (mine / theirs - 1):+.0f} %")
        found.append(
            (Goal(f"a value of {name}: smaller than named JSON by, %", 50, 60, digits=0), [100 - 100 * mine / theirs])
        )
    return found


def judged(passes: dict[str, list[Pass]], times: list[float]) -> list[Found]:
    """The goals of fills and writes, with their figures in each repeat; `times` as many rows/s as Feast's, if that was measured."""
    fills, writes = ([one.rows_per_second for one in passes[name]] for name in (FILL, WRITES))
    beside = [(Goal("fill, times Feast's materialize", 80, digits=1), times)] if times else []
    return [
        (Goal("fill of 20 doubles, rows/s", 300_000, 450_000, digits=0), fills),
        *beside,
        (Goal("fenced newest-wins writes, rows/s", 120_000, 250_000, digits=0), writes),
    ]


def where_time_goes(bench: Bench, passes: dict[str, list[Pass]], seconds: float) -> None:
    """Profiles of a fill and of a write of all rows: CPU time of this process by folder, for all rows."""
    for name in (FILL, WRITES):
        prepare, work = bench.contenders()[name]

        def once(prepare: Callable[[], object] = prepare, work: Callable[[], None] = work) -> None:
            bench.client.flushdb()
            prepare()
            work()

        cpu_us = statistics.median(one.cpu_us for one in passes[name]) * len(bench.keys)
        print(
            "",
            cpu_shares.table(f"{name}, {len(bench.keys):,} rows", cpu_shares.shares(once, seconds), cpu_us),
            sep="\n",
        )


def sample(group: RegisteredGroup) -> pl.DataFrame:
    """Some rows with values of full width."""
    random, count = np.random.default_rng(0), 100
    made: dict[str, Any] = {
        "float64": random.normal(size=count),
        "float32": random.normal(size=count).astype(np.float32),
        "int64": random.integers(0, 10**6, count),
        "bool": random.random(count) < 0.5,
        "string": [TEXT] * count,
        "float32[128]": list(random.normal(size=(count, 128)).astype(np.float32)),
    }
    times = {name: pl.lit(NOW).dt.cast_time_unit("us") for name in ("event_time", "knowledge_time", "created_at")}
    columns = [pl.Series(f.name, made[f.dtype_name], f.dtype, strict=False) for f in group.features]
    return pl.DataFrame(columns).with_columns(**times, is_deleted=pl.lit(False))


def main() -> int:
    """Fill a table, start a server, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    numbers = {"--rows": 200_000, "--features": 20, "--windows": 1, "--repeats": 7, "--feast-rows": 20_000}
    for option, default in numbers.items():
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--feast-folder", type=Path, help="virtual environment of Feast; made if missing, kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, EmbeddedValkey(Path(temporary) / "server") as server:
        folder = Path(temporary)
        table = FeatureTable(Location(str(folder / "store")), group_of(given.features), lambda: NOW)
        fill(table, given.rows, given.windows)
        bench = Bench(table, server.url)
        print(
            f"{given.rows:,} keys, {given.features} doubles, {len(bench.messages[0])} bytes a message, "
            f"{given.windows} window(s) in the table, {given.repeats} repeats"
        )
        passes = compare(bench, given.repeats)
        steps(bench, given.rows)
        environment, times = given.feast_folder or folder / "feast", list[float]()
        if given.feast_rows:
            times = beside_feast(bench, passes[FILL], folder, environment, given.feast_rows)
        found = judged(passes, times) + sizes()
        print("", goals.table(found), sep="\n")
        where_time_goes(bench, passes, PROFILED_SECONDS)
        bench.online.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
