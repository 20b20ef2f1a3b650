"""What the board costs: `python -m benchmarks.board --groups 1000`.

Hourly groups with a month of windows in their ledgers and a day of lags in the journal, on a local disk; no online store. Printed: the
first look and the next ones, what of a look is making the metrics, a scrape, the page as it opens, the page of all groups, and JSON.
Requests are answered in this process, without a socket. Each figure is the processor's time, the median of its rounds with the least
and the greatest, so that another load on the machine shows little in it; the time that passed follows.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp, Message

from benchmarks.schedule import NOW, entries
from feature_assets.groups.flights.airports import weather_origin_hourly
from feature_assets.groups.flights.sources import SOURCES
from featurestore.board.app import create_app
from featurestore.board.metrics import group_metrics
from featurestore.board.watching import BoardWatch
from featurestore.declaration import Catalog
from featurestore.freshness.journal import FreshnessJournal
from featurestore.freshness.watch import FreshnessWatch
from featurestore.location import Location
from featurestore.offline.ledger import Ledger
from featurestore.offline.store import OfflineStore
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore

QUARTER = timedelta(minutes=15)
Given = TypeVar("Given")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Location(str(Path(folder)))
        fill(root, options.groups)
        measure(root, options.groups, options.rounds)


def fill(root: Location, count: int) -> None:
    """Groups, their windows, and lags of a day."""
    groups = [replace(weather_origin_hourly, name=f"weather_{number}") for number in range(count)]
    catalog = Catalog([source for source in SOURCES if source.name == "weather"], groups)
    RegistryHistory(root).apply(catalog, lambda: NOW, "benchmark")
    for group in groups:
        Ledger(root, group.stored_name).append(entries())
    watch = FreshnessWatch(OfflineStore(root, compile_snapshot(catalog, None), lambda: NOW), None)
    journal = FreshnessJournal.open(f"sqlite:///{root.path}/metadata.db", lambda: NOW)
    found = watch.look().values()
    for back in range(96, 0, -1):
        journal.record([replace(one, at=NOW - back * QUARTER) for one in found])


def measure(root: Location, count: int, rounds: int) -> None:
    settings = Settings(root, root.child("landing"))
    watch = BoardWatch(lambda: FeatureStore(settings, clock=lambda: NOW), lambda: NOW, 30.0)
    app = create_app(watch)
    print(f"{count} groups, {rounds} rounds")
    said("first look, with the lags of a day", watch.look_once, 1)
    said("look", watch.look_once, rounds)
    look = watch.standing.look
    assert look is not None
    said("of it making the metrics", lambda: group_metrics(look.documents), rounds)
    for what, path in {"scrape": "/metrics", "page": "/", "page of all": "/?all=1", "JSON": "/freshness.json"}.items():
        size = said(what, partial(ask, app, path), rounds)
        print(f"    {size / 1024:,.0f} KiB")
    watch.close()


def ask(app: ASGIApp, path: str) -> int:
    return asyncio.run(answered(app, path))


async def answered(app: ASGIApp, path: str) -> int:
    """One request; the bytes of its answer."""
    address, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": address,
        "query_string": query.encode(),
        "headers": [],
        "root_path": "",
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    return sum(len(message.get("body", b"")) for message in sent[1:])


def said(what: str, work: Callable[[], Given], rounds: int) -> Given:
    taken, passed = [], []
    for _ in range(rounds):
        busy, began = time.process_time(), time.perf_counter()
        result = work()
        taken.append(1000 * (time.process_time() - busy))
        passed.append(1000 * (time.perf_counter() - began))
    spread = f"{min(taken):,.1f} to {max(taken):,.1f}"
    print(
        f"{what}: {statistics.median(taken):,.1f} ms ({spread}); passed {statistics.median(passed):,.1f} ms", flush=True
    )
    return result


if __name__ == "__main__":
    main()
