"""The pooled SQLite event log: it answers what the stock one answers, to several processes, after forks and after kills."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage

from resources.event_log import PooledSqliteEventLogStorage
from tests.platform.event_log_worker import ASSET, entry
from tests.platform.kiosks import DAY, HOUR, T0, TOO_MUCH, day_key, order, orders
from tests.platform.sandbox import Sandbox, failure_of
from tests.scale import cases
from tests.waiting import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600
SALES, TREND = "offline/kiosk_sales_daily", "offline/kiosk_trend_daily"
STOCK = {"module": "dagster._core.storage.event_log", "class": "ConsolidatedSqliteEventLogStorage"}
POOLED = {"module": "resources.event_log", "class": "PooledSqliteEventLogStorage"}


@contextmanager
def instance_with(log: dict[str, str], folder: Path) -> Iterator[dg.DagsterInstance]:
    folder.mkdir(parents=True, exist_ok=True)
    overrides = {"event_log_storage": {**log, "config": {"base_dir": str(folder / "events")}}}
    with dg.instance_for_test(overrides=overrides, temp_dir=str(folder)) as made:
        yield made


def run_days_of_which_one_is_bad(folder: Path, instance: dg.DagsterInstance) -> tuple[Sandbox, list[str]]:
    sandbox = Sandbox(folder, instance)
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR, TOO_MUCH if day == 1 else 10.0) for day in range(3)])
    days = [day_key(0), day_key(2)]
    first, second = sandbox.run(SALES, partitions=days), sandbox.run(TREND, partitions=days)
    assert failure_of(first).startswith("1 of 3 partitions"), failure_of(first)
    assert second.success, failure_of(second)
    return sandbox, [first.run_id, second.run_id]


def answers(log: Any, run_ids: list[str]) -> dict[str, Any]:
    """What a log says, query by query, as Dagster's pages and daemons ask."""
    keys = [dg.AssetKey(path.split("/")) for path in (SALES, TREND)]
    checks = [dg.AssetCheckKey(key, name) for key in keys for name in ("gate", "quarantine")]
    newest = {key: log.get_asset_check_execution_history(key, limit=100) for key in checks}
    filters = [dg.AssetRecordsFilter(key, asset_partitions=[day_key(0), day_key(2)]) for key in keys]
    return {
        "logs": [log.get_logs_for_run(run) for run in run_ids],
        "records": [log.get_records_for_run(run, limit=7, ascending=False).records for run in run_ids],
        "stats": [log.get_stats_for_run(run) for run in run_ids],
        "steps": [log.get_step_stats_for_run(run) for run in run_ids],
        "assets": sorted(log.all_asset_keys()),
        "asset records": sorted(log.get_asset_records(keys), key=lambda record: record.storage_id),
        "materialized": [log.get_materialized_partitions(key) for key in keys],
        "latest ids": [
            log.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION) for key in keys
        ],
        "materializations": [log.fetch_materializations(key, limit=100).records for key in keys],
        "of partitions": [log.fetch_materializations(asked, limit=100).records for asked in filters],
        "latest": log.get_latest_materialization_events(keys),
        "checks": newest,
        "latest checks": log.get_latest_asset_check_execution_by_key(checks),
        "check partitions": log.get_asset_check_partition_info(checks),
        "maximum": log.get_maximum_record_id(),
    }


def without_chance(instance: dg.DagsterInstance, sandbox: Sandbox, run_ids: list[str]) -> dict[str, Any]:
    """What two instances must agree in after the same runs: no times, ids or places."""
    return {
        "events": [
            [
                (event.dagster_event_type, event.step_key, event.dagster_event.partition)
                for event in instance.all_logs(run)
                if event.dagster_event
            ]
            for run in run_ids
        ],
        "status": [run.status for run in (instance.get_run_by_id(run_id) for run_id in run_ids) if run],
        "materialized": [sandbox.materialized(path) for path in (SALES, TREND)],
        "checks": [
            [(check.partition, check.status) for check in sandbox.checks(path, name)]
            for path in (SALES, TREND)
            for name in ("gate", "quarantine")
        ],
    }


def worker(way: str, folder: Path, run_id: str, count: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.platform.event_log_worker",
        way,
        str(folder),
        run_id,
        str(count),
    ]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def partitions_of(log: ConsolidatedSqliteEventLogStorage, run_id: str) -> list[str | None]:
    """Partitions that a run has reported, in stored order."""
    return [event.dagster_event.partition for event in log.get_logs_for_run(run_id) if event.dagster_event]


def is_whole(folder: Path) -> bool:
    with sqlite3.connect(folder / "event_log.db") as connection:
        return bool(connection.execute("pragma integrity_check").fetchone() == ("ok",))


def test_stock_log_reads_from_the_same_file_what_the_pooled_one_reads(tmp_path: Path) -> None:
    with instance_with(POOLED, tmp_path / "home") as instance:
        assert isinstance(instance.event_log_storage, PooledSqliteEventLogStorage)
        _, run_ids = run_days_of_which_one_is_bad(tmp_path, instance)
        stock = ConsolidatedSqliteEventLogStorage(str(tmp_path / "home" / "events"))  # type: ignore[no-untyped-call]
        ours, theirs = answers(instance.event_log_storage, run_ids), answers(stock, run_ids)
        for query in ours:
            assert ours[query] == theirs[query], query
        assert ours["materialized"] == [{day_key(0), day_key(2)}, {day_key(0)}]


def test_same_runs_leave_the_same_in_a_stock_instance(tmp_path: Path) -> None:
    said = []
    for name, log in {"stock": STOCK, "pooled": POOLED}.items():
        with instance_with(log, tmp_path / name / "home") as instance:
            sandbox, run_ids = run_days_of_which_one_is_bad(tmp_path / name, instance)
            said.append(without_chance(instance, sandbox, run_ids))
    assert said[0] == said[1]


def test_two_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    count = cases(2000, 150)
    PooledSqliteEventLogStorage(str(tmp_path))
    writers = {run_id: worker("write", tmp_path, run_id, count) for run_id in ("one", "two")}
    log = PooledSqliteEventLogStorage(str(tmp_path))
    log.store_event(entry("here", 0))
    for writer in writers.values():
        writer.communicate(timeout=PATIENCE_SECONDS)
        assert writer.returncode == 0
    for run_id in writers:
        assert partitions_of(log, run_id) == [f"{run_id}-{number:05}" for number in range(count)]
    assert len(log.get_materialized_partitions(ASSET)) == 2 * count + 1
    log.dispose()


def test_fork_writes_beside_its_parent(tmp_path: Path) -> None:
    parent = worker("fork", tmp_path, "fork", 50)
    parent.communicate(timeout=PATIENCE_SECONDS)
    assert parent.returncode == 0
    log = PooledSqliteEventLogStorage(str(tmp_path))
    for who in ("child", "parent"):
        assert partitions_of(log, f"fork-{who}") == [f"fork-{who}-{number:05}" for number in range(50)]
    assert len(log.get_materialized_partitions(ASSET)) == 102
    assert is_whole(tmp_path)


@pytest.mark.parametrize("kill_after", range(cases(40, 1)))
def test_killed_process_loses_no_event_that_was_acknowledged(tmp_path: Path, kill_after: int) -> None:
    writer = worker("write", tmp_path, "killed", 1_000_000)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20 + 7 * kill_after)]
    writer.kill()
    acknowledged += [int(line) for line in writer.stdout.read().splitlines() if line]
    writer.wait(30)
    log = PooledSqliteEventLogStorage(str(tmp_path))
    stored = partitions_of(log, "killed")
    assert stored == [f"killed-{number:05}" for number in range(len(stored))]
    assert len(stored) >= len(acknowledged)
    log.store_event(entry("after", 0))
    assert partitions_of(log, "after") == ["after-00000"]
    assert is_whole(tmp_path)
    log.dispose()


def test_watched_run_hands_on_events_of_another_process(tmp_path: Path) -> None:
    log = PooledSqliteEventLogStorage(str(tmp_path))
    seen: list[str | None] = []
    log.watch(
        "live", None, lambda event, _cursor: seen.append(event.dagster_event.partition if event.dagster_event else "")
    )
    try:
        writer = worker("write", tmp_path, "live", 20)
        writer.communicate(timeout=PATIENCE_SECONDS)
        wait_for("the last event", lambda: len(seen) >= 20, 120, 0.05)
        assert seen == [f"live-{number:05}" for number in range(20)]
    finally:
        log.dispose()


def test_connections_are_kept(tmp_path: Path) -> None:
    log = PooledSqliteEventLogStorage(str(tmp_path))
    for number in range(20):
        log.store_event(entry("run", number))
    opened = [
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
    ]
    assert 1 <= opened.count(str(tmp_path / "event_log.db")) <= 2
    log.dispose()


def older_log(folder: Path) -> None:
    """A log as an earlier Dagster left it: before concurrency limits and asset checks, with one event."""
    stock = ConsolidatedSqliteEventLogStorage(str(folder))  # type: ignore[no-untyped-call]
    with sqlite3.connect(folder / "event_log.db") as connection:
        for table in ("concurrency_limits", "concurrency_slots", "pending_steps", "asset_check_executions"):
            connection.execute(f"drop table if exists {table}")
        connection.execute("update alembic_version set version_num = '5771160a95ad'")
    stock.store_event(entry("old", 0))
    stock.dispose()  # type: ignore[no-untyped-call]


def schema_of(folder: Path) -> set[tuple[Any, ...]]:
    with sqlite3.connect(folder / "event_log.db") as connection:
        names = set(connection.execute("select type, name, tbl_name from sqlite_master").fetchall())
        return names | set(connection.execute("select 'revision', version_num, '' from alembic_version").fetchall())


def test_upgrade_leaves_the_schema_that_the_stock_log_leaves(tmp_path: Path) -> None:
    for name, kind in {"stock": STOCK, "pooled": POOLED}.items():
        older_log(tmp_path / name / "events")
        with instance_with(kind, tmp_path / name) as instance:
            log: Any = instance.event_log_storage
            assert not log.has_table("asset_check_executions")
            instance.upgrade()
            assert log.has_table("asset_check_executions")
            log.store_event(entry("new", 0))
            assert log.get_materialized_partitions(ASSET) == {"old-00000", "new-00000"}
    assert schema_of(tmp_path / "stock" / "events") == schema_of(tmp_path / "pooled" / "events")


def test_instance_migrate_upgrades_a_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        (REPOSITORY / "dagster.yaml").read_text().replace(".dagster/", f"{home}/.dagster/")
    )
    older_log(home / ".dagster" / "storage" / "events")
    command = [str(Path(sys.executable).parent / "dagster"), "instance", "migrate"]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONWARNINGS": "ignore",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = PooledSqliteEventLogStorage(str(home / ".dagster" / "storage" / "events"))
    assert log.has_table("asset_check_executions")
    assert partitions_of(log, "old") == ["old-00000"]
