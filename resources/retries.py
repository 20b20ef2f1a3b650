"""What Dagster's daemon does with failed runs, by its tags: how many retries one has left, its promise of one, and which run it is."""

import dagster as dg
from dagster._core.errors import DagsterRunNotFoundError
from dagster._core.storage.tags import (
    AUTO_RETRY_RUN_ID_TAG,
    MAX_RETRIES_TAG,
    PARENT_RUN_ID_TAG,
    RETRY_NUMBER_TAG,
    WILL_RETRY_TAG,
)

WILL_RETRY = {WILL_RETRY_TAG: "true"}
WILL_NOT_RETRY = {WILL_RETRY_TAG: "false"}


def retries_left(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    """How often the daemon would still retry a run that fails for another reason than its assets."""
    if not instance.run_retries_enabled:
        return 0
    try:
        most = int(run.tags.get(MAX_RETRIES_TAG, instance.run_retries_max_retries))
        group = instance.get_run_group(run.run_id)
    except (ValueError, DagsterRunNotFoundError):
        return 0
    return max(0, most - (len(list(group[1])) - 1 if group else 0))


def promise_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say that a run will be retried before it is failed, if it will.

    Dagster says so a moment after. A backfill that looks in between takes the windows of the run for failed, ends, and then its
    runs are not retried any more.
    """
    if retries_left(instance, run) > 0:
        instance.add_run_tags(run.run_id, WILL_RETRY)


def retry_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun | None:
    """The run that the daemon launched in the place of a failed one, or a person did; None while there is none."""
    if AUTO_RETRY_RUN_ID_TAG in run.tags:
        return instance.get_run_by_id(run.tags[AUTO_RETRY_RUN_ID_TAG])
    children = instance.get_runs(dg.RunsFilter(tags={PARENT_RUN_ID_TAG: run.run_id}), limit=20)
    automatic = [child for child in children if RETRY_NUMBER_TAG in child.tags]
    return next(iter([*automatic, *children]), None)
