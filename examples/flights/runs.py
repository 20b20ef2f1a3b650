"""Launching the demo's Dagster runs: ranges of partitions, in this process, on the instance that `make up` shows.

The runs are Dagster's own, with its events, checks and tags; only the launcher differs from the UI's button.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from featurestore.declaration import Catalog, FeatureGroup
from featurestore.declaration.windows import Windowless


@dataclass(frozen=True, slots=True)
class Launched:
    """A finished run: how many materializations it reported."""

    run_id: str
    materializations: int


def run_range(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    partitions: tuple[str, str] | None = None,
    run_config: Mapping[str, object] | None = None,
) -> Launched:
    """Materialize assets over a range of partition keys in one run, and fail loudly if the run does.

    Args:
        definitions: The code location.
        instance: Where the run is recorded.
        keys: Assets that share their partitions, in any order.
        partitions: First and last key; None for assets without partitions.
        run_config: As in the launch pad.
    """
    tags = (
        {}
        if partitions is None
        else {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[1]}
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    config = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}, **(run_config or {})}
    result = job.execute_in_process(
        instance=instance, asset_selection=list(keys), tags=tags, run_config=config, raise_on_error=True
    )
    return Launched(result.run_id, len(result.get_asset_materialization_events()))


def months(start: date, end: date) -> Iterator[tuple[date, date]]:
    """The part of each calendar month in [start, end): first day, and first day no more in it."""
    while start < end:
        following = min(end, (start.replace(day=1) + timedelta(days=32)).replace(day=1))
        yield start, following
        start = following


def due_range(groups: Sequence[FeatureGroup], start: datetime, end: datetime, now: datetime) -> tuple[str, str] | None:
    """First and last key of the windows in [start, end) that are due for all of some groups of one cadence; None if none is.

    A range that ended later would leave the run with skipped windows, and whatever is downstream of them in it.
    """
    cadence = groups[0].cadence
    if isinstance(cadence, Windowless):
        return None
    longest_delay = max(group.delay for group in groups)
    windows = [window for window in cadence.windows_between(start, end) if window.end + longest_delay <= now]
    return (cadence.key_of(windows[0]), cadence.key_of(windows[-1])) if windows else None


def groups_of(catalog: Catalog, cadence: type) -> list[FeatureGroup]:
    """The groups of one cadence, upstream ones first."""
    return [group for group in catalog.ordered_groups if isinstance(group.cadence, cadence)]
