"""The feature server against `feast serve` 0.67: one worker each, the same values in the same Valkey, the same load.

Run it with `python -m benchmarks.serving [--repeats 7] [--seconds 4] [--feast-folder DIR]`. Feast gets a virtual environment of its
own, made anew unless a folder is named. Every repeat loads both servers in turn; only ratios within a repeat are compared. The load
comes from a process of its own: connections that ask again as soon as they have an answer.

At the end stand the goals, each with its ratio's median and spread over the repeats, and where a request's CPU time goes: the same
requests, as many at a time, handed to the application in this process. What the server takes for a request beyond that is HTTP, its own.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import cpu_shares, goals
from benchmarks.goals import Found, Goal
from benchmarks.online_read import feast_python
from featurestore.declaration import Catalog, Entity, Feature, Online, pushed_group
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.ports import free_port
from featurestore.registry.history import RegistryHistory
from featurestore.serving.app import Serving, create_app
from featurestore.store import FeatureStore
from tests.contract.asgi import alive, call

CONNECTIONS = 32
ENTITIES = 5_000
BATCHES = (1, 100)
GOALS = {1: (13, 20), 100: (60, 100)}
BODIES = 64
TRIES = 20
GROUP = "driver_state"
NAMES = [f"trip_mean_{days}d" for days in range(1, 21)]
PATH = "/get-online-features"


@dataclass(frozen=True)
class Load:
    """What one run of the load saw: requests, rate, latency in milliseconds, and the server's CPU time a request.

    The last is not told by the load; it is what other work on the machine disturbs least.
    """

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    cpu_us: float = 0.0


class Client(asyncio.Protocol):
    """One connection that always has a request under way."""

    def __init__(self, requests: Sequence[bytes], seed: int, end: float) -> None:
        self._requests, self._random, self._end = requests, random.Random(seed), end
        self._left, self._head = -1, b""
        self.seconds: list[float] = []
        self.refused = 0
        self.is_done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._random.choice(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._left >= 0:
            self._left -= len(data)
        else:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self.refused += not head.startswith(b"HTTP/1.1 200")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            self._left = size - len(rest)
        if self._left == 0:
            self._answered()

    def connection_lost(self, _: Exception | None) -> None:
        """A server that hangs up has refused what was under way."""
        if not self.is_done.done():
            self.refused += 1
            self.is_done.set_result(None)

    def _answered(self) -> None:
        now, self._left = time.perf_counter(), -1
        self.seconds.append(now - self._sent)
        if now < self._end:
            self._ask()
        elif not self.is_done.done():
            self.is_done.set_result(None)
            self._transport.close()


async def load(port: int, bodies: Sequence[str], seconds: float) -> Load:
    """Load a server, and say what came of it."""
    requests = [
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        for body in bodies
    ]
    started = time.perf_counter()
    loop, end = asyncio.get_running_loop(), started + seconds
    made = [
        await loop.create_connection(lambda seed=seed: Client(requests, seed, end), "127.0.0.1", port)  # type: ignore[misc]
        for seed in range(CONNECTIONS)
    ]
    clients = [client for _, client in made]
    await asyncio.gather(*(client.is_done for client in clients))
    took = time.perf_counter() - started
    times = sorted(one * 1000 for client in clients for one in client.seconds)
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    return Load(len(times), len(times) / took, p50, p99, sum(client.refused for client in clients))


@dataclass(frozen=True)
class Contender:
    """A server under load: where it listens, and its main process, which leads a session of its own."""

    port: int
    session: int

    def loaded(self, bodies: Sequence[str], seconds: float) -> Load:
        """Load it from a process of its own."""
        command = [sys.executable, "-m", "benchmarks.serving", "load", str(self.port), str(seconds)]
        before = self._cpu_seconds()
        done = subprocess.run(command, input=json.dumps(bodies), capture_output=True, text=True, check=True)
        found = Load(**json.loads(done.stdout))
        return replace(found, cpu_us=(self._cpu_seconds() - before) / found.requests * 1e6)

    def _cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                ticks += (int(fields[3]) == self.session) * (int(fields[11]) + int(fields[12]))
        return ticks / os.sysconf("SC_CLK_TCK")


def drivers() -> pl.DataFrame:
    """Latest rows: an integer key, 20 doubles, all of an hour ago."""
    numbers = np.random.default_rng(7)
    event_time = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    times = pl.repeat(event_time, ENTITIES, dtype=pl.Datetime("us", "UTC"), eager=True)
    values = {name: numbers.normal(size=ENTITIES) for name in NAMES}
    return pl.DataFrame({"driver": range(ENTITIES), "event_time": times, **values})


def fill_ours(folder: Path, url: str, rows: pl.DataFrame) -> dict[str, str]:
    """A deployment with these rows; its variables."""
    group = pushed_group(
        name=GROUP,
        entity=Entity("driver", keys={"driver": pl.Int64}),
        features=[Feature(name, pl.Float64, "A mean") for name in NAMES],
        owner="team:benchmarks",
        description="20 doubles.",
        online=Online(ttl=timedelta(days=7)),
    )
    variables = {"FEATURESTORE_ROOT": str(folder), "FEATURESTORE_ONLINE_URL": url}
    store = FeatureStore.from_env(variables)
    RegistryHistory(store.settings.root).apply(Catalog([], [group], []), store.clock, "benchmark")
    store.push(GROUP, rows, "offline")
    store.materialize()
    store.close()
    return variables


FILL_FEAST = """
import sys
from datetime import timedelta
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType
names = sys.argv[2].split(",")
store = FeatureStore(repo_path=".")
driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
view = FeatureView(name=sys.argv[1], entities=[driver], ttl=timedelta(days=7), source=FileSource(path="none.parquet",
    timestamp_field="event_timestamp"), schema=[Field(name=name, dtype=Float64) for name in names])
store.apply([driver, view])
store.write_to_online_store(sys.argv[1], pd.read_parquet(sys.argv[3]))
"""


def fill_feast(python: Path, folder: Path, url: str, rows: pl.DataFrame) -> None:
    """A Feast repository with these rows in the same Valkey."""
    folder.mkdir()
    address = url.removeprefix("redis://").partition("/")[0]
    (folder / "feature_store.yaml").write_text(
        f"project: bench\nregistry: {folder / 'registry.db'}\nprovider: local\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: {address}\n"
    )
    rows.rename({"event_time": "event_timestamp"}).write_parquet(folder / "rows.parquet")
    command = [str(python), "-c", FILL_FEAST, GROUP, ",".join(NAMES), str(folder / "rows.parquet")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def serving(
    command: Sequence[str | Path], folder: Path, variables: Mapping[str, str], port: int
) -> Iterator[Contender]:
    """A server while it runs, from its first answer on."""
    with (folder / f"{port}.log").open("w") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        await_health(port, process)
        yield Contender(port, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def await_health(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a server answers; Feast's takes half a minute to start on a busy machine."""
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"The server on port {port} did not come up; its log is in {port}.log.")


def ask(port: int, body: str) -> Any:
    """One answer."""
    url = f"http://127.0.0.1:{port}{PATH}"
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def bodies_of(entities: int) -> list[str]:
    """Requests for other drivers each."""
    choice = random.Random(entities)
    return [
        json.dumps(
            {
                "features": [f"{GROUP}:{name}" for name in NAMES],
                "entities": {"driver": choice.sample(range(ENTITIES), entities)},
            }
        )
        for _ in range(BODIES)
    ]


def require_equal(ours: int, theirs: int) -> None:
    """Both serve the same values: else nothing is worth comparing. What comes too late on a busy machine is asked for again."""
    for entities in BATCHES:
        body = bodies_of(entities)[0]
        feast = by_name(ask(theirs, body))
        if all(by_name(ask(ours, body)) != feast for _ in range(TRIES)):
            raise RuntimeError(f"The servers differ for {entities} entities.")


def by_name(answer: Any) -> dict[str, Any]:
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


Runs = dict[int, list[tuple[Load, Load]]]
"""By entities a request: of each repeat our load and Feast's."""


def compare(ours: Contender, theirs: Contender, repeats: int, seconds: float) -> Runs:
    """Load both in turn, again and again; print rates and their ratios."""
    found: Runs = {}
    for entities in BATCHES:
        bodies = bodies_of(entities)
        ours.loaded(bodies, seconds)  # whatever is made ready once
        runs = [(ours.loaded(bodies, seconds), theirs.loaded(bodies, seconds)) for _ in range(repeats)]
        found[entities] = runs
        print(
            f"\n{entities} entities x {len(NAMES)} doubles, {CONNECTIONS} connections, {repeats} runs of {seconds:g} s"
        )
        for name, own in (("ours", [one for one, _ in runs]), ("feast serve", [one for _, one in runs])):
            rates = sorted(one.per_second for one in own)
            p50, p99 = (statistics.median(getattr(one, key) for one in own) for key in ("p50_ms", "p99_ms"))
            cpu = statistics.median(one.cpu_us for one in own)
            refused = sum(one.refused for one in own)
            print(
                f"  {name:<12} {statistics.median(rates):>9,.0f} requests/s ({rates[0]:,.0f} to {rates[-1]:,.0f})"
                f"   p50 {p50:8.2f} ms   p99 {p99:8.2f} ms   CPU {cpu:8,.0f} us each   not 200: {refused}"
            )
    return found


def judged(runs: Runs) -> list[Found]:
    """The goals, with the ratio of each repeat."""
    return [
        (
            Goal(f"{entities} entities: times feast serve's requests/s", *GOALS[entities], digits=1),
            [mine.per_second / feast.per_second for mine, feast in own],
        )
        for entities, own in runs.items()
    ]


def where_time_goes(variables: Mapping[str, str], runs: Runs, seconds: float) -> None:
    """Print what of a request's CPU time is whose."""
    for entities, own in runs.items():
        served_us = statistics.median(mine.cpu_us for mine, _ in own)
        with in_this_process(variables, entities) as work:
            ours_us = cpu_us_of(work, seconds) / CONNECTIONS
        with cpu_shares.Profiler() as profiler, in_this_process(variables, entities) as work:
            shares = profiler.shares(work, seconds)
        print("", cpu_shares.table(f"{entities} entities, the application in this process", shares, ours_us), sep="\n")
        print(
            f"\nThe served request took {served_us:,.0f} us: {served_us - ours_us:,.0f} beside, HTTP and its server's."
        )


@contextmanager
def in_this_process(variables: Mapping[str, str], entities: int) -> Iterator[Callable[[], None]]:
    """The application without a server: what is given hands it as many requests at a time as the load has connections."""
    app, loop = create_app(Serving(lambda: FeatureStore.from_env(variables))), asyncio.new_event_loop()
    bodies = itertools.cycle(one.encode() for one in bodies_of(entities))

    async def ask_all() -> None:
        answers = [call(app, PATH, next(bodies)) for _ in range(CONNECTIONS)]
        if {answer.status for answer in await asyncio.gather(*answers)} != {200}:
            raise RuntimeError("A request was not answered.")

    life = alive(app)
    loop.run_until_complete(life.__aenter__())
    yield lambda: loop.run_until_complete(ask_all())
    loop.run_until_complete(life.__aexit__(None, None, None))
    loop.close()


def cpu_us_of(work: Callable[[], object], seconds: float) -> float:
    """CPU time of a call in all threads, after the first."""
    work()
    calls, began, ends_at = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < ends_at:
        work()
        calls += 1
    return (time.process_time() - began) / calls * 1e6


def unanswered(port: int) -> float:
    """Values that our server could not give, by its own count: a fast answer without values is none."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    given = [line for line in lines if line.startswith("featurestore_values_total") and "PRESENT" not in line]
    late = [line for line in lines if line.startswith("featurestore_unanswered_total")]
    return sum(float(line.rpartition(" ")[2]) for line in [*given, *late])


def main() -> int:
    """Fill one Valkey for both, start both servers, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each server in each repeat")
    parser.add_argument("--feast-folder", type=Path, help="virtual environment of Feast; made if missing, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedValkey(Path(name) / "valkey") as valkey:
        folder = Path(name)
        rows = drivers()
        variables = fill_ours(folder / "ours", valkey.url, rows)
        python = feast_python(options.feast_folder or folder / "venv")
        fill_feast(python, folder / "feast", valkey.url, rows)
        ours, theirs = free_port(), free_port()
        mine: list[str | Path] = [Path(sys.executable).parent / "featurestore", "serve", "--port", str(ours)]
        feast: list[str | Path] = [
            python.parent / "feast",
            "serve",
            "--port",
            str(theirs),
            "--workers",
            "1",
            "--no-access-log",
            "--max-requests",
            "0",  # else its worker ends after 1,000 and takes the connections with it
        ]
        with (
            serving(mine, folder / "ours", variables, ours) as own,
            serving(feast, folder / "feast", {}, theirs) as other,
        ):
            require_equal(ours, theirs)
            runs = compare(own, other, options.repeats, options.seconds)
            print(f"\nvalues that ours did not give: {unanswered(ours):.0f}")
        print("", goals.table(judged(runs)), sep="\n")
        where_time_goes(variables, runs, options.seconds)
    return 0


def load_main(port: str, seconds: str) -> int:
    """The load, in its process."""
    print(json.dumps(asdict(asyncio.run(load(int(port), json.load(sys.stdin), float(seconds))))))
    return 0


if __name__ == "__main__":
    sys.exit(load_main(*sys.argv[2:]) if sys.argv[1:2] == ["load"] else main())
