"""Retries that Dagster's daemon promised and never launched: the failure is said again, so that it looks once more.

The daemon reads a failure from the event log before the run is marked as failed, if it looks just between the two; then it never
comes back to it, and a backfill waits for the retry for ever. To say a failure again is harmless: the daemon launches no second retry.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG

from featurestore.clock import Clock
from resources.retries import WILL_NOT_RETRY, WILL_RETRY, retry_of

PATIENCE = timedelta(seconds=60)
"""The daemon looks every five seconds, and launches what it finds at once."""
REMEMBERED = timedelta(days=1)
TIMES = 5
RUNS_A_LOOK = 100


@dataclass(frozen=True)
class LostRetries:
    """Those of the runs of one code location.

    Args:
        location: Its name; None: runs of any location are its own.
    """

    instance: dg.DagsterInstance
    clock: Clock
    log: logging.Logger
    location: str | None = None

    def report(self) -> None:
        """Say again the failures whose retry should have begun; after `TIMES` say that there will be none."""
        now = self.clock()
        wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags=WILL_RETRY, updated_after=now - REMEMBERED)
        for record in self.instance.get_run_records(wanted, limit=RUNS_A_LOOK):
            run, ended = record.dagster_run, record.end_time or 0.0
            is_late = now.timestamp() - ended > PATIENCE.total_seconds()
            if is_late and run.is_complete_and_waiting_to_retry and self._is_awaited(run):
                self._say_again(run)

    def _is_awaited(self, run: dg.DagsterRun) -> bool:
        """Whether somebody waits: its own code location, with no retry there, and no backfill that is over."""
        origin = run.remote_job_origin
        if origin is None or (self.location is not None and origin.location_name != self.location):
            return False
        backfill = self.instance.get_backfill(run.tags[BACKFILL_ID_TAG]) if BACKFILL_ID_TAG in run.tags else None
        is_over = backfill is not None and backfill.status in BULK_ACTION_TERMINAL_STATUSES
        return not is_over and retry_of(self.instance, run) is None

    def _say_again(self, run: dg.DagsterRun) -> None:
        said = len(self.instance.all_logs(run.run_id, dg.DagsterEventType.RUN_FAILURE))
        if said > TIMES:
            self.log.error(
                f"Run {run.run_id} was to be retried, and was not, though its failure was said {said} times."
            )
            self.instance.add_run_tags(run.run_id, WILL_NOT_RETRY)
            return
        self.log.warning(f"Run {run.run_id} waits for its retry: its failure is said again.")
        self.instance.report_run_failed(run, "Its retry did not begin: its failure is said again to Dagster's daemon.")
