"""`offline/<group>` in a backfill: how it is computed, what it refuses by itself, and what its events say."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl
import pytest

from checks.gate import GATE
from feature_assets.backfill import BackfillConfig, launch_of, launch_of_run, permanent_errors_fail_at_once
from feature_assets.progress import progress_text, stop_text
from featurestore.backfill.diff import RUN_KIND
from featurestore.backfill.outcome import ended_windows, left_windows
from featurestore.backfill.override import promote_override
from featurestore.backfill.rollback import roll_back, rollback_backfill
from featurestore.declaration import Backfill, FeatureGroup, TimeWindow
from featurestore.errors import InvalidInput, StaleWriter, StoreUnavailable
from featurestore.launch import Launch
from featurestore.metadata.request import BackfillRequest, RequestedWindows
from featurestore.offline.follower import LedgerFollower
from featurestore.offline.ledger import LedgerEntry
from featurestore.promotion import Progress, materialize_windows
from resources.run_tags import PROGRESS
from tests.platform.kiosks import (
    DAY,
    HOUR,
    START,
    T0,
    TOO_MUCH,
    day_key,
    kiosk_sales_daily,
    kiosks,
    order,
    orders,
)
from tests.platform.sandbox import QUIET, Sandbox, failure_of

SALES, TREND = "kiosk_sales_daily", "kiosk_trend_daily"
STEP = f"offline__{SALES}"


@pytest.fixture
def shop(sandbox: Sandbox) -> Sandbox:
    """Six days of orders."""
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR, 10.0 + day) for day in range(6)])
    return sandbox


def run(
    shop: Sandbox,
    first: int,
    last: int,
    *,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """A run of the daily sales over days, with config of its step."""
    job = shop.definitions().resolve_implicit_global_asset_job_def()
    ranged = {"dagster/asset_partition_range_start": day_key(first), "dagster/asset_partition_range_end": day_key(last)}
    return job.execute_in_process(
        instance=shop.instance,
        asset_selection=[dg.AssetKey(["offline", SALES])],
        tags={**ranged, **(tags or {})},
        run_config={**QUIET, "ops": {STEP: {"config": dict(config)}}} if config is not None else QUIET,
        raise_on_error=False,
    )


def entries(shop: Sandbox, name: str = SALES) -> list[LedgerEntry]:
    return [LedgerEntry(**row) for row in shop.offline.ledger(name).latest().to_dicts()]


def metadata(shop: Sandbox, day: int) -> Mapping[str, Any]:
    """What the newest materialization of a day says."""
    key = dg.AssetKey(["offline", SALES])
    [record] = shop.instance.fetch_materializations(
        dg.AssetRecordsFilter(key, asset_partitions=[day_key(day)]), limit=1
    ).records
    assert record.asset_materialization is not None
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def test_run_of_a_backfill_records_its_id_and_strategy_for_each_window(shop: Sandbox) -> None:
    assert run(shop, 0, 2, tags={"dagster/backfill": "abcdefgh"}).success
    assert {(entry.backfill_id, entry.strategy) for entry in entries(shop)} == {("abcdefgh", "full")}
    own = shop.offline.table(SALES).entry(shop.version(SALES) or 0).own  # type: ignore[union-attr]
    assert own is not None
    assert own.metadata["backfill_id"] == "abcdefgh"


def test_id_of_the_book_goes_before_that_of_dagster(shop: Sandbox) -> None:
    assert run(shop, 0, 0, tags={"dagster/backfill": "abcdefgh", "featurestore/backfill": "the-run"}).success
    assert {entry.backfill_id for entry in entries(shop)} == {"the-run"}


def first_scheduled(shop: Sandbox) -> int | None:
    follower = LedgerFollower(shop.offline.ledger(SALES), kiosk_sales_daily.cadence.origin, DAY)  # type: ignore[union-attr]
    follower.look()
    return follower.first_scheduled


def test_run_launched_in_process_belongs_to_no_backfill(shop: Sandbox) -> None:
    shop.now = T0 + 6 * DAY + 3 * HOUR
    assert run(shop, 5, 5).success
    assert {entry.backfill_id for entry in entries(shop)} == {""}
    assert first_scheduled(shop) == 5


def test_history_computed_in_process_is_under_its_runs_id_and_does_not_move_the_schedules_start(shop: Sandbox) -> None:
    shop.now = T0 + 6 * DAY + 3 * HOUR
    by_hand = run(shop, 0, 5)
    assert {entry.backfill_id for entry in entries(shop)[:5]} == {by_hand.run_id}
    assert first_scheduled(shop) == 5, "that one became due just now"
    own = shop.offline.table(SALES).entry(shop.version(SALES) or 0).own  # type: ignore[union-attr]
    assert own is not None
    assert own.metadata["backfill_id"] == "", "it is no backfill that was admitted"
    undone = rollback_backfill(shop.offline, by_hand.run_id, run_id="undo")[SALES]
    assert len(undone.keys) == 6


def test_history_that_the_schedule_catches_up_is_scheduled_however_late(shop: Sandbox) -> None:
    assert run(shop, 0, 1, tags={"dagster/sensor_name": "due_windows"}).success
    assert {entry.backfill_id for entry in entries(shop)} == {""}
    assert first_scheduled(shop) == 0


def test_strategy_is_taken_from_config_or_tags_and_shown_with_its_correctness(shop: Sandbox) -> None:
    assert run(shop, 0, 0, tags={"featurestore/strategy": "incremental"}).success
    assert run(shop, 1, 1, config={"strategy": "incremental"}).success
    for day in (0, 1):
        assert (metadata(shop, day)["strategy"], metadata(shop, day)["correctness"]) == ("incremental", "high")


def test_incremental_backfill_leaves_current_windows_alone(shop: Sandbox) -> None:
    assert run(shop, 0, 2).success
    version = shop.version(SALES)
    assert run(shop, 0, 4, config={"strategy": "incremental"}).success
    assert [entry.strategy for entry in entries(shop)] == ["full"] * 3 + ["incremental"] * 2
    assert shop.version(SALES) == (version or 0) + 1


def of_backfill(shop: Sandbox, first: int, last: int, backfill_id: str = "abcdefgh") -> dg.ExecuteInProcessResult:
    return run(shop, first, last, tags={"dagster/backfill": backfill_id}, config={"strategy": "incremental"})


def test_windows_that_a_backfill_leaves_count_as_materialized_by_its_run(shop: Sandbox) -> None:
    """Dagster counts a backfill's partition as failed if its run ended without an event of it."""
    run(shop, 0, 2)
    left, done = of_backfill(shop, 0, 2), of_backfill(shop, 0, 4)
    assert left.success
    assert done.success
    for result, days in ((left, 3), (done, 5)):
        events = result.asset_materializations_for_node(STEP)
        assert sorted(str(event.partition) for event in events) == [day_key(day) for day in range(days)]


def test_windows_that_are_not_due_are_not_materialized_beside_those_left(shop: Sandbox) -> None:
    run(shop, 0, 1)
    shop.now = T0 + 3 * DAY + HOUR
    assert of_backfill(shop, 0, 4).success
    assert shop.materialized(f"offline/{SALES}") == [day_key(0), day_key(1)]


def gate_of(shop: Sandbox, day: int) -> list[dg.AssetCheckEvaluation]:
    """Every result of the gate of a day, the newest first."""
    said = [check.evaluation for check in shop.checks(f"offline/{SALES}", GATE) if check.partition == day_key(day)]
    return [one for one in said if isinstance(one, dg.AssetCheckEvaluation)]


def test_gate_of_a_window_that_is_left_says_again_what_it_said_and_in_which_run(shop: Sandbox) -> None:
    judged = run(shop, 0, 1)
    result = of_backfill(shop, 0, 1)
    again, first = gate_of(shop, 1)
    assert (again.passed, again.severity, again.description) == (first.passed, first.severity, first.description)
    assert dict(again.metadata) == {**first.metadata, "judged_in_run": dg.MetadataValue.text(judged.run_id)}
    assert again.target_materialization_data is not None
    assert again.target_materialization_data.run_id == result.run_id
    assert of_backfill(shop, 0, 1, "ijklmnop").success
    assert gate_of(shop, 1)[0].metadata["judged_in_run"].value == judged.run_id


def test_gate_that_a_person_overrode_is_not_said_to_have_passed_and_blocks_nothing(shop: Sandbox) -> None:
    """The group has no table yet: what is overridden is the first that it has."""
    shop.ingest(orders, [order(9, T0 + 7 * DAY + HOUR, TOO_MUCH)])
    assert not run(shop, 7, 7, tags={"dagster/backfill": "spoiled"}).success
    book = shop.store.settings.book(lambda: shop.now)
    promote_override(shop.offline, book, "spoiled", person="team:kiosks", os_user="tests", reason="it is right")
    assert of_backfill(shop, 7, 7).success
    assert (metadata(shop, 7)["changed"], metadata(shop, 7)["left"]) == (False, "already current")
    again, first = gate_of(shop, 7)
    assert (again.passed, first.passed) == (False, False)
    assert (again.severity, first.severity) == (dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR)
    assert again.description == first.description


def test_window_whose_gate_dagster_does_not_know_is_left_without_a_result(shop: Sandbox) -> None:
    windows = [kiosk_sales_daily.cadence.window_of(day_key(0))]  # type: ignore[union-attr]
    materialize_windows(shop.offline, shop.catalog, kiosk_sales_daily, windows, run_id="elsewhere")
    assert of_backfill(shop, 0, 0).success
    assert gate_of(shop, 0) == []
    assert metadata(shop, 0)["left"] == "already current"


def test_backfill_that_leaves_windows_is_recorded_as_done_with_them(shop: Sandbox) -> None:
    run(shop, 0, 2)
    before = shop.offline.ledger(SALES).latest()
    of_backfill(shop, 0, 4)
    ended = ended_windows(shop.offline, SALES, "abcdefgh")
    assert len(ended) == 2
    left = left_windows(shop.offline, SALES, ended, "abcdefgh")
    assert left == {T0 + day * DAY for day in range(3)}
    # Nothing else reads this: what the windows were last computed with stands.
    after = shop.offline.ledger(SALES).latest()
    assert after.filter(pl.col("window_start").is_in(list(left))).equals(before)


def test_unknown_strategy_fails_without_retries_and_says_which_there_are(shop: Sandbox) -> None:
    result = run(shop, 0, 0, config={"strategy": "quick"})
    assert not result.success
    assert "It is one of ['full', 'incremental', 'snapshot', 'proxy']" in failure_of(result)
    assert shop.version(SALES) is None


def test_strategy_that_the_group_does_not_declare_fails_without_retries(shop: Sandbox) -> None:
    result = run(shop, 0, 0, config={"strategy": "snapshot"})
    assert "snapshot" in failure_of(result)
    [failed] = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.user_failure_data is not None


def without_high_orders(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """The transform of `kiosk_sales_daily` on orders below 500."""
    low = orders.filter(pl.col("amount") < 500)
    return low.group_by("kiosk").agg(sales_1d=pl.col("amount").sum().round(2))


def guarded(**rules: Any) -> FeatureGroup:
    return replace(kiosk_sales_daily, backfill=Backfill(**rules))


@pytest.mark.parametrize("tags", [{"dagster/backfill": "abcdefgh"}, {}], ids=["backfill", "in process"])
def test_step_refuses_a_forbidden_window_however_it_was_launched(shop: Sandbox, tags: dict[str, str]) -> None:
    shop.use(kiosks(guarded(backfillable_from=START + 3 * DAY)))
    result = run(shop, 2, 4, tags=tags)
    assert "before 2025-03-04 may not be backfilled" in failure_of(result)
    assert shop.version(SALES) is None
    assert run(shop, 3, 4, tags=tags).success


def test_scheduled_window_is_computed_although_backfills_are_closed(shop: Sandbox) -> None:
    shop.now = T0 + 6 * DAY + 3 * HOUR
    shop.use(kiosks(guarded(backfillable_from=START + 60 * DAY)))
    assert run(shop, 5, 5).success
    assert "may not be backfilled" in failure_of(run(shop, 5, 5, tags={"dagster/backfill": "abcdefgh"}))
    assert "may not be backfilled" in failure_of(run(shop, 3, 3))


def test_second_run_of_a_backfill_that_was_rolled_back_fails_for_good_and_promotes_nothing(shop: Sandbox) -> None:
    tags = {"dagster/backfill": "abcdefgh"}
    book = shop.store.settings.book(lambda: shop.now)
    asked = RequestedWindows(SALES, tuple(map(day_key, range(6))))
    book.record(BackfillRequest("abcdefgh", shop.now, "anna", "full", (asked,), "admitted"))
    assert run(shop, 0, 2, tags=tags).success
    roll_back(shop.store, book, "abcdefgh", person="team:kiosks", os_user="tests", reason="wrong feed")
    before = shop.version(SALES)
    result = run(shop, 3, 5, tags=tags)
    assert "AlreadyDecided: Backfill 'abcdefgh' cannot be computed: it was rolled back by team:kiosks" in failure_of(
        result
    )
    assert [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure] != [None]
    assert (shop.version(SALES), shop.rows(SALES).height) == (before, 0)
    assert shop.offline.staging(SALES).staged_runs() == []


def test_difference_is_shown_once_a_run_with_the_last_window_that_changed(shop: Sandbox) -> None:
    shop.ingest(orders, [order("high", T0 + DAY + 2 * HOUR, 900.0), order("more", T0 + 2 * DAY + 2 * HOUR, 950.0)])
    assert run(shop, 0, 4).success
    assert "difference" not in metadata(shop, 4)
    shop.use(kiosks(replace(kiosk_sales_daily, transform=without_high_orders)))
    assert run(shop, 0, 4, tags={"dagster/backfill": "abcdefgh"}, config={"accept_shift": True}).success
    assert "2 changed" in metadata(shop, 2)["difference"]
    assert "data:image/svg+xml" in metadata(shop, 2)["difference"]
    assert all("difference" not in metadata(shop, day) for day in (0, 1, 3, 4))


def test_difference_is_kept_with_the_backfill_by_the_run_itself(shop: Sandbox) -> None:
    assert run(shop, 0, 2, tags={"dagster/backfill": "abcdefgh"}).success
    [document] = shop.store.settings.book(lambda: shop.now).kept("abcdefgh", RUN_KIND).values()
    assert (document["group"], document["rows"]["added"], len(document["windows"])) == (SALES, 3, 3)


ESTIMATED = {"dagster/backfill": "abcdefgh", "featurestore/estimate_usd": "0.25"}


def test_estimate_is_shown_though_nothing_changed_and_with_the_gate_though_all_was_held(shop: Sandbox) -> None:
    assert run(shop, 0, 2).success
    assert run(shop, 0, 2, tags=ESTIMATED).success
    assert [metadata(shop, day).get("estimate_usd") for day in range(3)] == [None, None, 0.25]
    shop.ingest(orders, [order(9, T0 + 7 * DAY + HOUR, TOO_MUCH)])
    assert not run(shop, 7, 7, tags=ESTIMATED).success
    assert gate_of(shop, 7)[0].metadata["estimate_usd"].value == 0.25


def test_unpromoted_upstream_windows_can_be_left_aside(shop: Sandbox) -> None:
    assert run(shop, 0, 1).success
    path = f"offline/{TREND}"
    shop.run(path, partitions=[day_key(3)])
    assert shop.materialized(path) == []
    assert shop.run(path, partitions=[day_key(3)], tags={"featurestore/without": SALES}).success
    assert shop.materialized(path) == [day_key(3)]


def test_config_goes_before_tags_and_missing_fields_are_taken_from_them() -> None:
    tags = {"featurestore/strategy": "proxy", "featurestore/accept_shift": "true", "featurestore/without": "a, b"}
    assert launch_of(BackfillConfig(), tags) == Launch("", "proxy", True, ("a", "b"))
    config = BackfillConfig(strategy="full", accept_shift=False, without=[])
    assert launch_of(config, tags) == Launch("", "full", False, ())


@pytest.mark.parametrize("config", [{"strategy": {"env": "X"}}, {"without": "a"}])
def test_run_config_that_is_none_of_the_assets_is_refused(config: dict[str, Any]) -> None:
    bad = dg.DagsterRun("job", run_config={"ops": {STEP: {"config": config}}})
    with pytest.raises(InvalidInput, match=STEP):
        launch_of_run(bad, SALES)


def test_permanent_errors_are_not_tried_again_and_passing_ones_are() -> None:
    with pytest.raises(dg.Failure) as failure, permanent_errors_fail_at_once():
        raise StaleWriter("a newer run has written them")
    assert failure.value.allow_retries is False
    assert "StaleWriter: a newer run" in str(failure.value.description)
    with pytest.raises(StoreUnavailable), permanent_errors_fail_at_once():
        raise StoreUnavailable("gone")


def test_progress_says_windows_rows_and_time_left() -> None:
    assert progress_text(SALES, Progress(10, 40, 1_200, 34_000, 5.0, 56_789)) == (
        "kiosk_sales_daily: 10 of 40 windows computed, 1,200 rows (56.8 kB) from 34,000, about 15 s left"
    )


def progress_of(shop: Sandbox, result: dg.ExecuteInProcessResult) -> str:
    found = shop.instance.get_run_by_id(result.run_id)
    assert found is not None
    return found.tags.get(PROGRESS, "")


def test_ended_run_of_a_backfill_says_how_its_windows_ended_and_what_was_written(
    shop: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_assets.progress.EVERY_SECONDS", 0.0)
    run(shop, 0, 1)
    shop.ingest(orders, [order(9, T0 + 3 * DAY + HOUR, TOO_MUCH)])
    shop.now = T0 + 5 * DAY + HOUR
    said = progress_of(shop, of_backfill(shop, 0, 4))
    assert said.startswith(
        "kiosk_sales_daily: ended. 5 windows: 1 promoted, 1 held, 2 left as they were, 1 not computed;"
    )
    assert re.search(r"; 1 row promoted, [0-9.]+ kB written$", said)
    assert "left" not in said.partition(";")[2]


def test_run_of_a_backfill_that_stops_says_why_in_place_of_its_time_left(shop: Sandbox) -> None:
    result = run(shop, 0, 1, tags={"dagster/backfill": "abcdefgh"}, config={"strategy": "snapshot"})
    assert not result.success
    said = progress_of(shop, result)
    assert said.startswith(
        "kiosk_sales_daily: stopped before any window was computed. InvalidInput: Group 'kiosk_sales"
    )
    error = StaleWriter("A newer run has the window.\nMore.")
    told = stop_text(SALES, Progress(2, 4, 10, 10, 5.0), error)
    assert told == "kiosk_sales_daily: stopped with 2 of 4 windows computed. StaleWriter: A newer run has the window."


def test_window_that_is_not_due_is_left_out_of_a_backfill(shop: Sandbox) -> None:
    shop.now = datetime.combine(START + 3 * DAY, datetime.min.time(), T0.tzinfo) + HOUR
    assert run(shop, 0, 4, tags={"dagster/backfill": "abcdefgh"}).success
    assert shop.materialized(f"offline/{SALES}") == [day_key(0), day_key(1)]
