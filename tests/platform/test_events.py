"""The contract of `feature_assets/events.py`, the one module that uses a private name of Dagster's.

Real runs over ranges of partitions: what is materialized, what is not, and which check speaks of which materialization.
"""

from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from checks.gate import GATE, ROLL_UP
from tests.platform.kiosks import (
    DAY,
    HOUR,
    LIMIT,
    T0,
    TOO_MUCH,
    day_key,
    kiosk_sales_daily,
    kiosk_trend_daily,
    kiosks,
    mended_sales_daily,
    order,
    orders,
)
from tests.platform.sandbox import Sandbox, failure_of, log_of

SALES, TREND = "offline/kiosk_sales_daily", "offline/kiosk_trend_daily"
DAYS = range(5)
BAD = 2
ALL_DAYS = [day_key(day) for day in DAYS]
GOOD_DAYS = [day_key(day) for day in DAYS if day != BAD]


@pytest.fixture
def sold(sandbox: Sandbox) -> Sandbox:
    """Five days of good orders."""
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR, 10.0 + day) for day in DAYS])
    return sandbox


@pytest.fixture
def spoiled(sandbox: Sandbox) -> Sandbox:
    """Five days of orders, one of them far above the limit."""
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR, TOO_MUCH if day == BAD else 10.0 + day) for day in DAYS])
    return sandbox


def run_days(sandbox: Sandbox, *paths: str, first: int = 0, last: int = 4) -> dg.ExecuteInProcessResult:
    return sandbox.run(*paths, partitions=[day_key(first), day_key(last)])


def gates(sandbox: Sandbox, path: str = SALES) -> dict[str | None, Status]:
    """The newest stored result of the gate for each partition."""
    return {record.partition: record.status for record in reversed(sandbox.checks(path, GATE))}


def roll_up(sandbox: Sandbox) -> Status:
    return sandbox.checks(SALES, ROLL_UP)[0].status


def keys_of(result: dg.ExecuteInProcessResult, path: str) -> list[str | None]:
    """Partitions that a run reported as materialized, in its order."""
    return [event.partition for event in result.asset_materializations_for_node(path.replace("/", "__"))]


def statuses_in_page(sandbox: Sandbox, path: str, partitions: Sequence[str]) -> dict[str, str]:
    """Each partition's status as Dagster's asset page counts it."""
    definitions = sandbox.definitions()
    graph = definitions.resolve_asset_graph()
    key = dg.AssetKey(path.split("/"))
    node = graph.get(key)
    assert node.partitions_def is not None
    value = sandbox.instance.get_status_by_partition(key, list(partitions), node.partitions_def)
    return {partition: status.name if status else "" for partition, status in (value or {}).items()}


def test_one_bad_partition_of_five_fails_alone(spoiled: Sandbox) -> None:
    result = run_days(spoiled, SALES)
    assert not result.success
    assert spoiled.materialized(SALES) == GOOD_DAYS
    assert statuses_in_page(spoiled, SALES, ALL_DAYS) == {
        key: "MATERIALIZED" if key in GOOD_DAYS else "FAILED" for key in ALL_DAYS
    }


def test_each_partition_has_its_own_check_result_and_none_stays_planned(spoiled: Sandbox) -> None:
    run_days(spoiled, SALES)
    assert gates(spoiled) == {key: Status.SUCCEEDED if key in GOOD_DAYS else Status.FAILED for key in ALL_DAYS}
    assert Status.PLANNED not in {record.status for record in spoiled.checks(SALES, GATE)}


def test_newest_result_of_the_roll_up_is_never_a_planned_one(spoiled: Sandbox) -> None:
    """Dagster plans an unpartitioned check once for each partition of a ranged run; those rows stay, below its result."""
    run_days(spoiled, SALES)
    newest = spoiled.checks(SALES, ROLL_UP)[0]
    assert (newest.partition, newest.status) == (None, Status.FAILED)
    key = dg.AssetCheckKey(dg.AssetKey(SALES.split("/")), ROLL_UP)
    latest = spoiled.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.status == Status.FAILED


def test_each_check_targets_the_materialization_it_speaks_of(spoiled: Sandbox) -> None:
    result = run_days(spoiled, SALES)
    newest = spoiled.instance.fetch_materializations(dg.AssetKey(SALES.split("/")), limit=10).records
    of_partition = {record.partition_key: record for record in newest}
    for check in spoiled.checks(SALES, GATE):
        assert check.evaluation is not None
        target = check.evaluation.target_materialization_data
        if check.partition == day_key(BAD):
            assert target is None
            continue
        assert target is not None
        assert target.run_id == result.run_id
        assert target.storage_id == of_partition[check.partition].storage_id


def test_failed_partition_that_was_good_before_targets_its_last_good_materialization(sold: Sandbox) -> None:
    before = run_days(sold, SALES)
    sold.ingest(orders, [order("late", T0 + BAD * DAY + 2 * HOUR, TOO_MUCH)])
    run_days(sold, SALES)
    check = next(check for check in sold.checks(SALES, GATE) if check.partition == day_key(BAD))
    assert check.status == Status.FAILED
    assert check.evaluation is not None
    assert check.evaluation.target_materialization_data is not None
    assert check.evaluation.target_materialization_data.run_id == before.run_id


def test_failed_gate_is_not_retried_and_says_why(spoiled: Sandbox) -> None:
    result = run_days(spoiled, SALES)
    failures = [event for event in result.all_events if event.is_step_failure]
    assert len(failures) == 1
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    failure = failures[0].step_failure_data.user_failure_data
    assert failure is not None
    text = failure_of(result)
    assert text.startswith("1 of 5 partitions of offline/kiosk_sales_daily stay in staging; the others are promoted.")
    assert f"{day_key(BAD)}: range of 'sales_1d' is [{TOO_MUCH}, {TOO_MUCH}], limit [{0.0}, {LIMIT}] (1 rows)" in text


def test_good_range_is_materialized_with_metadata_of_each_partition(sold: Sandbox) -> None:
    result = run_days(sold, SALES)
    assert result.success
    assert sorted(keys_of(result, SALES), key=str) == ALL_DAYS
    for event in result.asset_materializations_for_node(SALES.replace("/", "__")):
        shown = event.metadata
        assert shown["dagster/partition_row_count"].value == 1
        assert shown["input_rows"].value == 1
        assert shown["table_version"].value == sold.version("kiosk_sales_daily")
    assert set(gates(sold).values()) == {Status.SUCCEEDED}


def test_downstream_in_the_same_run_proceeds_when_all_are_good(sold: Sandbox) -> None:
    result = run_days(sold, SALES, TREND)
    assert result.success
    assert sold.materialized(TREND) == ALL_DAYS
    assert sold.rows("kiosk_trend_daily")["sales_2d"].to_list() == [10.0, 21.0, 23.0, 25.0, 27.0]


def test_downstream_of_a_failed_partition_is_not_materialized(spoiled: Sandbox) -> None:
    run_days(spoiled, SALES, TREND)
    assert spoiled.materialized(TREND) == []
    result = run_days(spoiled, TREND)
    assert result.success
    blocked = [day_key(BAD), day_key(BAD + 1)]
    assert spoiled.materialized(TREND) == [key for key in ALL_DAYS if key not in blocked]
    log = log_of(spoiled, result)
    for key in blocked:
        assert f"Skipped {key}: upstream windows are not promoted: ['kiosk_sales_daily {day_key(BAD)}']" in log


def test_skipped_window_is_not_materialized_nor_anything_downstream(sold: Sandbox) -> None:
    sold.now = T0 + 4 * DAY + HOUR
    result = run_days(sold, SALES, TREND)
    assert result.success
    assert sold.materialized(SALES) == ALL_DAYS[:3]
    assert sold.materialized(TREND) == []
    # Dagster shows a check that stays planned after a run that succeeded as skipped.
    assert gates(sold) == dict.fromkeys(ALL_DAYS[:3], Status.SUCCEEDED) | dict.fromkeys(ALL_DAYS[3:], Status.PLANNED)
    log = log_of(sold, result)
    for day in (3, 4):
        cut_off = T0 + (day + 1) * DAY + 2 * HOUR
        assert f"Skipped {day_key(day)}: due at its cut-off, {cut_off.isoformat()}" in log


def test_skipped_windows_follow_in_a_later_run(sold: Sandbox) -> None:
    sold.now = T0 + 4 * DAY + HOUR
    run_days(sold, SALES, TREND)
    sold.now = T0 + 6 * DAY
    assert run_days(sold, SALES, TREND).success
    assert sold.materialized(SALES) == sold.materialized(TREND) == ALL_DAYS


def test_promoted_partition_run_again_is_reported_and_the_table_stays_as_it_was(sold: Sandbox) -> None:
    run_days(sold, SALES)
    version, stored = sold.version("kiosk_sales_daily"), sold.rows("kiosk_sales_daily")
    sold.now += DAY
    again = run_days(sold, SALES, first=1, last=1)
    assert keys_of(again, SALES) == [day_key(1)]
    assert again.asset_materializations_for_node(SALES.replace("/", "__"))[0].metadata["changed"].value is False
    assert sold.version("kiosk_sales_daily") == version
    assert sold.rows("kiosk_sales_daily").equals(stored)
    target = next(check for check in sold.checks(SALES, GATE) if check.partition == day_key(1)).evaluation
    assert target is not None
    assert target.target_materialization_data is not None
    assert target.target_materialization_data.run_id == again.run_id


def test_mended_data_releases_the_quarantine_and_turns_the_roll_up(spoiled: Sandbox) -> None:
    run_days(spoiled, SALES)
    assert roll_up(spoiled) == Status.FAILED
    assert len(spoiled.offline.staging("kiosk_sales_daily").quarantined()) == 1
    spoiled.now += HOUR
    spoiled.ingest(orders, [order(BAD, T0 + BAD * DAY + HOUR, 50.0)])
    assert run_days(spoiled, SALES, first=BAD, last=BAD).success
    assert spoiled.offline.staging("kiosk_sales_daily").quarantined() == []
    assert roll_up(spoiled) == Status.SUCCEEDED
    assert spoiled.materialized(SALES) == ALL_DAYS
    assert spoiled.rows("kiosk_sales_daily")["sales_1d"].to_list() == [10.0, 11.0, 50.0, 13.0, 14.0]


def test_mended_transform_releases_the_quarantine_and_turns_the_roll_up(spoiled: Sandbox) -> None:
    spoiled.ingest(orders, [order("fair", T0 + BAD * DAY + 2 * HOUR, 7.0)])
    run_days(spoiled, SALES)
    assert roll_up(spoiled) == Status.FAILED
    spoiled.use(kiosks(mended_sales_daily, kiosk_trend_daily))
    assert mended_sales_daily.code_version != kiosk_sales_daily.code_version
    assert run_days(spoiled, SALES, first=BAD, last=BAD).success
    assert roll_up(spoiled) == Status.SUCCEEDED
    assert gates(spoiled)[day_key(BAD)] == Status.SUCCEEDED
    assert spoiled.rows("kiosk_sales_daily")["sales_1d"].to_list() == [10.0, 11.0, 7.0, 13.0, 14.0]


def test_roll_up_stays_failed_while_another_window_is_held(spoiled: Sandbox) -> None:
    run_days(spoiled, SALES)
    assert run_days(spoiled, SALES, first=4, last=4).success
    held = spoiled.checks(SALES, ROLL_UP)[0]
    assert held.status == Status.FAILED
    assert held.evaluation is not None
    assert held.evaluation.severity == dg.AssetCheckSeverity.WARN
    assert held.evaluation.metadata["held"].value == {f"{day_key(BAD)}T0000Z": ["range"]}


def test_single_bad_partition_is_not_materialized(spoiled: Sandbox) -> None:
    result = run_days(spoiled, SALES, first=BAD, last=BAD)
    assert not result.success
    assert spoiled.materialized(SALES) == []
    assert gates(spoiled) == {day_key(BAD): Status.FAILED}
