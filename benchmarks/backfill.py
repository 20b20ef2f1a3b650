"""Backfill of daily partitions through Dagster, beside what it is made of: transform, writes, and Dagster's own events.

Run it with `python -W ignore -m benchmarks.backfill [--partitions 365] [--groups 2] [--entities 2000] [--repeats 3] [--growth]`;
`--small` is a quick check. Runs are in-process, of at most 31 partitions with all groups, on the instance that
`dagster.yaml` describes. Every repeat measures all contenders in turn on the same raw rows and empty tables, and only
ratios within a repeat are compared:

- *transform*: the transforms alone, in Polars, on rows that are in memory;
- *plain loop*: the same rows written by one `write_deltalake(mode="overwrite", predicate=...)` per group and day, into
  tables partitioned by day, with the same compression and nothing else;
- *plain runs*: the same with one overwrite per group and run of 31 days, into tables partitioned by month;
- *empty assets*: the same Dagster runs, whose assets report their partitions and checks and do nothing;
- *compute*: inputs read, cut for each window and transformed; nothing is written;
- *library*: computed, staged, judged and promoted, without Dagster;
- *backfill*: the whole.

What staging, gates and promotion cost is *library* less *compute*; its overhead is that over *plain loop*.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
)
from deltalake import WriterProperties, write_deltalake

from benchmarks.trips import NOW, START, Site, chunks, site_in, trips, vehicle_trips_daily
from checks.gate import gate_spec, quarantine_spec
from feature_assets.catalogue import offline_key
from feature_assets.events import PartitionReport, StepEvent, report_partitions
from feature_assets.partitions import backfill_policy, partitions_of
from featurestore.backfill.strategies.choice import window_computer
from featurestore.declaration import Daily, FeatureGroup, TimeWindow
from featurestore.launch import Launch
from featurestore.promotion import materialize_windows
from resources.store import StoreResource

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH = Launch(backfill_id="benchmark")


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


def computed_runs(site: Site) -> list[tuple[Path, Sequence[TimeWindow], list[pl.DataFrame]]]:
    """The rows of each run and group, computed already, and the table that they are to be written to."""
    return [
        (site.folder / "plain" / group.stored_name, windows, [run(window).rows for window in windows])
        for windows in chunks(site.windows)
        for group in site.groups
        for run in [window_computer(site.store(), site.catalog, group, windows, LAUNCH)]
    ]


def overwrite(table: Path, rows: pl.DataFrame, predicate: str, partition: str) -> None:
    """One plain overwrite; of a table that is not there, its first."""
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        predicate=predicate if table.exists() else None,
        partition_by=[partition],
        writer_properties=WriterProperties(compression="ZSTD"),
    )


def plain_loop(site: Site) -> Callable[[], int]:
    """One overwrite a group and day."""
    runs = computed_runs(site)

    def work() -> int:
        for table, windows, parts in runs:
            for window, rows in zip(windows, parts, strict=True):
                day = window.start.date().isoformat()
                overwrite(table, rows.with_columns(day=pl.lit(day)), f"day = '{day}'", "day")
        return sum(rows.height for _, _, parts in runs for rows in parts)

    return work


def plain_runs(site: Site) -> Callable[[], int]:
    """One overwrite a group and run."""
    runs = computed_runs(site)

    def work() -> int:
        for table, windows, parts in runs:
            first, last = windows[0].start.isoformat(), windows[-1].start.isoformat()
            rows = pl.concat(parts).with_columns(month=pl.col("window_start").dt.strftime("%Y-%m"))
            overwrite(table, rows, f"window_start >= '{first}' AND window_start <= '{last}'", "month")
        return sum(rows.height for _, _, parts in runs for rows in parts)

    return work


def compute(site: Site) -> Callable[[], int]:
    """Inputs read and windows computed, as the library does it."""

    def work() -> int:
        count = 0
        for windows in chunks(site.windows):
            for group in site.groups:
                run = window_computer(site.store(), site.catalog, group, windows, LAUNCH)
                count += sum(run(window).rows.height for window in windows)
        return count

    return work


def library(site: Site) -> Callable[[], int]:
    """Runs of the library, without Dagster."""

    def work() -> int:
        count = 0
        for number, windows in enumerate(chunks(site.windows)):
            for group in site.groups:
                done = materialize_windows(
                    site.store(), site.catalog, group, windows, run_id=f"run-{number}", launch=LAUNCH
                )
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
        yield from report_partitions(context, check, reports, [held])

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
                run_backfill(definitions, instance, keys, windows)
        return 0

    return work


def run_backfill(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    windows: Sequence[TimeWindow],
) -> None:
    """One run of a backfill, as the daemon would launch it.

    Raises:
        RuntimeError: not every partition of it was materialized.
    """
    first, last = (window.start.date().isoformat() for window in (windows[0], windows[-1]))
    done = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=list(keys),
        tags={
            ASSET_PARTITION_RANGE_START_TAG: first,
            ASSET_PARTITION_RANGE_END_TAG: last,
            BACKFILL_ID_TAG: LAUNCH.backfill_id,
        },
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    count = len(done.get_asset_materialization_events())
    if count != len(keys) * len(windows):
        raise RuntimeError(f"{count} materializations of {first} to {last}, not what was to be measured")


def empty_assets(site: Site) -> Callable[[], int]:
    definitions = dg.Definitions([empty_asset(group) for group in site.groups], executor=dg.in_process_executor)
    return through_dagster(site, definitions)


def backfill(site: Site) -> Callable[[], int]:
    store = StoreResource(root=str(site.root), landing=str(site.folder / "landing"), now=NOW.isoformat())
    from definitions import build_definitions  # warns of Dagster's previews, which `main` has silenced by now

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
    "plain runs": plain_runs,
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
    print(
        f"{len(site.windows)} partitions x {len(site.groups)} groups, {rows:,} rows, {len(repeats)} repeats, ", end=""
    )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
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
    "staging + gates + promotion / plain runs": lambda s: (s["library"] - s["compute"]) / s["plain runs"],
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
    print(f"{given.entities:,} entities, {len(vehicle_trips_daily.features)} features")
    for partitions, groups in cases:
        bench(partitions, groups, given.entities, given.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
