"""The steps of the demo that go through the platform: landing, Dagster runs, the training set, the online store."""

import getpass
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl

from definitions import flights as definitions
from deploy.platform import Platform, await_idle
from examples.flights import models
from examples.flights.history import rows_of_days
from examples.flights.replay import land_by_month
from examples.flights.runs import Launched, due_range, groups_of, months, run_range
from feature_assets.catalogue import offline_key, online_key, raw_key
from feature_assets.groups.flights import catalog
from featurestore.backfill.dagster_api import Backfill, backfill_status, launch_partition_backfill
from featurestore.clock import system_clock
from featurestore.declaration import Daily, Hourly, Static
from featurestore.errors import FeatureStoreError, InvalidInput
from featurestore.location import Location
from featurestore.quality.deployed import newest_set
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore

SOURCES = tuple(source.name for source in catalog.sources)
BACKFILLED = "carrier_delay_daily"
BACKFILL_DAYS = 3
BACKFILL_SECONDS = 240


def land(start: date, until: datetime) -> None:
    """Land the replayed files: daily for history, hourly for the last day."""
    landing = Settings.from_env().landing.path
    hourly_from = until.replace(hour=0) - timedelta(days=1)
    rows = 0
    for report in land_by_month(landing, start=start, until=until, hourly_from=hourly_from, sources=SOURCES):
        rows += sum(report.rows.values())
        print(
            f"  {report.start:%Y-%m-%d} to {report.until:%Y-%m-%d %H:%M}: {report.written} files written, {report.found} were there",
            flush=True,
        )
    print(
        f"  {rows:,} rows landed. A date takes the rows of its month and day in 2013: {until:%Y-%m-%d} shows 2013-{until:%m-%d}."
    )


def apply() -> None:
    """Make the declarations the store's registry."""
    result = RegistryHistory(Settings.from_env().root).apply(catalog, system_clock, getpass.getuser())
    for change in result.changes:
        print(f"  {change}")
    print(f"  registry {result.snapshot.digest[:12]}{'' if result.is_new else ', unchanged'}")


def materialize_raw(start: date, until: datetime) -> None:
    """One run for the raw partitions of every feed, one for what has no partitions."""
    timed = [raw_key(source) for source in catalog.sources if not source.is_timeless]
    timeless = [raw_key(source) for source in catalog.sources if source.is_timeless]
    with dg.DagsterInstance.get() as instance:
        for first, after in months(start, until.date() + timedelta(days=1)):
            _say(
                f"raw, {first:%B %Y}",
                run_range(definitions, instance, timed, (first.isoformat(), (after - timedelta(days=1)).isoformat())),
            )
        _say(
            "raw and static",
            run_range(
                definitions, instance, [*timeless, *(offline_key(group) for group in groups_of(catalog, Static))]
            ),
        )


def materialize_groups(start: date, until: datetime) -> None:
    """A run for each cadence and month: all its groups, every window that is due."""
    with dg.DagsterInstance.get() as instance:
        for first, after in months(start, until.date() + timedelta(days=1)):
            for cadence in (Hourly, Daily):
                groups = groups_of(catalog, cadence)
                keys = due_range(groups, _midnight(first), min(_midnight(after), until), until)
                if keys is not None:
                    assets = [offline_key(group) for group in groups]
                    _say(f"{cadence.name} groups, {first:%B %Y}", run_range(definitions, instance, assets, keys))


@dataclass(frozen=True, slots=True)
class AskedBackfill:
    """A backfill, and the version of the group's table when it was asked for."""

    backfill: Backfill
    version: int | None


def launch_backfill(platform: Platform, until: datetime) -> AskedBackfill:
    """Ask the web server, as its launch dialog does, for three days of a daily group; the daemon runs them."""
    version = _version_of(BACKFILLED)
    last = until.date() - timedelta(days=2)
    days = [(last - timedelta(days=back)).isoformat() for back in reversed(range(BACKFILL_DAYS))]
    backfill = launch_partition_backfill(platform.url, {("offline", BACKFILLED): days})
    print(
        f"  {platform.url}: backfill {backfill.backfill_id} of offline/{BACKFILLED}, {days[0]} to {days[-1]}; it runs beside the next steps"
    )
    return AskedBackfill(backfill, version)


def await_backfill(platform: Platform, asked: AskedBackfill) -> None:
    """Wait for the daemon to finish, and show how each partition ended.

    Raises:
        FeatureStoreError: it failed, or did not end in time.
    """
    backfill = asked.backfill
    deadline = time.monotonic() + BACKFILL_SECONDS
    while not (status := backfill_status(platform.url, backfill.backfill_id)).is_done:
        if time.monotonic() > deadline:
            raise FeatureStoreError(
                f"Backfill {backfill.backfill_id} is {status.status} after {BACKFILL_SECONDS} s. Look at {platform.url}/runs."
            )
        time.sleep(1)
    if status.status != "COMPLETED_SUCCESS":
        raise FeatureStoreError(
            f"Backfill {backfill.backfill_id} ended as {status.status}. Look at {platform.url}/runs."
        )
    print(f"  {status.status}: {status.runs} run by the daemon; {commits_text(asked.version, _version_of(BACKFILLED))}")
    await_idle()


def commits_text(before: int | None, after: int | None) -> str:
    """What a backfill of windows that were computed before did to their table, by its versions."""
    if before == after:
        return "the rows were there already, so no commit was made"
    return f"table version {before} before it, {after} after it: rows were not as before"


def _version_of(group: str) -> int | None:
    return FeatureStore.from_env().offline.table(group).version()


def train(start: date, until: datetime) -> None:
    """Build the training set as a Dagster asset, and compare the two models."""
    with dg.DagsterInstance.get() as instance:
        config = {
            "ops": {
                "training__departure_delay_v1": {
                    "config": {"start": _midnight(start).isoformat(), "end": until.isoformat()}
                }
            }
        }
        _say(
            "training/departure_delay_v1",
            run_range(definitions, instance, [dg.AssetKey(["training", "departure_delay_v1"])], run_config=config),
        )
    training_set = newest_training_set(Settings.from_env().root, "departure_delay_v1")
    print(f"  {training_set.height:,} flights, {training_set.width} columns")
    print(models.compare(training_set, start, until).render())


def newest_training_set(root: Location, service: str) -> pl.DataFrame:
    """The training set of a service that was built last, be it equal to one that was written long ago.

    Raises:
        InvalidInput: none was ever built.
    """
    name = newest_set(root, service)
    if name is None:
        raise InvalidInput(f"Service {service!r} has no training set at {root.uri}. Materialize training/{service}.")
    return pl.read_parquet(root.child("training", service).path / f"{name}.parquet")


def serve(shown: tuple[str, ...]) -> None:
    """Move every online copy through Dagster, then ask for the next flights as the model's server would."""
    with dg.DagsterInstance.get() as instance:
        online = [online_key(group) for group in catalog.groups if group.online]
        _say("online copies", run_range(definitions, instance, online))
    store = FeatureStore.from_env()
    rows = next_flights()
    store.get_online_features("departure_delay_v1", rows)
    began = time.perf_counter()
    answer = store.get_online_features("departure_delay_v1", rows)
    took_ms = 1000 * (time.perf_counter() - began)
    print(
        f"  {rows.height} flights x {answer.statuses.width} features of {len(store.registry.groups)} groups in {took_ms:.1f} ms"
    )
    with pl.Config(
        tbl_rows=5,
        tbl_cols=20,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_width_chars=160,
        float_precision=2,
    ):
        print(answer.frame.select("carrier", "origin", "dest", "tailnum", *shown).head(5))
    counts = answer.statuses.unpivot(value_name="status")["status"].value_counts(sort=True)
    print("  " + ", ".join(f"{status} {count}" for status, count in counts.rows()))


def next_flights() -> pl.DataFrame:
    """Keys of tomorrow's first hundred flights, as they were announced."""
    now = datetime.now(UTC)
    schedules = rows_of_days("schedules", now.date(), now.date() + timedelta(days=1)).sort("scheduled_departure")
    ahead = schedules.filter(pl.col("scheduled_departure") > now + timedelta(hours=2)).drop_nulls("tailnum")
    return ahead.head(100).select("carrier", "origin", "dest", "tailnum")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _say(what: str, launched: Launched) -> None:
    print(f"  {what}: run {launched.run_id[:8]}, {launched.materializations:,} materializations", flush=True)
