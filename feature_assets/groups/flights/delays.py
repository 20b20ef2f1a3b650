"""Daily delay profiles: of carriers, of routes, and a vector for each destination."""

from datetime import date, timedelta

import polars as pl

from feature_assets.groups.flights.entities import carrier, dest, route
from featurestore import Daily, Feature, Online, TimeWindow, feature_group

START = date(2025, 1, 1)
HOURS_OF_DAY = 24

# 16 carriers, up to 203 routes, some 100 destinations: too few rows to compare (200), hence drift=None.


@feature_group(
    entity=carrier,
    features=[
        Feature(
            "dep_delay_mean_7d", pl.Float64, "Mean departure delay over 7 days", unit="min", ge=-60, le=1800, drift=None
        ),
        Feature(
            "delayed_fraction_7d",
            pl.Float64,
            "Share of departures more than 15 minutes late over 7 days",
            ge=0,
            le=1,
            drift=None,
        ),
        Feature(
            "cancelled_fraction_7d",
            pl.Float64,
            "Share of flights cancelled over 7 days",
            ge=0,
            le=1,
            max_null_fraction=0,
            drift=None,
        ),
        Feature(
            "flights_7d",
            pl.Int64,
            "Flights that left or were cancelled over 7 days",
            ge=0,
            max_null_fraction=0,
            drift=None,
        ),
    ],
    cadence=Daily(start=START),
    lookback=timedelta(days=7),
    delay=timedelta(hours=2),
    freshness=timedelta(hours=36),
    max_age=timedelta(days=3),
    online=Online(ttl=timedelta(days=7)),
    min_coverage=0.5,
    owner="team:network-operations",
)
def carrier_delay_daily(window: TimeWindow, departures: pl.LazyFrame, cancellations: pl.LazyFrame) -> pl.LazyFrame:
    """Departure-delay profile of each carrier over its last seven days."""
    left = departures.select("carrier", "dep_delay", is_cancelled=pl.lit(False))
    cancelled = cancellations.select("carrier", dep_delay=pl.lit(None, dtype=pl.Float64), is_cancelled=pl.lit(True))
    return (
        pl.concat([left, cancelled])
        .group_by("carrier")
        .agg(
            dep_delay_mean_7d=pl.col("dep_delay").mean(),
            delayed_fraction_7d=(pl.col("dep_delay").drop_nulls() > 15).mean(),
            cancelled_fraction_7d=pl.col("is_cancelled").mean(),
            flights_7d=pl.len().cast(pl.Int64),
        )
    )


@feature_group(
    entity=route,
    features=[
        Feature(
            "arr_delay_mean_14d",
            pl.Float64,
            "Mean arrival delay over 14 days",
            unit="min",
            ge=-120,
            le=1800,
            drift=None,
        ),
        Feature(
            "air_time_mean_14d", pl.Float64, "Mean time in the air over 14 days", unit="min", ge=0, le=900, drift=None
        ),
        Feature("flights_14d", pl.Int64, "Flights that arrived over 14 days", ge=0, max_null_fraction=0, drift=None),
    ],
    cadence=Daily(start=START),
    lookback=timedelta(days=14),
    delay=timedelta(hours=2),
    freshness=timedelta(hours=36),
    max_age=timedelta(days=3),
    online=Online(ttl=timedelta(days=7)),
    min_coverage=0.5,
    owner="team:network-operations",
)
def route_delay_daily(window: TimeWindow, arrivals: pl.LazyFrame) -> pl.LazyFrame:
    """Arrival-delay profile of each pair of airports over its last fourteen days."""
    return arrivals.group_by("origin", "dest").agg(
        arr_delay_mean_14d=pl.col("arr_delay").mean(),
        air_time_mean_14d=pl.col("air_time").mean(),
        flights_14d=pl.len().cast(pl.Int64),
    )


@feature_group(
    entity=dest,
    features=[
        Feature(
            "embedding",
            pl.Array(pl.Float32, HOURS_OF_DAY),
            "When flights to it arrive: shares of the UTC hours, unit length",
            max_null_fraction=0,
            drift=None,
        )
    ],
    cadence=Daily(start=START),
    lookback=timedelta(days=28),
    delay=timedelta(hours=2),
    freshness=timedelta(hours=36),
    max_age=timedelta(days=7),
    online=Online(ttl=timedelta(days=7)),
    owner="team:recommendations",
)
def airport_embedding_daily(window: TimeWindow, arrivals: pl.LazyFrame) -> pl.LazyFrame:
    """A 24-dimensional profile of each destination by the hour of its arrivals over four weeks."""
    hour = pl.col("arrived_at").dt.hour()
    counts = [(hour == h).sum().cast(pl.Float64).alias(f"h{h}") for h in range(HOURS_OF_DAY)]
    names = [f"h{h}" for h in range(HOURS_OF_DAY)]
    length = pl.sum_horizontal(pl.col(name).pow(2) for name in names).sqrt()
    return (
        arrivals.filter(pl.col("arrived_at").is_not_null())
        .group_by("dest")
        .agg(counts)
        .with_columns(length=length)
        .select("dest", embedding=pl.concat_arr([(pl.col(name) / pl.col("length")).cast(pl.Float32) for name in names]))
    )
