"""The heart of a run: what it sees of the work, that it beats in a real run and ends with it, and that nothing waits for it."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from featurestore.declaration import TimeWindow
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.process import Process
from featurestore.heartbeat.worker import Worker
from featurestore.location import Location
from featurestore.settings import Settings
from resources.heartbeat import FAREWELL_SECONDS, STEP, Heart, Work
from tests.platform.kiosks import HOUR, T0, day_key, kiosk_sales_daily, kiosks, order, orders
from tests.platform.sandbox import Sandbox
from tests.waiting import wait_for

SALES = "offline/kiosk_sales_daily"
SECONDS = 120
AT_MOST = 30.0
LONG_SECONDS = 30.0
"""A start or an end that takes longer has waited for something."""


@dataclass
class Thread:
    """A thread that works in something that is named as Dagster's step is, until it is let go."""

    seconds: float = 0.0
    used: float = 0.0
    line: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def working(self, how: Callable[["Thread"], None], step: str = STEP) -> Iterator[Work]:
        scope: dict[str, object] = {"how": how, "self": self}
        exec(f"def {step}(): how(self)", scope)  # noqa: S102 - a frame of that name
        thread = threading.Thread(target=scope[step])  # type: ignore[arg-type]
        thread.start()
        try:
            wait_for("the thread in its step", lambda: stands_in(step, thread), SECONDS, 0.01)
            yield Work(thread.ident or 0, lambda: self.seconds, lambda: self.used)
        finally:
            self.is_over.set()
            thread.join()

    def look(self, work: Work, after: float, use: float = 0.0) -> float:
        """For how long the work has not moved, so many seconds later."""
        self.seconds, self.used = self.seconds + after, self.used + use
        return work.look(AT_MOST)[1]


def stands_in(step: str, thread: threading.Thread) -> bool:
    """Whether a thread waits in a function, and was at the very same place a moment before."""
    before = places(thread)
    time.sleep(0.05)
    names = [name for name, _ in before]
    return names[:1] == ["wait"] and step in names and places(thread) == before


def places(thread: threading.Thread) -> list[tuple[str, int]]:
    """The functions that a thread is in, the innermost first, and where in each."""
    frame, found = sys._current_frames().get(thread.ident or 0), []
    while frame is not None:
        found.append((frame.f_code.co_name, frame.f_lasti))
        frame = frame.f_back
    return found


def waits(thread: Thread) -> None:
    thread.is_over.wait()


def turns(thread: Thread) -> None:
    """Is here and there in turn, as the clock of the test goes."""
    while not thread.is_over.is_set():
        if thread.seconds % 2:
            time.sleep(0.001)
        else:
            thread.is_over.wait(0.001)


def test_work_that_stands_at_one_place_and_computes_nothing_does_not_move() -> None:
    thread = Thread()
    with thread.working(waits) as work:
        thread.look(work, 15)
        assert [thread.look(work, 15) for _ in range(3)] == [15, 30, 45]
        assert "tests.platform.test_heartbeat" in work.look(AT_MOST)[0] or "threading" in work.look(AT_MOST)[0]


@pytest.mark.parametrize("away", [40 * 60, 3 * 86400])
def test_pause_of_the_whole_process_counts_as_two_beats(away: float) -> None:
    """A container that was paused, a laptop that slept: one long call in it does not hang for that."""
    thread = Thread()
    with thread.working(waits) as work:
        thread.look(work, 15)
        assert [thread.look(work, after) for after in (15, away, 15)] == [15, 15 + AT_MOST, 30 + AT_MOST]


def test_work_that_computes_in_threads_of_its_own_moves() -> None:
    thread = Thread()
    with thread.working(waits) as work:
        thread.look(work, 15)
        assert [thread.look(work, 15, use=1.0) for _ in range(3)] == [0, 0, 0]
        assert thread.look(work, 15, use=0.1) == 15


def test_work_that_goes_from_place_to_place_moves() -> None:
    thread = Thread()
    with thread.working(turns) as work:
        thread.look(work, 15)
        wait_for("a move", lambda: thread.look(work, 15) == 0, SECONDS, 0.01)


def test_wait_for_a_pool_is_no_work_that_hangs() -> None:
    thread = Thread()
    with thread.working(waits, step="sleep_til_ready") as work:
        assert [thread.look(work, 3600) for _ in range(3)] == [0, 0, 0]
        assert work.look(AT_MOST)[0] == "waiting for a step, or for its pool"


def book_of(folder: Path) -> HeartbeatBook:
    return Settings(Location(str(folder)), Location(str(folder))).heartbeats()


def test_heart_beats_while_its_block_lasts_and_leaves_no_row(tmp_path: Path) -> None:
    book = book_of(tmp_path)
    heart = Heart("run", timedelta(seconds=0.01), lambda: book)
    with heart.beating():
        wait_for("some beats", lambda: [worker.beats > 3 for worker in book.workers()] == [True], SECONDS, 0.01)
        assert book.workers()[0].process == Process.current()
    wait_for("the end of the row", lambda: book.workers() == [], SECONDS, 0.01)


def test_error_in_the_block_ends_the_heart_too(tmp_path: Path) -> None:
    book = book_of(tmp_path)

    def interrupted() -> None:
        with Heart("run", timedelta(seconds=0.01), lambda: book).beating():
            wait_for("a beat", lambda: bool(book.workers()), SECONDS, 0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait_for("the end of the row", lambda: book.workers() == [], SECONDS, 0.01)


@pytest.mark.parametrize(
    "error", [StoreUnavailable("it is away"), InvalidInput("no database is named"), ZeroDivisionError("a mistake")]
)
def test_heart_that_cannot_beat_goes_on_trying_and_harms_nobody(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book, tries = book_of(tmp_path), []

    def open_at_last() -> HeartbeatBook:
        tries.append(1)
        if len(tries) < 4:
            raise error
        return book

    with Heart("run", timedelta(seconds=0.01), open_at_last).beating():
        wait_for("a beat", lambda: bool(book.workers()), SECONDS, 0.01)
    assert [record.message for record in caplog.records].count(
        f"The heartbeat of run run cannot be written and is tried again: {error}"
    ) == 1


def test_run_does_not_wait_for_a_database_that_does_not_answer() -> None:
    answers = threading.Event()

    def never() -> HeartbeatBook:
        answers.wait(10 * LONG_SECONDS)
        raise StoreUnavailable("it never answered")

    began = time.monotonic()
    with Heart("run", timedelta(seconds=1), never).beating():
        begun_after = time.monotonic() - began
    assert begun_after < LONG_SECONDS
    assert time.monotonic() - began < FAREWELL_SECONDS + LONG_SECONDS
    answers.set()


def test_real_run_has_a_heartbeat_that_sees_its_step_and_none_afterwards(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Dagster names the function of a step anew, this test says so: `STEP` would be found nowhere."""
    monkeypatch.setenv("FEATURESTORE_SILENT_SECONDS", "1")
    book, seen = book_of(sandbox.root), list[Worker]()

    def looks(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
        if orders.limit(1).collect().height:
            wait_for("a beat in the step", lambda: bool(in_step()), SECONDS, 0.01)
            seen.extend(in_step())
        return orders.group_by("kiosk").agg(sales_1d=pl.col("amount").sum())

    def in_step() -> list[Worker]:
        return [worker for worker in book.workers() if "featurestore." in worker.doing]

    sandbox.use(kiosks(replace(kiosk_sales_daily, transform=looks, online=None)))
    sandbox.ingest(orders, [order(1, T0 + HOUR)])
    done = sandbox.run(SALES, partitions=[day_key(0)])
    assert done.success
    assert seen[0].run_id == done.run_id
    wait_for("the end of the row", lambda: book.workers() == [], SECONDS, 0.01)


def test_sensor_that_has_the_store_has_no_heartbeat(sandbox: Sandbox) -> None:
    with dg.build_resources({"store": sandbox.resource()}) as resources:
        resources.store.offline()
    assert book_of(sandbox.root).workers() == []
