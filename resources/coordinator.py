"""The run coordinator: it holds every backfill in the queue until it is admitted.

It runs in the web server and in the daemon, which know no user code, so it judges nothing. It tells by whom a run was
launched, and tags it: `featurestore/admission=assessing` is a tag of which `dagster.yaml` lets no run start. The sensor
in the code location (`sensors/backfills.py`) assesses the run and turns the tag. As long as that sensor cannot look, or
the metadata database cannot be read, a backfill waits.

Whatever a launcher typed for these tags is overwritten.
"""

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.tags import (
    BACKFILL_ID_TAG,
    PRIORITY_TAG,
    RETRY_NUMBER_TAG,
)

from resources.run_tags import ADMISSION, ASSESSING, BACKFILL, SCHEDULED, asked_range, is_scheduled, offline_groups

PRIORITY = -10


class AdmissionCoordinator(QueuedRunCoordinator[dg.DagsterInstance]):
    """Dagster's queue, in which a run over windows of `offline/<group>` waits for its admission.

    Left alone are runs without partitions or without offline assets, and those that automation, a schedule or a sensor
    launched in the daemon.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        run = context.dagster_run
        if run.status == dg.DagsterRunStatus.NOT_STARTED and (tags := self._tags_of(context)):
            self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)

    def _tags_of(self, context: SubmitRunContext) -> dict[str, str]:
        run = context.dagster_run
        backfill_id = self._backfill_of(context) if self._has_windows(run) else ""
        if not backfill_id:
            return {name: value for name, value in ((ADMISSION, SCHEDULED), (BACKFILL, "")) if name in run.tags}
        return {ADMISSION: ASSESSING, BACKFILL: backfill_id, PRIORITY_TAG: str(_priority(run))}

    def _has_windows(self, run: dg.DagsterRun) -> bool:
        return asked_range(run.tags) is not None and bool(offline_groups(self._instance, run))

    def _backfill_of(self, context: SubmitRunContext) -> str:
        """The id of the backfill to be admitted; empty if there is none to admit.

        A run that comes with a request is a person's, whatever its tags say: it is a backfill of its own.
        """
        run = context.dagster_run
        if _is_by_hand(context):
            return run.run_id
        parent = self._parent_of(run) if RETRY_NUMBER_TAG in run.tags else None
        if parent is not None and BACKFILL in parent.tags:
            return parent.tags[BACKFILL]
        if BACKFILL_ID_TAG in run.tags:
            return run.tags[BACKFILL_ID_TAG]
        return "" if is_scheduled(run.tags) else run.run_id

    def _parent_of(self, run: dg.DagsterRun) -> dg.DagsterRun | None:
        return self._instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None


def _is_by_hand(context: SubmitRunContext) -> bool:
    """Whether the run was submitted in answer to a request: only the web server's contexts have a source."""
    return getattr(context.workspace, "source", None) is not None


def _priority(run: dg.DagsterRun) -> int:
    """Below scheduled runs, or lower if the launcher said so."""
    try:
        return min(PRIORITY, int(run.tags.get(PRIORITY_TAG, PRIORITY)))
    except ValueError:
        return PRIORITY
