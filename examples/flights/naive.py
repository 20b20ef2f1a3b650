"""Features as they are made without a feature store: aggregates of the wide flights table, joined by event time only.

Belongs here: the rows of these features, and the two ways in which a label can take them. `hindsight_features` joins
as one does on a table where every column is filled: by event time alone. `production_features` joins the same features
by the law, as the same job would have served them. The models that are trained on them are in `models`.

Three things leak, none of them by bad will. An hour's or a day's aggregate carries the time at which its window starts
and so answers questions asked inside the window; the day of a flight includes the flight itself; and a plane's last
flight by schedule counts as flown although it may not have left yet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from featurestore.pit import THE_LAW, JoinMode, point_in_time_join

BY_EVENT_TIME = JoinMode(clock="event")
"""The join of a table that has no other time."""

DELAYED_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Delay statistics of the flights scheduled in each window, for each value of some keys."""

    name: str
    keys: tuple[str, ...]
    window: timedelta

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its features."""
        return tuple(
            f"{self.name}_{measure}" for measure in ("dep_delay_mean", "delayed_fraction", "cancelled_fraction")
        )


AGGREGATES = (
    Aggregate("origin_hour", ("origin",), timedelta(hours=1)),
    Aggregate("carrier_day", ("carrier",), timedelta(days=1)),
    Aggregate("route_day", ("origin", "dest"), timedelta(days=1)),
)
LAST_FLIGHT = ("last_dep_delay", "last_arr_delay")
NAIVE_FEATURES = (*(name for aggregate in AGGREGATES for name in aggregate.columns), *LAST_FLIGHT)


def hindsight_features(labels: pl.DataFrame, flights: pl.DataFrame) -> pl.DataFrame:
    """Give each label the naive features as the table holds them today: what the naive model is trained on.

    Args:
        labels: origin, dest, carrier, tailnum (nullable), `label_time`, any other columns; any order.
        flights: The wide table, as `history.naive_flights` makes it, over at least the days of the labels.

    Returns:
        `labels`, row for row, then `NAIVE_FEATURES` (Float64, null where nothing was found): delays in minutes, shares
        in [0, 1].
    """
    return _joined(
        labels, ((aggregate, _windows(aggregate, flights)) for aggregate in AGGREGATES), flights, BY_EVENT_TIME
    )


def production_features(labels: pl.DataFrame, flights: pl.DataFrame) -> pl.DataFrame:
    """Give each label the naive features as production would have served them at its time.

    An aggregate is computed at its window's end, from what had happened by then, and is served from that instant on: no
    time is charged for the run. A flight of a plane is known at its arrival.

    Args:
        labels: As for `hindsight_features`.
        flights: As for `hindsight_features`.

    Returns:
        As of `hindsight_features`.
    """
    seen = ((aggregate, _windows(aggregate, _at_window_end(aggregate, flights))) for aggregate in AGGREGATES)
    return _joined(labels, seen, flights, THE_LAW)


def _joined(
    labels: pl.DataFrame, aggregates: Iterable[tuple[Aggregate, pl.DataFrame]], flights: pl.DataFrame, mode: JoinMode
) -> pl.DataFrame:
    joined = labels
    for aggregate, rows in aggregates:
        joined = point_in_time_join(joined, rows, keys=aggregate.keys, mode=mode)
    return point_in_time_join(joined, _last_flights(flights), keys="tailnum", mode=mode)


def _window_start(aggregate: Aggregate) -> pl.Expr:
    return pl.col("scheduled_departure").dt.truncate(aggregate.window)


def _windows(aggregate: Aggregate, flights: pl.DataFrame) -> pl.DataFrame:
    """One row a key and window: true of its start, as a truncated time says, and known at its end."""
    delay = pl.col("dep_delay")
    measures = (delay.mean(), (delay.drop_nulls() > DELAYED_MINUTES).mean(), pl.col("is_cancelled").mean())
    return (
        flights.group_by(*aggregate.keys, _window_start(aggregate).alias("event_time"))
        .agg(measure.alias(name) for measure, name in zip(measures, aggregate.columns, strict=True))
        .with_columns(knowledge_time=pl.col("event_time") + aggregate.window)
    )


def _at_window_end(aggregate: Aggregate, flights: pl.DataFrame) -> pl.DataFrame:
    """The table as it stood when each flight's window ended: who had not left by then has no delay yet."""
    has_left = pl.col("departed_at") <= _window_start(aggregate) + aggregate.window
    return flights.with_columns(dep_delay=pl.when(has_left).then("dep_delay"))


def _last_flights(flights: pl.DataFrame) -> pl.DataFrame:
    """Flights of each plane that arrived: true of their schedule, known at their arrival."""
    return flights.filter(pl.col("arrived_at").is_not_null()).select(
        "tailnum",
        event_time="scheduled_departure",
        knowledge_time="arrived_at",
        last_dep_delay="dep_delay",
        last_arr_delay="arr_delay",
    )
