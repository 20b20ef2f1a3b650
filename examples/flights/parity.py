"""The proof of the one idea on a real day: online at T equals the point-in-time read at T, for 24 instants.

A second online store is built from the same tables under an injected clock, step by step as production would have moved
it, and is read at each full hour. The point-in-time join then reads the pinned table versions at the same instants.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache

import polars as pl

from examples.flights.history import rows_of_days
from featurestore.errors import FeatureStoreError
from featurestore.location import Location
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.pit import NOT_FOUND, OUTSIDE_MAX_AGE, match_rows
from featurestore.settings import Settings
from featurestore.store import FeatureStore

SERVICE = "departure_delay_v1"
INSTANTS = 24


@dataclass(slots=True)
class MovingClock:
    """A clock that stands where it was put."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


def prove_day(day: date, root: Location) -> int:
    """Replay a day into a second online store and compare every value and status.

    Args:
        day: A day whose windows are promoted.
        root: The store's root.

    Returns:
        How many values were compared.

    Raises:
        FeatureStoreError: a value or a status differs; the first ones are shown.
    """
    folder = root.path / "replay"
    shutil.rmtree(folder, ignore_errors=True)
    flights = rows_of_days("schedules", day, day).select("carrier", "origin", "dest", "tailnum")
    rows = pl.concat([flights, flights.head(1).with_columns(carrier=pl.lit("??"), tailnum=pl.lit("N0NE"))])
    clock = MovingClock(datetime(day.year, day.month, day.day, tzinfo=UTC))
    compared = served = 0
    with EmbeddedValkey(folder) as valkey:
        env = Settings.from_env()
        store = FeatureStore(Settings(root, env.landing, valkey.url), clock=clock)
        versions = {
            name: version
            for name in store.registry.groups
            if (version := store.offline.table(name).version()) is not None
        }
        written: list[int] = []
        for hour in range(1, INSTANTS + 1):
            clock.now = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)
            written.append(sum(step.written for step in store.materialize().values()))
            present = compare_at(store, SERVICE, rows, clock.now, versions)
            compared, served = (
                compared + rows.height * len(store.registry.service(SERVICE).references),
                served + present,
            )
    print(
        f"  {day}: {rows.height} flights x {INSTANTS} instants, {compared:,} values compared, {served:,} of them present, 0 differ"
    )
    print(f"  keys written by the 24 steps: first {written[0]:,}, then {min(written[1:]):,} to {max(written[1:]):,}")
    return compared


def compare_at(
    store: FeatureStore, service: str, rows: pl.DataFrame, instant: datetime, versions: Mapping[str, int]
) -> int:
    """Compare what is read online now with the point-in-time read at `instant`, which is now by the store's clock.

    Returns:
        How many values are present.

    Raises:
        FeatureStoreError: a value or a status differs.
    """
    online = store.get_online_features(service, rows)
    spine = rows.with_columns(label_time=pl.lit(instant))
    offline = store.get_historical_features(spine, service, with_status=True, versions=versions).to_polars()
    expired = cache(lambda group: past_ttl(store, group, spine, versions[group]))
    references = store.registry.service(service).references
    for column, reference in zip(online.statuses.columns, references, strict=True):
        served, truth = online.frame[column], offline[column]
        if not served.equals(truth, null_equal=True):
            raise FeatureStoreError(_difference(column, instant, rows, served, truth))
        statuses = online.statuses[column].cast(pl.String)
        expected = offline[f"{column}__status"].cast(pl.String)
        agree = statuses == expected
        if not agree.all():
            is_gone = (expected == OUTSIDE_MAX_AGE) & (statuses == NOT_FOUND)
            agree |= is_gone & expired(reference.partition(":")[0])
        if not agree.all():
            raise FeatureStoreError(
                _difference(
                    f"{column}'s status", instant, rows.filter(~agree), statuses.filter(~agree), expected.filter(~agree)
                )
            )
    return int((online.statuses.unpivot(value_name="status")["status"] == "PRESENT").sum())


def past_ttl(store: FeatureStore, group: str, spine: pl.DataFrame, version: int) -> pl.Series:
    """For each row of a spine, whether its newest value at `label_time` was true longer ago than the group's ttl.

    Such a value is gone online, where offline still says that it is too old.
    """
    table = store.offline.table(group)
    keys, ttl = table.group.key_names, table.group.ttl
    return match_rows(spine, table.scan(version), keys=keys, max_age=ttl)["status"] == OUTSIDE_MAX_AGE


def _difference(what: str, instant: datetime, rows: pl.DataFrame, served: pl.Series, truth: pl.Series) -> str:
    differing = rows.with_columns(online=served, offline=truth).filter(~pl.col("online").eq_missing(pl.col("offline")))
    return f"{what} differs at {instant.isoformat()} for {differing.height} rows; the first: {differing.head(3).to_dicts()}"
