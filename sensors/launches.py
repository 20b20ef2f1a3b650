"""Runs as Dagster has them: which have not ended, which our sensors have launched, and requests for new ones.

Dagster keeps runs across restarts and shows one from the moment it is made: a launch is seen by the next tick, whatever
became of the tick that asked for it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG, PRIORITY_TAG

from resources.retries import WILL_RETRY
from resources.run_tags import ADMISSION, HELD, LAUNCHED_AT, LAUNCHED_BY, asked_range, assets_below

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in ENDED]
REMEMBERED_RUNS = 300
STILLBORN = timedelta(minutes=10)
"""A run that was made and never queued for so long is nobody's: its launcher died."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as far as a launch looks at it: its assets below a prefix, and its first and last partition key."""

    names: tuple[str, ...]
    keys: tuple[str, str] | None
    launched_at: datetime | None
    is_own: bool


def unfinished_runs(instance: dg.DagsterInstance, prefix: str, sensor: str) -> list[Run]:
    """The runs over assets below a prefix that wait in the queue or are under way, whoever launched them.

    A backfill that waits for its admission is not among them: it may be refused tomorrow. A run that failed just now and is
    about to be retried is: its retry will be under way in seconds.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    alive = [record.dagster_run for record in records if not _is_stillborn(record)] + _about_to_be_retried(instance)
    return _runs(instance, [run for run in alive if run.tags.get(ADMISSION) not in HELD], prefix, sensor)


def ended_runs(instance: dg.DagsterInstance, prefix: str, sensor: str) -> list[Run]:
    """The newest ended runs that a sensor of ours has launched."""
    wanted = dg.RunsFilter(statuses=list(ENDED), tags={LAUNCHED_BY: sensor})
    return _runs(instance, instance.get_runs(wanted, limit=REMEMBERED_RUNS), prefix, sensor)


def request(
    keys: Sequence[dg.AssetKey], partitions: tuple[str, str] | None, sensor: str, now: datetime, priority: int
) -> dg.RunRequest:
    """A run of some assets, over a range of partitions if they have any."""
    ranged = {} if partitions is None else dict(zip(RANGE_TAGS, partitions, strict=True))
    own = {LAUNCHED_BY: sensor, LAUNCHED_AT: now.isoformat(), PRIORITY_TAG: str(priority)}
    return dg.RunRequest(asset_selection=list(keys), tags={**ranged, **own})


SWITCHED_OFF = "FEATURESTORE_SCHEDULE is off: nothing is launched by schedule."

RANGE_TAGS = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)


def _is_stillborn(record: dg.RunRecord) -> bool:
    is_new = record.dagster_run.status == dg.DagsterRunStatus.NOT_STARTED
    return is_new and time.time() - record.create_timestamp.timestamp() > STILLBORN.total_seconds()


def _about_to_be_retried(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    since = datetime.fromtimestamp(time.time(), UTC) - STILLBORN
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags=WILL_RETRY, updated_after=since)
    return [run for run in instance.get_runs(failed) if run.is_complete_and_waiting_to_retry]


def _runs(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun], prefix: str, sensor: str) -> list[Run]:
    found = [
        Run(
            names=tuple(assets_below(instance, run, prefix)),
            keys=asked_range(run.tags),
            launched_at=_instant(run.tags.get(LAUNCHED_AT)),
            is_own=run.tags.get(LAUNCHED_BY) == sensor,
        )
        for run in runs
    ]
    return [run for run in found if run.names]


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
