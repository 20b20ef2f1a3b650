"""Backfill of daily partitions through Dagster, beside what it is made of: transform, writes, and Dagster's own events.

Run it with `python -m benchmarks.backfill [--partitions 365] [--groups 2] [--entities 2000] [--repeats 3] [--growth]`;
`--small` is a quick check. Runs are in-process, of at most 31 partitions with all groups, on the instance that
`dagster.yaml` describes. Every repeat measures all contenders in turn on the same raw rows and empty tables, and only
ratios within a repeat are compared:

- *transform*: the transforms alone, in Polars, on rows that are in memory;
- *plain loop*: the same rows written by one `write_deltalake(mode="overwrite", predicate=...)` per group and day, into
  tables partitioned by day, with the same compression and nothing else;
- *empty assets*: the same Dagster runs, whose assets report their partitions and checks and do nothing;
- *compute*: inputs read, cut for each window and transformed; nothing is written;
- *library*: computed, staged, judged and promoted, without Dagster;
- *backfill*: the whole.

What staging, gates and promotion cost is *library* less *compute*; its overhead is that over *plain loop*.
"""

import argparse
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
from deltalake import WriterProperties, write_deltalake

from checks.gate import gate_spec, quarantine_spec
from definitions import build_definitions
from examples.flights.runs import run_range
from feature_assets.catalogue import offline_key
from feature_assets.events import PartitionReport, StepEvent, report_partitions
from feature_assets.partitions import MAX_DAYS_A_RUN, backfill_policy, partitions_of
from featurestore.backfill.strategies import window_computer
from featurestore.declaration import Catalog, Daily, Entity, Feature, FeatureGroup, Source, TimeWindow, feature_group
from featurestore.launch import SCHEDULED
from featurestore.location import Location
from featurestore.offline.raw import LandingFile
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from resources.store import StoreResource

REPOSITORY = Path(__file__).resolve().parent.parent
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


def days_of(partitions: int) -> list[TimeWindow]:
    return [TimeWindow(ORIGIN + day * DAY, ORIGIN + (day + 1) * DAY) for day in range(partitions)]


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
    """Apply the catalogue and ingest the trips, a file a month."""
    site = Site(folder, catalog_of(groups), days_of(partitions))
    RegistryHistory(Location(str(site.root))).apply(site.catalog, lambda: NOW, "benchmarks")
    source = site.store().source(trips)
    for number, windows in enumerate(chunks(site.windows)):
        done = source.ingest([landed(entities, windows, number)])
        if done.refused_files or done.rows_refused:
            raise RuntimeError(f"Rows that were to be read are refused: {done}")
    return site


def transform(site: Site) -> Callable[[], int]:
    """The transforms alone, on rows in memory."""
    rows = site.store().source(trips).scan().select(list(trips.schema)).collect().sort("ended_at")

    def work() -> int:
        count = 0
        for group in site.groups:
            for window in site.windows:
                read = pl.col("ended_at").is_between(window.end - group.lookback, window.end, closed="left")
                count += group.transform(window, rows.lazy().filter(read)).lazy().collect().height
        return count

    return work


def plain_loop(site: Site) -> Callable[[], int]:
    """One overwrite a group and day, of rows that are computed already."""
    parts = [
        (group.stored_name, window, compute(window).rows)
        for group in site.groups
        for windows in chunks(site.windows)
        for compute in [window_computer(site.store(), site.catalog, group, windows, SCHEDULED)]
        for window in windows
    ]

    def work() -> int:
        for name, window, rows in parts:
            day = window.start.date().isoformat()
            write_deltalake(
                site.folder / "plain" / name,
                rows.with_columns(day=pl.lit(day)),
                mode="overwrite",
                predicate=f"day = '{day}'" if (site.folder / "plain" / name).exists() else None,
                partition_by=["day"],
                writer_properties=WriterProperties(compression="ZSTD"),
            )
        return sum(rows.height for _, _, rows in parts)

    return work


def compute(site: Site) -> Callable[[], int]:
    """Inputs read and windows computed, as the library does it."""

    def work() -> int:
        count = 0
        for windows in chunks(site.windows):
            for group in site.groups:
                run = window_computer(site.store(), site.catalog, group, windows, SCHEDULED)
                count += sum(run(window).rows.height for window in windows)
        return count

    return work


def library(site: Site) -> Callable[[], int]:
    """Runs of the library, without Dagster."""

    def work() -> int:
        count = 0
        for number, windows in enumerate(chunks(site.windows)):
            for group in site.groups:
                done = materialize_windows(site.store(), site.catalog, group, windows, run_id=f"run-{number}")
                count += sum(outcome.verdict.rows for outcome in done.having("promoted"))
        return count

    return work


def empty_asset(group: FeatureGroup) -> dg.AssetsDefinition:
    """An asset of the same partitions and checks, which reports them as passed and does nothing."""
    partitions = partitions_of(group.cadence)
    check, roll_up = gate_spec(group, partitions), quarantine_spec(group)

    @dg.multi_asset(
        name=f"offline__{group.stored_name}",
        specs=[dg.AssetSpec(offline_key(group), skippable=True, partitions_def=partitions)],
        check_specs=[check, roll_up],
        partitions_def=partitions,
        backfill_policy=backfill_policy(group.cadence),
    )
    def empty(context: dg.AssetExecutionContext) -> Iterator[StepEvent]:
        metadata = {"dagster/partition_row_count": 1, "input_rows": 1, "history_rows": 1, "table_version": 1}
        reports = [PartitionReport(key, True, metadata, {"rows": 1}) for key in context.partition_keys]
        held = dg.AssetCheckResult(passed=True, asset_key=roll_up.asset_key, check_name=roll_up.name)
        yield from report_partitions(context, check, reports, held)

    return empty


def through_dagster(site: Site, definitions: dg.Definitions) -> Callable[[], int]:
    """A run for each chunk, on an instance that has never seen the partitions."""
    home = Path(tempfile.mkdtemp(dir=site.folder))
    configuration = (REPOSITORY / "dagster.yaml").read_text().replace(".dagster/", f"{home}/.dagster/")
    (home / "dagster.yaml").write_text(configuration)
    (home / ".dagster").mkdir()
    keys = [offline_key(group) for group in site.groups]

    def work() -> int:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            for windows in chunks(site.windows):
                ends = (windows[0].start.date().isoformat(), windows[-1].start.date().isoformat())
                done = run_range(definitions, instance, keys, ends)
                if done.materializations != len(keys) * len(windows):
                    raise RuntimeError(
                        f"{done.materializations} materializations of {ends}, not what was to be measured"
                    )
        return 0

    return work


def empty_assets(site: Site) -> Callable[[], int]:
    definitions = dg.Definitions([empty_asset(group) for group in site.groups], executor=dg.in_process_executor)
    return through_dagster(site, definitions)


def backfill(site: Site) -> Callable[[], int]:
    store = StoreResource(root=str(site.root), landing=str(site.folder / "landing"), now=NOW.isoformat())
    definitions = build_definitions(site.catalog, landing=Daily(start=START), training=[], store=store)
    work = through_dagster(site, definitions)

    def counted() -> int:
        work()
        store = site.store()
        return sum(store.table(group.stored_name).scan().select(pl.len()).collect().item() for group in site.groups)

    return counted


CONTENDERS: dict[str, Callable[[Site], Callable[[], int]]] = {
    "transform": transform,
    "plain loop": plain_loop,
    "empty assets": empty_assets,
    "compute": compute,
    "library": library,
    "backfill": backfill,
}


@dataclass(frozen=True, slots=True)
class Pass:
    """One measurement: seconds by the clock and of the processor, and the rows that came of it."""

    seconds: float
    cpu_seconds: float
    rows: int


def measure(work: Callable[[], int]) -> Pass:
    """Run once, with the garbage of others collected before and their writes on the disk."""
    gc.collect()
    os.sync()
    begun, cpu = time.perf_counter(), time.process_time()
    rows = work()
    return Pass(time.perf_counter() - begun, time.process_time() - cpu, rows)


def one_repeat(site: Site) -> dict[str, Pass]:
    """Every contender once.

    Raises:
        RuntimeError: they did not make the same rows.
    """
    passes = {name: measure(contender(site.emptied())) for name, contender in CONTENDERS.items()}
    counts = {name: one.rows for name, one in passes.items() if name != "empty assets"}
    if len(set(counts.values())) > 1 or not counts["backfill"]:
        raise RuntimeError(f"The contenders did not make the same rows: {counts}")
    return passes


def spread(values: Sequence[float], unit: str = "") -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:7.2f}{unit} ({low:.2f} to {high:.2f})"


def show(site: Site, repeats: Sequence[dict[str, Pass]]) -> None:
    """Each contender's speed, then the ratios that matter."""
    rows = repeats[0]["backfill"].rows
    print(f"{len(site.windows)} partitions x {len(site.groups)} groups, {rows:,} rows, {len(repeats)} repeats")
    for name in CONTENDERS:
        seconds = statistics.median(one[name].seconds for one in repeats)
        cpu = statistics.median(one[name].cpu_seconds for one in repeats)
        print(f"  {name:<13} {rows / seconds:>10,.0f} rows/s  {seconds:7.2f} s  CPU {cpu:7.2f} s")
    for what, ratio in RATIOS.items():
        by_clock = [ratio({name: done.seconds for name, done in one.items()}) for one in repeats]
        by_cpu = [ratio({name: done.cpu_seconds for name, done in one.items()}) for one in repeats]
        print(f"  {what:<58} {spread(by_clock)}   CPU {spread(by_cpu)}", flush=True)


RATIOS: dict[str, Callable[[dict[str, float]], float]] = {
    "staging + gates + promotion / plain loop": lambda s: (s["library"] - s["compute"]) / s["plain loop"],
    "library / (transform + plain loop)": lambda s: s["library"] / (s["transform"] + s["plain loop"]),
    "backfill / (transform + plain loop)": lambda s: s["backfill"] / (s["transform"] + s["plain loop"]),
    "backfill / (transform + plain loop + empty assets)": lambda s: (
        s["backfill"] / (s["transform"] + s["plain loop"] + s["empty assets"])
    ),
    "Dagster's share: (backfill - library) / backfill": lambda s: (s["backfill"] - s["library"]) / s["backfill"],
}


def bench(partitions: int, groups: int, entities: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = site_in(Path(folder), partitions, groups, entities)
        show(site, [one_repeat(site) for _ in range(repeats)])


def main() -> int:
    """Measure the asked case, and with `--growth` how it grows with partitions and with groups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for option, default in {"--partitions": 365, "--groups": 2, "--entities": 2000, "--repeats": 3}.items():
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--growth", action="store_true", help="10, 100 and 365 partitions; 1, 2 and 4 groups")
    parser.add_argument("--small", action="store_true", help="35 partitions of 50 entities, once")
    given = parser.parse_args()
    for category in (dg.PreviewWarning, dg.BetaWarning):
        warnings.simplefilter("ignore", category)
    if given.small:
        given.partitions, given.entities, given.repeats = 35, 50, 1
    cases = [(given.partitions, given.groups)]
    if given.growth:
        cases = [(10, 2), (100, 2), (365, 2), (100, 1), (100, 4)]
    print(f"{given.entities:,} entities, {len(vehicle_trips_daily.features)} features, load {os.getloadavg()[0]:.1f}")
    for partitions, groups in cases:
        bench(partitions, groups, given.entities, given.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
