"""What a run's tags say about the backfill that it belongs to: the names of the tags, and how they are read.

No user code is needed to read them. Those with which a backfill is launched are in `featurestore/backfill/tags.py`; the
others are set in `coordinator.py`, when a run is submitted, and in `sensors/backfills.py`, when it is admitted.
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTOMATION_CONDITION_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    SCHEDULE_NAME_TAG,
    SENSOR_NAME_TAG,
)

ADMISSION = "featurestore/admission"
ASSESSING, PENDING, SCHEDULED = "assessing", "pending", "scheduled"
HELD = (ASSESSING, PENDING)
"""A run with either waits in the queue, by limits of 0 in `dagster.yaml`."""
BACKFILL = "featurestore/backfill"
"""The id under which the book has the backfill: Dagster's, or the run's own if it was launched by hand."""
REASON = "featurestore/reason"
ESTIMATE = "featurestore/estimate_"
"""How the names of the tags begin that hold what the whole backfill was estimated to take."""
PROGRESS = "featurestore/progress"

LAUNCHED_BY = "featurestore/launched_by"
"""The sensor of ours that launched a run, `due_windows` or `landing_files`."""
LAUNCHED_AT = "featurestore/launched_at"
"""When, by the store's clock."""

SCHEDULED_BY = (AUTOMATION_CONDITION_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG)
"""A run that Dagster's daemon launched by itself has one of them."""

OFFLINE, RAW = "offline", "raw"


def asked_range(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """First and last partition key of a run, as its steps will read them; None for a run without partitions."""
    if PARTITION_NAME_TAG in tags:
        return tags[PARTITION_NAME_TAG], tags[PARTITION_NAME_TAG]
    if ASSET_PARTITION_RANGE_START_TAG in tags:
        first = tags[ASSET_PARTITION_RANGE_START_TAG]
        return first, tags.get(ASSET_PARTITION_RANGE_END_TAG, first)
    return None


def backfill_of(tags: Mapping[str, str]) -> str:
    """The id of the backfill that a run belongs to; empty for a scheduled one, and for one launched in process."""
    return tags.get(BACKFILL, tags.get(BACKFILL_ID_TAG, ""))


def is_scheduled(tags: Mapping[str, str]) -> bool:
    """Whether automation, a schedule or a sensor launched a run, as far as its tags say: a person who launches one can type them."""
    return any(name in tags for name in SCHEDULED_BY)


def offline_groups(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """Stored names of the groups whose `offline/<group>` a run materializes."""
    return assets_below(instance, run, OFFLINE)


def assets_below(instance: dg.DagsterInstance, run: dg.DagsterRun, prefix: str) -> list[str]:
    """The names below a prefix, `offline` or `raw`, of the assets that a run materializes."""
    return sorted(key.path[1] for key in assets_of(instance, run) if len(key.path) == 2 and key.path[0] == prefix)


def assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """The assets that a run materializes."""
    return set(run.asset_selection or _planned_assets(instance, run))


def _planned_assets(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """The assets of a run that was launched as a whole job, from its stored plan."""
    if run.execution_plan_snapshot_id is None:
        return set()
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    properties = [output.properties for step in plan.steps for output in step.outputs]
    return {found.asset_key for found in properties if found is not None and found.asset_key is not None}
