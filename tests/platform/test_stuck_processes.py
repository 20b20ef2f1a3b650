"""Runs that stand still under Dagster's real processes: daemon, code server and workers, each one frozen, killed or hung for real.

Each case starts the processes anew, so all of it waits for the exam; `test_stuck_runs.py` has the gate's cases.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGSTOP

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from featurestore.heartbeat.book import HeartbeatBook
from featurestore.location import Location
from featurestore.settings import Settings
from tests.platform.crash_location import STUCK, catalog
from tests.platform.crash_site import kill
from tests.platform.test_backfill_crash import (
    ASSETS,
    DONE,
    KEYS,
    Twins,
    assert_same,
    running_twins,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.exam

SILENT, HUNG = 16, 24
PATIENCE_SECONDS = 600


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Twins]:
    limits = {"FEATURESTORE_SILENT_SECONDS": str(SILENT), "FEATURESTORE_HUNG_SECONDS": str(HUNG)}
    with running_twins(tmp_path, **{STUCK: "yes"}, **limits) as running:
        running.land(0)
        yield running


def held_worker(folder: Path, twins: Twins) -> tuple[str, int]:
    """A backfill whose run is held in the middle of its work, after a first heartbeat: its id, and the run's process."""
    (folder / "hold").touch()
    backfill_id = twins.backfill()
    wait_for("the held worker", lambda: any(folder.glob("held-*")), PATIENCE_SECONDS)
    (held,) = folder.glob("held-*")
    wait_for("a heartbeat", lambda: bool(book(twins).workers()), PATIENCE_SECONDS)
    return backfill_id, int(held.name.removeprefix("held-"))


def book(twins: Twins) -> HeartbeatBook:
    return Settings(Location(str(twins.killed.root)), Location(str(twins.killed.landing))).heartbeats()


def runs_of(twins: Twins, backfill_id: str) -> list[dg.DagsterRun]:
    """The runs of a backfill, the oldest first."""
    wanted = dg.RunsFilter(tags={"dagster/backfill": backfill_id})
    return list(reversed(twins.killed.instance.get_runs(wanted)))


def status_at_the_end(twins: Twins, backfill_id: str) -> BulkActionStatus:
    wait_for("the end of the backfill", lambda: twins.status(backfill_id) in DONE, PATIENCE_SECONDS)
    return twins.status(backfill_id)


def assert_retried_once(twins: Twins, backfill_id: str) -> dg.DagsterRun:
    """The backfill ends well by one failed run and its retry, to what an undisturbed store has; the failed one."""
    assert status_at_the_end(twins, backfill_id) == BulkActionStatus.COMPLETED_SUCCESS
    failed, retry = runs_of(twins, backfill_id)
    assert [run.status for run in (failed, retry)] == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]
    assert retry.parent_run_id == failed.run_id
    twins.whole.run(*ASSETS, partitions=[KEYS[0], KEYS[-1]])
    for group in catalog.groups:
        assert_same(twins, group)
    wait_for("no heartbeat", lambda: book(twins).workers() == [], PATIENCE_SECONDS)
    return failed


def said(twins: Twins, run: dg.DagsterRun) -> str:
    return "\n".join(str(entry.message) for entry in twins.killed.instance.all_logs(run.run_id))


def assert_recorded(twins: Twins, run: dg.DagsterRun, why: str, pid: int) -> None:
    wait_for("the end of the record", lambda: book(twins).stuck() == [], PATIENCE_SECONDS)
    (record,) = book(twins).stuck(since=twins.killed.now)
    assert (record.run_id, record.why, record.pid) == (run.run_id, why, pid)
    assert record.retried_as is not None
    # The last partition of the retry may be seen a tick before its success.
    done = (f"Its retry {record.retried_as} succeeded.", "All that it was to compute is computed.")
    assert record.outcome in done


def test_frozen_worker_is_killed_and_its_run_retried_once(twins: Twins, tmp_path: Path) -> None:
    backfill_id, worker = held_worker(tmp_path, twins)
    kill(worker, SIGSTOP)
    (tmp_path / f"held-{worker}").unlink()
    failed = assert_retried_once(twins, backfill_id)
    assert f"process {worker} on" in said(twins, failed)
    assert "Its process was killed. Dagster retries it." in said(twins, failed)
    wait_for("the end of the frozen worker", lambda: not kill(worker, SIGSTOP), PATIENCE_SECONDS)
    assert_recorded(twins, failed, "silent", worker)


def test_worker_whose_work_hangs_is_killed_and_its_run_retried_once(twins: Twins, tmp_path: Path) -> None:
    """It beats all the while."""
    backfill_id, worker = held_worker(tmp_path, twins)
    failed = assert_retried_once(twins, backfill_id)
    assert "did not go on with its work" in said(twins, failed)
    assert "tests.platform.crash_location" in said(twins, failed) or "featurestore." in said(twins, failed)
    assert_recorded(twins, failed, "hung", worker)


def test_killed_worker_of_a_living_code_server_is_retried_once(twins: Twins, tmp_path: Path) -> None:
    """Dagster fails it, and says a moment later that it retries it: a backfill that looks between ends as failed."""
    for _ in range(3):
        backfill_id, worker = held_worker(tmp_path, twins)
        kill(worker)
        (tmp_path / f"held-{worker}").unlink()
        if status_at_the_end(twins, backfill_id) == BulkActionStatus.COMPLETED_SUCCESS:
            break
        twins.settle(backfill_id, is_disturbed=True)
    assert_retried_once(twins, backfill_id)


def test_healthy_run_is_never_touched_whoever_else_is_away(twins: Twins, tmp_path: Path) -> None:
    """It works for longer than either limit, moving now and then; the daemon is away for a while, then the database for longer."""
    backfill_id, worker = held_worker(tmp_path, twins)
    until, metadata = time.monotonic() + 3 * HUNG, twins.killed.root / "metadata.db"
    kill(twins.site.children["daemon"].pid)
    twins.site.children["daemon"].wait()
    while time.monotonic() < until:
        time.sleep(HUNG / 3)
        move(tmp_path, worker)
        if time.monotonic() > until - 2 * HUNG:
            twins.site.supervise()
    with book(twins)._database.writing():
        time.sleep(2 * SILENT)
        move(tmp_path, worker)
    assert metadata.exists()
    (tmp_path / f"held-{worker}").unlink()
    status_at_the_end(twins, backfill_id)
    (run,) = runs_of(twins, backfill_id)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert book(twins).stuck(since=twins.killed.now) == []


def move(folder: Path, worker: int) -> None:
    """Have the held worker compute for a moment: it reads the time that it is asked to work for from the file that holds it."""
    (folder / f"held-{worker}").write_text("1")
