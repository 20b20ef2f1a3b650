"""Admitting held backfills: what the book says of each is done to its runs.

Every step can be repeated: a tick that was cut short is made good by the next one.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import polars as pl
from dagster._core.execution.backfill import BulkActionStatus
from dagster_shared.error import SerializableErrorInfo
from deltalake.exceptions import DeltaError

from featurestore.backfill.admission import assess
from featurestore.declaration import Catalog
from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import BackfillRequest
from featurestore.offline.store import OfflineStore
from resources.run_tags import ADMISSION, ESTIMATE, PENDING, REASON
from sensors.held_runs import HeldBackfill, asked_of, outside

PASSING = (StoreUnavailable, DeltaError, OSError, pl.exceptions.PolarsError)
"""What may be over at the next tick; until then the backfill waits."""
GOES_ON = ("admitted", "approved")
UNJUDGED = "It cannot be judged yet: "
"""How the reason of a run begins that was not judged."""


@dataclass(frozen=True)
class Admissions:
    """Judges backfills of one catalogue, and does to their runs what was decided."""

    instance: dg.DagsterInstance
    catalog: Catalog
    store: OfflineStore
    book: BackfillBook
    log: logging.Logger

    def settle(self, held: HeldBackfill) -> None:
        """Admit a backfill, keep it waiting, or cancel it; one that cannot be judged now waits, and says why."""
        try:
            request = self._request_of(held)
        except PASSING as error:
            self._tag(held.runs, {REASON: f"{UNJUDGED}{type(error).__name__}: {error}"})
            self.log.exception(f"Backfill {held.backfill_id} cannot be judged yet.")
            return
        except FeatureStoreError as error:
            self._cancel(held, f"Backfill {held.backfill_id} is refused: {error}")
            return
        if request.state in GOES_ON:
            self._let_go(held, request)
        elif request.state == "pending":
            self._tag(held.runs, {ADMISSION: PENDING, REASON: request.reason, **estimate_tags(request)})
        else:
            self._cancel(held, self._why_not(request))

    def stop(self, waiting: HeldBackfill) -> None:
        """Cancel a backfill that was let go and has been rolled back since: what still waits in the queue, and what is under way."""
        request = self.book.find(waiting.backfill_id)
        if request is not None and request.state == "rolled_back":
            self._cancel(waiting, self._why_not(request))

    def _request_of(self, held: HeldBackfill) -> BackfillRequest:
        known = self.book.find(held.backfill_id)
        if known is not None:
            return known
        asked = asked_of(self.instance, self.catalog, held)
        return self.book.record(assess(self.store, self.catalog, self.book, asked))

    def _let_go(self, held: HeldBackfill, request: BackfillRequest) -> None:
        tags = {ADMISSION: request.state, **estimate_tags(request)}
        why = self._why(request)
        for run in held.runs:
            if reason := self._misfit(run, request):
                self._cancel_run(run, f"Run {run.run_id} is refused: {reason}.")
                self._tag([run], {ADMISSION: "refused"})
            else:
                self._tag([run], {**tags, REASON: why} if REASON in run.tags or request.state == "approved" else tags)

    def _why(self, request: BackfillRequest) -> str:
        """Why a backfill goes on; a tag cannot be taken away, so this stands where it was said why it waits."""
        decision = self.book.decisions([request.backfill_id]).get(request.backfill_id)
        if decision is None:
            return "Admitted: within the limits of its groups."
        return f"Approved by {decision.person}: {decision.reason}"

    def _misfit(self, run: dg.DagsterRun, request: BackfillRequest) -> str:
        try:
            return outside(self.instance, self.catalog, request, run)
        except FeatureStoreError as error:
            return str(error)

    def _why_not(self, request: BackfillRequest) -> str:
        decision = self.book.decisions([request.backfill_id]).get(request.backfill_id)
        by = f" by {decision.person}" if decision is not None else ""
        return f"Backfill {request.backfill_id} was {request.state.replace('_', ' ')}{by}: {request.reason}"

    def _cancel(self, held: HeldBackfill, reason: str) -> None:
        """Cancel a backfill, and have Dagster cancel its runs with it; runs that stand for themselves at once.

        The daemon writes a backfill as it read it some seconds before, and may undo the word. Its runs then still wait, and the next
        look says it again: so they are not canceled here before the backfill has ended.
        """
        backfill = self.instance.get_backfill(held.dagster_id) if held.dagster_id == held.backfill_id else None
        status = None if backfill is None else backfill.status
        if backfill is not None and status == BulkActionStatus.REQUESTED:
            error = SerializableErrorInfo(reason, [], "BackfillNotAdmitted")
            self.instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELING, error=error))
        if status in (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING):
            self._tag(held.runs, {REASON: reason})
            return
        for run in held.runs:
            self._cancel_run(run, reason)

    def _cancel_run(self, run: dg.DagsterRun, reason: str) -> None:
        self.log.info(reason)
        self._tag([run], {REASON: reason})
        self.instance.report_run_canceling(run, message=reason)
        self.instance.report_run_canceled(run, message=reason)

    def _tag(self, runs: Sequence[dg.DagsterRun], tags: Mapping[str, str]) -> None:
        for run in runs:
            if any(run.tags.get(name) != value for name, value in tags.items()):
                self.instance.add_run_tags(run.run_id, dict(tags))


def estimate_tags(request: BackfillRequest) -> dict[str, str]:
    """What a backfill was estimated to take, all groups and runs together, as tags of its runs."""

    def total(*names: str) -> float:
        return sum(float(part.estimate.get(name, 0)) for part in request.groups for name in names)

    return {
        "featurestore/partitions": str(sum(len(part.keys) for part in request.groups)),
        f"{ESTIMATE}usd": f"{request.cost_usd:.6f}",
        f"{ESTIMATE}rows": f"{total('rows'):.0f}",
        f"{ESTIMATE}bytes": f"{total('bytes_scanned'):.0f}",
        f"{ESTIMATE}seconds": f"{total('compute_seconds', 'overhead_seconds'):.0f}",
    }
