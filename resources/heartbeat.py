"""The heartbeat of a run: a thread in its process that says every few seconds that the process lives, and how the work in it goes on.

A thread that beats proves the process, not the work. So each beat looks at the thread that runs the steps: the work goes on if that
thread stands elsewhere in the code than at the beat before, or if the process used the processor, as a long query of Polars does in
threads of its own. Waiting for a pool, or between two steps, is no work. What neither moves nor computes hangs: on a disk that does
not answer, on a lock. What turns in circles looks like work, until `max_runtime_seconds`. A pause in which the whole process stood,
beats and all, counts as two of them: a machine that slept for an hour has no run that hung for an hour.

A beat that cannot be written is written the next time: a run never fails, and hardly waits, for its heartbeat.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import CodeType, FrameType
from typing import TypeVar

from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.process import Process

STEP = "dagster_event_sequence_for_step"
"""Dagster's function that a step runs in; `tests/platform/test_heartbeat.py` holds it to be."""
OWN = ("featurestore", "feature_assets", "checks", "resources", "definitions")
BUSY_SHARE = 0.05
"""A process that uses more of one processor than this computes; its threads that only wait take less than a tenth of it."""
BEATS_A_LOOK = 2
"""So many pauses between beats count of the time since the look before, however long that is ago."""
FAREWELL_SECONDS = 0.5
"""How long the end of a run waits for its last word; a row that stays is taken away by the sensor `stuck_runs`."""

Result = TypeVar("Result")
Place = tuple[tuple[CodeType, int], ...]

log = logging.getLogger(__name__)


@dataclass
class Work:
    """What is seen of the thread that made this: where it is, and for how long it and the process have stood still."""

    thread: int = field(default_factory=threading.get_ident)
    clock: Callable[[], float] = time.monotonic
    used: Callable[[], float] = time.process_time
    _place: Place = ()
    _idle_seconds: float = field(init=False, default=0.0)
    _looked_at: float = field(init=False)
    _used: float = field(init=False)

    def __post_init__(self) -> None:
        self._looked_at = self.clock()
        self._used = self.used()

    def look(self, at_most: float) -> tuple[str, float]:
        """Where the work is, in words, and for how many seconds looks have not seen it move.

        Args:
            at_most: So many seconds count of those since the look before.
        """
        frames = list(_frames(sys._current_frames().get(self.thread)))
        place = tuple((frame.f_code, frame.f_lasti) for frame in frames)
        now, used = self.clock(), self.used()
        since = min(now - self._looked_at, at_most)
        is_computing = used - self._used > BUSY_SHARE * since
        has_moved = place != self._place or is_computing or not _is_in_step(frames)
        self._idle_seconds = 0.0 if has_moved else self._idle_seconds + since
        self._place, self._looked_at, self._used = place, now, used
        return _words(frames), self._idle_seconds


@dataclass
class Heart:
    """Beats while its block lasts.

    Args:
        run_id: The run that this process works on.
        every: The pause between two beats.
        open_book: Opens the book of heartbeats; called by the thread, since a database may be slow to answer.
    """

    run_id: str
    every: timedelta
    open_book: Callable[[], HeartbeatBook]
    work: Work = field(default_factory=Work)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _is_failing: bool = False

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat from now to the end of the block, however that comes."""
        thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join(FAREWELL_SECONDS)

    def _beat(self) -> None:
        book, me, every = None, Process.current(), self.every.total_seconds()
        while not self._is_over.is_set():
            book = book or self._try(self.open_book)
            doing, idle_seconds = self.work.look(BEATS_A_LOOK * every)
            if book is not None:
                self._try(partial(book.beat, self.run_id, me, doing, idle_seconds))
            self._is_over.wait(every)
        if book is not None:
            self._try(partial(book.leave, self.run_id, me))

    def _try(self, act: Callable[[], Result]) -> Result | None:
        """Do something whose failure, of whatever kind, must end neither the run nor this thread; said once in a row."""
        try:
            result = act()
        except Exception as error:  # noqa: BLE001 - a thread that ended would look like a run that stands still
            if not self._is_failing:
                log.warning(f"The heartbeat of run {self.run_id} cannot be written and is tried again: {error}")
            self._is_failing = True
            return None
        self._is_failing = False
        return result


def _frames(innermost: FrameType | None) -> Iterator[FrameType]:
    """The frames of a thread, the innermost first."""
    while innermost is not None:
        yield innermost
        innermost = innermost.f_back


def _is_in_step(frames: list[FrameType]) -> bool:
    return any(frame.f_code.co_name == STEP for frame in frames)


def _words(frames: list[FrameType]) -> str:
    """The innermost function of this repository, and what it called; outside of steps, that it waits."""
    if not _is_in_step(frames):
        return "waiting for a step, or for its pool"
    own = next((frame for frame in frames if _module(frame).partition(".")[0] in OWN), frames[0])
    called = "" if own is frames[0] else f", in {_called(frames[0])}"
    return f"{_called(own)} line {own.f_lineno}{called}"


def _called(frame: FrameType) -> str:
    return f"{_module(frame)}.{frame.f_code.co_qualname}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
