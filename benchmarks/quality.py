"""What keeping statistics adds to a partition's materialization, as a share of it.

Run it with `python -m benchmarks.quality [--rows 100 10000 200000] [--features 20] [--windows 7] [--repeats 5]`.

A daily group of that many entities and features is materialized, a window after the other as a schedule does, and once more
all in one run as a backfill does: transform, staging, gate, commit, ledger and statistics. Timed inside are the two calls
that compute and keep statistics; the rest of the run is the materialization. Beside it, the evaluation of drift that the
checks of the step do once a run. Without Dagster, whose start and events would only make the share smaller.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from featurestore import promotion
from featurestore.declaration import Catalog, Daily, Entity, Feature, FeatureGroup, Source, TimeWindow, feature_group
from featurestore.location import Location
from featurestore.offline.raw import LandingFile
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from featurestore.quality.evaluation import lately
from featurestore.registry.compile import compile_snapshot

START = date(2026, 1, 1)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TIME = pl.Datetime("us", "UTC")
TOWNS = np.array(["Newark", "New York", "Boston", "Chicago", "Atlanta"])

readings = Source(
    name="readings",
    schema={"reading": pl.Int64, "meter": pl.Int64, "value": pl.Float64, "event_time": TIME, "known_at": TIME},
    keys=("reading",),
    event_time="event_time",
    known_at="known_at",
)


def group_of(features: int) -> FeatureGroup:
    """Numbers, and every fifth feature a category."""
    declared = [
        Feature(f"town_{n}", pl.String, "Town") if n % 5 == 4 else Feature(f"value_{n}", pl.Float64, "A measure")
        for n in range(features)
    ]

    @feature_group(
        entity=Entity("meter", keys={"meter": pl.Int64}),
        features=declared,
        cadence=Daily(start=START),
        lookback=DAY,
        owner="team:benchmarks",
    )
    def meter_readings_daily(
        window: TimeWindow,  # noqa: ARG001 - a transform's first parameter is its window
        readings: pl.LazyFrame,
    ) -> pl.LazyFrame:
        """Measures of a day, some of them by town."""
        base = readings.group_by("meter").agg(pl.col("value").mean())
        towns = pl.Series(TOWNS.tolist())
        columns = {
            f.name: pl.lit(towns).gather((pl.col("meter") * (n + 7)) % len(TOWNS))
            if f.name.startswith("town")
            else pl.col("value") * (n + 1) + (pl.col("meter") % (n + 3))
            for n, f in enumerate(declared)
        }
        return base.select("meter", **columns)

    return meter_readings_daily


@dataclass
class Spent:
    """Seconds in the calls that are measured, by the clock and of CPU."""

    seconds: float = 0.0
    cpu: float = 0.0

    def measure(self, name: str) -> None:
        """Count what a call of the promotion takes, from now on."""
        inner = getattr(promotion, name)

        def timed(*args: Any, **options: Any) -> Any:
            began, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*args, **options)
            finally:
                self.seconds += time.perf_counter() - began
                self.cpu += time.process_time() - cpu

        setattr(promotion, name, timed)


@dataclass(frozen=True, slots=True)
class Pass:
    """One store filled once: seconds a window of each part."""

    materialization: float
    statistics: float
    evaluation: float
    cpu_share: float

    @property
    def share(self) -> float:
        return self.statistics / self.materialization


def fill(rows: int, features: int, windows: int, spent: Spent, *, at_once: bool) -> Pass:
    """Materialize a new store; of single windows the first, which makes the tables, is left out."""
    group = group_of(features)
    catalog = Catalog([readings], [group])
    with tempfile.TemporaryDirectory() as folder:
        now = T0 + (windows + 3) * DAY
        store = OfflineStore(Location(folder), compile_snapshot(catalog, None), lambda: now)
        for day in range(windows + 1):
            _land(store, rows, day, Path(folder))
        asked = list(Daily(start=START).windows_between(T0, T0 + (windows + 1) * DAY))
        materialize_windows(store, catalog, group, asked[:1], run_id="first")
        runs = [asked[1:]] if at_once else [[window] for window in asked[1:]]
        spent.seconds = spent.cpu = 0.0
        began, cpu = time.perf_counter(), time.process_time()
        for number, part in enumerate(runs):
            materialize_windows(store, catalog, group, part, run_id=f"run{number}")
        whole, cpu = time.perf_counter() - began, time.process_time() - cpu
        began = time.perf_counter()
        lately(store, group.stored_name, is_kept=True)
        evaluation = time.perf_counter() - began
    return Pass((whole - spent.seconds) / windows, spent.seconds / windows, evaluation, spent.cpu / (cpu - spent.cpu))


def _land(store: OfflineStore, rows: int, day: int, folder: Path) -> None:
    random = np.random.default_rng(day)
    at = T0 + day * DAY + timedelta(hours=1)
    frame = pl.DataFrame(
        {
            "reading": np.arange(day * rows, (day + 1) * rows),
            "meter": np.arange(rows),
            "value": random.normal(size=rows),
            "event_time": pl.repeat(at, rows, dtype=TIME, eager=True),
            "known_at": pl.repeat(at, rows, dtype=TIME, eager=True),
        }
    )
    path = folder / f"{day}.parquet"
    frame.write_parquet(path)
    store.source(readings).ingest([LandingFile(path.name, path.read_bytes())])
    path.unlink()


def report(rows: int, how: str, passes: Sequence[Pass]) -> None:
    """The median of the repeats, and the range of the share."""
    by_part = {
        name: statistics.median(getattr(one, name) for one in passes) * 1e3
        for name in ("materialization", "statistics", "evaluation")
    }
    shares = sorted(one.share for one in passes)
    print(
        f"{rows:>9,} rows, {how:<18} materialization {by_part['materialization']:8.1f} ms a window, statistics "
        f"{by_part['statistics']:7.1f} ms = {statistics.median(shares):6.1%} (from {shares[0]:.1%} to {shares[-1]:.1%}), "
        f"of CPU {statistics.median(one.cpu_share for one in passes):.1%}; "
        f"drift of lately {by_part['evaluation']:.0f} ms a run"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 10_000, 200_000])
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    spent = Spent()
    for name in ("statistics_of", "keep_statistics"):
        spent.measure(name)
    for rows in asked.rows:
        for how, at_once in (("a run a window", False), (f"{asked.windows} windows a run", True)):
            passes = [fill(rows, asked.features, asked.windows, spent, at_once=at_once) for _ in range(asked.repeats)]
            report(rows, how, passes)


if __name__ == "__main__":
    main()
