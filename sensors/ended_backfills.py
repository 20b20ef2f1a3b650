"""Backfills that ended in Dagster while they waited: closed in the book, and said on their runs. Not here: letting any go.

One that was canceled on Dagster's pages would wait in the book for ever, and could be approved to no effect.
"""

import logging
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

from featurestore.clock import Clock
from featurestore.declaration import Catalog
from featurestore.errors import AlreadyDecided
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry, BackfillRequest
from resources.run_tags import ADMISSION, BACKFILL, HELD, REASON, offline_groups
from sensors.admissions import UNJUDGED

STOPPED = ("rejected", "refused", "cancelled")
ENDED = (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)
WAITING, RUNS_A_TICK = 500, 50
DAGSTER = "Dagster"
"""Who canceled a backfill on Dagster's pages is not known."""


@dataclass(frozen=True)
class EndedBackfills:
    """Those of one catalogue; each step can be repeated."""

    instance: dg.DagsterInstance
    catalog: Catalog
    book: BackfillBook
    clock: Clock
    log: logging.Logger

    def close(self) -> None:
        """Put every backfill that waits and has ended in the state `cancelled`; then tag runs that ended in the queue."""
        own = {group.stored_name for group in self.catalog.groups}
        for request in self.book.requests(states=["pending"], limit=WAITING):
            if own.intersection(part.group for part in request.groups) and (how := self._end(request.backfill_id)):
                self._close(request, how)
        held = dg.RunsFilter(statuses=list(ENDED), tags={ADMISSION: list(HELD)})
        for run in self.instance.get_runs(held, limit=RUNS_A_TICK):
            if own.intersection(offline_groups(self.instance, run)):
                self.instance.add_run_tags(run.run_id, {ADMISSION: self._why(run)})

    def _end(self, backfill_id: str) -> str:
        """Dagster's word for the end of a backfill, or of a run by hand; empty while it may go on, or if Dagster has neither."""
        backfill, run = self.instance.get_backfill(backfill_id), self.instance.get_run_by_id(backfill_id)
        if backfill is not None:
            word, is_over = backfill.status.value, backfill.status in BULK_ACTION_TERMINAL_STATUSES
        else:
            word, is_over = ("", False) if run is None else (run.status.value, run.is_finished)
        runs = self.instance.get_runs(dg.RunsFilter(tags={BACKFILL: backfill_id})) if is_over else []
        return word if is_over and all(one.is_finished for one in runs) else ""

    def _close(self, request: BackfillRequest, how: str) -> None:
        reason = f"It ended in Dagster as {how} while it waited for approval: none of its windows was computed."
        entry = AuditEntry(request.backfill_id, self.clock(), "cancelled", DAGSTER, "", reason)
        try:
            self.book.decide(request.backfill_id, "cancelled", entry)
            self.log.info(f"Backfill {request.backfill_id} is closed. {reason}")
        except AlreadyDecided:
            self.log.info(f"Backfill {request.backfill_id} was decided just now.")

    def _why(self, run: dg.DagsterRun) -> str:
        """Why a run ended in the queue: its backfill was stopped, or somebody canceled it."""
        request = self.book.find(run.tags.get(BACKFILL) or run.run_id)
        if request is not None:
            return request.state if request.state in STOPPED else "cancelled"
        reason = run.tags.get(REASON, "")
        return "refused" if reason and not reason.startswith(UNJUDGED) else "cancelled"
