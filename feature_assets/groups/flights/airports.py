"""Hourly features of the airports that flights leave from: the weather there, and how congested it is."""

from datetime import date, timedelta

import polars as pl

from feature_assets.groups.flights.entities import origin
from featurestore import Feature, Hourly, Online, TimeWindow, feature_group

START = date(2025, 1, 1)

# Three airports make three rows a window, too few to compare (200), hence drift=None. That their number cannot be judged either,
# each partition's check warns of.


@feature_group(
    entity=origin,
    features=[
        Feature("temp", pl.Float64, "Air temperature", unit="degF", ge=-40, le=130, drift=None),
        Feature(
            "wind_speed",
            pl.Float64,
            "Wind speed; a sensor fault of 1048 mph is in the data and comes out null",
            unit="mph",
            ge=0,
            le=150,
            drift=None,
        ),
        Feature("visib", pl.Float64, "Visibility", unit="mi", ge=0, le=20, drift=None),
        Feature("pressure", pl.Float64, "Sea level pressure", unit="mbar", ge=870, le=1090, drift=None),
        Feature(
            "precip_3h",
            pl.Float64,
            "Precipitation of the observations of the last three hours",
            unit="in",
            ge=0,
            le=20,
            drift=None,
        ),
    ],
    cadence=Hourly(start=START),
    lookback=timedelta(hours=3),
    delay=timedelta(minutes=15),
    freshness=timedelta(hours=3),
    max_age=timedelta(hours=6),
    online=Online(ttl=timedelta(days=1)),
    owner="team:flight-data",
)
def weather_origin_hourly(window: TimeWindow, weather: pl.LazyFrame) -> pl.LazyFrame:
    """Weather at the origin, as last observed in the hour: the reading of minute 51 is known 20 minutes later, hence the delay."""
    latest = [pl.col(name).sort_by("event_time").last() for name in ("temp", "visib", "pressure")]
    wind = pl.col("wind_speed").sort_by("event_time").last()
    return weather.group_by("origin").agg(
        *latest,
        wind_speed=pl.when(wind <= 150).then(wind),
        precip_3h=pl.col("precip").sum(),
    )


@feature_group(
    entity=origin,
    features=[
        Feature("departures_1h", pl.Int64, "Flights that left in the last hour", ge=0, le=200, drift=None),
        Feature(
            "dep_delay_mean_3h",
            pl.Float64,
            "Mean departure delay of the flights that left in the last 3 hours",
            unit="min",
            ge=-120,
            le=2000,
            drift=None,
        ),
        Feature(
            "delayed_fraction_3h",
            pl.Float64,
            "Share of them that left more than 15 minutes late",
            ge=0,
            le=1,
            drift=None,
        ),
        Feature(
            "overdue_2h",
            pl.Int64,
            "Flights scheduled in the last 2 hours that have neither left nor been cancelled",
            ge=0,
            le=500,
            drift=None,
        ),
        Feature("cancelled_6h", pl.Int64, "Flights cancelled in the last 6 hours", ge=0, le=1000, drift=None),
        Feature(
            "scheduled_next_3h", pl.Int64, "Flights announced to leave in the next 3 hours", ge=0, le=500, drift=None
        ),
    ],
    cadence=Hourly(start=START),
    lookback=timedelta(hours=48),
    freshness=timedelta(hours=2),
    max_age=timedelta(hours=6),
    online=Online(ttl=timedelta(days=1)),
    owner="team:network-operations",
)
def airport_congestion_hourly(
    window: TimeWindow, schedules: pl.LazyFrame, departures: pl.LazyFrame, cancellations: pl.LazyFrame
) -> pl.LazyFrame:
    """How busy and how late an origin is at the end of the hour. Schedules are announced a day ahead, hence the lookback."""

    def since(hours: int) -> pl.Expr:
        return pl.col("event_time") >= window.end - timedelta(hours=hours)

    scheduled = pl.col("scheduled_departure")
    left = departures.group_by("origin").agg(
        departures_1h=since(1).sum().cast(pl.Int64),
        dep_delay_mean_3h=pl.col("dep_delay").filter(since(3)).mean(),
        delayed_fraction_3h=(pl.col("dep_delay").filter(since(3)) > 15).mean(),
    )
    cancelled = cancellations.group_by("origin").agg(cancelled_6h=since(6).sum().cast(pl.Int64))
    gone = pl.concat([departures.select("flight_id"), cancellations.select("flight_id")])
    recent = (scheduled >= window.end - timedelta(hours=2)) & (scheduled < window.end)
    overdue = schedules.filter(recent).join(gone, on="flight_id", how="anti")
    ahead = (scheduled >= window.end) & (scheduled < window.end + timedelta(hours=3))
    return (
        schedules.group_by("origin")
        .agg(scheduled_next_3h=ahead.sum().cast(pl.Int64))
        .join(left, on="origin", how="left")
        .join(overdue.group_by("origin").agg(overdue_2h=pl.len().cast(pl.Int64)), on="origin", how="left")
        .join(cancelled, on="origin", how="left")
        .with_columns(pl.col("departures_1h", "overdue_2h", "cancelled_6h").fill_null(0))
    )
