"""The sensor that ends runs that stand still, so that they are retried, and keeps a record of them.

It judges by heartbeats alone, so a run without one (of somebody else's assets in the same instance) is never touched. Not here: when a
worker stands still (`featurestore/heartbeat`), when a record is closed (`stuck_records.py`), and runs whose process is gone with its code
server (`resources/run_launcher.py`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from featurestore.alerts.problem import Findings, source_name
from featurestore.alerts.stillness import still_runs
from featurestore.clock import Clock, system_clock
from featurestore.declaration import Catalog
from featurestore.errors import StoreUnavailable
from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.process import Ending
from featurestore.heartbeat.stuck import StuckRun, Why
from featurestore.heartbeat.worker import Patience, Worker
from featurestore.settings import Settings
from resources.retries import promise_retry, retries_left
from resources.run_tags import LAUNCHED_BY, assets_of
from resources.store import StoreResource
from sensors.lost_retries import LostRetries
from sensors.stuck_records import StuckRecords, is_of

NAME = "stuck_runs"
MINIMUM_INTERVAL_SECONDS = 15
STRANGER = timedelta(days=1)
"""After so long a silent worker on a run that this instance does not know is forgotten: another instance had it."""
UNDER_WAY = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
DONE: dict[Ending, str] = {
    "killed": "Its process was killed",
    "gone": "Its process was gone",
    "elsewhere": "Its process is on another machine, or cannot be ended from here, and was left alone: what it may still write, the tables refuse",
}


def stuck_runs(clock: Clock = system_clock) -> dg.SensorDefinition:
    """The sensor of one code location; it runs from the first start of the daemon.

    Args:
        clock: The real time, whatever that of the store is.
    """

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process is silent or hangs, so that they are retried; sees to retries that were lost.",
    )
    def stuck(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SkipReason:
        settings, origin = store.settings(), context.code_location_origin
        location = None if origin is None else origin.location_name
        book = settings.heartbeats(clock)
        StuckRuns(context.instance, book, settings.patience, clock, context.log, location).look()
        StuckRecords(context.instance, book, _assets(context), settings.root, location).follow()
        LostRetries(context.instance, clock, context.log, location).report()
        return dg.SkipReason("Looked at the heartbeats of runs.")

    return stuck


def _assets(context: dg.SensorEvaluationContext) -> AssetGraph:
    if context.repository_def is None:
        raise dg.DagsterInvariantViolationError(
            f"{NAME} is evaluated outside of a code location, whose assets it asks for."
        )
    return context.repository_def.asset_graph


def stuck_run_problems(catalog: Catalog) -> Callable[[dg.SensorEvaluationContext, Settings, Clock], Findings]:
    """The finder of the sensor `alerts`: the runs of one code location's groups and sources that stood still."""
    names = [*(group.stored_name for group in catalog.groups), *(source_name(one.name) for one in catalog.sources)]

    def find(_: dg.SensorEvaluationContext, settings: Settings, clock: Clock) -> Findings:
        return still_runs(names, settings.heartbeats().stuck(), clock())

    return find


@dataclass(frozen=True)
class StuckRuns:
    """The runs of one code location that stand still. Every step can be repeated.

    Args:
        location: Its name; None: runs of any location are its own.
    """

    instance: dg.DagsterInstance
    book: HeartbeatBook
    patience: Patience
    clock: Clock
    log: logging.Logger
    location: str | None = None

    def look(self) -> None:
        """End what stands still. A run that cannot be ended is logged, tried again by the next look, and keeps no other waiting.

        Raises:
            StoreUnavailable: the metadata database cannot be written; nobody is judged by a beat that it may have refused.
        """
        try:
            workers = self.book.look(self.patience.step)
        except StoreUnavailable:
            if not self._free_the_database():
                raise
            return
        for worker in workers:
            if (why := worker.stands_still(self.patience)) is not None:
                self._try_to_settle(worker, why)

    def _free_the_database(self) -> bool:
        """End workers that were stopped by a signal, perhaps in the middle of a beat: one of them may hold the database's lock."""
        frozen = [
            worker
            for worker in self.book.workers()
            if worker.process.is_stopped() and self.clock() - worker.beat_at >= self.patience.silent
        ]
        killed = [worker for worker in frozen if worker.process.kill() == "killed"]
        for worker in killed:
            silent_for = self.clock() - worker.beat_at
            self._try_to_settle(replace(worker, silent_for=max(silent_for, worker.silent_for)), "silent")
        return bool(killed)

    def _try_to_settle(self, worker: Worker, why: Why) -> None:
        """Whatever is the matter with one run, the others have to be looked at."""
        try:
            self._settle(worker, why)
        except Exception:
            self.log.exception(f"Run {worker.run_id} stands still and could not be ended; the next look tries again.")

    def _settle(self, worker: Worker, why: Why) -> None:
        run = self.instance.get_run_by_id(worker.run_id)
        if run is None or not is_of(run, self.location):
            if worker.silent_for >= STRANGER:
                self.book.leave(worker.run_id, worker.process)
        elif run.is_finished:
            self._clear_away(worker)
        elif run.status in UNDER_WAY:
            self._end(run, worker, why)

    def _clear_away(self, worker: Worker) -> None:
        """A process that outlived its run, which was ended by someone else: it must not go on one day."""
        if (ending := worker.process.kill()) == "killed":
            self.log.warning(f"Run {worker.run_id} has ended, and its process stood still: {DONE[ending]}.")
        self.book.leave(worker.run_id, worker.process)

    def _end(self, run: dg.DagsterRun, worker: Worker, why: Why) -> None:
        """Kill, then report: a process that is killed lets go of the locks of Dagster's storage too."""
        found = self._record(run, worker, why)
        if not self.book.claim(worker, found):
            return
        is_canceling = run.status == dg.DagsterRunStatus.CANCELING
        if not is_canceling:
            promise_retry(self.instance, run)
        done = DONE[worker.process.kill()]
        then = "It was being canceled, and is." if is_canceling else self._next(run)
        said = _message(found, done, then)
        self.log.warning(f"Run {run.run_id}: {said}")
        self._report(run, said, is_canceling)
        self.instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        self.book.tell(run.run_id, done=done, then=then)
        if is_canceling:
            self.book.close(run.run_id, "It was canceled by a person.")
        self.book.leave(worker.run_id, worker.process)

    def _report(self, run: dg.DagsterRun, said: str, is_canceling: bool) -> None:
        """The code server may have seen the end of the process first, and failed the run in its own words."""
        now = self.instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:
            self.instance.report_engine_event(said, run)
        elif is_canceling:
            self.instance.report_run_canceled(run, said)
        else:
            self.instance.report_run_failed(run, said)

    def _record(self, run: dg.DagsterRun, worker: Worker, why: Why) -> StuckRun:
        stood = worker.silent_for if why == "silent" else worker.idle_for
        return StuckRun(
            run_id=run.run_id,
            assets=tuple(sorted(key.to_user_string() for key in assets_of(self.instance, run))),
            why=why,
            since=worker.beat_at if why == "silent" else worker.beat_at - worker.idle_for,
            silent_for=stood,
            host=worker.process.host,
            pid=worker.process.pid,
            doing=worker.doing,
            found_at=self.clock(),
        )

    def _next(self, run: dg.DagsterRun) -> str:
        if retries_left(self.instance, run) > 0:
            return "Dagster retries it."
        if LAUNCHED_BY in run.tags:
            return "It was a retry already: the schedule launches what is still due."
        return "It has no retry left: find out what it waited for, and launch it again."


def _message(stuck: StuckRun, done: str, then: str) -> str:
    stood = "gave no sign of life" if stuck.why == "silent" else "did not go on with its work"
    return (
        f"Its process {stuck.pid} on {stuck.host} {stood} since {stuck.since:%Y-%m-%d %H:%M:%S} UTC, for "
        f"{stuck.silent_for.total_seconds():.0f} s at least. It was last seen at: {stuck.doing}. {done}. {then}"
    )
