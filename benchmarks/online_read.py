"""Online reads through the SDK, beside the same bytes received undecoded and beside Feast's SDK, on one server.

Run it with `python -m benchmarks.online_read [--repeats 9] [--seconds 0.5] [--feast-folder DIR | --without-feast]`. It starts
Valkey on a unix socket, fills three groups (20 doubles; 10 mixed with strings; a vector of 128 floats) by the library's
own materialization, and has Feast 0.67, in a virtual environment of its own, write the same values beside them. Every
repeat measures all contenders in turn, and only ratios within a repeat are compared. The limit is a prepacked MGET of our
keys on a bare socket, whose replies are received and dropped: by `recv` of up to a megabyte, as a client receives what it is
going to keep, and, which no client that hands out values could do, into one buffer that is there already.

At the end stand the goals, each with its figure's median and spread over the repeats, and where the CPU time of our reads goes.

"SDK read" returns with every value checked and decoded into arrays or tuples and every status settled; the lines below it
add what a caller may ask for next: Python values, or a Polars frame.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import redis

from benchmarks import cpu_shares, goals
from benchmarks.goals import Found, Goal
from featurestore.declaration import Catalog, Entity, Feature, FeatureGroup, Online, Source, Static, feature_group
from featurestore.declaration.dtypes import storage_dtype
from featurestore.location import Location
from featurestore.online.redis.valkey import PATIENCE_SECONDS, EmbeddedValkey
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore

FEAST = "feast[redis]==0.67.0"
ENTITIES = 2_000
Shape = tuple[int, int]
"""Groups and entities."""
SHAPES: tuple[Shape, ...] = ((1, 1), (1, 500), (3, 100), (3, 500))
PROFILED = 4
"""Times as many seconds as a contender is measured for in a repeat, a profile is made of."""
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
LIMIT, REUSED = "limit: bare socket, not decoded", "  into one buffer, again and again"
READ, VALUES, FRAME = "SDK read", "  and Python values", "  and a Polars frame"
FEAST_READ, FEAST_VALUES = "Feast SDK read", "  Feast: and Python values"
FEAST_PARTS = {FEAST_READ: "read", FEAST_VALUES: "values"}
P50, P99, SHARE, TIMES = "p50, us", "p99, us", "of the limit", "times Feast's SDK"
GOALS: dict[Shape, dict[str, tuple[float, float]]] = {
    (1, 1): {P50: (80, 40), TIMES: (5, 10)},
    (1, 500): {SHARE: (0.45, 0.65), TIMES: (70, 90)},
    (3, 100): {SHARE: (0.45, 0.60), TIMES: (20, 30)},
    (3, 500): {SHARE: (0.45, 0.65), P99: (3_000, 2_000), TIMES: (40, 60)},
}
BESIDE = {READ: FEAST_READ, VALUES: FEAST_VALUES, FRAME: FEAST_VALUES}
Work = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """Seconds that each call of one contender took, and seconds of CPU time that one took in this process."""

    latencies: list[float]
    cpu: float

    @property
    def p50(self) -> float:
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        return float(np.quantile(self.latencies, 0.99))


Run = dict[str, Measured]


def values_of(count: int) -> dict[str, pl.DataFrame]:
    """The three groups' rows, by group."""
    chance = np.random.default_rng(7)
    doubles = {f"dep_delay_mean_{i}d": chance.normal(size=count) for i in range(1, 21)}
    mixed: dict[str, Any] = {f"distance_sum_{i}d": chance.normal(size=count) for i in range(1, 4)}
    mixed |= {f"flights_count_{i}d": chance.integers(0, 2**40, count) for i in range(1, 4)}
    mixed |= {"is_delayed": chance.random(count) < 0.5}
    mixed |= {
        name: [f"{name} {number}" for number in chance.integers(0, 2**30, count)]
        for name in ("last_origin", "last_destination", "last_carrier")
    }
    vector = pl.Series("vector", chance.normal(size=(count, 128)).astype(np.float32))
    ids = pl.Series("id", range(count), dtype=pl.Int64)
    return {
        "g0_doubles": pl.DataFrame({"id": ids, **doubles}),
        "g1_mixed": pl.DataFrame({"id": ids, **mixed}),
        "g2_vector": pl.DataFrame({"id": ids, "embedding": vector}),
    }


def declared(name: str, rows: pl.DataFrame) -> FeatureGroup:
    """A static group of these rows."""
    features = [Feature(column, dtype, column) for column, dtype in rows.schema.items() if column != "id"]

    def transform(things: pl.LazyFrame) -> pl.LazyFrame:
        """Rows that are loaded as they are."""
        nothing = [pl.lit(None, dtype=feature.dtype).alias(feature.name) for feature in features]
        return things.select("id", *nothing)

    transform.__name__ = name
    return feature_group(
        entity=Entity("thing", keys={"id": pl.Int64}),
        features=features,
        cadence=Static(valid_from=NOW),
        online=Online(),
        owner="team:benchmarks",
        min_coverage=0.0,
    )(transform)


def filled_store(folder: Path, url: str, groups: Mapping[str, pl.DataFrame]) -> FeatureStore:
    """A store with the groups declared, loaded and materialized."""
    things = Source(name="things", schema={"id": pl.Int64}, keys=("id",))
    root = Location(str(folder / "store"))
    catalog = Catalog([things], [declared(name, rows) for name, rows in groups.items()], [])
    RegistryHistory(root).apply(catalog, lambda: NOW, "benchmarks")
    store = FeatureStore(Settings(root, root.child("landing"), url))
    for name, rows in groups.items():
        stored = rows.select(pl.col(column).cast(storage_dtype(dtype)) for column, dtype in rows.schema.items())
        store.offline.table(name).load_static(stored, instant=NOW, valid_from=NOW, transaction=name, metadata={})
    store.materialize()
    return store


def feast_python(folder: Path) -> Path:
    """The Python of a virtual environment with Feast in it, made now if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", FEAST], check=True, capture_output=True)
    return python


class Feast:
    """Feast in a process of its own, which fills at once and then measures when told."""

    def __init__(self, python: Path, folder: Path, socket_path: str) -> None:
        script = Path(__file__).with_name("online_feast.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", script, folder, socket_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "feast.log").open("w"),
            text=True,
        )
        if "filled" not in self._line():
            raise SystemExit(f"Feast did not start:\n{(folder / 'feast.log').read_text()[-2000:]}")

    def _line(self) -> str:
        while self._process.stdout is not None and (line := self._process.stdout.readline()):
            if line.startswith(("filled", "{")):
                return line
        return ""

    def measure(self, groups: int, entities: int, seconds: float) -> Run:
        """Feast's reads of this shape."""
        if self._process.stdin is None:
            raise SystemExit("Feast is gone.")
        self._process.stdin.write(json.dumps({"groups": groups, "entities": entities, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        taken = json.loads(self._line())
        return {name: Measured(taken[part], taken["cpu"]) for name, part in FEAST_PARTS.items()}

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.communicate()


def pack(*parts: bytes) -> bytes:
    """One command as the server reads it."""
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])


def bare_reads(connection: socket.socket, client: redis.Redis, keys: list[bytes]) -> dict[str, Work]:
    """Send a prepacked MGET, and receive as many bytes as its answer has."""
    answer: list[bytes] = client.mget(keys)  # type: ignore[assignment]
    if None in answer:
        raise SystemExit("A key that is to be read is not there.")
    size = len(b"*%d\r\n" % len(keys)) + sum(len(b"$%d\r\n" % len(value)) + len(value) + 2 for value in answer)
    request, buffer = pack(b"MGET", *keys), memoryview(bytearray(size))

    def read() -> None:
        connection.sendall(request)
        left = size
        while left > 0:
            left -= len(connection.recv(1 << 20))

    def read_into() -> None:
        connection.sendall(request)
        left = size
        while left > 0:
            left -= connection.recv_into(buffer, left)

    return {LIMIT: read, REUSED: read_into}


def contenders(
    store: FeatureStore, connection: socket.socket, client: redis.Redis, groups: int, entities: int
) -> dict[str, Work]:
    """What is measured in this process, by name."""
    wanted = list(store.registry.groups.values())[:groups]
    references = [f"{group.name}:{name}" for group in wanted for name in group.feature_names]
    rows = [{"id": number} for number in range(entities)]
    keys = {group.name: [b"%s:%d" % (group.name.encode(), number) for number in range(entities)] for group in wanted}
    flat = [key for own in keys.values() for key in own]
    answer = store.get_online_features(references, rows)
    if set(answer.statuses.row(entities - 1)) != {"PRESENT"}:
        raise SystemExit("A value that is to be read is not there.")
    return {
        **bare_reads(connection, client, flat),
        "redis-py MGET, not decoded": lambda: client.mget(flat),
        "store.online.read_many, not decoded": lambda: store.online.read_many(keys),
        READ: lambda: store.get_online_features(references, rows),
        VALUES: lambda: store.get_online_features(references, rows).feature_columns(),
        FRAME: lambda: store.get_online_features(references, rows).to_polars(),
    }


def measured(work: Work, seconds: float) -> Measured:
    """Call again and again for this long."""
    work()
    taken: list[float] = []
    cpu_begun = time.process_time()
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at or not taken:
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return Measured(taken, (time.process_time() - cpu_begun) / len(taken))


def report(title: str, runs: list[Run], keys: int) -> None:
    """Print medians over the repeats, and the ratios to the limit and to Feast with their spread."""
    print(f"\n{title}: {len(runs)} repeats")
    print(
        f"  {'':<38}{'p50 us':>9}{'p99 us':>9}{'CPU us':>9}{'keys/s':>12}   of the limit          reused   times Feast's"
    )
    for name in runs[0]:
        p50, p99, cpu = (
            statistics.median(found)
            for found in zip(*((m.p50, m.p99, m.cpu) for m in (run[name] for run in runs)), strict=True)
        )
        line = f"  {name:<38}{p50 * 1e6:>9.1f}{p99 * 1e6:>9.1f}{cpu * 1e6:>9.1f}{keys / p50:>12,.0f}"
        line += f"   {spread(ratios(runs, LIMIT, name))}   {statistics.median(ratios(runs, REUSED, name)):6.2f}"
        beside = BESIDE.get(name, "")
        if beside in runs[0]:
            line += f"   {spread(ratios(runs, beside, name), 1)}"
        print(line)


def judged(shape: Shape, runs: list[Run]) -> list[Found]:
    """The goals of a shape, with their figures in each repeat."""
    figures = {P50: [1e6 * run[READ].p50 for run in runs], P99: [1e6 * run[READ].p99 for run in runs]}
    figures[SHARE] = ratios(runs, LIMIT, READ)
    if FEAST_READ in runs[0]:
        figures[TIMES] = ratios(runs, FEAST_READ, READ)
    title = f"{shape[1]} x {shape[0]}"
    return [
        (Goal(f"{title}: {what}", goal, stretch, what in (P50, P99), 2 if what == SHARE else 1), figures[what])
        for what, (goal, stretch) in GOALS[shape].items()
        if what in figures
    ]


def ratios(runs: list[Run], base: str, name: str) -> list[float]:
    """How many times the base's median latency is that of another, in each repeat."""
    return [run[base].p50 / run[name].p50 for run in runs]


def spread(found: list[float], digits: int = 2) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(found):.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The path of the socket of a server that runs meanwhile."""
    path = str(folder / "valkey.sock")
    with EmbeddedValkey(folder / "valkey", options={"unixsocket": path}):
        yield path


def main() -> int:
    """Start a server, fill it from both sides, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each contender in each repeat")
    parser.add_argument("--feast-folder", type=Path, help="virtual environment of Feast; made if missing, kept")
    parser.add_argument("--without-feast", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as path:
        folder = Path(name)
        feast = None if options.without_feast else start_feast(folder, path, options.feast_folder)
        compare(folder, path, feast, options.repeats, options.seconds)
        if feast is not None:
            feast.close()
    return 0


def start_feast(folder: Path, path: str, kept: Path | None) -> Feast:
    """Feast with the same values."""
    data = folder / "feast_data"
    data.mkdir()
    for name, rows in values_of(ENTITIES).items():
        rows.with_columns(pl.lit(NOW).dt.cast_time_unit("us").alias("event_timestamp")).write_parquet(
            data / f"{name}.parquet"
        )
    return Feast(feast_python(kept or folder / "feast"), data, path)


def compare(folder: Path, path: str, feast: Feast | None, repeats: int, seconds: float) -> None:
    """Measure every shape, all contenders in turn in each repeat."""
    store = filled_store(
        folder,
        f"unix://{path}?socket_timeout={PATIENCE_SECONDS}&socket_connect_timeout={PATIENCE_SECONDS}",
        values_of(ENTITIES),
    )
    client = redis.Redis(unix_socket_path=path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        found: list[Found] = []
        profiles = []
        for groups, entities in SHAPES:
            works = contenders(store, connection, client, groups, entities)
            runs = []
            for _ in range(repeats):
                run = {name: measured(work, seconds) for name, work in works.items()}
                if feast is not None:
                    run |= feast.measure(groups, entities, seconds)
                runs.append(run)
            report(f"{groups} groups x {entities} entities", runs, groups * entities)
            found += judged((groups, entities), runs)
            cpu_us = 1e6 * statistics.median(run[READ].cpu for run in runs)
            shares = cpu_shares.shares(works[READ], PROFILED * seconds)
            profiles.append(cpu_shares.table(f"{entities} x {groups}", shares, cpu_us))
    print("\nentities x groups", goals.table(found), *profiles, sep="\n\n")
    store.online.close()


if __name__ == "__main__":
    sys.exit(main())
