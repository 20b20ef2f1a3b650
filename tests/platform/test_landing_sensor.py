"""The sensor of landing files: each content of each file is taken in once, whatever is restarted; late rows are counted."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from featurestore.declaration import Catalog
from featurestore.offline.raw import LandingFile
from tests.platform.kiosks import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    day_key,
    kiosk_last_order_hourly,
    kiosk_profile,
    kiosk_sales_daily,
    order,
    orders,
    register,
)
from tests.platform.sandbox import Sandbox
from tests.platform.ticks import DUE, LANDING, Ticks

RAW = "raw/orders"


@pytest.fixture
def ticks(sandbox: Sandbox) -> Ticks:
    """Noon of day 3, with nothing landed."""
    sandbox.now = T0 + 3 * DAY + 12 * HOUR
    return Ticks(sandbox)


def land(ticks: Ticks, name: str, *ids: str, at: timedelta = HOUR) -> Path:
    return ticks.sandbox.land(orders, [order(number, T0 + at) for number in ids], f"{name}.parquet")


def ids(ticks: Ticks) -> list[str]:
    return sorted(ticks.sandbox.offline.source(orders).scan().collect()["order_id"])


def test_new_files_are_taken_in_once_by_one_run_for_days_that_follow_each_other(ticks: Ticks) -> None:
    for day in (0, 1, 3):
        land(ticks, day_key(day), f"o{day}")
    assert ticks.tick(LANDING) == [f"{RAW} {day_key(0)} {day_key(1)}", f"{RAW} {day_key(3)} {day_key(3)}"]
    assert ticks.tick(LANDING) == []
    assert ticks.work() == [True, True]
    assert ticks.tick(LANDING) == []
    assert ids(ticks) == ["o0", "o1", "o3"]


def test_late_file_of_an_old_day_is_taken_in(ticks: Ticks) -> None:
    land(ticks, day_key(3), "o3")
    ticks.settle()
    land(ticks, f"{day_key(0)}T05-late", "o0")
    assert ticks.tick(LANDING) == [f"{RAW} {day_key(0)} {day_key(0)}"]
    ticks.work()
    assert ticks.tick(LANDING) == []
    assert ids(ticks) == ["o0", "o3"]


def test_corrected_file_of_the_same_name_is_taken_in_once_more(ticks: Ticks) -> None:
    land(ticks, day_key(2), "o2")
    ticks.settle()
    land(ticks, day_key(2), "o2", "o2b")
    assert ticks.tick(LANDING) == [f"{RAW} {day_key(2)} {day_key(2)}"]
    ticks.work()
    assert ticks.tick(LANDING) == []
    assert ids(ticks) == ["o2", "o2", "o2b"]


def test_restart_with_a_lost_cursor_takes_nothing_in_again(ticks: Ticks) -> None:
    land(ticks, day_key(2), "o2")
    ticks.settle()
    ticks.cursors.clear()
    ticks.restart()
    assert ticks.tick(LANDING) == []


def test_crash_between_the_launch_and_the_cursor_launches_nothing_twice(ticks: Ticks) -> None:
    land(ticks, day_key(2), "o2")
    requests, _ = ticks.evaluate(LANDING)
    ticks.launch(requests)
    ticks.restart()
    assert ticks.tick(LANDING) == []
    ticks.work()
    assert ticks.tick(LANDING) == []
    assert ids(ticks) == ["o2"]


def test_file_that_lands_while_a_run_of_its_day_is_under_way_waits_for_its_end(ticks: Ticks) -> None:
    land(ticks, f"{day_key(2)}T01", "o1")
    assert len(ticks.tick(LANDING)) == 1
    land(ticks, f"{day_key(2)}T02", "o2")
    assert ticks.tick(LANDING) == []
    ticks.fail()
    assert ticks.tick(LANDING) == [f"{RAW} {day_key(2)} {day_key(2)}"], (
        "a file that was never launched for waits for none"
    )
    ticks.work()
    assert ids(ticks) == ["o1", "o2"]


def test_run_that_came_to_nothing_is_launched_again_after_growing_waits(ticks: Ticks) -> None:
    land(ticks, day_key(2), "o2")
    for wait in (MINUTE, 4 * MINUTE):
        assert len(ticks.tick(LANDING)) == 1
        ticks.fail()
        ticks.restart()
        ticks.pass_time(wait - timedelta(seconds=1))
        assert ticks.tick(LANDING) == []
        ticks.pass_time(timedelta(seconds=1))
    assert len(ticks.tick(LANDING)) == 1


def test_refused_file_is_not_launched_again_until_it_changes(ticks: Ticks) -> None:
    path = land(ticks, day_key(2), "o2")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert len(ticks.tick(LANDING)) == 1
    assert ticks.work() == [False]
    ticks.pass_time(DAY)
    assert ticks.tick(LANDING) == []
    path.write_bytes(whole)
    assert len(ticks.tick(LANDING)) == 1
    assert ticks.work() == [True]
    assert ids(ticks) == ["o2"]


def test_file_taken_in_by_hand_is_not_launched_for(ticks: Ticks) -> None:
    land(ticks, day_key(2), "o2")
    assert ticks.sandbox.run(RAW, partitions=[day_key(2)]).success
    assert ticks.tick(LANDING) == []


def test_file_without_a_day_and_one_of_tomorrow_are_left_alone(ticks: Ticks) -> None:
    land(ticks, "orders-of-may", "o1")
    land(ticks, "2025-W09-6", "o2")
    land(ticks, day_key(4), "o4")
    assert ticks.tick(LANDING) == []
    ticks.pass_time(DAY)
    assert ticks.tick(LANDING) == [f"{RAW} {day_key(4)} {day_key(4)}"]


def test_new_load_of_a_timeless_source_is_taken_in_and_its_static_group_is_left_to_a_person(ticks: Ticks) -> None:
    ticks.sandbox.use(Catalog((orders, register), (kiosk_profile,)))
    ticks.restart()
    ticks.sandbox.land(register, [{"kiosk": "a", "seats": 4}], "2024.parquet")
    assert ticks.tick(LANDING) == ["raw/register"]
    assert ticks.work() == [True]
    assert (ticks.tick(LANDING), DUE in ticks.sensors) == ([], False)
    ticks.sandbox.land(register, [{"kiosk": "a", "seats": 6}], "2024.parquet")
    assert ticks.tick(LANDING) == ["raw/register"]
    assert ticks.sandbox.version("kiosk_profile") is None


def test_folder_that_cannot_be_read_stops_no_other_source(ticks: Ticks) -> None:
    ticks.sandbox.landing.mkdir()
    (ticks.sandbox.landing / "orders").symlink_to("orders")
    ticks.sandbox.land(register, [{"kiosk": "a", "seats": 4}], "2024.parquet")
    assert ticks.tick(LANDING) == ["raw/register"]


@pytest.fixture
def live(ticks: Ticks) -> Ticks:
    """The feed is live from day 2 on: what lands from then on is known when it lands."""
    feed = replace(orders, live_from=T0 + 2 * DAY)
    ticks.sandbox.use(Catalog((feed, register), (kiosk_sales_daily, kiosk_last_order_hourly)))
    ticks.restart()
    return ticks


def test_rows_that_came_too_late_are_counted_by_the_window_that_they_would_have_reached(live: Ticks) -> None:
    rows = [
        order("late-a", T0 + 2 * DAY + HOUR),
        order("late-b", T0 + 2 * DAY + 5 * HOUR),
        order("in-time", T0 + 3 * DAY),
    ]
    live.sandbox.land(orders, rows, f"{day_key(3)}.parquet")
    live.tick(LANDING)
    live.work()
    live.sandbox.land(orders, [order("late-c", T0 + HOUR)], f"{day_key(0)}.parquet")
    live.tick(LANDING)
    live.work()
    late = live.sandbox.offline.receipts(orders).late_rows()
    assert late.select("file", "group", "window", "rows").rows() == [
        (f"{day_key(3)}.parquet", "kiosk_sales_daily", day_key(2), 2),
        (f"{day_key(0)}.parquet", "kiosk_sales_daily", day_key(0), 1),
    ]
    shown = live.sandbox.instance.fetch_materializations(dg.AssetKey(["raw", "orders"]), limit=1).records[0]
    assert shown.asset_materialization is not None
    assert shown.asset_materialization.metadata["rows_late"].value == {"kiosk_sales_daily": {day_key(0): 1}}


def test_history_is_never_late(live: Ticks) -> None:
    live.sandbox.now = T0 + 2 * DAY - MINUTE
    live.sandbox.land(orders, [order("old", T0)], f"{day_key(0)}.parquet")
    live.tick(LANDING)
    live.work()
    assert live.sandbox.offline.receipts(orders).late_rows().is_empty()
    assert ids(live) == ["old"]


def test_late_rows_of_a_run_that_died_before_their_receipt_are_counted_when_it_is_made_good(live: Ticks) -> None:
    path = live.sandbox.land(orders, [order("late", T0 + 2 * DAY + HOUR)], f"{day_key(3)}.parquet")
    live.sandbox.offline.source(live.sandbox.catalog.source("orders")).ingest(
        [LandingFile(path.name, path.read_bytes())]
    )
    live.tick(LANDING)
    assert live.work() == [True]
    assert live.sandbox.offline.receipts(orders).late_rows()["window"].to_list() == [day_key(2)]
    live.settle()
    assert live.sandbox.offline.receipts(orders).late_rows().height == 1
