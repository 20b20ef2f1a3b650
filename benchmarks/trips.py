"""What the backfill benchmark works on: trips of vehicles, groups that are computed from them, and a store that has both."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from feature_assets.partitions import MAX_DAYS_A_RUN
from featurestore.declaration import Catalog, Daily, Entity, Feature, FeatureGroup, Source, TimeWindow, feature_group
from featurestore.location import Location
from featurestore.offline.raw import LandingFile
from featurestore.offline.store import OfflineStore
from featurestore.registry.history import RegistryHistory

START = date(2025, 1, 1)
ORIGIN = datetime(2025, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TIME = pl.Datetime("us", "UTC")
MEASURES = ("distance", "duration", "speed", "load", "cost")
TRIPS_A_DAY = 5
OWNER = "team:benchmarks"

vehicle = Entity("vehicle", keys={"vehicle": pl.Int64})
trips = Source(
    name="trips",
    schema={"trip": pl.Int64, "vehicle": pl.Int64, "ended_at": TIME, **dict.fromkeys(MEASURES, pl.Float64)},
    keys=("trip",),
    event_time="ended_at",
    typical_delay=timedelta(minutes=5),
    owner=OWNER,
)


@feature_group(
    entity=vehicle,
    features=[
        Feature(f"{measure}_{how}", pl.Float64, f"{how} of {measure}", ge=0)
        for measure in MEASURES
        for how in ("mean", "max")
    ],
    cadence=Daily(start=START),
    lookback=DAY,
    delay=timedelta(hours=2),
    max_age=timedelta(days=3),
    owner=OWNER,
    min_coverage=0.5,
)
def vehicle_trips_daily(window: TimeWindow, trips: pl.LazyFrame) -> pl.LazyFrame:  # noqa: ARG001
    """Means and maxima of a vehicle's trips."""
    means = [pl.col(measure).mean().alias(f"{measure}_mean") for measure in MEASURES]
    return trips.group_by("vehicle").agg(
        *means, *(pl.col(measure).max().alias(f"{measure}_max") for measure in MEASURES)
    )


def catalog_of(groups: int) -> Catalog:
    """So many groups, of one day's and of a week's trips in turn."""
    lookbacks = [DAY if number % 2 == 0 else 7 * DAY for number in range(groups)]
    named = [
        replace(vehicle_trips_daily, name=f"vehicle_trips_{number}_daily", lookback=lookback)
        for number, lookback in enumerate(lookbacks)
    ]
    return Catalog((trips,), tuple(named))


def days(first: int, after: int) -> list[TimeWindow]:
    """Some days, counted from the first window."""
    return [TimeWindow(ORIGIN + day * DAY, ORIGIN + (day + 1) * DAY) for day in range(first, after)]


def chunks(windows: Sequence[TimeWindow]) -> Iterator[Sequence[TimeWindow]]:
    """What one run takes, oldest first."""
    for at in range(0, len(windows), MAX_DAYS_A_RUN):
        yield windows[at : at + MAX_DAYS_A_RUN]


def landed(entities: int, windows: Sequence[TimeWindow], number: int) -> LandingFile:
    """The trips of some days as a landing file: `TRIPS_A_DAY` of each vehicle, at random times."""
    random, count = np.random.default_rng(number), entities * TRIPS_A_DAY * len(windows)
    first = (windows[0].start - ORIGIN) // DAY * entities * TRIPS_A_DAY
    frame = pl.DataFrame(
        {
            "trip": np.arange(first, first + count),
            "vehicle": random.integers(0, entities, count),
            "ended_at": random.integers(0, len(windows) * 86_400_000_000, count),
            **{measure: random.gamma(2.0, 10.0, count) for measure in MEASURES},
        }
    ).with_columns(ended_at=pl.lit(windows[0].start) + pl.col("ended_at").cast(pl.Duration("us")))
    path = Path(tempfile.mkdtemp()) / f"{number}.parquet"
    frame.select(pl.col(name).cast(dtype) for name, dtype in trips.schema.items()).write_parquet(path)
    data = path.read_bytes()
    shutil.rmtree(path.parent)
    return LandingFile(path.name, data)


@dataclass(frozen=True)
class Site:
    """A store with raw rows, and how many partitions of its groups are backfilled."""

    folder: Path
    catalog: Catalog
    windows: Sequence[TimeWindow]

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def groups(self) -> Sequence[FeatureGroup]:
        return self.catalog.ordered_groups

    def store(self) -> OfflineStore:
        place = Location(str(self.root))
        return OfflineStore(place, RegistryHistory(place).require_current(), lambda: NOW)

    def emptied(self) -> "Site":
        """With raw rows and registry only."""
        for name in ("staging", "ledger", *(f"feature_group={group.stored_name}" for group in self.groups)):
            shutil.rmtree(self.root / name, ignore_errors=True)
        shutil.rmtree(self.folder / "plain", ignore_errors=True)
        return self


def site_in(folder: Path, partitions: int, groups: int, entities: int) -> Site:
    """Apply the catalogue and ingest the trips, a file a month; there are trips before the first window's longest lookback."""
    site = Site(folder, catalog_of(groups), days(0, partitions))
    RegistryHistory(Location(str(site.root))).apply(site.catalog, lambda: NOW, "benchmarks")
    source = site.store().source(trips)
    for number, windows in enumerate(chunks(days(-7, partitions))):
        done = source.ingest([landed(entities, windows, number)])
        if done.refused_files or done.rows_refused:
            raise RuntimeError(f"Rows that were to be read are refused: {done}")
    return site
