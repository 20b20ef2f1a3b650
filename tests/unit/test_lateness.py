"""Late rows, against the reads of every window one by one."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import polars as pl
import pytest

from featurestore.compute.inputs import span_read
from featurestore.declaration import FeatureGroup
from featurestore.lateness import late_rows
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    TIME,
    hours,
    sales,
    shop_last_sale_hourly,
    shop_sales_daily,
    shop_sales_hourly,
    shops,
    windows,
)
from tests.scale import cases, exam_seed


def brute_force(catalog: Any, times: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Of each row and each window: whether it would have been read, had it been known when it happened."""
    found: dict[str, dict[str, int]] = {}
    for group in catalog.groups:
        if "sales" not in group.inputs or (group.kind == "events" and group.inputs[0] == "sales"):
            continue
        for window in windows(group, T0, T0 + 12 * DAY):
            span = span_read(group, "sales", sales, window)
            late = [
                row
                for row in times.to_dicts()
                if row["knowledge_time"] > span.known_by
                and row["event_time"] <= span.known_by
                and (span.event_from is None or row["event_time"] >= span.event_from)
                and (span.event_before is None or row["event_time"] < span.event_before)
            ]
            if late:
                found.setdefault(group.stored_name, {})[group.cadence.key_of(window)] = len(late)  # type: ignore[union-attr]
    return found


def random_times(random: Random) -> pl.DataFrame:
    rows = []
    for _ in range(random.randrange(12)):
        event = T0 + random.randrange(-30, 5 * 24 * 12) * 5 * MINUTE
        rows.append((event, event + random.choice([0, 1, 5, 30, 600, 5000]) * MINUTE))
    return pl.DataFrame(rows, schema={"event_time": TIME, "knowledge_time": TIME}, orient="row")


@dataclass(frozen=True)
class Groups:
    """As much of a catalogue as is looked at: an event group beside those of the shops."""

    groups: tuple[FeatureGroup, ...]


@pytest.mark.parametrize("seed", range(cases(1000, 60)))
def test_late_rows_are_those_that_a_look_at_every_window_finds(seed: int) -> None:
    times = random_times(Random(f"{exam_seed()}-{seed}"))
    beside_its_driver = replace(shop_last_sale_hourly, name="beside", inputs=("visits", "sales"))
    catalog: Any = Groups((*shops().groups, beside_its_driver))
    assert late_rows(catalog, sales, times) == brute_force(catalog, times)


def test_row_known_at_the_cut_off_is_in_time_and_a_microsecond_later_is_late() -> None:
    cut_off = shop_sales_daily.cut_off(windows(shop_sales_daily, T0, T0 + DAY)[0])
    for after, expected in ((0, 0), (1, 1)):
        known = cut_off.replace(microsecond=after)
        times = pl.DataFrame([(T0 + HOUR, known)], schema={"event_time": TIME, "knowledge_time": TIME}, orient="row")
        found = late_rows(shops(), sales, times).get("shop_sales_daily", {})
        assert sum(found.values()) == expected


def test_no_row_is_late_for_the_driver_of_an_event_group() -> None:
    times = pl.DataFrame([(T0, T0 + 9 * DAY)], schema={"event_time": TIME, "knowledge_time": TIME}, orient="row")
    assert "shop_last_sale_hourly" not in late_rows(shops(), sales, times)
    assert len(hours(shop_sales_hourly, 0, 1)) == 1
