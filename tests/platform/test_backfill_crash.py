"""Backfills whose processes are killed at random moments: launched again, they come to what an undisturbed one gives.

Code server, run worker, steps and daemon are Dagster's own, each a process; whatever dies is started again as a
supervisor would. The gate kills one run worker; the exam everything, many times.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Literal, get_args

import dagster as dg
import polars as pl
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES as DONE
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from feature_assets.catalogue import offline_key
from feature_assets.partitions import partitions_of
from featurestore.declaration import FeatureGroup
from featurestore.location import Location
from featurestore.settings import Settings
from tests.platform import crash_location
from tests.platform.airline import REPOSITORY
from tests.platform.crash_location import ADMISSION, HOLD, LANDING, NOW, ROOT, catalog, sales_daily
from tests.platform.crash_site import ADMITTING, STOCK, UNFINISHED, Site, crash_home, kill
from tests.platform.kiosks import DAY, HOUR, LIMIT, MINUTE, T0, day_key, order, orders
from tests.platform.sandbox import Sandbox
from tests.scale import cases
from tests.waiting import wait_for

DAYS = 20
KEYS = [day_key(day) for day in range(DAYS)]
ASSETS = [f"offline/{group.stored_name}" for group in catalog.groups]
PATIENCE_SECONDS = 600
RETRIED_SECONDS, FORGOTTEN_SECONDS = 10, 60

HISTORY = (
    "run_id",
    "recorded_at",
    "source_versions",
    "compute_seconds",
    "backfill_id",
    "verdict_digest",
    "table_version",
)
"""What the ledger says of how a window came about; a verdict also tells what there was to compare it with."""

RETRIES = "EVENT_LOG_CONSUMER_CURSOR-PIPELINE_FAILURE"
"""Where the daemon notes which failures it has looked at. Those before its first note are never retried."""

Victim = Literal["run worker", "step", "code server", "code server and its runs", "daemon"]
Moment = Literal["launched", "worker", "step"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)
LATEST_SECONDS: dict[Moment, float] = {"launched": 8, "worker": 5, "step": 1.5}
"""How long after each moment a kill comes at most."""


@dataclass(frozen=True)
class Twins:
    """Two stores that are given the same rows: one behind processes that are killed, one that nothing disturbs."""

    site: Site
    killed: Sandbox
    whole: Sandbox

    def land(self, number: int, bad_day: int | None = None) -> None:
        """Another amount for every order; those of a bad day are above what the gate allows."""
        known = number * MINUTE
        rows = [
            order(
                10 * day + i,
                at := T0 + day * DAY + (i + 1) * HOUR,
                5 * LIMIT if day == bad_day else 10.0 + day + i + number,
                kiosk="abc"[i % 3],
                known_at=at + known,
            )
            for day in range(DAYS)
            for i in range(6)
        ]
        for sandbox in (self.killed, self.whole):
            sandbox.ingest(orders, rows)

    def backfill(self) -> str:
        return self.site.launch(ASSETS, KEYS)

    def settle(self, backfill_id: str, *, is_disturbed: bool = False) -> None:
        """Wait for the end of a backfill; of one that was disturbed also for a retry that is still to come, if any.

        Dagster's daemon may see a run's failure before the run is marked as failed. It then never retries the run, and
        the backfill waits for that for ever: it is forgotten, and a person launches another. Or the backfill looks
        before the failed run says that it will be retried, and ends; the retry may come a moment later all the same.
        """
        last_busy = time.monotonic()

        def is_at_rest() -> bool:
            nonlocal last_busy
            if self.killed.instance.get_runs_count(UNFINISHED):
                last_busy = time.monotonic()
                return False
            is_done, quiet = self.status(backfill_id) in DONE, time.monotonic() - last_busy
            if is_disturbed:
                return quiet > (RETRIED_SECONDS if is_done else FORGOTTEN_SECONDS)
            return is_done

        wait_for("the end of the backfill", is_at_rest, PATIENCE_SECONDS)

    def status(self, backfill_id: str) -> BulkActionStatus:
        """As Dagster's storage has it."""
        backfill = self.killed.instance.get_backfill(backfill_id)
        assert backfill is not None
        return backfill.status

    def count(self, event: dg.DagsterEventType, backfill_id: str) -> int:
        """How many events of a kind the runs of a backfill have had."""
        instance = self.killed.instance
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        return sum(len(instance.all_logs(run.run_id, event)) for run in runs)


@contextmanager
def running_twins(folder: Path, coordinator: tuple[str, str] = STOCK, **more: str) -> Iterator[Twins]:
    home = crash_home(folder / "home", coordinator)
    with dg.DagsterInstance.from_config(str(home)) as instance, dg.DagsterInstance.ephemeral() as other:
        killed, whole = Sandbox(folder / "killed", instance, catalog), Sandbox(folder / "whole", other, catalog)
        variables = {
            ROOT: str(killed.root),
            LANDING: str(killed.landing),
            NOW: killed.now.isoformat(),
            HOLD: str(folder / "hold"),
            **more,
        }
        with Site(home, Path(crash_location.__file__), variables).running() as site:
            wait_for(
                "the daemon",
                lambda: bool(instance.daemon_cursor_storage.get_cursor_values({RETRIES})),
                PATIENCE_SECONDS,
            )
            yield Twins(site, killed, whole)


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Twins]:
    with running_twins(tmp_path) as running:
        yield running


def await_moment(twins: Twins, backfill_id: str, moment: Moment) -> None:
    reached = {
        "launched": lambda: True,
        "worker": lambda: bool(twins.site.workers()),
        "step": lambda: twins.count(dg.DagsterEventType.STEP_START, backfill_id) > 0,
    }[moment]
    wait_for(
        f"{moment} of the backfill",
        lambda: reached() or twins.status(backfill_id) in DONE,
        PATIENCE_SECONDS,
        pause=0.02,
    )


def strike(site: Site, victim: Victim) -> bool:
    """Kill; whether there was anyone to kill. A code server alone leaves its runs as orphans, as a container does not."""
    server, daemon = site.children["code server"].pid, site.children["daemon"].pid
    steps, workers = site.steps(), site.workers()
    struck = {
        "run worker": workers[-1:],
        "step": steps[-1:],
        "code server": [server],
        "code server and its runs": [server, *workers, *steps],
        "daemon": [daemon],
    }[victim]
    hit = [kill(pid) for pid in struck]
    for child in site.children.values():
        if child.pid in struck:
            child.wait()
    return any(hit)


def disturbed_backfill(twins: Twins, victim: Victim, chance: random.Random) -> bool:
    """Launch a backfill, kill at a random moment of it, start again what died; whether it was still under way."""
    moment: Moment = "step" if victim == "step" else chance.choice(list(LATEST_SECONDS))
    if victim == "run worker" and moment == "launched":
        moment = "worker"
    backfill_id = twins.backfill()
    await_moment(twins, backfill_id, moment)
    time.sleep(chance.uniform(0, LATEST_SECONDS[moment]))
    under_way = twins.status(backfill_id) not in DONE
    struck = strike(twins.site, victim)
    time.sleep(chance.uniform(0, 1))
    twins.site.supervise()
    twins.settle(backfill_id, is_disturbed=True)
    return struck and under_way


def assert_same(twins: Twins, group: FeatureGroup) -> None:
    """Rows, ledger and quarantine are those of the undisturbed store, and Dagster shows what the ledger says."""
    name, killed, whole = group.stored_name, twins.killed.offline, twins.whole.offline
    assert killed.table(name).content_hash() == whole.table(name).content_hash()
    rows = twins.killed.rows(name)
    assert not rows.select("kiosk", "window_start").is_duplicated().any()
    ledgers = [store.ledger(name).latest().drop(HISTORY) for store in (killed, whole)]
    assert ledgers[0].equals(ledgers[1])
    assert killed.staging(name).quarantined() == whole.staging(name).quarantined()
    assert shown(twins.killed.instance, group) == told(ledgers[0], group)


def shown(instance: dg.DagsterInstance, group: FeatureGroup) -> dict[str, AssetPartitionStatus | None]:
    """The state of each partition, as the pages show it."""
    found = instance.get_status_by_partition(offline_key(group), KEYS, partitions_of(group.cadence))
    return dict(found or {})


def told(ledger: pl.DataFrame, group: FeatureGroup) -> dict[str, AssetPartitionStatus | None]:
    """The state of each partition by the ledger."""
    states = {"promoted": AssetPartitionStatus.MATERIALIZED, "quarantined": AssetPartitionStatus.FAILED}
    entries = ledger.select("window_start", "status").rows()
    return {start.date().isoformat(): states[status] for start, status in entries}


def test_killed_backfill_launched_again_converges_and_the_pages_agree_with_the_ledger(twins: Twins) -> None:
    """As many rounds as it takes for the kills to find a backfill under way, each victim as often as the others."""
    chance, wanted = random.Random(11), cases(30, 1)
    hits, rounds = Counter[Victim](), 0
    while hits.total() < wanted:
        number, rounds = rounds, rounds + 1
        assert rounds <= wanted + wanted // 2 + 3, f"only {dict(hits)} of {number} kills found a backfill under way"
        bad_day = chance.randrange(DAYS) if number % 2 else None
        twins.land(number, bad_day)
        victim = min(VICTIMS, key=hits.__getitem__)
        hits[victim] += disturbed_backfill(twins, victim, chance)
        again = twins.backfill()
        twins.settle(again)
        twins.whole.run(*ASSETS, partitions=[KEYS[0], KEYS[-1]])
        assert twins.status(again) == (
            BulkActionStatus.COMPLETED_FAILED if number % 2 else BulkActionStatus.COMPLETED_SUCCESS
        )
        for group in catalog.groups:
            assert_same(twins, group)
    print(f"{hits.total()} of {rounds} kills struck at work: {dict(hits)}")


@pytest.mark.exam
def test_orphan_step_whose_run_worker_was_killed_cannot_overwrite_its_successor(twins: Twins, tmp_path: Path) -> None:
    """The step is stopped between its look at the table and its commit; its run is retried meanwhile, on newer rows.

    The other group's step ends before: a retry does not repeat it, so that it sees the newer rows in the next backfill.
    """
    twins.land(0)
    (tmp_path / "hold").touch()
    backfill_id = twins.backfill()
    wait_for("the held step", lambda: any(tmp_path.glob("held-*")), PATIENCE_SECONDS)
    ended = dg.DagsterEventType.STEP_SUCCESS
    wait_for("the other step", lambda: twins.count(ended, backfill_id) == 1, PATIENCE_SECONDS)
    (held,) = tmp_path.glob("held-*")
    step = int(held.name.removeprefix("held-"))
    kill(step, SIGSTOP)
    held.unlink()
    (worker,) = twins.site.workers()
    of_backfill = dg.RunsFilter(tags={"dagster/backfill": backfill_id})
    (first,) = twins.killed.instance.get_runs(of_backfill)
    kill(worker)
    twins.land(1)
    twins.settle(backfill_id, is_disturbed=True)
    if twins.killed.instance.get_runs_count(of_backfill) == 1:  # It was not retried.
        twins.settle(twins.backfill())
    before = twins.killed.offline.table(sales_daily.stored_name).content_hash()
    kill(step, SIGCONT)
    wait_for("the orphan's end", lambda: not kill(step, SIGCONT), PATIENCE_SECONDS)
    failures = twins.killed.instance.all_logs(first.run_id, dg.DagsterEventType.STEP_FAILURE)
    assert any("StaleWriter" in str(entry.dagster_event) for entry in failures), [str(entry) for entry in failures]
    assert twins.killed.offline.table(sales_daily.stored_name).content_hash() == before
    twins.whole.run(*ASSETS, partitions=[KEYS[0], KEYS[-1]])
    assert_same(twins, sales_daily)
    twins.settle(twins.backfill())
    for group in catalog.groups:
        assert_same(twins, group)


@pytest.mark.exam
def test_backfill_is_still_admitted_after_all_who_could_admit_it_were_killed(tmp_path: Path) -> None:
    """The run is held in the queue; the daemon and the code server die before its sensor has looked at it."""
    with running_twins(tmp_path, ADMITTING, **{ADMISSION: "yes"}) as twins:
        twins.land(0)
        backfill_id = twins.backfill()
        held = dg.RunsFilter(tags={"dagster/backfill": backfill_id, "featurestore/admission": "assessing"})
        wait_for("a held run", lambda: bool(twins.killed.instance.get_runs(held)), PATIENCE_SECONDS, pause=0.02)
        assert strike(twins.site, "daemon")
        assert strike(twins.site, "code server")
        twins.site.supervise()
        wait_for("the end of the backfill", lambda: twins.status(backfill_id) in DONE, PATIENCE_SECONDS)
        assert twins.status(backfill_id) == BulkActionStatus.COMPLETED_SUCCESS
        book = Settings(Location(str(twins.killed.root)), Location(str(twins.killed.landing))).book()
        assert book.get(backfill_id).state == "admitted"
        twins.whole.run(*ASSETS, partitions=[KEYS[0], KEYS[-1]])
        for group in catalog.groups:
            assert_same(twins, group)


@pytest.mark.parametrize(
    ("stale", "newer"),
    [
        pytest.param(20.0, 40.0, id="other rows"),
        pytest.param(5 * LIMIT, 40.0, id="rows that the gate holds"),
        pytest.param(20.0, 30.0, id="other rows than a newer run left as they were"),
    ],
)
def test_frozen_writer_cannot_undo_what_a_newer_run_found(
    tmp_path: Path, instance: dg.DagsterInstance, stale: float, newer: float
) -> None:
    """Neither the rows of the newer run, nor what the ledger and the quarantine say of them."""
    sandbox, name = Sandbox(tmp_path, instance, catalog), sales_daily.stored_name
    land_sales(sandbox, 30.0, 0)
    assert sandbox.run(ASSETS[0], partitions=[KEYS[0], KEYS[2]]).success
    land_sales(sandbox, stale, 1)
    with frozen_writer(sandbox, tmp_path) as orphan:
        land_sales(sandbox, newer, 2)
        assert sandbox.run(ASSETS[0], partitions=[KEYS[0], KEYS[2]]).success
        rows, ledger = sandbox.rows(name), sandbox.offline.ledger(name).latest()
        orphan.send_signal(SIGCONT)
        said, _ = orphan.communicate(timeout=PATIENCE_SECONDS)
    assert said.startswith("StaleWriter"), said
    assert sandbox.rows(name).equals(rows)
    assert sandbox.offline.ledger(name).latest().equals(ledger)
    assert sandbox.offline.staging(name).quarantined() == []


def land_sales(sandbox: Sandbox, amount: float, minute: int) -> None:
    """One order on each of three days, and later other amounts for the same."""
    noons = [T0 + day * DAY + 12 * HOUR for day in range(3)]
    rows = [order(day, noon, amount, known_at=noon + minute * MINUTE) for day, noon in enumerate(noons)]
    sandbox.ingest(orders, rows)


@contextmanager
def frozen_writer(sandbox: Sandbox, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has read what the windows of three days are computed from, and is stopped before it computes them."""
    environment = {**os.environ, NOW: sandbox.now.isoformat(), HOLD: str(folder / "hold"), "PYTHONWARNINGS": "ignore"}
    (folder / "hold").touch()
    command = [sys.executable, "-m", "tests.platform.crash_worker", str(sandbox.root), "3"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            held = folder / f"held-{process.pid}"
            wait_for("the held writer", held.exists, PATIENCE_SECONDS)
            process.send_signal(SIGSTOP)
            held.unlink()
            yield process
        finally:
            process.kill()
