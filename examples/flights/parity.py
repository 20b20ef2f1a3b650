"""The proof of the one idea on a real day: online at T equals the point-in-time read at T, for 24 instants.

A second online store is built from the same tables under an injected clock, step by step as production would have moved
it, and is read at each full hour. The point-in-time join then reads the pinned table versions at the same instants.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from examples.flights.history import rows_of_days
from featurestore.errors import FeatureStoreError
from featurestore.location import Location
from featurestore.online.redis.valkey import EmbeddedValkey
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
            present = _compare(store, rows, clock.now, versions)
            compared, served = (
                compared + rows.height * len(store.registry.service(SERVICE).references),
                served + present,
            )
    print(
        f"  {day}: {rows.height} flights x {INSTANTS} instants, {compared:,} values compared, {served:,} of them present, 0 differ"
    )
    print(f"  keys written by the 24 steps: first {written[0]:,}, then {min(written[1:]):,} to {max(written[1:]):,}")
    return compared


def _compare(store: FeatureStore, rows: pl.DataFrame, instant: datetime, versions: dict[str, int]) -> int:
    """Compare one instant, and count the values that are present."""
    online = store.get_online_features(SERVICE, rows)
    spine = rows.with_columns(label_time=pl.lit(instant))
    offline = store.get_historical_features(spine, SERVICE, with_status=True, versions=versions).to_polars()
    for column in online.statuses.columns:
        served, truth = online.frame[column], offline[column]
        if not served.equals(truth, null_equal=True):
            raise FeatureStoreError(_difference(column, instant, rows, served, truth))
        statuses = online.statuses[column].cast(pl.String)
        expected = offline[f"{column}__status"].cast(pl.String)
        # A value past its ttl is gone online, where offline still says that it is too old.
        agree = (statuses == expected) | ((expected == "OUTSIDE_MAX_AGE") & (statuses == "NOT_FOUND"))
        if not agree.all():
            raise FeatureStoreError(
                _difference(
                    f"{column}'s status", instant, rows.filter(~agree), statuses.filter(~agree), expected.filter(~agree)
                )
            )
    return int((online.statuses.unpivot(value_name="status")["status"] == "PRESENT").sum())


def _difference(what: str, instant: datetime, rows: pl.DataFrame, served: pl.Series, truth: pl.Series) -> str:
    differing = rows.with_columns(online=served, offline=truth).filter(~pl.col("online").eq_missing(pl.col("offline")))
    return f"{what} differs at {instant.isoformat()} for {differing.height} rows; the first: {differing.head(3).to_dicts()}"
