"""What a tick of the sensors of due windows and of freshness costs: `python -m benchmarks.schedule --groups 1000`.

Hourly groups with a month of windows in their ledgers, on a local disk. Printed: the first look of a new process, a look while nothing
is due, and the look at an hour's end, when every group owes a window; of freshness the first look, the next ones, what it takes to keep
what a look found, and looks that ask a Valkey on loopback for the copy of every group. At the end whole ticks of Dagster's sensors of
freshness and of alerts, with all that they ask, keep, publish and report: while all is well, and six hours later, when every group is late.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from feature_assets.groups.flights.airports import weather_origin_hourly
from feature_assets.groups.flights.sources import SOURCES
from featurestore.declaration import Catalog
from featurestore.freshness.journal import FreshnessJournal
from featurestore.freshness.watch import FreshnessWatch
from featurestore.location import Location
from featurestore.offline.ledger import Ledger, LedgerEntry
from featurestore.offline.store import OfflineStore
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.online.stores import OnlineStores
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.history import RegistryHistory
from featurestore.schedule.watch import NEW_GROUPS_A_LOOK, Watch
from featurestore.settings import Settings
from resources.store import StoreResource
from sensors.alerts import alerts_sensor
from sensors.freshness import freshness_sensor

HOUR = timedelta(hours=1)
NOW = datetime(2025, 2, 1, 12, 30, tzinfo=UTC)
WINDOWS = 31 * 24
ONLINE_URL = "FEATURESTORE_BENCHMARK_ONLINE_URL"
TICKS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Location(str(Path(folder))), options.groups)


def measure(root: Location, count: int) -> None:
    groups = [replace(weather_origin_hourly, name=f"weather_{number}") for number in range(count)]
    catalog = Catalog([source for source in SOURCES if source.name == "weather"], groups)
    store = OfflineStore(root, compile_snapshot(catalog, None), lambda: NOW)
    for group in groups:
        Ledger(root, group.stored_name).append(entries())
    watch = Watch(catalog)
    looks = -(-count // NEW_GROUPS_A_LOOK)
    said(f"{count} groups, first looks", lambda: [watch.owed(root, NOW, lambda: store) for _ in range(looks)])
    said("nothing due", lambda: watch.owed(root, NOW + timedelta(minutes=1), lambda: store))
    said("looking again after five minutes", lambda: watch.owed(root, NOW + timedelta(minutes=6), lambda: store))
    said("an hour's end, every group owes a window", lambda: watch.owed(root, NOW + HOUR, lambda: store))
    freshness = FreshnessWatch(store, None)
    journal = FreshnessJournal.open(f"sqlite:///{root.path}/metadata.db", lambda: NOW)
    said("freshness, first look", freshness.look)
    said("freshness, again", freshness.look)
    said("freshness, kept for the first time", lambda: journal.record(list(freshness.look().values())))
    said("freshness, looked at and kept again", lambda: journal.record(list(freshness.look().values())))
    with EmbeddedValkey(Path(root.path) / "valkey") as server:
        online = OnlineStores(Settings(root, root, server.url), lambda: NOW, store.registry.group)
        served = FreshnessWatch(store, online.parts_of)
        said("freshness with copies, first look", served.look)
        for _ in range(3):
            said("freshness with copies, again", served.look)
        online.close()
        whole_ticks(root, catalog, server.url)


def whole_ticks(root: Location, catalog: Catalog, online_url: str) -> None:
    """As Dagster's daemon has them, in an instance in memory."""
    RegistryHistory(root).apply(catalog, lambda: NOW, "benchmark")
    os.environ[ONLINE_URL] = online_url
    freshness, alerts = freshness_sensor(catalog), alerts_sensor(catalog, [])
    with dg.DagsterInstance.ephemeral() as instance:
        cursor: str | None = None
        for state, since in (("all is well", timedelta()), ("every group is late", 6 * HOUR)):
            for number in range(TICKS):
                now = (NOW + since + number * timedelta(seconds=30)).isoformat()
                store = StoreResource(
                    root=str(root.path), landing=str(root.path), online_url_variable=ONLINE_URL, now=now
                )
                for sensor in (freshness, alerts):
                    given = cursor if sensor is freshness else None
                    with dg.build_sensor_context(instance, given, resources={"store": store}) as context:
                        began = time.perf_counter()
                        done = sensor.evaluate_tick(context)
                    took = 1000 * (time.perf_counter() - began)
                    print(
                        f"{state}, tick {number + 1} of {sensor.name}: {took:,.1f} ms, {len(done.asset_events)} events",
                        flush=True,
                    )
                    cursor = done.cursor if sensor is freshness else cursor


def entries() -> list[LedgerEntry]:
    last = NOW.replace(minute=0) - HOUR
    return [
        LedgerEntry(last - back * HOUR, NOW, "promoted", "run", "code", "{}", "digest", 3, 0, 0)
        for back in range(WINDOWS)
    ]


def said(what: str, look: Callable[[], object]) -> None:
    began = time.perf_counter()
    look()
    print(f"{what}: {1000 * (time.perf_counter() - began):,.1f} ms", flush=True)


if __name__ == "__main__":
    main()
