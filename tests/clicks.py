"""A small pushed group with a real table and tiers in memory, for tests of pushes and of parity.

Run as a program it is one pusher: it pushes until it has pushed all it was asked to, or is killed, and says which pushes ended.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.clock import Clock, system_clock
from featurestore.declaration import Catalog, Entity, Feature, FeatureGroup, Online, pushed_group
from featurestore.location import Location
from featurestore.offline.table import FeatureTable
from featurestore.online.memory import MemoryTier
from featurestore.online.tier import Tier
from featurestore.push import Destination, PushResult, push_rows
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.snapshot import RegisteredGroup

GROUP = "rider_click"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECOND, SECOND, MINUTE, HOUR = (
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
)
TTL, MAX_AGE = 6 * HOUR, 3 * HOUR
FEATURES = (
    Feature("clicks", pl.Int64, "Clicks", ge=0, le=1000),
    Feature("score", pl.Float32, "A score"),
    Feature("page", pl.String, "The last page", max_null_fraction=0.5),
    Feature("taste", pl.Array(pl.Float32, 2), "A vector"),
)


def clicks(*, features: Sequence[Feature] = FEATURES, **other: Any) -> FeatureGroup:
    """The group as it is declared; `other` replaces arguments."""
    said = {
        "name": GROUP,
        "entity": Entity("rider"),
        "features": features,
        "online": Online(ttl=TTL),
        "max_age": MAX_AGE,
        "owner": "team:app",
        "description": "What a rider clicked last.",
    }
    return pushed_group(**{**said, **other})


def registered(group: FeatureGroup | None = None) -> RegisteredGroup:
    return compile_snapshot(Catalog([], [group or clicks()]), None).groups[GROUP]


def row(rider: str | None, event_time: datetime = NOW, clicks: int | None = 1, **other: Any) -> dict[str, Any]:
    values = {"clicks": clicks, "score": 0.5, "page": "home", "taste": [1.0, 2.0]}
    return {"rider": rider, "event_time": event_time, **values, **other}


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Clicks:
    """The group's table in a folder, its tiers, and a clock."""

    def __init__(
        self,
        folder: Path,
        tiers: Sequence[Tier] | None = None,
        *,
        clock: Clock | None = None,
        group: FeatureGroup | None = None,
    ) -> None:
        self.set_clock = SetClock()
        self.clock = clock or self.set_clock
        self.table = FeatureTable(Location(str(folder)), registered(group), self.clock)
        self.tiers: list[Tier] = list(tiers) if tiers is not None else [MemoryTier("hot", self.clock)]

    def push(self, *rows: dict[str, Any], to: Destination = "online_and_offline", key: str | None = None) -> PushResult:
        return push_rows(self.table, lambda: self.tiers, self.clock, list(rows), to=to, idempotency_key=key)

    @property
    def stored(self) -> pl.DataFrame:
        """The rows of the table, the pushes in the order in which they came."""
        return self.table.scan().collect().sort("window_start", "rider", "event_time")


def batch(pusher: int, number: int, rows: int = 5) -> list[dict[str, Any]]:
    """The rows of one push, which no other push has."""
    instant = NOW + pusher * SECOND + number * MICROSECOND
    return [row(f"p{pusher}-r{at}", instant, clicks=number) for at in range(rows)]


def main(folder: str, pusher: str, count: str) -> None:
    """Push `count` batches, and say after each that it is in the table."""
    world = Clicks(Path(folder), tiers=[], clock=lambda: max(system_clock(), NOW + HOUR))
    for number in range(int(count)):
        world.push(*batch(int(pusher), number), to="offline", key=f"{pusher}-{number}")
        print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
