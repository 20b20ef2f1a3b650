"""A machine that goes down: every process of `make up` is killed at one moment, and `make up` alone is begun again.

Windows, files and copies that were under way come to what an undisturbed store has, and nothing waits for a person. Each round takes
minutes, so all of it waits for the exam.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import polars as pl
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES as DONE
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.tags import SENSOR_NAME_TAG

from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.delays import carrier_delay_daily
from feature_assets.groups.flights.sources import cancellations, departures
from featurestore.backfill.dagster_api import launch_partition_backfill
from featurestore.declaration import Source
from featurestore.location import Location
from featurestore.online.parity import check_parity
from featurestore.online.redis.embedded import embedded_folder
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.ports import free_ports
from featurestore.schedule.due import settling
from tests.platform.airline import DAY, FIRST, REPOSITORY, dagster_home, flight, key, processes_marked
from tests.platform.crash_site import UNFINISHED, end_all, kill
from tests.platform.sandbox import Sandbox
from tests.scale import cases, exam_seed
from tests.waiting import wait_for

pytestmark = pytest.mark.exam

GROUP = carrier_delay_daily.stored_name
ASSET = f"offline/{GROUP}"
BACKFILLED, SCHEDULED = 18, 12
"""Days before today of which the older ones are a backfill's, and the newer ones the schedule's."""
LATEST_SECONDS = 45
PATIENCE_SECONDS = 1200


@dataclass
class Machine:
    """The processes of `make up` over one home, and a store that nothing disturbs beside theirs."""

    home: Path
    site: Sandbox
    whole: Sandbox
    environment: dict[str, str]
    port: int

    @property
    def mark(self) -> str:
        return self.environment["FEATURESTORE_TEST_MARK"]

    @property
    def today(self) -> int:
        return (self.site.now - FIRST) // DAY

    @contextmanager
    def up(self) -> Iterator[None]:
        """`make up`, until the block ends it in its own way."""
        with (self.home / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.up"], cwd=REPOSITORY, env=self.environment, stdout=log, stderr=log
            )
        try:
            wait_for("the pages", lambda: self.says("Ctrl-C stops everything", process), PATIENCE_SECONDS, 0.5)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    def says(self, text: str, process: "subprocess.Popen[bytes]") -> bool:
        log = (self.home / "up.log").read_text()
        assert process.poll() is None, log
        return text in log

    def go_down(self) -> None:
        """Everything at once, the supervisor first, and no last word from any. Valkey writes its title over its mark."""
        valkey = EmbeddedValkey(embedded_folder(Location(str(self.site.root)))).pid
        assert valkey is not None
        for pid in [*sorted(processes_marked(self.mark)), valkey]:
            kill(pid)
        end_all(self.mark)

    def ingest(self, source: Source, rows: list[dict[str, object]]) -> None:
        """Rows that were taken in before anything goes down; no landing file of them stays."""
        for sandbox in (self.site, self.whole):
            sandbox.ingest(source, rows)
            for file in (sandbox.landing / source.name).iterdir():
                file.unlink()
            (sandbox.landing / source.name).rmdir()

    def due(self) -> list[str]:
        """Keys of the days that the schedule has to compute."""
        cadence, now = carrier_delay_daily.cadence, datetime.now(UTC)
        days = [cadence.window_of(key(self.today - back)) for back in range(SCHEDULED, 0, -1)]  # type: ignore[union-attr]
        wait = settling(carrier_delay_daily)
        return [cadence.key_of(day) for day in days if carrier_delay_daily.cut_off(day) + wait <= now]  # type: ignore[union-attr]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    home, now = dagster_home(tmp_path / "home"), datetime.now(UTC)
    port, serve_port, board_port = free_ports(3)
    with dg.DagsterInstance.from_config(str(home)) as instance, dg.DagsterInstance.ephemeral() as other:
        instance.get_runs_count()
        site = Sandbox(tmp_path / "site", instance, catalog, now=now)
        whole = Sandbox(tmp_path / "whole", other, catalog, now=now)
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "FEATURESTORE_ROOT": str(site.root),
            "FEATURESTORE_LANDING": str(site.landing),
            "FEATURESTORE_ONLINE_URL": "",
            "FEATURESTORE_METADATA_URL": "",
            "FEATURESTORE_TEST_MARK": f"mark-{uuid4().hex}",
            "PORT": str(port),
            "SERVE_PORT": str(serve_port),
            "BOARD_PORT": str(board_port),
            "PYTHONWARNINGS": "ignore",
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }
        made = Machine(home, site, whole, environment, port)
        try:
            yield made
        finally:
            end_all(made.mark)
            EmbeddedValkey(embedded_folder(Location(str(site.root)))).stop()


def departed(machine: Machine, number: int) -> list[dict[str, object]]:
    """Flights of every day, with other delays in each round."""
    last = machine.today
    known = timedelta(minutes=number)
    return [
        {**flight(day, carrier, 5.0 + day % 7 + number), "known_at": FIRST + day * DAY + timedelta(hours=12) + known}
        for day in range(last - BACKFILLED - SCHEDULED - 8, last)
        for carrier in ("UA", "B6", "AA")
    ]


def cancelled(machine: Machine, number: int) -> list[dict[str, object]]:
    """A cancelled flight of a day that no window of these reads: whether it is there yet changes none."""
    day = machine.today - 60
    names = {name: value for name, value in flight(day, "UA", 0.0).items() if name in cancellations.schema}
    noon = FIRST + day * DAY + timedelta(hours=12)
    return [
        {
            **dict.fromkeys(cancellations.schema),
            **names,
            "flight_id": f"c{number}",
            "event_time": noon,
            "known_at": noon,
        }
    ]


def test_machine_that_goes_down_at_any_moment_recovers_by_itself(machine: Machine) -> None:
    """Round by round: a backfill, the windows that are due and a landed file are under way when everything is killed."""
    chance = random.Random(f"{exam_seed()}-reboot")
    machine.ingest(departures, departed(machine, 0))
    machine.ingest(cancellations, cancelled(machine, 0))
    first = key(machine.today - SCHEDULED)
    for sandbox in (machine.site, machine.whole):
        assert sandbox.run(ASSET, partitions=[first], tags={SENSOR_NAME_TAG: "due_windows"}).success
    older = [key(machine.today - back) for back in range(BACKFILLED + SCHEDULED, SCHEDULED, -1)]
    for number in range(1, cases(4, 1) + 1):
        machine.ingest(departures, departed(machine, number))
        backfill_id = go_down_at_work(machine, older, number, chance)
        began = time.monotonic()
        with machine.up():
            await_recovery(machine, backfill_id, number)
            print(f"round {number}: whole {time.monotonic() - began:.0f} s after the start")
            assert_whole(machine, older)


def go_down_at_work(machine: Machine, keys: list[str], number: int, chance: random.Random) -> str:
    """Start, have a backfill and a landing under way, and kill it all some time later; the id of the backfill."""
    with machine.up():
        url = f"http://127.0.0.1:{machine.port}"
        backfill_id = launch_partition_backfill(url, {("offline", GROUP): keys}).backfill_id
        machine.site.land(cancellations, cancelled(machine, number), f"{key(machine.today)}-{number}.parquet")
        time.sleep(chance.uniform(0, LATEST_SECONDS))
        machine.go_down()
    return backfill_id


def await_recovery(machine: Machine, backfill_id: str, number: int) -> None:
    instance, ledger = machine.site.instance, machine.site.offline.ledger(GROUP)

    def is_over() -> bool:
        backfill = instance.get_backfill(backfill_id)
        return backfill is not None and backfill.status in DONE and not instance.get_runs_count(UNFINISHED)

    def is_complete() -> bool:
        promoted = {start.date().isoformat() for start in ledger.promoted()}
        taken = machine.site.offline.source(cancellations).scan().select("flight_id").collect()["flight_id"]
        return set(machine.due()) <= promoted and f"c{number}" in taken.to_list()

    wait_for("the end of all runs, and all windows", lambda: is_over() and is_complete(), PATIENCE_SECONDS, 1.0)
    backfill = instance.get_backfill(backfill_id)
    assert backfill is not None
    assert backfill.status == BulkActionStatus.COMPLETED_SUCCESS, backfill.error


def assert_whole(machine: Machine, backfilled: list[str]) -> None:
    """Rows are those of the undisturbed store, each once; the online copy is that of the table; no heartbeat and no record is left."""
    machine.whole.now = datetime.now(UTC)
    machine.whole.run(ASSET, partitions=[backfilled[0], backfilled[-1]])
    machine.whole.run(ASSET, partitions=[machine.due()[0], machine.due()[-1]])
    rows = machine.site.rows(GROUP)
    assert not rows.select("carrier", "window_start").is_duplicated().any()
    own = ["carrier", "event_time", "dep_delay_mean_7d", "flights_7d"]
    before = pl.col("window_start").dt.strftime("%Y-%m-%d").is_in(backfilled)
    assert (
        rows.filter(before).select(own).sort(own).equals(machine.whole.rows(GROUP).filter(before).select(own).sort(own))
    )

    def is_served() -> bool:
        store = machine.site.store
        return check_parity(
            store.offline.table(GROUP), store.online.tiers_of(store.registry.group(GROUP)), lambda: datetime.now(UTC)
        ).passed

    wait_for("the online copy", is_served, PATIENCE_SECONDS, 2.0)
    book = machine.site.store.settings.heartbeats()
    wait_for("no heartbeat", lambda: book.workers() == [], PATIENCE_SECONDS, 1.0)
    wait_for("no open record", lambda: book.stuck() == [], PATIENCE_SECONDS, 1.0)
