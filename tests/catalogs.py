"""A small chain of shops for tests of the whole offline way: its feeds, its feature groups, and a store with a set clock.

The transforms are plain; what makes a window good or bad is in the rows of its sources.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.declaration import (
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
from featurestore.location import Location
from featurestore.offline.raw import Ingestion, LandingFile
from featurestore.offline.store import OfflineStore
from featurestore.registry.compile import compile_snapshot

TIME = pl.Datetime("us", "UTC")
START = date(2026, 3, 1)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
OWNER = "team:shops"
MISSING = -1.0
"""An amount that the transforms turn into a null, so that rows can bring null fractions about."""

shop = Entity("shop")
aisle = Entity("aisle", keys={"shop": pl.String, "number": pl.Int64})

sales = Source(
    name="sales",
    schema={
        "sale_id": pl.String,
        "shop": pl.String,
        "number": pl.Int64,
        "amount": pl.Float64,
        "event_time": TIME,
        "known_at": TIME,
    },
    keys=("sale_id",),
    event_time="event_time",
    known_at="known_at",
)
visits = Source(
    name="visits",
    schema={"shop": pl.String, "slot": pl.Int64, "people": pl.Int64, "seen_at": TIME},
    keys=("shop", "slot"),
    event_time="seen_at",
    typical_delay=timedelta(minutes=20),
)
register = Source(name="register", schema={"shop": pl.String, "area": pl.Int64, "town": pl.String}, keys=("shop",))


def _amount() -> pl.Expr:
    return pl.when(pl.col("amount") != MISSING).then("amount")


@feature_group(
    entity=shop,
    features=[
        Feature("revenue", pl.Float64, "Sum of sales of two days", ge=0, le=1000, max_null_fraction=0.5),
        Feature("sales_2d", pl.Int64, "Number of sales of two days", ge=0),
    ],
    cadence=Daily(start=START),
    lookback=2 * DAY,
    delay=timedelta(hours=2),
    max_age=2 * DAY,
    online=Online(ttl=4 * DAY),
    owner=OWNER,
)
def shop_sales_daily(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """What a shop sold in two days."""
    return sales.sort("sale_id").group_by("shop").agg(revenue=_amount().sum(), sales_2d=pl.len().cast(pl.Int64))


@feature_group(
    entity=shop,
    features=[Feature("revenue_1h", pl.Float64, "Sum of sales of the hour", ge=0, le=1000, max_null_fraction=0.5)],
    cadence=Hourly(start=START),
    lookback=HOUR,
    delay=timedelta(minutes=10),
    owner=OWNER,
    min_coverage=0.5,
)
def shop_sales_hourly(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """What a shop sold in an hour; null if one of its amounts is missing, and no result at all for the shop 'fire'."""
    if sales.filter(pl.col("shop") == "fire").collect().height:
        raise ValueError("the shop is on fire")
    mean = pl.when(_amount().is_null().any()).then(None).otherwise(_amount().sum())
    return sales.sort("sale_id").group_by("shop").agg(revenue_1h=mean)


@feature_group(
    entity=shop,
    features=[
        Feature("amount", pl.Float64, "Amount of the sale", ge=0, le=1000),
        Feature("sold_in", pl.String, "Town of the shop, as far as it was known"),
    ],
    cadence=Hourly(start=START),
    emits="events",
    max_age=3 * HOUR,
    online=Online(ttl=DAY),
    owner=OWNER,
)
def shop_last_sale_hourly(window: TimeWindow, sales: pl.LazyFrame, register: pl.LazyFrame) -> pl.LazyFrame:
    """Each sale as an event of its shop; of two at one instant the higher id stays."""
    latest = sales.sort("sale_id").unique(["shop", "event_time"], keep="last", maintain_order=True)
    return latest.join(register, on="shop", how="left").select("shop", "event_time", "amount", sold_in="town")


@feature_group(
    entity=shop,
    features=[
        Feature("area", pl.Int64, "Area", unit="m2", ge=1),
        Feature("town", pl.String, "Town", max_null_fraction=0),
    ],
    cadence=Static(valid_from=T0),
    online=Online(ttl=None),
    owner=OWNER,
    min_coverage=0.5,
)
def shop_profile(register: pl.LazyFrame) -> pl.LazyFrame:
    """What the register says of a shop."""
    return register.select("shop", "area", "town")


@feature_group(
    entity=shop,
    features=[Feature("revenue_per_area", pl.Float64, "Revenue of the last day by area")],
    cadence=Daily(start=START),
    lookback=2 * DAY,
    delay=timedelta(hours=3),
    max_age=2 * DAY,
    online=Online(ttl=4 * DAY),
    owner=OWNER,
)
def shop_density_daily(window: TimeWindow, shop_sales_daily: pl.LazyFrame, shop_profile: pl.LazyFrame) -> pl.LazyFrame:
    """Revenue of the two last daily windows, by the area of the shop."""
    revenue = shop_sales_daily.sort("event_time").group_by("shop").agg(pl.col("revenue").sum())
    joined = revenue.join(shop_profile, on="shop", how="left")
    return joined.select("shop", revenue_per_area=pl.col("revenue") / pl.col("area"))


@feature_group(
    entity=aisle,
    features=[
        Feature("mix", pl.Array(pl.Float32, 2), "Share of sales below and from 10"),
        Feature("amounts", pl.List(pl.Float64), "The amounts", max_length=50),
    ],
    cadence=Daily(start=START),
    lookback=DAY,
    max_age=DAY,
    online=Online(ttl=2 * DAY),
    owner=OWNER,
)
def aisle_mix_daily(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """What is sold in an aisle of a shop."""
    small = (pl.col("amount") < 10).mean().cast(pl.Float32)
    grouped = sales.sort("sale_id").group_by("shop", "number").agg(small=small, amounts=pl.col("amount"))
    return grouped.select("shop", "number", "amounts", mix=pl.concat_arr([pl.col("small"), 1 - pl.col("small")]))


SOURCES = (sales, visits, register)
GROUPS = (shop_sales_daily, shop_sales_hourly, shop_last_sale_hourly, shop_profile, shop_density_daily, aisle_mix_daily)
shop_model_v1 = FeatureService(
    "shop_model_v1", features=[shop_sales_daily, shop_last_sale_hourly["sold_in"]], owner=OWNER
)


@cache
def shops() -> Catalog:
    """The whole chain."""
    return Catalog(SOURCES, GROUPS, [shop_model_v1])


@dataclass
class Clock:
    """A clock that stands until it is set, and moves a microsecond whenever it is read if `ticks`."""

    now: datetime
    ticks: bool = False

    def __call__(self) -> datetime:
        if self.ticks:
            self.now += timedelta(microseconds=1)
        return self.now


@dataclass
class Shops:
    """A store of the chain in a folder, its clock, and the files that its feeds have landed."""

    root: Path
    clock: Clock
    catalog: Catalog = field(default_factory=shops)
    files: int = 0

    @property
    def store(self) -> OfflineStore:
        return OfflineStore(Location(str(self.root)), compile_snapshot(self.catalog, None), self.clock)

    def land(self, source: Source, rows: Iterable[Mapping[str, Any]], name: str | None = None) -> Ingestion:
        """Ingest rows as one file, under a name of its own unless one is given."""
        self.files += 1
        return self.store.source(source).ingest([landing_file(source, rows, name or f"{self.files:05}.parquet")])


def landing_file(source: Source, rows: Iterable[Mapping[str, Any]], name: str) -> LandingFile:
    return LandingFile(name, parquet(pl.DataFrame(list(rows), schema=dict(source.schema), orient="row")))


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def sale(number: int | str, at: datetime, amount: float = 10.0, **other: Any) -> dict[str, Any]:
    """One sale, known when it happens unless `known_at` says otherwise."""
    row = {
        "sale_id": f"s{number:04}" if isinstance(number, int) else number,
        "shop": "a",
        "number": 1,
        "amount": amount,
    }
    return {**row, "event_time": at, "known_at": at, **other}


def in_aisle(row: dict[str, Any], number: int | None) -> dict[str, Any]:
    return {**row, "number": number}


def hours(group: FeatureGroup, first: int, last: int) -> list[TimeWindow]:
    """Windows of an hourly group that start in hours [first, last) after `T0`."""
    return windows(group, T0 + first * HOUR, T0 + last * HOUR)


def days(group: FeatureGroup, first: int, last: int) -> list[TimeWindow]:
    """Windows of a daily group that start on days [first, last) after `T0`."""
    return windows(group, T0 + first * DAY, T0 + last * DAY)


def windows(group: FeatureGroup, start: datetime, end: datetime) -> list[TimeWindow]:
    if isinstance(group.cadence, Static):
        raise TypeError(f"{group.name} is static")
    return list(group.cadence.windows_between(start, end))


def plain_rows(frame: pl.DataFrame, columns: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
    """Rows as tuples in an order of their own, so that two frames compare as bags."""
    return sorted((frame if columns is None else frame.select(columns)).rows(), key=repr)
