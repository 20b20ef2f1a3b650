"""When online assets are requested: real evaluations of the conditions, tick by tick, after real runs."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from feature_assets.automation import horizon_cron
from tests.platform.kiosks import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    TOO_MUCH,
    day_key,
    hour_key,
    kiosk_last_order_hourly,
    kiosk_orders_hourly,
    kiosk_profile,
    kiosk_sales_daily,
    kiosk_trend_daily,
    order,
    orders,
    register,
)
from tests.platform.sandbox import Sandbox

SALES = "kiosk_sales_daily"
NOON = T0 + 9 * DAY + 12 * HOUR
"""Well off every daily horizon."""


@dataclass
class Ticks:
    """The automation sensor's evaluations of a sandbox, each on top of the one before."""

    sandbox: Sandbox
    now: datetime = NOON
    cursor: Any = field(default=None, repr=False)

    def tick(self, after: timedelta = timedelta(seconds=30)) -> list[str]:
        """Names of the groups whose online copy the next evaluation requests."""
        self.now += after
        definitions = self.sandbox.definitions()
        online = dg.AssetSelection.key_prefixes("online")
        result = dg.evaluate_automation_conditions(
            definitions, self.sandbox.instance, asset_selection=online, cursor=self.cursor, evaluation_time=self.now
        )
        self.cursor = result.cursor
        keys = online.resolve(definitions.resolve_asset_graph())
        return sorted(key.path[-1] for key in keys if result.get_num_requested(key))

    def start_move(self) -> dg.DagsterRun:
        """A run of the online asset that has started and not ended."""
        job = self.sandbox.definitions().resolve_implicit_global_asset_job_def()
        move = job.get_subset(asset_selection={dg.AssetKey(["online", SALES])})
        return self.sandbox.instance.create_run_for_job(
            move, status=dg.DagsterRunStatus.STARTED, asset_selection={dg.AssetKey(["online", SALES])}
        )

    def promote(self, *days: int, group: str = SALES) -> bool:
        return self.sandbox.run(f"offline/{group}", partitions=[day_key(days[0]), day_key(days[-1])]).success


@pytest.fixture
def ticks(sandbox: Sandbox) -> Ticks:
    """Five days of orders of which nothing is promoted yet, and one evaluation of that."""
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR) for day in range(5)])
    made = Ticks(sandbox)
    assert made.tick() == []
    return made


def test_promoted_partition_requests_the_online_copy_once(ticks: Ticks) -> None:
    assert ticks.promote(4)
    assert ticks.tick() == [SALES]
    assert ticks.tick() == []


def test_range_of_promoted_partitions_requests_one_copy(ticks: Ticks) -> None:
    assert ticks.promote(0, 4)
    assert ticks.tick() == [SALES]
    assert ticks.tick() == []


def test_promoted_older_partition_requests_the_online_copy(ticks: Ticks) -> None:
    assert ticks.promote(3, 4)
    assert ticks.tick() == [SALES]
    assert ticks.promote(1)
    assert ticks.tick() == [SALES]
    assert ticks.tick() == []


def test_promotion_right_after_a_request_is_not_forgotten(ticks: Ticks) -> None:
    for day in range(4):
        assert ticks.promote(day)
        assert ticks.tick() == [SALES]
    assert ticks.tick() == []


def test_promotion_while_the_copy_moves_is_requested_once_it_has_ended(ticks: Ticks) -> None:
    assert ticks.promote(0)
    assert ticks.tick() == [SALES]
    moving = ticks.start_move()
    assert ticks.promote(1)
    assert [ticks.tick() for _ in range(3)] == [[]] * 3
    ticks.sandbox.instance.report_run_failed(moving)
    assert ticks.tick() == [SALES]
    assert ticks.tick() == []


def test_copy_that_failed_to_move_is_not_tried_for_ever(ticks: Ticks) -> None:
    assert ticks.promote(0)
    assert ticks.tick() == [SALES]
    ticks.sandbox.instance.report_run_failed(ticks.start_move())
    assert [ticks.tick() for _ in range(4)] == [[]] * 4


def test_nothing_new_requests_nothing(ticks: Ticks) -> None:
    assert ticks.promote(0, 4)
    ticks.tick()
    assert [ticks.tick() for _ in range(5)] == [[]] * 5


def test_quarantined_partition_requests_nothing(ticks: Ticks) -> None:
    assert ticks.promote(0, 3)
    ticks.tick()
    ticks.sandbox.ingest(orders, [order("high", T0 + 4 * DAY + 2 * HOUR, TOO_MUCH)])
    assert not ticks.promote(4)
    assert ticks.tick() == []


def test_good_partitions_beside_a_quarantined_one_request_the_online_copy(ticks: Ticks) -> None:
    ticks.sandbox.ingest(orders, [order("high", T0 + 3 * DAY + 2 * HOUR, TOO_MUCH)])
    assert not ticks.promote(2, 4)
    assert ticks.tick() == [SALES]
    assert ticks.tick() == []


def test_old_quarantined_partition_does_not_stop_later_ones(ticks: Ticks) -> None:
    ticks.sandbox.ingest(orders, [order("high", T0 + 2 * HOUR, TOO_MUCH)])
    assert not ticks.promote(0)
    assert ticks.tick() == []
    assert ticks.promote(4)
    assert ticks.tick() == [SALES]


def test_horizon_requests_the_online_copy(ticks: Ticks) -> None:
    assert ticks.promote(0, 4)
    ticks.tick()
    # Cut-off at 02:00, horizon at 02:15: rows go online from the next minute on.
    ticks.now = T0 + 10 * DAY + 2 * HOUR + 15 * MINUTE
    ticks.tick(timedelta(0))
    assert SALES in ticks.tick(timedelta(seconds=70))
    assert SALES not in ticks.tick()


def test_static_load_requests_the_online_copy(ticks: Ticks) -> None:
    ticks.sandbox.ingest(register, [{"kiosk": "a", "seats": 3}])
    assert ticks.sandbox.run("offline/kiosk_profile").success
    assert ticks.tick() == ["kiosk_profile"]
    assert ticks.tick() == []


def test_group_promoted_before_the_first_tick_is_moved(sandbox: Sandbox) -> None:
    sandbox.ingest(register, [{"kiosk": "a", "seats": 3}])
    assert sandbox.run("offline/kiosk_profile").success
    ticks = Ticks(sandbox)
    assert ticks.tick() == ["kiosk_profile"]
    assert [ticks.tick() for _ in range(3)] == [[]] * 3


def test_event_group_is_requested_like_any_other(ticks: Ticks) -> None:
    last = 4 * 24 + 1
    assert ticks.sandbox.run("offline/kiosk_last_order_hourly", partitions=[hour_key(0), hour_key(last)]).success
    assert ticks.tick() == ["kiosk_last_order_hourly"]
    assert ticks.tick() == []


def test_requested_copy_that_is_moved_stays_quiet(ticks: Ticks, valkey_url: str) -> None:
    ticks.sandbox.online_url = valkey_url
    assert ticks.promote(0, 4)
    assert ticks.tick() == [SALES]
    assert ticks.sandbox.run(f"online/{SALES}").success
    assert ticks.tick() == []


@pytest.mark.parametrize(
    ("group", "line"),
    [
        (kiosk_sales_daily, "16 2 * * *"),
        (kiosk_trend_daily, "16 3 * * *"),
        (kiosk_orders_hourly, "16 * * * *"),
        (kiosk_last_order_hourly, "11 * * * *"),
        (kiosk_profile, None),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_horizons_fall_a_minute_before_the_cron_line(group: object, line: str | None) -> None:
    assert horizon_cron(group) == line  # type: ignore[arg-type]
