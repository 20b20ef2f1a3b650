"""The labels of the departure-delay model: one row for each scheduled flight, asked two hours ahead."""

from datetime import timedelta

import polars as pl

ASKED_BEFORE = timedelta(hours=2)
DELAYED_MINUTES = 15
ORIGINS_ZONE = "America/New_York"


def departure_labels(schedules: pl.LazyFrame, departures: pl.LazyFrame) -> pl.LazyFrame:
    """Flights that left, with the entity keys, when the question is asked, and whether they were late.

    Args:
        schedules: Announced flights.
        departures: Flights that left.

    Returns:
        flight_id, carrier, origin, dest, tailnum, `label_time`, what the question itself knows (distance, local hour and
        weekday of the scheduled departure), `is_delayed`.
    """
    scheduled = pl.col("scheduled_departure")
    local = scheduled.dt.convert_time_zone(ORIGINS_ZONE)
    known = schedules.select("flight_id", "carrier", "origin", "dest", "tailnum", "scheduled_departure", "distance")
    return known.join(departures.select("flight_id", "dep_delay"), on="flight_id", how="inner").select(
        "flight_id",
        "carrier",
        "origin",
        "dest",
        "tailnum",
        "distance",
        label_time=scheduled - ASKED_BEFORE,
        scheduled_hour=local.dt.hour().cast(pl.Int32),
        scheduled_weekday=local.dt.weekday().cast(pl.Int32),
        is_delayed=pl.col("dep_delay") > DELAYED_MINUTES,
    )
