"""Features of a plane: what it is, and what its last flight was like."""

from datetime import UTC, date, datetime, timedelta

import polars as pl

from feature_assets.groups.flights.entities import plane
from featurestore import Feature, Hourly, Online, Static, TimeWindow, feature_group

START = date(2025, 1, 1)

# Some 60 arrivals an hour are too few rows to compare (200), hence drift=None.


@feature_group(
    entity=plane,
    features=[
        Feature("manufactured_year", pl.Int64, "Year of manufacture", unit="year", ge=1930, le=2030),
        Feature("seats", pl.Int64, "Seats", ge=1, le=900, max_null_fraction=0),
        Feature("engines", pl.Int64, "Engines", ge=1, le=8, max_null_fraction=0),
        Feature("manufacturer", pl.String, "Who built it", max_null_fraction=0),
    ],
    cadence=Static(valid_from=datetime(2025, 1, 1, tzinfo=UTC)),
    online=Online(ttl=None),
    owner="team:fleet",
)
def plane_profile(planes: pl.LazyFrame) -> pl.LazyFrame:
    """What the register says of a plane."""
    return planes.select("tailnum", "seats", "engines", "manufacturer", manufactured_year="year")


@feature_group(
    entity=plane,
    features=[
        Feature(
            "arr_delay",
            pl.Float64,
            "Arrival delay of the flight; null if it was diverted",
            unit="min",
            ge=-120,
            le=2000,
            drift=None,
        ),
        Feature("air_time", pl.Float64, "Time in the air", unit="min", ge=0, le=900, drift=None),
        Feature("arrived_from", pl.String, "Where it came from, by FAA code", max_null_fraction=0, drift=None),
        Feature("is_diverted", pl.Boolean, "It did not arrive as planned", max_null_fraction=0, drift=None),
    ],
    cadence=Hourly(start=START),
    emits="events",
    freshness=timedelta(hours=3),
    max_age=timedelta(days=3),
    online=Online(ttl=timedelta(days=7)),
    owner="team:fleet",
)
def plane_last_flight_hourly(window: TimeWindow, arrivals: pl.LazyFrame) -> pl.LazyFrame:
    """Each arrival of a plane, as an event. Two at one instant are two entries of one flight: the higher id stays."""
    return (
        arrivals.sort("flight_id")
        .unique(["tailnum", "event_time"], keep="last", maintain_order=True)
        .select("tailnum", "event_time", "arr_delay", "air_time", "is_diverted", arrived_from="origin")
    )
