"""A few coffee kiosks: one group of each kind, two of them downstream of others, for real Dagster runs on little data.

What makes a window good or bad lies in the rows: an amount above the declared limit fails its gate.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from featurestore.declaration import (
    Backfill,
    Catalog,
    Daily,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    Hourly,
    Online,
    Source,
    Static,
    TimeWindow,
    feature_group,
)

TIME = pl.Datetime("us", "UTC")
START = date(2025, 3, 1)
T0 = datetime(2025, 3, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OWNER = "team:kiosks"
LIMIT = 1000.0
TOO_MUCH = 5000.0
CLOSED = 0

# A few kiosks are too few rows to compare (200), hence drift=None and no bounds of the row count.

SMALL = Backfill(row_count=None)

kiosk = Entity("kiosk")

orders = Source(
    name="orders",
    schema={"order_id": pl.String, "kiosk": pl.String, "amount": pl.Float64, "event_time": TIME, "known_at": TIME},
    keys=("order_id",),
    event_time="event_time",
    known_at="known_at",
    owner=OWNER,
)
register = Source(name="register", schema={"kiosk": pl.String, "seats": pl.Int64}, keys=("kiosk",), owner=OWNER)


@feature_group(
    entity=kiosk,
    features=[Feature("sales_1d", pl.Float64, "Sales of a day", ge=0, le=LIMIT, max_null_fraction=0, drift=None)],
    cadence=Daily(start=START),
    lookback=DAY,
    delay=2 * HOUR,
    freshness=36 * HOUR,
    max_age=2 * DAY,
    online=Online(ttl=4 * DAY),
    owner=OWNER,
    backfill=SMALL,
)
def kiosk_sales_daily(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """What a kiosk sold in a day."""
    return orders.group_by("kiosk").agg(sales_1d=pl.col("amount").sum().round(2))


def mended_sales(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """The transform of `kiosk_sales_daily`, mended: it leaves out orders above the limit."""
    counted = orders.filter(pl.col("amount") <= LIMIT)
    return counted.group_by("kiosk").agg(sales_1d=pl.col("amount").sum().round(2))


mended_sales_daily = replace(kiosk_sales_daily, transform=mended_sales)


@feature_group(
    entity=kiosk,
    features=[Feature("sales_2d", pl.Float64, "Sales of two days", drift=None)],
    cadence=Daily(start=START),
    lookback=2 * DAY,
    delay=3 * HOUR,
    max_age=2 * DAY,
    online=Online(ttl=4 * DAY),
    owner=OWNER,
    backfill=SMALL,
)
def kiosk_trend_daily(window: TimeWindow, kiosk_sales_daily: pl.LazyFrame) -> pl.LazyFrame:
    """The sum of the two last daily windows."""
    return kiosk_sales_daily.sort("event_time").group_by("kiosk").agg(sales_2d=pl.col("sales_1d").sum().round(2))


@feature_group(
    entity=kiosk,
    features=[
        Feature("amount_2h", pl.Float64, "Sales of two hours", ge=0, le=10 * LIMIT, drift=None),
        Feature("orders_2h", pl.Int64, "Orders of two hours", ge=0, max_null_fraction=0, drift=None),
    ],
    cadence=Hourly(start=START),
    lookback=2 * HOUR,
    delay=10 * MINUTE,
    max_age=3 * HOUR,
    online=Online(ttl=5 * HOUR),
    owner=OWNER,
    backfill=SMALL,
)
def kiosk_orders_hourly(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """What a kiosk sold in two hours."""
    return orders.group_by("kiosk").agg(amount_2h=pl.col("amount").sum().round(2), orders_2h=pl.len().cast(pl.Int64))


@feature_group(
    entity=kiosk,
    features=[Feature("amount", pl.Float64, "Amount of the last order", drift=None)],
    cadence=Hourly(start=START),
    emits="events",
    delay=5 * MINUTE,
    max_age=4 * HOUR,
    online=Online(ttl=6 * HOUR),
    owner=OWNER,
    backfill=SMALL,
)
def kiosk_last_order_hourly(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """Each order as an event of its kiosk; of two at one instant the higher id stays."""
    newest = orders.sort("order_id").unique(["kiosk", "event_time"], keep="last", maintain_order=True)
    return newest.select("kiosk", "event_time", "amount")


@feature_group(
    entity=kiosk,
    features=[Feature("seats", pl.Int64, "Seats", ge=0, max_null_fraction=0, drift=None)],
    cadence=Static(valid_from=T0),
    online=Online(ttl=None),
    owner=OWNER,
    min_coverage=0.3,
)
def kiosk_profile(register: pl.LazyFrame) -> pl.LazyFrame:
    """What the register says of a kiosk; one without seats is closed."""
    return register.filter(pl.col("seats") != CLOSED).select("kiosk", "seats")


GROUPS = (kiosk_profile, kiosk_orders_hourly, kiosk_last_order_hourly, kiosk_sales_daily, kiosk_trend_daily)
kiosk_model_v1 = FeatureService("kiosk_model_v1", features=GROUPS, owner=OWNER)


def kiosks(*groups: FeatureGroup) -> Catalog:
    """The catalogue of some groups, or of all with their service."""
    return Catalog((orders, register), groups) if groups else Catalog((orders, register), GROUPS, [kiosk_model_v1])


def order(number: int | str, at: datetime, amount: float = 10.0, **other: Any) -> dict[str, Any]:
    """One order, known when it happens unless `known_at` says otherwise."""
    row = {"order_id": f"o{number:05}" if isinstance(number, int) else number, "kiosk": "a", "amount": amount}
    return {**row, "event_time": at, "known_at": at, **other}


def frame(source: Source, rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=dict(source.schema), orient="row")


def day_key(day: int) -> str:
    """Partition key of the day that is so many days after the first."""
    return (START + timedelta(days=day)).isoformat()


def hour_key(hour: int) -> str:
    """Partition key of the hour that is so many hours after the first."""
    return (T0 + hour * HOUR).strftime("%Y-%m-%d-%H:%M")
