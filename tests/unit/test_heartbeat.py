"""When a worker counts as standing still: looks and beats in any order, on clocks that jump; and the end of its process, and of no other."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.heartbeat.book import KEPT, HeartbeatBook
from featurestore.heartbeat.process import Process
from featurestore.heartbeat.stuck import StuckRun
from featurestore.heartbeat.worker import Patience, Worker
from featurestore.metadata.database import Database
from featurestore.settings import Settings
from tests.catalogs import T0
from tests.scale import cases, exam_seed

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
ME = Process("here", "boot", 7, 70)
PATIENCE = Patience()


@dataclass
class Wall:
    """A machine's clock, which somebody may set."""

    now: datetime = T0

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Bench:
    """One book, the clock of who looks, and the clock of who beats."""

    looking: HeartbeatBook
    beating: HeartbeatBook
    looker: Wall
    beater: Wall

    def beat(self, idle_seconds: float = 0.0) -> None:
        self.beating.beat("run", ME, "somewhere", idle_seconds)

    def pass_time(self, span: timedelta) -> None:
        self.looker.now += span
        self.beater.now += span

    def look(self) -> Worker:
        (worker,) = self.looking.look(PATIENCE.step)
        return worker

    def why(self) -> str | None:
        return self.look().stands_still(PATIENCE)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    url, looker, beater = f"sqlite:///{tmp_path}/metadata.db", Wall(), Wall()
    return Bench(
        HeartbeatBook.open(url, looker), HeartbeatBook(Database(url, is_durable=False), beater), looker, beater
    )


def looks_until_found(bench: Bench, pause: timedelta, most: int) -> timedelta | None:
    """For how long looks go on that find nothing; None if all of them do."""
    for number in range(most):
        if bench.why() is not None:
            return number * pause
        bench.pass_time(pause)
    return None


def test_worker_that_is_silent_for_the_limit_stands_still_and_not_before(bench: Bench) -> None:
    bench.beat()
    assert looks_until_found(bench, 15 * SECOND, 100) == PATIENCE.silent


def test_beat_sets_the_silence_back(bench: Bench) -> None:
    bench.beat()
    for _ in range(20):
        bench.pass_time(PATIENCE.silent - PATIENCE.step)
        bench.look()
        bench.pass_time(PATIENCE.step)
        bench.look()
        bench.beat()
        assert bench.look().silent_for == timedelta(0)


@pytest.mark.parametrize("away", [HOUR, 30 * timedelta(days=1)])
def test_time_in_which_nobody_looked_counts_as_one_step(bench: Bench, away: timedelta) -> None:
    bench.beat()
    bench.look()
    bench.pass_time(away)
    assert bench.look().silent_for == PATIENCE.step


@pytest.mark.parametrize("jump", [-HOUR, HOUR, timedelta(days=3000)])
def test_clock_of_a_machine_that_jumps_makes_no_worker_stand_still(bench: Bench, jump: timedelta) -> None:
    bench.beat()
    for wall in (bench.looker, bench.beater):
        bench.look()
        wall.now += jump
        assert bench.why() is None
        bench.pass_time(15 * SECOND)
        bench.beat()
        assert bench.look().silent_for == timedelta(0)


@pytest.mark.parametrize("seed", range(cases(300, 3)))
def test_healthy_worker_is_never_found_and_a_silent_one_is(seed: int, bench: Bench) -> None:
    """Looks at any moments, by several daemons, on clocks that jump now and then; the worker beats as late as a third of the limit."""
    random = Random(f"{exam_seed()}-{seed}")
    bench.beat()
    next_beat = random.uniform(0, PATIENCE.silent.total_seconds() / 3)
    jumps = 0
    for _ in range(60):
        pause = random.choice([0.1, 5, 15, 15, 15, 30, 300])
        while pause >= next_beat:
            bench.pass_time(next_beat * SECOND)
            pause -= next_beat
            bench.beat()
            jumps, next_beat = 0, random.uniform(1, PATIENCE.silent.total_seconds() / 3)
        bench.pass_time(pause * SECOND)
        next_beat -= pause
        if jumps < 1 and random.random() < 0.1:
            bench.looker.now += random.choice([-1, 1]) * HOUR
            jumps += 1
        assert bench.why() is None
    assert looks_until_found(bench, 15 * SECOND, 12) is not None


def test_worker_whose_work_does_not_move_hangs(bench: Bench) -> None:
    bench.beat(idle_seconds=PATIENCE.hung.total_seconds() - 1)
    assert bench.why() is None
    bench.beat(idle_seconds=PATIENCE.hung.total_seconds())
    assert bench.why() == "hung"
    assert bench.look().stands_still(replace(PATIENCE, hung=timedelta(0))) is None


def test_look_that_cannot_be_written_counts_nothing(bench: Bench, tmp_path: Path) -> None:
    """A database that takes no writes takes no beats either: nobody is silent for that."""
    bench.beat()
    bench.look()
    locked = HeartbeatBook(Database(f"sqlite:///{tmp_path}/metadata.db", lock_seconds=0.05), bench.looker)
    with Database(f"sqlite:///{tmp_path}/metadata.db").writing():
        for _ in range(3):
            bench.pass_time(MINUTE)
            with pytest.raises(StoreUnavailable):
                locked.look(PATIENCE.step)
    assert bench.look().silent_for == PATIENCE.step


def stuck_run(bench: Bench, run_id: str = "run") -> StuckRun:
    since = bench.looker.now - 3 * MINUTE
    return StuckRun(run_id, ("offline/a", "raw/b"), "silent", since, 2 * MINUTE, "here", 7, "code", bench.looker.now)


def test_worker_that_beat_since_it_was_looked_at_is_not_claimed(bench: Bench) -> None:
    bench.beat()
    worker = bench.look()
    bench.beat()
    assert not bench.looking.claim(worker, stuck_run(bench))
    assert bench.looking.stuck() == []
    assert bench.looking.claim(bench.look(), stuck_run(bench))
    assert bench.looking.claim(bench.look(), stuck_run(bench)), "whoever claimed it first may have died since"
    bench.looking.leave("run", ME)
    assert not bench.looking.claim(worker, stuck_run(bench))


def test_record_of_a_stuck_run_is_open_until_it_is_closed_and_kept_for_a_time(bench: Bench) -> None:
    bench.beat()
    found, began = stuck_run(bench), bench.looker.now
    bench.looking.claim(bench.look(), found)
    assert bench.looking.stuck() == [found]
    bench.looking.tell("run", done="killed")
    assert bench.looking.stuck() == [replace(found, done="killed")]
    bench.looking.tell("run", done="killed", then="Dagster retries it.")
    bench.looking.tell("run", retried_as="next")
    assert bench.looking.stuck() == [replace(found, done="killed", then="Dagster retries it.", retried_as="next")]
    bench.looking.close("run", "Its retry succeeded.")
    assert bench.looking.stuck() == []
    (kept,) = bench.looking.stuck(since=began)
    assert (kept.over_at, kept.outcome) == (began, "Its retry succeeded.")
    bench.pass_time(KEPT + SECOND)
    bench.looking.close("another", "")
    assert bench.looking.stuck(since=began) == []


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of this machine that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            yield process
        finally:
            process.kill()


def told_of(pid: int) -> Process:
    """A process as it would tell of itself."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return replace(Process.current(), pid=pid, started=int(fields[19]))


def test_process_that_is_the_one_meant_is_killed_even_when_it_is_stopped(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.send_signal(signal.SIGSTOP)
    told = told_of(sleeper.pid)
    assert told.kill() == "killed"
    assert told.kill() == "gone", "it is a zombie until its parent asks for it"
    assert sleeper.wait(timeout=60) == -signal.SIGKILL
    assert told.kill() == "gone"


@pytest.mark.parametrize(
    ("change", "ending"),
    [({"started": 1}, "gone"), ({"machine": "another boot"}, "elsewhere"), ({"machine": ""}, "elsewhere")],
)
def test_process_that_may_be_another_one_is_left_alone(
    sleeper: "subprocess.Popen[bytes]", change: dict[str, str | int], ending: str
) -> None:
    assert replace(told_of(sleeper.pid), **change).kill() == ending  # type: ignore[arg-type]
    assert sleeper.poll() is None


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOSYS, errno.EMFILE])
@pytest.mark.parametrize("refused", ["os.pidfd_open", "signal.pidfd_send_signal"])
def test_process_that_the_system_does_not_let_be_ended_is_left_alone(
    refused: str, refusal: int, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(refused, refuse)
    assert told_of(sleeper.pid).kill() == "elsewhere"
    assert sleeper.poll() is None


def test_process_tells_its_own_id_and_start() -> None:
    assert Process.current() == told_of(os.getpid())


def test_limits_come_from_the_environment() -> None:
    settings = Settings.from_env({"FEATURESTORE_SILENT_SECONDS": "60", "FEATURESTORE_HUNG_SECONDS": "0"})
    assert settings.patience == Patience(MINUTE, timedelta(0))
    assert Settings.from_env({}).patience == Patience()
    with pytest.raises(InvalidInput, match="FEATURESTORE_SILENT_SECONDS is '0'"):
        Settings.from_env({"FEATURESTORE_SILENT_SECONDS": "0"})
