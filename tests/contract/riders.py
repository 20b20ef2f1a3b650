"""A small online group with a real table and a real server, for tests of materialization and of reads.

Run as a program it is one materializer: it takes steps until it is killed, and says when each begins and ends.
It may be told to stop itself in the middle.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import redis

from featurestore.declaration import Catalog, Entity, Feature, FeatureGroup, Hourly, Online, Source, feature_group
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import FenceRefused
from featurestore.location import Location
from featurestore.offline.commit import Commit
from featurestore.offline.intake import row_schema
from featurestore.offline.table import FeatureTable
from featurestore.online.materialization.materialize import Progress, Step, materialize
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.tier import TierPart
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegisteredGroup
from featurestore.settings import Settings
from featurestore.store import FeatureStore

GROUP = "rider_trip_hourly"
START = datetime(2026, 3, 1, tzinfo=UTC)
MICROSECOND, MINUTE, HOUR = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1)
PUBLISH = 10 * MINUTE
MAX_AGE, TTL = 3 * HOUR, 6 * HOUR
SLICE_BYTES = 40_000
"""Of the materializer that runs as a program: about 250 rows to a slice."""
TRIPS = Feature("trips", pl.Int64, "Trips of the hour")
CITY = Feature("city", pl.String, "Where the last one ended")

Row = dict[str, Any]

rides = Source(
    name="rides",
    schema={"rider": pl.String, "event_time": pl.Datetime("us", "UTC")},
    keys=("rider",),
    event_time="event_time",
    typical_delay=MINUTE,
)


def declared(
    features: Sequence[Feature] = (TRIPS, CITY), *, ttl: timedelta = TTL, max_age: timedelta = MAX_AGE, version: int = 1
) -> FeatureGroup:
    """The group as it would be declared; its transform is never run here."""

    def rider_trip_hourly(window: TimeWindow, rides: pl.LazyFrame) -> pl.LazyFrame:
        """What a rider did last."""
        values = [pl.lit(None, dtype=feature.dtype).alias(feature.name) for feature in features]
        return rides.select("rider", "event_time", *values)

    return feature_group(
        entity=Entity("rider"),
        features=list(features),
        cadence=Hourly(start=date(2026, 3, 1)),
        emits="events",
        publish=PUBLISH,
        max_age=max_age,
        online=Online(ttl=ttl),
        owner="team:riders",
        version=version,
    )(rider_trip_hourly)


def hour(number: int) -> TimeWindow:
    """The window of an hour counted from `START`."""
    return TimeWindow(START + number * HOUR, START + (number + 1) * HOUR)


def row(rider: str, number: int, trips: int | None = 1, **other: Any) -> Row:
    """A row of hour `number`: true at its end and known at its horizon, unless `other` says otherwise."""
    window = hour(number)
    times = {"event_time": window.end, "knowledge_time": window.end + PUBLISH, "window_start": window.start}
    return {"rider": rider, **times, "is_deleted": False, "schema_number": 1, "trips": trips, "city": "Oslo", **other}


@dataclass
class SetClock:
    """A clock that stands until it is set."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


class Riders:
    """The group's table in a folder, its copy on a server, and a clock."""

    def __init__(self, folder: Path, url: str, group: FeatureGroup | None = None, now: datetime | None = None) -> None:
        self.root, self.url = Location(str(folder)), url
        self.clock = SetClock(now or START + 12 * HOUR)
        self.client = redis.Redis.from_url(url)
        self.online = RedisOnlineStore(url, self.clock)
        self.writes = 0
        self.declare(group or declared())

    def declare(self, group: FeatureGroup) -> None:
        """Apply a declaration, and look at the registry anew."""
        RegistryHistory(self.root).apply(Catalog([rides], [group], []), self.clock, "tests")
        # Patient, so that a busy machine is not taken for a server that is away.
        settings = Settings(self.root, self.root.child("landing"), self.url, read_deadline_ms=30_000)
        self.store = FeatureStore(settings, clock=self.clock)

    @property
    def group(self) -> RegisteredGroup:
        return self.store.registry.group(GROUP)

    @property
    def table(self) -> FeatureTable:
        return self.store.offline.table(GROUP)

    @property
    def part(self) -> TierPart:
        """The server, as materialization sees it."""
        return self.online.parts()[0]

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(list(rows), schema=row_schema(self.group), orient="row")

    def promote(self, numbers: Iterable[int], rows: Iterable[Mapping[str, Any]]) -> Commit:
        """Put rows in the place of what some hours hold."""
        self.writes += 1
        windows = [hour(number) for number in numbers]
        seen = self.table.version()
        return self.table.overwrite_windows(
            self.frame(rows), windows, seen_version=seen, transaction=f"write-{self.writes}", metadata={}
        )

    def step(self, **options: Any) -> Step:
        """One whole materialization by the world's clock."""
        return materialize(self.table, self.parts, self.clock, **options)

    @property
    def parts(self) -> Sequence[TierPart]:
        """What the group is materialized into."""
        return self.online.parts()

    def close(self) -> None:
        """Close every connection."""
        self.store.online.close()
        self.online.close()
        self.client.close()

    def read(self, riders: Sequence[str | None]) -> OnlineFeatures:
        return self.store.get_online_features(self.references, {"rider": riders})

    def trips(self, *riders: str) -> list[int | None]:
        """What is served of `trips`."""
        return self.read(riders).frame["trips"].to_list()

    def statuses(self, *riders: str | None, feature: str = "trips") -> list[str]:
        return self.read(riders).statuses[feature].to_list()

    @property
    def references(self) -> list[str]:
        return [f"{GROUP}:{name}" for name in self.group.feature_names]

    def past(self, riders: Sequence[str | None], version: int | None = None) -> pl.DataFrame:
        """The point-in-time read of a table version at the world's instant, with statuses."""
        spine = pl.DataFrame({"rider": riders}, schema={"rider": pl.String}).with_columns(
            label_time=pl.lit(self.clock.now)
        )
        versions = None if version is None else {GROUP: version}
        return self.store.get_historical_features(
            spine, self.references, with_status=True, versions=versions
        ).to_polars()

    def pass_time(self, duration: timedelta) -> None:
        """Move the clock, and the server's expiries with it."""
        self.clock.now += duration
        milliseconds = duration // timedelta(milliseconds=1)
        for key in self.client.scan_iter(count=1000):
            left = int(self.client.pttl(key))
            if left >= 0:
                self.client.pexpire(key, max(0, left - milliseconds))

    def assert_online_is_the_past(self, riders: Sequence[str | None]) -> None:
        """Every value and status online is that of the point-in-time read now; past its ttl a value is gone online."""
        online, truth = self.read(riders), self.past(riders)
        for name in self.group.feature_names:
            expected = truth[f"{name}__status"].cast(pl.String).to_list()
            served = online.statuses[name].cast(pl.String).to_list()
            ends = [self.last_moment(event_time) for event_time in self.past_event_times(riders)]
            gone = [
                e == "OUTSIDE_MAX_AGE" and end is not None and self.clock.now > end
                for e, end in zip(expected, ends, strict=True)
            ]
            assert served == ["NOT_FOUND" if g else e for e, g in zip(expected, gone, strict=True)], name
            assert online.frame[name].to_list() == truth[name].to_list(), name

    def last_moment(self, event_time: datetime | None) -> datetime | None:
        return None if event_time is None or self.group.ttl is None else event_time + self.group.ttl

    def past_event_times(self, riders: Sequence[str | None]) -> list[datetime | None]:
        """The event time of each rider's frontier row, by brute force."""
        rows = self.table.scan(known_by=self.clock.now).select("rider", "event_time").collect()
        last: dict[str | None, datetime] = {}
        for rider, event_time in rows.iter_rows():
            last[rider] = max(event_time, last.get(rider, event_time))
        return [last.get(rider) for rider in riders]


def start_materializer(riders: Riders, *halts: int) -> subprocess.Popen[str]:
    """Another process that materializes; it has begun. After each of these numbers of slices it stops itself, once."""
    command = [sys.executable, "-m", "tests.contract.riders", str(riders.root.path), riders.url]
    started = subprocess.Popen(
        [*command, riders.clock.now.isoformat(), *map(str, halts)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "begin\n"
    return started


def frozen_materializer(riders: Riders, after_slices: int = 2) -> subprocess.Popen[str]:
    """Another process that materializes; after some slices, with others to come, it stops itself until SIGCONT."""
    process = start_materializer(riders, after_slices)
    seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert seen is not None
    assert seen.si_code == os.CLD_STOPPED
    return process


def main(folder: str, url: str, now: str, *halts: str) -> None:
    """Materialize again and again; what was refused is told, and tried again."""
    riders = Riders(Path(folder), url, now=datetime.fromisoformat(now))
    online = RedisOnlineStore(url, riders.clock, write_batch_keys=1)
    left = list(map(int, halts))

    def halt(progress: Progress) -> None:
        if progress.slices_done in left:
            left.remove(progress.slices_done)
            os.kill(os.getpid(), signal.SIGSTOP)

    while True:
        print("begin", flush=True)
        try:
            materialize(riders.table, online.parts(), riders.clock, progress=halt, slice_bytes=SLICE_BYTES)
            print("end", flush=True)
        except FenceRefused:
            print("refused", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
