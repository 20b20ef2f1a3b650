"""Groups, clocks and rows for tests of the offline store."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from featurestore.declaration.dtypes import dtype_name
from featurestore.declaration.windows import TimeWindow
from featurestore.offline.intake import row_schema
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

START = datetime(2026, 1, 29, tzinfo=UTC)
DAY = timedelta(days=1)
VALUES = {"value": pl.Float64()}


@dataclass
class SetClock:
    """A clock that stands until it is set."""

    now: datetime = datetime(2026, 7, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def group_of(
    features: Mapping[str, pl.DataType] = VALUES,
    *,
    kind: Any = "events",
    keys: tuple[tuple[str, str], ...] = (("plane", "string"),),
    schema_number: int = 1,
    min_coverage: float | None = None,
) -> RegisteredGroup:
    numbered = enumerate(features.items(), start=1)
    return RegisteredGroup(
        name="plane_profile",
        version=1,
        kind=kind,
        cadence="static" if kind == "static" else "daily",
        start="2026-01-01",
        entity="plane",
        keys=keys,
        features=tuple(
            RegisteredFeature(name, dtype_name(dtype), number, since=1) for number, (name, dtype) in numbered
        ),
        schema_number=schema_number,
        retired_numbers=(),
        retired_columns=(),
        inputs=(),
        delay_us=0,
        publish_us=0,
        lookback_us=0,
        freshness_us=None,
        max_age_us=None,
        is_online=True,
        ttl_us=None,
        min_coverage=min_coverage,
        owner="team:tests",
        description="",
    )


def day(number: int) -> TimeWindow:
    """The window of a day counted from `START`; days 0-2 are in January."""
    return TimeWindow(START + number * DAY, START + (number + 1) * DAY)


def row(plane: str | None, window: TimeWindow, **other: Any) -> dict[str, Any]:
    """One row of a window, true at its end and known an hour later, unless `other` says otherwise."""
    times = {"event_time": window.end, "knowledge_time": window.end + timedelta(hours=1), "window_start": window.start}
    return {"plane": plane, **times, "is_deleted": False, "schema_number": 1, "value": 1.0, **other}


def frame(group: RegisteredGroup, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as the store takes them."""
    return pl.DataFrame(list(rows), schema=row_schema(group), orient="row")
