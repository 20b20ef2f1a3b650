"""Local wall times of the flight data as UTC instants, by each airport's zone.

Belongs here: the zone of an airport, and the two conversions between wall time and UTC. What a wall time means for a
flight is `history`'s business.
"""

from collections.abc import Collection, Iterable, Mapping

import polars as pl

from featurestore.errors import InvalidInput

ORIGIN_ZONE = "America/New_York"
FALLBACK_ZONES: Mapping[str, str] = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/Puerto_Rico",
}
"""Zones of the destinations that the airports table leaves out. All four keep UTC-4 the whole year."""


def airport_zones(airports: pl.DataFrame, destinations: Iterable[str]) -> dict[str, str]:
    """Name the zone of each destination: the airports table's, else the declared fallback.

    Args:
        airports: columns `faa` (String) and `tzone` (String, nullable).
        destinations: airport codes, any order.

    Returns:
        Airport code to IANA zone name, sorted by code.

    Raises:
        InvalidInput: a destination has neither.
    """
    known = dict(airports.drop_nulls("tzone").select("faa", "tzone").iter_rows())
    zones = {code: known.get(code) or FALLBACK_ZONES.get(code) for code in sorted(destinations)}
    missing = [code for code, zone in zones.items() if zone is None]
    if missing:
        raise InvalidInput(
            f"No time zone for the destinations {missing}: they are not in the airports table, and the fallback "
            f"covers {sorted(FALLBACK_ZONES)}. Add them to FALLBACK_ZONES in examples/flights/zones.py."
        )
    return {code: zone for code, zone in zones.items() if zone is not None}


def utc_of(wall: pl.Expr, zone: pl.Expr, zones: Collection[str]) -> pl.Expr:
    """Turn naive wall times into UTC, row by row in the row's own zone.

    A wall time that occurs twice (clocks set back) is its first occurrence; one that never occurs (clocks set
    forward) is null, for the caller to refuse or to explain.

    Args:
        wall: Datetime without a zone, nullable.
        zone: String, the zone's name.
        zones: every name that `zone` can take.

    Returns:
        Datetime in microseconds, UTC.
    """
    return pl.coalesce(
        pl.when(zone == name).then(
            wall.dt.replace_time_zone(name, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
        )
        for name in sorted(set(zones))
    )


def wall_of(instant: pl.Expr, zone: pl.Expr, zones: Collection[str]) -> pl.Expr:
    """Turn UTC instants into naive wall times, row by row in the row's own zone (the inverse of `utc_of`)."""
    return pl.coalesce(
        pl.when(zone == name).then(instant.dt.convert_time_zone(name).dt.replace_time_zone(None))
        for name in sorted(set(zones))
    )
