"""The feeds of the flights domain: what lands, and when each row was known. `docs/demo-data.md` describes every column."""

from datetime import timedelta

import polars as pl

from featurestore import Source

TIME = pl.Datetime("us", "UTC")
OWNER = "team:flight-data"

FLIGHT = {
    "flight_id": pl.String,
    "carrier": pl.String,
    "flight": pl.Int64,
    "tailnum": pl.String,
    "origin": pl.String,
    "dest": pl.String,
}
KNOWN = {"event_time": TIME, "known_at": TIME}

schedules = Source(
    name="schedules",
    schema={**FLIGHT, "scheduled_departure": TIME, "scheduled_arrival": TIME, "distance": pl.Float64, **KNOWN},
    keys=("flight_id",),
    event_time="event_time",
    known_at="known_at",
    description="Planned flights, announced at noon UTC of the day before.",
    owner=OWNER,
)
departures = Source(
    name="departures",
    schema={**FLIGHT, "scheduled_departure": TIME, "departed_at": TIME, "dep_delay": pl.Float64, **KNOWN},
    keys=("flight_id",),
    event_time="event_time",
    known_at="known_at",
    description="Flights as they left the gate, known at that moment.",
    owner=OWNER,
)
arrivals = Source(
    name="arrivals",
    schema={
        **FLIGHT,
        "scheduled_departure": TIME,
        "scheduled_arrival": TIME,
        "arrived_at": TIME,
        "arr_delay": pl.Float64,
        "air_time": pl.Float64,
        "distance": pl.Float64,
        "is_diverted": pl.Boolean,
        **KNOWN,
    },
    keys=("flight_id",),
    event_time="event_time",
    known_at="known_at",
    description="Flights as they arrived, or were given up as diverted.",
    owner=OWNER,
)
cancellations = Source(
    name="cancellations",
    schema={**FLIGHT, "scheduled_departure": TIME, "scheduled_arrival": TIME, "distance": pl.Float64, **KNOWN},
    keys=("flight_id",),
    event_time="event_time",
    known_at="known_at",
    freshness=timedelta(days=7),  # there are days on which nothing is cancelled
    description="Flights that never left, taken to be known at their scheduled departure.",
    owner=OWNER,
)
weather = Source(
    name="weather",
    schema={
        "origin": pl.String,
        "observed_hour": TIME,
        **dict.fromkeys(
            ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"), pl.Float64
        ),
        "event_time": TIME,
    },
    keys=("origin", "observed_hour"),
    event_time="event_time",
    typical_delay=timedelta(minutes=20),
    description="Hourly observations at the three origins, known about 20 minutes later.",
    owner=OWNER,
)
planes = Source(
    name="planes",
    schema={
        "tailnum": pl.String,
        "year": pl.Int64,
        "type": pl.String,
        "manufacturer": pl.String,
        "model": pl.String,
        "engines": pl.Int64,
        "seats": pl.Int64,
        "speed": pl.Int64,
        "engine": pl.String,
    },
    keys=("tailnum",),
    description="The register of planes: a dimension, replaced row by row.",
    owner=OWNER,
)
airports = Source(
    name="airports",
    schema={
        "faa": pl.String,
        "name": pl.String,
        "lat": pl.Float64,
        "lon": pl.Float64,
        "alt": pl.Int64,
        "tz": pl.Int64,
        "dst": pl.String,
        "tzone": pl.String,
    },
    keys=("faa",),
    description="Where airports lie, and their time zones: a dimension, replaced row by row.",
    owner=OWNER,
)

SOURCES = (schedules, departures, arrivals, cancellations, weather, planes, airports)
