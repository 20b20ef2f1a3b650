"""Backfills wait in the queue until they are judged: by the coordinator that holds them, and the sensor that lets them go."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    RETRY_NUMBER_TAG,
    SCHEDULE_NAME_TAG,
)
from dagster._utils.tags import TagConcurrencyLimitsCounter
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.backfill.admission import decide
from featurestore.backfill.rights import SPENT
from featurestore.declaration import Backfill, FeatureGroup, Hourly
from featurestore.errors import AlreadyDecided, InvalidInput, StoreUnavailable
from featurestore.metadata.request import AuditEntry, RequestedWindows, State
from featurestore.registry.compile import compile_snapshot
from resources.run_tags import ADMISSION, BACKFILL, REASON
from tests.platform.airline import dagster_home
from tests.platform.kiosks import (
    DAY,
    HOUR,
    START,
    T0,
    day_key,
    hour_key,
    kiosk_orders_hourly,
    kiosk_sales_daily,
    kiosk_trend_daily,
    kiosks,
    mended_sales_daily,
    order,
    orders,
)
from tests.platform.run_queue import Queue
from tests.platform.sandbox import Sandbox

SALES, TREND = "offline/kiosk_sales_daily", "offline/kiosk_trend_daily"
ONE_LAUNCH_USD, TWO_LAUNCHES_USD = 0.001, 0.0015
"""A launch of few windows is estimated at 20 seconds of compute, 0.00065 USD."""


def limited(limit_usd: float, **rules: object) -> FeatureGroup:
    return replace(kiosk_sales_daily, backfill=Backfill(approval_limit_usd=limit_usd, **rules))  # type: ignore[arg-type]


def queue_of(sandbox: Sandbox, *groups: FeatureGroup) -> Queue:
    """Ten days of orders, and a catalogue of some groups."""
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR) for day in range(10)])
    sandbox.use(kiosks(*groups))
    return Queue(sandbox)


@pytest.fixture
def queue(sandbox: Sandbox) -> Queue:
    return queue_of(sandbox, limited(25.0), kiosk_orders_hourly)


def days(first: int, last: int) -> list[str]:
    return [day_key(day) for day in range(first, last + 1)]


def person(queue: Queue, backfill_id: str, state: State, reason: str = "") -> None:
    queue.book.decide(
        backfill_id, state, AuditEntry(backfill_id, queue.sandbox.now, state, "team:kiosks", "tests", reason)
    )


class TestCoordinator:
    def test_run_by_hand_is_held(self, queue: Queue) -> None:
        run = queue.submit([SALES], days(0, 0), by_hand=True)
        assert queue.admission(run) == ("QUEUED", "assessing")
        assert queue.run(run).tags[BACKFILL] == run.run_id

    def test_run_of_a_backfill_is_held_under_its_id(self, queue: Queue) -> None:
        backfill_id, [run] = queue.backfill(SALES, days(0, 3))
        assert queue.admission(run) == ("QUEUED", "assessing")
        assert queue.run(run).tags[BACKFILL] == backfill_id

    @pytest.mark.parametrize("typed", ["approved", "admitted", "scheduled", ""])
    def test_typed_admission_is_overwritten(self, queue: Queue, typed: str) -> None:
        run = queue.submit([SALES], days(0, 0), by_hand=True, tags={ADMISSION: typed, BACKFILL: "other"})
        assert queue.admission(run) == ("QUEUED", "assessing")
        assert queue.run(run).tags[BACKFILL] == run.run_id
        _, [held] = queue.backfill(SALES, days(0, 3), tags={ADMISSION: typed, BACKFILL: "other"})
        assert queue.admission(held) == ("QUEUED", "assessing")
        assert queue.run(held).tags[BACKFILL] == held.tags[BACKFILL_ID_TAG]

    @pytest.mark.parametrize("tag", [BACKFILL_ID_TAG, RETRY_NUMBER_TAG, SCHEDULE_NAME_TAG])
    def test_run_by_hand_is_its_own_backfill_whatever_its_tags_say(self, queue: Queue, tag: str) -> None:
        admitted, _ = queue.backfill(SALES, days(0, 3))
        queue.tick()
        run = queue.submit([SALES], days(0, 0), by_hand=True, tags={tag: admitted})
        assert queue.run(run).tags[BACKFILL] == run.run_id
        assert queue.admission(run) == ("QUEUED", "assessing")

    def test_scheduled_run_is_left_alone(self, queue: Queue) -> None:
        run = queue.submit([SALES], days(0, 0), tags={SCHEDULE_NAME_TAG: "daily"})
        assert queue.admission(run) == ("QUEUED", "")
        assert PRIORITY_TAG not in queue.run(run).tags

    def test_scheduled_run_cannot_be_held_by_a_tag(self, queue: Queue) -> None:
        run = queue.submit([SALES], days(0, 0), tags={SCHEDULE_NAME_TAG: "daily", ADMISSION: "pending", BACKFILL: "x"})
        assert queue.admission(run) == ("QUEUED", "scheduled")
        assert queue.run(run).tags[BACKFILL] == ""

    def test_run_from_a_command_line_is_held(self, queue: Queue) -> None:
        run = queue.submit([SALES], days(0, 0))
        assert queue.admission(run) == ("QUEUED", "assessing")

    @pytest.mark.parametrize("paths", [["raw/orders"], ["online/kiosk_sales_daily"]])
    def test_other_assets_are_left_alone(self, queue: Queue, paths: list[str]) -> None:
        keys = days(0, 0) if "raw" in paths[0] else []
        assert queue.admission(queue.submit(paths, keys, by_hand=True)) == ("QUEUED", "")

    def test_static_group_is_left_alone(self, sandbox: Sandbox) -> None:
        queue = Queue(sandbox)
        assert queue.admission(queue.submit(["offline/kiosk_profile"], by_hand=True)) == ("QUEUED", "")

    def test_retry_belongs_to_the_backfill_of_the_run_that_failed(self, queue: Queue) -> None:
        first = queue.submit([SALES], days(0, 0), by_hand=True)
        tags = {**queue.run(first).tags, RETRY_NUMBER_TAG: "1"}
        retry = queue.submit([SALES], days(0, 0), tags=tags, parent=first)
        assert queue.run(retry).tags[BACKFILL] == first.run_id

    @pytest.mark.parametrize(("typed", "given_"), [(None, "-10"), ("5", "-10"), ("-20", "-20"), ("high", "-10")])
    def test_backfills_go_after_scheduled_runs(self, queue: Queue, typed: str | None, given_: str) -> None:
        run = queue.submit([SALES], days(0, 0), by_hand=True, tags={PRIORITY_TAG: typed} if typed else {})
        assert queue.run(run).tags[PRIORITY_TAG] == given_


def test_kept_configuration_holds_what_is_not_admitted(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home(tmp_path / "home"))) as instance:
        assert type(instance.run_coordinator).__name__ == "AdmissionCoordinator"
        config = instance.get_concurrency_config().run_queue_config
        assert config is not None
        counter = TagConcurrencyLimitsCounter(config.tag_concurrency_limits, [])
        held = {
            state: counter.is_blocked(dg.DagsterRun("job", tags={ADMISSION: state}))
            for state in ("assessing", "pending", "admitted", "approved", "scheduled")
        }
    assert held == {"assessing": True, "pending": True, "admitted": False, "approved": False, "scheduled": False}


class TestSensor:
    def test_backfill_below_the_limit_goes_on_at_once(self, queue: Queue) -> None:
        backfill_id, runs = queue.backfill(SALES, days(0, 4), days(5, 9))
        queue.tick()
        assert [queue.admission(run) for run in runs] == [("QUEUED", "admitted")] * 2
        request = queue.book.get(backfill_id)
        assert (request.state, request.strategy, request.groups[0].keys) == ("admitted", "full", tuple(days(0, 9)))

    def test_estimate_of_the_whole_backfill_is_on_each_of_its_runs(self, queue: Queue) -> None:
        backfill_id, runs = queue.backfill(SALES, days(0, 4), days(5, 9), submitted=1)
        queue.tick()
        tags, request = queue.run(runs[0]).tags, queue.book.get(backfill_id)
        assert tags["featurestore/partitions"] == "10"
        assert float(tags["featurestore/estimate_usd"]) == pytest.approx(request.cost_usd, abs=5e-5)
        assert int(tags["featurestore/estimate_seconds"]) >= 20
        assert {"featurestore/estimate_rows", "featurestore/estimate_bytes"} <= set(tags)

    def test_backfill_above_the_limit_waits_until_it_is_approved(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(0.0))
        backfill_id, runs = queue.backfill(SALES, days(0, 4), days(5, 9))
        for _ in range(3):
            queue.tick()
            assert [queue.admission(run) for run in runs] == [("QUEUED", "pending")] * 2
        assert "above the limit of 0.00 USD of 'kiosk_sales_daily'" in queue.run(runs[0]).tags[REASON]
        assert f"featurestore backfill approve {backfill_id}" in queue.run(runs[0]).tags[REASON]
        person(queue, backfill_id, "approved", "month end")
        queue.tick()
        assert [queue.admission(run) for run in runs] == [("QUEUED", "approved")] * 2
        assert queue.reason(runs[0]) == "Approved by team:kiosks: month end"

    def test_later_runs_of_an_approved_backfill_do_not_wait_again(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(0.0))
        backfill_id, _ = queue.backfill(SALES, days(0, 4), days(5, 9), submitted=1)
        queue.tick()
        person(queue, backfill_id, "approved")
        later = queue.submit([SALES], days(5, 9), tags={BACKFILL_ID_TAG: backfill_id})
        queue.tick()
        assert queue.admission(later) == ("QUEUED", "approved")

    def test_rejected_backfill_is_cancelled_with_its_reason(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(0.0))
        backfill_id, runs = queue.backfill(SALES, days(0, 4), days(5, 9))
        queue.tick()
        person(queue, backfill_id, "rejected", "wait for the mended feed")
        queue.tick()
        backfill = sandbox.instance.get_backfill(backfill_id)
        assert backfill is not None
        assert backfill.status == BulkActionStatus.CANCELING
        assert "wait for the mended feed" in str(backfill.error)
        queue.cancel_backfills()
        for run in runs:
            assert queue.admission(run)[0] == "CANCELED"
            assert "rejected by team:kiosks: wait for the mended feed" in queue.reason(run)

    def test_ended_run_no_longer_says_that_it_waits(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(0.0, backfillable_from=START + 3 * DAY))
        rejected_id, [rejected] = queue.backfill(SALES, days(4, 6))
        _, [refused] = queue.backfill(SALES, days(0, 2))
        _, [unknown] = queue.backfill(SALES, days(4, 6), tags={"featurestore/strategy": "quick"})
        queue.tick()
        person(queue, rejected_id, "rejected", "no")
        queue.tick()
        queue.cancel_backfills()
        queue.tick()
        ends = [queue.admission(run) for run in (rejected, refused, unknown)]
        assert ends == [("CANCELED", "rejected"), ("CANCELED", "refused"), ("CANCELED", "refused")]

    def test_backfill_canceled_in_dagster_while_it_waited_is_closed_and_cannot_be_approved(
        self, sandbox: Sandbox
    ) -> None:
        queue = queue_of(sandbox, limited(0.0))
        backfill_id, [run] = queue.backfill(SALES, days(0, 4))
        by_hand, other = (queue.submit([SALES], days(day, day), by_hand=True) for day in (5, 6))
        queue.tick()
        backfill = sandbox.instance.get_backfill(backfill_id)
        assert backfill is not None
        sandbox.instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELING))
        queue.tick()
        assert queue.book.get(backfill_id).state == "pending", "its runs have not ended yet"
        queue.cancel_backfills()
        queue.coordinator.cancel_run(by_hand.run_id)
        queue.tick()
        for name, ended in ((backfill_id, run), (by_hand.run_id, by_hand)):
            request = queue.book.get(name)
            assert (request.state, queue.admission(ended)) == ("cancelled", ("CANCELED", "cancelled"))
            assert "ended in Dagster as CANCELED while it waited for approval" in request.reason
            with pytest.raises(AlreadyDecided, match="was cancelled by Dagster"):
                person(queue, name, "approved", "month end")
        assert queue.book.get(other.run_id).state == "pending"
        audited = [entry.action for entry in queue.book.audit(backfill_id)]
        queue.tick()
        assert [entry.action for entry in queue.book.audit(backfill_id)] == audited == ["requested", "cancelled"]

    def test_backfill_that_the_daemon_wrote_again_as_it_was_is_cancelled_all_the_same(self, sandbox: Sandbox) -> None:
        """It had read it before the rejection, and writes how far it is."""
        queue = queue_of(sandbox, limited(0.0))
        backfill_id, [run] = queue.backfill(SALES, days(0, 4))
        queue.tick()
        as_read = sandbox.instance.get_backfill(backfill_id)
        assert as_read is not None
        person(queue, backfill_id, "rejected", "no")
        queue.tick()
        sandbox.instance.update_backfill(as_read)
        queue.cancel_backfills()
        assert queue.admission(run)[0] == "QUEUED"
        queue.tick()
        queue.cancel_backfills()
        ended = sandbox.instance.get_backfill(backfill_id)
        assert ended is not None
        assert (queue.admission(run)[0], ended.status) == ("CANCELED", BulkActionStatus.CANCELED)

    def test_run_that_comes_after_the_rejection_is_cancelled_too(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(0.0))
        backfill_id, _ = queue.backfill(SALES, days(0, 4), days(5, 9), submitted=1)
        queue.tick()
        person(queue, backfill_id, "rejected", "no")
        queue.tick()
        queue.cancel_backfills()
        later = queue.submit([SALES], days(5, 9), tags={BACKFILL_ID_TAG: backfill_id})
        queue.tick()
        assert queue.admission(later)[0] == "CANCELED"

    @pytest.mark.parametrize("limit_usd", [25.0, 0.0], ids=["admitted", "approved"])
    def test_runs_still_in_the_queue_are_cancelled_when_their_backfill_is_rolled_back(
        self, sandbox: Sandbox, limit_usd: float
    ) -> None:
        queue = queue_of(sandbox, limited(limit_usd))
        backfill_id, runs = queue.backfill(SALES, days(0, 2), days(3, 5), days(6, 8), submitted=2)
        by_hand, other = (queue.submit([SALES], days(day, day), by_hand=True) for day in (8, 9))
        queue.tick()
        if limit_usd == 0.0:
            for name in (backfill_id, by_hand.run_id, other.run_id):
                person(queue, name, "approved", "month end")
            queue.tick()
        for name in (backfill_id, by_hand.run_id):
            person(queue, name, "rolled_back", "wrong feed")
        let_go = queue.admission(other)
        queue.tick()
        queue.cancel_backfills()
        for run in (*runs, by_hand):
            assert queue.admission(run)[0] == "CANCELED"
            assert "was rolled back by team:kiosks: wrong feed" in queue.reason(run)
        assert queue.admission(other) == let_go == ("QUEUED", let_go[1])
        later = queue.submit([SALES], days(6, 8), tags={BACKFILL_ID_TAG: backfill_id})
        queue.tick()
        assert queue.admission(later)[0] == "CANCELED"

    def test_forbidden_range_is_refused_as_a_whole(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(25.0, backfillable_from=START + 3 * DAY))
        backfill_id, runs = queue.backfill(SALES, days(0, 4), days(5, 9))
        by_hand = queue.submit([SALES], days(2, 2), by_hand=True)
        allowed = queue.submit([SALES], days(3, 3), by_hand=True)
        queue.tick()
        queue.cancel_backfills()
        assert [queue.admission(run)[0] for run in [*runs, by_hand]] == ["CANCELED"] * 3
        assert "before 2025-03-04 may not be backfilled" in queue.reason(runs[1])
        assert queue.book.get(backfill_id).state == "refused"
        assert queue.admission(allowed) == ("QUEUED", "admitted")

    def test_failing_transform_is_refused_before_the_queue_is_filled(self, sandbox: Sandbox) -> None:
        def broken(window: object, orders: object) -> object:
            if window.start >= T0 + DAY:  # type: ignore[attr-defined]
                raise ValueError("no such till")
            return kiosk_sales_daily.transform(window, orders)  # type: ignore[arg-type]

        queue = queue_of(sandbox, replace(kiosk_sales_daily, transform=broken))
        backfill_id, runs = queue.backfill(SALES, days(0, 4), days(5, 9), submitted=1)
        queue.tick()
        queue.cancel_backfills()
        assert queue.admission(runs[0])[0] == "CANCELED"
        assert "no such till" in queue.book.get(backfill_id).reason

    def test_unknown_strategy_is_cancelled_and_says_which_there_are(self, queue: Queue) -> None:
        _, [run] = queue.backfill(SALES, days(0, 4), tags={"featurestore/strategy": "quick"})
        queue.tick()
        queue.cancel_backfills()
        assert queue.admission(run)[0] == "CANCELED"
        assert "'incremental'" in queue.reason(run)

    def test_strategy_of_the_launch_is_judged_and_kept(self, queue: Queue) -> None:
        tags = {"featurestore/strategy": "incremental", "featurestore/accept_shift": "true"}
        backfill_id, _ = queue.backfill(SALES, days(0, 4), tags=tags)
        config = {"ops": {"offline__kiosk_sales_daily": {"config": {"strategy": "incremental"}}}}
        by_hand = queue.submit([SALES], days(0, 0), by_hand=True, run_config=config)
        queue.tick()
        request = queue.book.get(backfill_id)
        assert (request.strategy, request.accept_shift) == ("incremental", True)
        assert queue.book.get(by_hand.run_id).strategy == "incremental"
        assert queue.admission(by_hand) == ("QUEUED", "admitted")

    @pytest.mark.parametrize(
        "typed",
        [
            {ASSET_PARTITION_RANGE_END_TAG: day_key(9)},
            {ASSET_PARTITION_RANGE_START_TAG: day_key(0)},
        ],
        ids=lambda typed: " ".join(typed.values()),
    )
    def test_typed_partitions_do_not_widen_a_backfill(self, queue: Queue, typed: dict[str, str]) -> None:
        _, [run] = queue.backfill(SALES, days(2, 4), tags=typed)
        queue.tick()
        assert queue.admission(run)[0] == "CANCELED"

    def test_typed_partition_does_not_move_a_backfill(self, queue: Queue) -> None:
        _, [run] = queue.backfill(SALES, days(2, 2), tags={PARTITION_NAME_TAG: day_key(9)})
        queue.tick()
        assert queue.admission(run)[0] == "CANCELED"

    def test_many_small_launches_are_held_once_they_exceed_the_limit_together(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(TWO_LAUNCHES_USD))
        runs = [queue.submit([SALES], days(day, day), by_hand=True) for day in range(5)]
        queue.tick()
        assert [queue.admission(run)[1] for run in runs] == ["admitted"] * 2 + ["pending"] * 3
        assert "admitted in the last 24 hours" in queue.run(runs[2]).tags[REASON]

    def test_what_was_admitted_a_day_ago_counts_no_longer(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(ONE_LAUNCH_USD))
        first = queue.submit([SALES], days(0, 0), by_hand=True)
        queue.tick()
        sandbox.now += DAY + HOUR
        second = queue.submit([SALES], days(1, 1), by_hand=True)
        queue.tick()
        assert [queue.admission(run)[1] for run in (first, second)] == ["admitted", "admitted"]

    def test_limits_of_groups_are_their_own(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, limited(0.0), kiosk_orders_hourly)
        waiting = queue.submit([SALES], days(0, 0), by_hand=True)
        hourly = queue.submit(["offline/kiosk_orders_hourly"], [hour_key(0), hour_key(5)], by_hand=True)
        queue.tick()
        assert [queue.admission(run)[1] for run in (waiting, hourly)] == ["pending", "admitted"]
        assert isinstance(kiosk_orders_hourly.cadence, Hourly)
        assert len(queue.book.get(hourly.run_id).groups[0].keys) == 6

    def test_runs_of_other_locations_are_left_to_their_own_sensor(self, queue: Queue) -> None:
        run = queue.submit([SALES], days(0, 0), by_hand=True)
        queue.sandbox.use(kiosks(kiosk_orders_hourly))
        queue.tick()
        assert queue.admission(run) == ("QUEUED", "assessing")

    def test_unreadable_book_leaves_backfills_held(self, queue: Queue) -> None:
        run = queue.submit([SALES], days(0, 0), by_hand=True)
        (queue.sandbox.root / "metadata.db").write_bytes(b"this is no database" * 100)
        with pytest.raises((StoreUnavailable, InvalidInput)):
            queue.tick()
        assert queue.admission(run) == ("QUEUED", "assessing")

    def test_backfill_that_cannot_be_judged_now_waits_and_others_do_not(self, sandbox: Sandbox) -> None:
        queue = queue_of(sandbox, kiosk_sales_daily, kiosk_trend_daily, kiosk_orders_hourly)
        assert sandbox.run(SALES, partitions=days(0, 4)).success
        waiting = queue.submit([TREND], days(1, 3), by_hand=True)
        ledger = sandbox.root / "ledger" / "feature_group=kiosk_sales_daily" / "_delta_log"
        ledger.rename(ledger.with_name("away"))
        ledger.mkdir()
        (ledger / f"{0:020}.json").write_text("half a l")
        other = queue.submit(["offline/kiosk_orders_hourly"], [hour_key(0)], by_hand=True)
        queue.tick()
        assert queue.admission(waiting) == ("QUEUED", "assessing")
        assert "cannot be judged yet" in queue.run(waiting).tags[REASON]
        assert queue.admission(other) == ("QUEUED", "admitted")
        shutil.rmtree(ledger)
        ledger.with_name("away").rename(ledger)
        queue.tick()
        assert queue.admission(waiting) == ("QUEUED", "admitted")
        assert queue.run(waiting).tags[REASON] == "Admitted: within the limits of its groups."

    def test_ticks_repeated_change_nothing(self, queue: Queue) -> None:
        backfill_id, [run] = queue.backfill(SALES, days(0, 4))
        queue.tick()
        before = (queue.run(run), queue.book.get(backfill_id), queue.book.audit(backfill_id))
        for _ in range(3):
            queue.tick()
        assert (queue.run(run), queue.book.get(backfill_id), queue.book.audit(backfill_id)) == before


class TestReports:
    def test_rollback_is_reported_once_for_each_of_its_windows(self, queue: Queue) -> None:
        backfill_id, _ = queue.backfill(SALES, days(0, 4))
        queue.tick()
        details = {"group": "kiosk_sales_daily", "keys": days(0, 4), "version": 3}
        entry = AuditEntry(backfill_id, queue.sandbox.now, "rolled_back", "team:kiosks", "tests", "wrong feed", details)
        queue.book.decide(backfill_id, "rolled_back", entry)
        events = queue.tick().asset_events
        assert [event.partition for event in events] == days(0, 4)
        assert {event.asset_key.to_user_string() for event in events} == {SALES}
        assert queue.tick().asset_events == []

    def test_reported_window_says_what_its_rows_are_by_now(self, queue: Queue) -> None:
        assert queue.sandbox.run(SALES, partitions=days(0, 0)).success
        details = {"group": "kiosk_sales_daily", "keys": days(0, 1), "version": 3}
        queue.book.note(AuditEntry("b", queue.sandbox.now, "overridden", "team:kiosks", "tests", "right", details))
        standing, empty = (
            {name: value.value for name, value in event.metadata.items()} for event in queue.tick().asset_events
        )
        assert (standing["strategy"], standing["correctness"]) == ("full", "perfect")
        assert (standing["dagster/partition_row_count"], standing["action"]) == (1, "overridden")
        assert (empty["dagster/partition_row_count"], "strategy" in empty) == (0, False)

    def test_other_entries_and_other_groups_are_not_reported(self, queue: Queue) -> None:
        details = {"group": "elsewhere", "keys": days(0, 4)}
        backfill_id, _ = queue.backfill(SALES, days(0, 4))
        queue.tick()
        for action in ("overridden", "inspected"):
            queue.book.note(AuditEntry(backfill_id, queue.sandbox.now, action, "a", "b", "", details))
        assert queue.tick().asset_events == []


@settings(deadline=None)
@given(costs=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=4), limit=st.floats(0, 60))
def test_backfill_waits_if_any_of_its_groups_would_spend_more_than_its_limit(
    costs: Sequence[tuple[float, float]], limit: float
) -> None:
    named = [replace(limited(limit), name=f"kiosk_sales_{number}") for number in range(len(costs))]
    registry = compile_snapshot(kiosks(*named), None)
    parts = [
        RequestedWindows(group.stored_name, ("2025-03-01",), {"cost_usd": cost, SPENT: spent})
        for group, (cost, spent) in zip(named, costs, strict=True)
    ]
    state, reason = decide(registry, "b", parts)
    above = [group.stored_name for group, (cost, spent) in zip(named, costs, strict=True) if cost + spent > limit]
    assert state == ("pending" if above else "admitted")
    assert all((name in reason) == (name in above) for name in (group.stored_name for group in named))


def test_mended_transform_of_the_same_group_is_tried_before_it_is_admitted(sandbox: Sandbox) -> None:
    queue = queue_of(sandbox, mended_sales_daily)
    _, [run] = queue.backfill(SALES, days(0, 4))
    queue.tick()
    assert queue.admission(run) == ("QUEUED", "admitted")
