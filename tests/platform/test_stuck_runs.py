"""The sensor that ends runs that stand still, on a real instance with real processes; the time between looks is the test's."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.events import StepMaterializationData
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG, WILL_RETRY_TAG

from featurestore.alerts.problem import Problem
from featurestore.alerts.stillness import still_runs
from featurestore.errors import StoreUnavailable
from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.process import Process
from featurestore.heartbeat.stuck import StuckRun
from featurestore.heartbeat.worker import Patience
from featurestore.location import Location
from featurestore.metadata.database import Database
from featurestore.settings import Settings
from resources.run_tags import LAUNCHED_BY
from sensors.launches import unfinished_runs
from sensors.lost_retries import PATIENCE, TIMES, LostRetries
from sensors.stuck_records import StuckRecords
from sensors.stuck_runs import StuckRuns, stuck_runs
from tests.platform.airline import dagster_home
from tests.platform.crash_site import crash_home
from tests.platform.kiosks import HOUR, MINUTE, T0, TOO_MUCH, day_key, kiosk_profile, kiosks, order, orders
from tests.platform.run_queue import ORIGIN, range_tags
from tests.platform.sandbox import Sandbox
from tests.unit.test_heartbeat import told_of
from tests.waiting import wait_for

SECOND = timedelta(seconds=1)
SALES = dg.AssetKey(["offline", "kiosk_sales_daily"])
ORDERS = dg.AssetKey(["raw", "orders"])
STARTED, CANCELING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING
POOL = "offline_kiosk_sales_daily"
HUNG = Patience().hung.total_seconds()
GONE = Process("elsewhere", "boot", 1, 1)


@dataclass
class Ward:
    """An instance, the runs on it, and looks at their heartbeats a quarter of a minute apart."""

    sandbox: Sandbox
    book: HeartbeatBook
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.sandbox.instance

    def launch(
        self,
        status: dg.DagsterRunStatus = STARTED,
        tags: dict[str, str] | None = None,
        parent: dg.DagsterRun | None = None,
        days: tuple[int, ...] = (0,),
        assets: frozenset[dg.AssetKey] = frozenset({SALES}),
    ) -> dg.DagsterRun:
        kin = {PARENT_RUN_ID_TAG: parent.run_id, ROOT_RUN_ID_TAG: parent.run_id} if parent else {}
        job = self.sandbox.definitions().resolve_implicit_global_asset_job_def()
        made = self.instance.create_run_for_job(
            job.get_subset(asset_selection=assets),
            tags={**range_tags([day_key(day) for day in days]), **kin, **(tags or {})},
            status=status,
            asset_selection=assets,
            parent_run_id=parent.run_id if parent else None,
            root_run_id=parent.run_id if parent else None,
            remote_job_origin=ORIGIN,
        )
        return self.run(made.run_id)

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def beat(self, run: dg.DagsterRun, process: Process, idle_seconds: float = 0.0) -> None:
        self.book.beat(run.run_id, process, "featurestore.somewhere", idle_seconds)

    def look(self, times: int = 1, location: str | None = None) -> None:
        log = logging.getLogger("test")
        for _ in range(times):
            StuckRuns(self.instance, self.book, Patience(), lambda: self.now, log, location).look()
            self.follow(location)
            self.now += 15 * SECOND

    def follow(self, location: str | None = None) -> None:
        StuckRecords(self.instance, self.book, self.graph, Location(str(self.sandbox.root)), location).follow()

    @cached_property
    def graph(self) -> AssetGraph:
        return self.sandbox.definitions().resolve_asset_graph()

    def strand(self, **launched: Any) -> dg.DagsterRun:
        """A run that stood still and was ended, on a machine that is not there any more."""
        run = self.launch(**launched)
        self.now = max(self.now, datetime.now(UTC))
        self.beat(run, GONE)
        self.look(10)
        assert self.only_stuck().run_id == run.run_id
        return run

    def compute(self, *days: int) -> None:
        """Compute days of sales, by a real run of their own."""
        assert self.sandbox.run(SALES.to_user_string(), partitions=[day_key(day) for day in days]).success

    def said(self, run: dg.DagsterRun) -> str:
        return "\n".join(str(entry.message) for entry in self.instance.all_logs(run.run_id))

    def failures(self, run: dg.DagsterRun) -> int:
        return len(self.instance.all_logs(run.run_id, dg.DagsterEventType.RUN_FAILURE))

    def only_stuck(self) -> StuckRun:
        (found,) = self.book.stuck()
        return found


RETRIES = {"run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False}}


def ward_on(instance: dg.DagsterInstance, folder: Path) -> Ward:
    sandbox = Sandbox(folder, instance)
    made = Ward(sandbox, Settings(Location(str(sandbox.root)), Location("landing")).heartbeats(lambda: made.now))
    return made


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with dg.DagsterInstance.ephemeral(settings=RETRIES) as instance:
        yield ward_on(instance, tmp_path)


@pytest.fixture
def ward_with_pools(tmp_path: Path) -> Iterator[Ward]:
    with dg.DagsterInstance.from_config(str(crash_home(tmp_path / "home"))) as instance:
        yield ward_on(instance, tmp_path)


@pytest.fixture
def worker() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_frozen_worker_is_killed_its_run_failed_and_its_pool_free(
    ward_with_pools: Ward, worker: "subprocess.Popen[bytes]"
) -> None:
    ward = ward_with_pools
    run, process = ward.launch(), told_of(worker.pid)
    log = ward.instance.event_log_storage
    log.initialize_concurrency_limit_to_default(POOL)
    assert log.claim_concurrency_slot(POOL, run.run_id, "step").is_claimed
    worker.send_signal(signal.SIGSTOP)
    ward.beat(run, process)
    since = ward.now
    ward.look(8)
    assert ward.run(run.run_id).status == STARTED
    ward.look()
    assert worker.wait(timeout=60) == -signal.SIGKILL
    failed = ward.run(run.run_id)
    assert failed.status == dg.DagsterRunStatus.FAILURE
    assert failed.tags[WILL_RETRY_TAG] == "true"
    assert log.claim_concurrency_slot(POOL, "another", "step").is_claimed
    assert (
        f"process {worker.pid} on {process.host} gave no sign of life since {since:%Y-%m-%d %H:%M:%S} UTC"
        in ward.said(run)
    )
    assert "Its process was killed. Dagster retries it." in ward.said(run)
    found = ward.only_stuck()
    assert (found.run_id, found.assets, found.why, found.since) == (
        run.run_id,
        (SALES.to_user_string(),),
        "silent",
        since,
    )
    assert (found.pid, found.host) == (worker.pid, process.host)
    assert ward.book.workers() == []
    ward.look(9)
    assert ward.failures(run) == 1


HOLDS_THE_LOCK = """
import os, signal, sqlite3, sys
sys.stdin.read()
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_worker_that_was_frozen_in_the_middle_of_a_beat_frees_the_database_for_all(ward: Ward) -> None:
    """Its transaction would stand for ever, and no look could be written."""
    run, file = ward.launch(), ward.sandbox.root / "metadata.db"
    impatient = replace(ward, book=HeartbeatBook(Database(f"sqlite:///{file}", lock_seconds=0.2), lambda: ward.now))
    with subprocess.Popen([sys.executable, "-c", HOLDS_THE_LOCK, str(file)], stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        ward.beat(run, told_of(worker.pid))
        worker.stdin.close()
        wait_for("the frozen worker", told_of(worker.pid).is_stopped, 60)
        with pytest.raises(StoreUnavailable):
            impatient.look()
        assert worker.poll() is None, "it is silent for a moment only"
        ward.now += Patience().silent
        impatient.now = ward.now
        impatient.look()
        assert worker.wait(timeout=60) == -signal.SIGKILL
    assert ward.run(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert "gave no sign of life" in ward.said(run)
    assert (ward.only_stuck().run_id, ward.book.workers()) == (run.run_id, [])


def test_worker_that_beats_and_works_is_never_touched(ward: Ward, worker: "subprocess.Popen[bytes]") -> None:
    run, process = ward.launch(), told_of(worker.pid)
    for _ in range(12):
        ward.beat(run, process, idle_seconds=HUNG - 1)
        ward.look(2)
    assert ward.run(run.run_id).status == STARTED
    assert worker.poll() is None


def test_run_without_a_heartbeat_is_never_touched(ward: Ward) -> None:
    run = ward.launch()
    ward.look(12)
    assert ward.run(run.run_id).status == STARTED


def test_work_that_hangs_in_a_living_process_is_ended(ward: Ward, worker: "subprocess.Popen[bytes]") -> None:
    run = ward.launch()
    ward.beat(run, told_of(worker.pid), idle_seconds=HUNG)
    ward.look()
    assert worker.wait(timeout=60) == -signal.SIGKILL
    assert "did not go on with its work" in ward.said(run)
    assert ward.only_stuck().why == "hung"
    assert ward.only_stuck().since == ward.now - 15 * SECOND - timedelta(seconds=HUNG)


def test_run_that_is_being_canceled_and_does_not_end_is_canceled_and_not_retried(
    ward: Ward, worker: "subprocess.Popen[bytes]"
) -> None:
    run = ward.launch()
    ward.instance.report_run_canceling(run)
    ward.beat(run, told_of(worker.pid))
    ward.look(10)
    assert worker.wait(timeout=60) == -signal.SIGKILL
    ended = ward.run(run.run_id)
    assert ended.status == dg.DagsterRunStatus.CANCELED
    assert WILL_RETRY_TAG not in ended.tags
    assert ward.book.stuck() == []


@pytest.mark.parametrize("how", ["another machine", "gone"])
def test_worker_that_cannot_be_killed_is_failed_and_left_to_the_fence(
    ward: Ward, worker: "subprocess.Popen[bytes]", how: str
) -> None:
    run, process = ward.launch(), told_of(worker.pid)
    other = replace(process, machine="other") if how == "another machine" else replace(process, started=1)
    ward.beat(run, other)
    ward.look(10)
    assert ward.run(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert worker.poll() is None, "it is another process"
    assert ("left alone" if how == "another machine" else "Its process was gone") in ward.said(run)


def test_process_that_outlived_its_run_is_killed_without_a_word_to_the_run(
    ward: Ward, worker: "subprocess.Popen[bytes]"
) -> None:
    run = ward.launch()
    ward.beat(run, told_of(worker.pid))
    ward.instance.report_run_failed(run)
    ward.look(10)
    assert worker.wait(timeout=60) == -signal.SIGKILL
    assert (ward.failures(run), ward.book.stuck(), ward.book.workers()) == (1, [], [])


def test_run_that_cannot_be_ended_keeps_no_other_from_being_ended(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = ward.launch(), ward.launch(days=(1,))
    for run in (first, second):
        ward.beat(run, GONE)

    def refuse(run: dg.DagsterRun, *_: object) -> None:
        if run.run_id == first.run_id:
            raise OSError("Dagster's storage is away")
        dg.DagsterInstance.report_run_failed(ward.instance, run)

    with monkeypatch.context() as broken:
        broken.setattr(ward.instance, "report_run_failed", refuse)
        ward.look(10)
    assert [ward.run(run.run_id).status for run in (first, second)] == [STARTED, dg.DagsterRunStatus.FAILURE]
    assert f"Run {first.run_id} stands still and could not be ended; the next look tries again." in caplog.text
    ward.look()
    assert ward.run(first.run_id).status == dg.DagsterRunStatus.FAILURE


def test_run_of_another_instance_or_location_is_left_alone(ward: Ward, worker: "subprocess.Popen[bytes]") -> None:
    run, process = ward.launch(), told_of(worker.pid)
    ward.beat(run, process)
    ward.book.beat("unknown", process, "somewhere", 0.0)
    ward.look(12, location="another team's")
    assert ward.run(run.run_id).status == STARTED
    assert len(ward.book.workers()) == 2
    assert worker.poll() is None


def test_retry_is_foretold_as_it_will_be(ward: Ward) -> None:
    """A run that was a retry has none left; a scheduled one is launched anew by the schedule."""
    gone = Process("elsewhere", "boot", 1, 1)
    first = ward.launch()
    ward.instance.report_run_failed(first)
    for tags, said in [({LAUNCHED_BY: "due_windows"}, "the schedule launches"), ({}, "It has no retry left")]:
        retry = ward.launch(tags=tags, parent=first)
        ward.beat(retry, gone)
        ward.look(10)
        assert said in ward.said(retry)
        assert ward.run(retry.run_id).tags[WILL_RETRY_TAG] == "false"


def test_alert_of_a_stuck_run_tells_each_fact_once_and_what_is_to_be_done_now(ward: Ward) -> None:
    first = ward.strand()
    told = {problem_of(ward).remedy}
    retry = ward.launch(parent=first)
    ward.beat(retry, GONE)
    ward.look(10)
    ward.book.close(first.run_id, "")
    told |= {problem_of(ward).remedy}
    assert {remedy.partition(" If it comes again,")[0] for remedy in told} == {
        "Dagster retries it.",
        "It has no retry left: find out what it waited for, and launch it again.",
    }
    assert problem_of(ward).text == (
        f"Run {retry.run_id} of offline/kiosk_sales_daily gave no sign of life for 2 min: process 1 on elsewhere, last seen in "
        "featurestore.somewhere. Its process is on another machine, or cannot be ended from here, and was left alone: what it may "
        "still write, the tables refuse."
    )


def problem_of(ward: Ward) -> Problem:
    (found,) = still_runs(["kiosk_sales_daily"], ward.book.stuck(), ward.now).problems
    return found


def test_record_is_open_until_the_retry_succeeds(ward: Ward) -> None:
    run = ward.launch()
    ward.beat(run, Process("elsewhere", "boot", 1, 1))
    ward.look(10)
    retry = ward.launch(parent=run)
    ward.instance.add_run_tags(run.run_id, {AUTO_RETRY_RUN_ID_TAG: retry.run_id})
    ward.look()
    assert ward.only_stuck().retried_as == retry.run_id
    ward.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, retry.job_name), retry.run_id
    )
    ward.look()
    assert ward.book.stuck() == []
    (over,) = ward.book.stuck(since=ward.now - timedelta(days=1))
    assert over.outcome == f"Its retry {retry.run_id} succeeded."


@pytest.fixture
def shop(ward: Ward) -> Ward:
    """A ward whose runs have something to compute."""
    ward.sandbox.ingest(orders, [order(1, T0 + HOUR)])
    return ward


def test_record_is_closed_by_a_later_run_of_the_same_work_however_many_others_succeeded(shop: Ward) -> None:
    shop.strand()
    for _ in range(250):
        other = dg.DagsterRun("other", status=dg.DagsterRunStatus.SUCCESS, asset_selection=frozenset({ORDERS}))
        shop.instance.run_storage.add_run(other)
    shop.compute(0)
    shop.look()
    assert shop.book.stuck() == []


def test_run_of_other_partitions_closes_no_record_and_neither_does_one_from_before(shop: Ward) -> None:
    shop.compute(0)
    run = shop.strand()
    shop.compute(1)
    shop.look()
    assert shop.only_stuck().run_id == run.run_id


def test_record_of_several_days_is_closed_once_later_runs_have_computed_all_of_them(shop: Ward) -> None:
    shop.strand(days=(0, 1, 2))
    shop.compute(0, 1)
    shop.look()
    assert shop.only_stuck().over_at is None
    shop.compute(2)
    shop.look()
    assert shop.book.stuck() == []


def test_window_that_went_to_quarantine_is_not_waited_for_and_its_run_failed(shop: Ward) -> None:
    """It may be held for ever, and has an alert of its own."""
    shop.sandbox.ingest(orders, [order(2, T0 + HOUR, TOO_MUCH)])
    shop.strand(days=(0, 1))
    shop.sandbox.now = datetime.now(UTC) + 5 * MINUTE
    assert not shop.sandbox.run(SALES.to_user_string(), partitions=[day_key(0), day_key(1)]).success
    assert shop.sandbox.materialized(SALES.to_user_string()) == [day_key(1)]
    shop.look()
    assert shop.book.stuck() == []


def test_asset_that_the_run_itself_had_computed_is_not_waited_for(shop: Ward) -> None:
    run = shop.strand(assets=frozenset({SALES, ORDERS}))
    done = StepMaterializationData(dg.AssetMaterialization(ORDERS, partition=day_key(0)))
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    shop.instance.report_dagster_event(dg.DagsterEvent(kind, run.job_name, event_specific_data=done), run.run_id)
    shop.look()
    assert shop.only_stuck().run_id == run.run_id
    shop.compute(0)
    shop.look()
    assert shop.book.stuck() == []


def test_record_of_a_run_whose_asset_is_not_declared_any_more_or_that_was_deleted_is_closed(ward: Ward) -> None:
    ward.instance.delete_run(ward.strand().run_id)
    ward.look()
    assert ward.book.stuck() == []
    ward.strand()
    ward.sandbox.use(kiosks(kiosk_profile))
    replace(ward).follow()
    assert ward.book.stuck() == []


def test_instance_gives_back_what_dead_runs_held_of_pools(tmp_path: Path) -> None:
    """Dagster does so only where it is told how long after the end of a run; a killed one gives nothing back itself."""
    with dg.DagsterInstance.from_config(str(dagster_home(tmp_path))) as instance:
        assert 0 < instance.run_monitoring_settings["free_slots_after_run_end_seconds"] <= 60


def test_sensor_of_the_location_looks_and_leaves_a_healthy_store_as_it_is(ward: Ward) -> None:
    definitions = ward.sandbox.definitions()
    assert "stuck_runs" in {sensor.name for sensor in definitions.sensors or ()}
    with dg.build_sensor_context(
        instance=ward.instance, definitions=definitions, resources=dict(definitions.resources or {})
    ) as context:
        told = stuck_runs(lambda: ward.now).evaluate_tick(context)
    assert told.skip_message == "Looked at the heartbeats of runs."


def lost(ward: Ward) -> tuple[LostRetries, dg.DagsterRun]:
    """A run whose failure the daemon saw a moment too early."""
    run = ward.launch()
    ward.instance.report_run_failed(run)
    return LostRetries(ward.instance, lambda: ward.now, logging.getLogger("test")), run


def test_failure_whose_retry_did_not_begin_is_said_again_and_not_for_ever(ward: Ward) -> None:
    retries, run = lost(ward)
    retries.report()
    assert ward.failures(run) == 1
    for times in range(2, TIMES + 2):
        ward.now = datetime.now(UTC) + PATIENCE + SECOND
        retries.report()
        assert ward.failures(run) == times
    ward.now = datetime.now(UTC) + PATIENCE + SECOND
    retries.report()
    assert ward.failures(run) == TIMES + 1
    assert ward.run(run.run_id).tags[WILL_RETRY_TAG] == "false", "a backfill would wait for it"


def test_failure_that_was_retried_is_not_said_again(ward: Ward) -> None:
    retries, run = lost(ward)
    ward.launch(parent=run)
    ward.now += 2 * PATIENCE
    retries.report()
    assert ward.failures(run) == 1


def test_window_of_a_run_that_is_about_to_be_retried_is_not_launched_by_the_schedule(ward: Ward) -> None:
    _, run = lost(ward)
    assert len(unfinished_runs(ward.instance, "offline", "due_windows")) == 1
    ward.instance.add_run_tags(run.run_id, {AUTO_RETRY_RUN_ID_TAG: "another"})
    assert unfinished_runs(ward.instance, "offline", "due_windows") == []
