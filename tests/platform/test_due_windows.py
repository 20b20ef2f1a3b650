"""The sensor of due windows: real evaluations and real runs on a clock that the test sets."""

from datetime import timedelta

import dagster as dg
import pytest

from featurestore.offline.ledger import LedgerEntry
from resources.run_tags import ADMISSION
from tests.platform.kiosks import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    TOO_MUCH,
    day_key,
    hour_key,
    kiosk_orders_hourly,
    kiosk_sales_daily,
    kiosk_trend_daily,
    kiosks,
    order,
    orders,
)
from tests.platform.sandbox import Sandbox
from tests.platform.ticks import DUE, LANDING, Ticks

SALES, TREND, HOURLY = "offline/kiosk_sales_daily", "offline/kiosk_trend_daily", "offline/kiosk_orders_hourly"
LATER = 3 * HOUR + 10 * MINUTE
"""After midnight: the daily windows of the day before are due."""


def land_days(sandbox: Sandbox, first: int, last: int, amount: float = 10.0) -> None:
    for day in range(first, last):
        rows = [order(f"{day}-{n}", T0 + day * DAY + n * 8 * HOUR, amount) for n in range(3)]
        sandbox.land(orders, rows, f"{day_key(day)}.parquet")


@pytest.fixture
def ticks(sandbox: Sandbox) -> Ticks:
    """A kiosk whose daily groups have been computed for the days 0 to 2, at 03:10 of day 3."""
    sandbox.use(kiosks(kiosk_sales_daily, kiosk_trend_daily))
    sandbox.now = T0 + 3 * DAY + LATER
    land_days(sandbox, 0, 3)
    assert sandbox.run("raw/orders", partitions=[day_key(0), day_key(2)]).success
    assert sandbox.run(SALES, TREND, partitions=[day_key(0), day_key(2)]).success
    return Ticks(sandbox)


def entries(sandbox: Sandbox, group: str) -> list[LedgerEntry]:
    return [LedgerEntry(**row) for row in sandbox.offline.ledger(group).entries().to_dicts()]


def promoted(sandbox: Sandbox, group: str) -> list[int]:
    return sorted((start - T0) // DAY for start in sandbox.offline.ledger(group).promoted())


def test_nothing_due_launches_nothing(ticks: Ticks) -> None:
    assert [ticks.tick(DUE) for _ in range(3)] == [[]] * 3


def test_empty_store_is_not_computed(sandbox: Sandbox) -> None:
    fresh = Ticks(sandbox)
    assert fresh.tick(DUE) == []
    land_days(sandbox, 28, 29)
    fresh.settle()
    assert promoted(sandbox, "kiosk_sales_daily") == [28], "the newest due window, and none before it"


def test_window_is_computed_once_after_its_cut_off(ticks: Ticks) -> None:
    ticks.sandbox.now = T0 + 4 * DAY + 2 * HOUR
    assert ticks.tick(DUE) == []
    ticks.pass_time(timedelta(seconds=30))
    assert ticks.tick(DUE) == [f"{SALES} {day_key(3)} {day_key(3)}"]
    assert ticks.tick(DUE) == []
    assert ticks.work() == [True]
    assert ticks.tick(DUE) == []


def test_days_missed_while_the_daemon_was_down_are_caught_up_the_oldest_first(ticks: Ticks) -> None:
    ticks.pass_time(4 * DAY)
    land_days(ticks.sandbox, 3, 7)
    ticks.restart()
    assert ticks.tick(DUE) == [], "windows were launched before the files that lie there were taken in"
    assert ticks.tick(LANDING) == [f"raw/orders {day_key(3)} {day_key(6)}"]
    assert ticks.work() == [True]
    assert ticks.tick(DUE) == [f"{SALES} {day_key(3)} {day_key(6)}"]
    ticks.work()
    assert ticks.tick(DUE) == [f"{TREND} {day_key(3)} {day_key(6)}"]
    ticks.settle()
    caught_up = [e.window_start for e in entries(ticks.sandbox, "kiosk_sales_daily")][3:]
    assert caught_up == [T0 + day * DAY for day in range(3, 7)]
    rows = ticks.sandbox.rows("kiosk_sales_daily")
    assert rows["sales_1d"].to_list() == [30.0] * 7
    assert promoted(ticks.sandbox, "kiosk_trend_daily") == list(range(7))


def test_hours_and_days_are_launched_apart_and_groups_of_one_range_together(sandbox: Sandbox) -> None:
    sandbox.use(kiosks(kiosk_sales_daily, kiosk_orders_hourly))
    land_days(sandbox, 0, 3)
    sandbox.now = T0 + 2 * DAY + LATER
    ticks = Ticks(sandbox)
    ticks.settle()
    ticks.pass_time(2 * HOUR)
    assert ticks.tick(DUE) == [f"{HOURLY} {hour_key(51)} {hour_key(52)}"]


def test_run_that_came_to_nothing_is_launched_again_after_growing_waits(ticks: Ticks) -> None:
    ticks.pass_time(DAY)
    launched = [f"{SALES} {day_key(3)} {day_key(3)}"]
    for wait in (MINUTE, 4 * MINUTE, 16 * MINUTE):
        assert ticks.tick(DUE) == launched
        ticks.fail()
        ticks.restart()
        ticks.pass_time(wait - timedelta(seconds=1))
        assert ticks.tick(DUE) == []
        ticks.pass_time(timedelta(seconds=1))
    assert ticks.tick(DUE) == launched
    assert ticks.work() == [True]
    ticks.settle()


def test_crash_between_the_launch_and_the_end_of_the_tick_launches_nothing_twice(ticks: Ticks) -> None:
    ticks.pass_time(DAY)
    requests, _ = ticks.evaluate(DUE)
    ticks.launch(requests)
    ticks.restart()
    assert ticks.tick(DUE) == []
    assert ticks.work() == [True]
    assert ticks.tick(DUE) != [f"{SALES} {day_key(3)} {day_key(3)}"]


def test_window_in_a_run_of_another_launcher_is_not_launched(ticks: Ticks) -> None:
    ticks.pass_time(3 * DAY)
    by_hand = dg.RunRequest(asset_selection=[dg.AssetKey(SALES.split("/"))], tags={"dagster/partition": day_key(3)})
    ticks.launch([by_hand])
    assert ticks.tick(DUE) == [f"{SALES} {day_key(4)} {day_key(5)}"]


@pytest.mark.parametrize(("admission", "launched"), [("pending", 1), ("approved", 0)])
def test_backfill_that_waits_for_approval_holds_no_due_window(ticks: Ticks, admission: str, launched: int) -> None:
    ticks.pass_time(DAY)
    tags = {"dagster/partition": day_key(3), ADMISSION: admission}
    ticks.launch([dg.RunRequest(asset_selection=[dg.AssetKey(SALES.split("/"))], tags=tags)])
    assert len(ticks.tick(DUE)) == launched


def test_window_in_quarantine_is_left_until_what_it_reads_has_changed(ticks: Ticks) -> None:
    sandbox = ticks.sandbox
    sandbox.land(orders, [order("3-0", T0 + 3 * DAY + HOUR, TOO_MUCH)], f"{day_key(3)}.parquet")
    ticks.pass_time(DAY)
    ticks.settle()
    assert promoted(sandbox, "kiosk_sales_daily") == [0, 1, 2]
    seen = len(entries(sandbox, "kiosk_sales_daily"))
    for hour in range(6):
        sandbox.land(orders, [order(f"4-{hour}", T0 + 4 * DAY + (4 + hour) * HOUR)], f"{day_key(4)}T{hour:02}.parquet")
        ticks.pass_time(HOUR)
        ticks.settle()
    assert len(entries(sandbox, "kiosk_sales_daily")) == seen
    mended = [order("3-0", T0 + 3 * DAY + HOUR, 20.0, known_at=T0 + 3 * DAY + 2 * HOUR)]
    sandbox.land(orders, mended, f"{day_key(3)}.parquet")
    ticks.pass_time(HOUR)
    ticks.settle()
    assert promoted(sandbox, "kiosk_sales_daily") == [0, 1, 2, 3]
    assert sandbox.rows("kiosk_sales_daily")["sales_1d"].to_list() == [30.0, 30.0, 30.0, 20.0]
    assert promoted(sandbox, "kiosk_trend_daily") == [0, 1, 2, 3]


def test_bad_window_does_not_stop_the_days_after_it(ticks: Ticks) -> None:
    ticks.sandbox.land(orders, [order("3-0", T0 + 3 * DAY + HOUR, TOO_MUCH)], f"{day_key(3)}.parquet")
    land_days(ticks.sandbox, 4, 6)
    ticks.pass_time(3 * DAY)
    ticks.settle()
    assert promoted(ticks.sandbox, "kiosk_sales_daily") == [0, 1, 2, 4, 5]
    assert promoted(ticks.sandbox, "kiosk_trend_daily") == [0, 1, 2, 5], "3 and 4 read the window in quarantine"


def test_window_that_was_rolled_back_is_left_alone(ticks: Ticks) -> None:
    ledger = ticks.sandbox.offline.ledger("kiosk_sales_daily")
    last = entries(ticks.sandbox, "kiosk_sales_daily")[-1]
    ledger.append([LedgerEntry(**{**_fields(last), "status": "rolled_back", "run_id": "rollback/x/1"})])
    ticks.restart()
    assert ticks.tick(DUE) == []


def _fields(entry: LedgerEntry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in LedgerEntry.__dataclass_fields__}


def test_file_that_cannot_be_taken_in_holds_windows_for_ten_minutes(ticks: Ticks) -> None:
    ticks.pass_time(DAY)
    land_days(ticks.sandbox, 3, 4)
    for _ in range(10):
        assert ticks.tick(DUE) == []
        ticks.pass_time(MINUTE)
    assert ticks.tick(DUE) == [f"{SALES} {day_key(3)} {day_key(3)}"]


def test_group_whose_ledger_cannot_be_read_stops_no_other_and_the_tick_names_it(ticks: Ticks) -> None:
    log = ticks.sandbox.root / "ledger" / "feature_group=kiosk_trend_daily" / "_delta_log"
    newest = max(int(path.stem) for path in log.glob("*.json"))
    assert reason(ticks) == "Nothing is due."
    cut = log / f"{newest + 1:020}.json"
    cut.write_text('{"commitInfo":')
    ticks.pass_time(DAY)
    assert ticks.tick(DUE) == [f"{SALES} {day_key(3)} {day_key(3)}"]
    for _ in range(2):
        assert reason(ticks).endswith(" Not looked at, since they cannot be read: kiosk_trend_daily.")
        ticks.restart()
    cut.unlink()
    assert "kiosk_trend_daily" not in reason(ticks)


def reason(ticks: Ticks) -> str:
    """Why the sensor, asked now, would launch nothing."""
    definitions = ticks.sandbox.definitions()
    resources = dict(definitions.resources or {})
    with dg.build_sensor_context(ticks.sandbox.instance, definitions=definitions, resources=resources) as context:
        return ticks.sensors[DUE].evaluate_tick(context).skip_message or ""


def test_nothing_is_launched_while_the_schedule_is_off(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks.pass_time(DAY)
    land_days(ticks.sandbox, 3, 4)
    monkeypatch.setenv("FEATURESTORE_SCHEDULE", "off")
    assert [ticks.tick(LANDING), ticks.tick(DUE)] == [[], []]
    monkeypatch.delenv("FEATURESTORE_SCHEDULE")
    assert ticks.tick(LANDING) == [f"raw/orders {day_key(3)} {day_key(3)}"]
