"""The runs that wait in the queue, for admission or for their turn, read from Dagster: which backfill each belongs to, and what it asks for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG

from feature_assets.backfill import launch_of_run
from featurestore.backfill.admission import AskedBackfill
from featurestore.backfill.tags import REQUESTED_BY
from featurestore.declaration import Catalog, TimeWindow
from featurestore.declaration.windows import Windowless
from featurestore.errors import InvalidInput
from featurestore.launch import Launch
from featurestore.metadata.request import BackfillRequest
from featurestore.quantities import count_text
from resources.run_tags import ADMISSION, BACKFILL, HELD, OFFLINE, asked_range, offline_groups

USER = "user"

Windows = Mapping[str, tuple[TimeWindow, ...]]


@dataclass(frozen=True, slots=True)
class HeldBackfill:
    """The waiting runs of one backfill, and the groups that they touch."""

    backfill_id: str
    runs: tuple[dg.DagsterRun, ...]
    groups: frozenset[str]

    @property
    def dagster_id(self) -> str:
        """Dagster's id of the backfill; empty for a run that was launched by hand."""
        return self.runs[0].tags.get(BACKFILL_ID_TAG, "")


def held_backfills(
    instance: dg.DagsterInstance, catalog: Catalog, admissions: Sequence[str] = HELD
) -> list[HeldBackfill]:
    """What waits in the queue and touches groups of a catalogue: the oldest first.

    Args:
        admissions: What their tag says; by default, that they wait for an admission.
    """
    tags = {ADMISSION: list(admissions)}
    queued = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags=tags), ascending=True)
    by_id: dict[str, list[dg.DagsterRun]] = {}
    for run in queued:
        by_id.setdefault(run.tags.get(BACKFILL) or run.run_id, []).append(run)
    found = [
        HeldBackfill(name, tuple(runs), frozenset(group for run in runs for group in offline_groups(instance, run)))
        for name, runs in by_id.items()
    ]
    own = {group.stored_name for group in catalog.groups}
    return [held for held in found if held.groups & own]


def asked_of(instance: dg.DagsterInstance, catalog: Catalog, held: HeldBackfill) -> AskedBackfill:
    """What a backfill asks for as a whole: Dagster's target, of which its runs may only be the first; or a run's windows.

    Raises:
        InvalidInput: it cannot be read as windows of this catalogue's groups, computed in one way.
    """
    launch, run = _launch_of(instance, catalog, held), held.runs[0]
    backfill = instance.get_backfill(held.dagster_id) if held.dagster_id == held.backfill_id else None
    windows = (
        windows_of_run(instance, catalog, run)
        if backfill is None
        else _windows_of_backfill(instance, catalog, backfill, run)
    )
    return AskedBackfill(launch, run.tags.get(REQUESTED_BY) or run.tags.get(USER, ""), windows)


def windows_of_run(instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun) -> Windows:
    """The windows that a run will compute, by group.

    Raises:
        InvalidInput: a key is none of a group's, or a group is not of this catalogue.
    """
    asked = asked_range(run.tags)
    if asked is None:
        return {}
    groups = offline_groups(instance, run)
    return {name: found for name in groups if (found := _windows_between(catalog, name, *asked))}


def outside(instance: dg.DagsterInstance, catalog: Catalog, request: BackfillRequest, run: dg.DagsterRun) -> str:
    """Why a run is not part of a backfill as it was judged; empty if it is.

    Tags typed in the launch dialog go to every run of a backfill, those of its partitions among them.
    """
    judged = {part.group: set(part.keys) for part in request.groups}
    for name, windows in windows_of_run(instance, catalog, run).items():
        launch = launch_of_run(run, name)
        if (launch.strategy, launch.accept_shift) != (request.strategy, request.accept_shift):
            return f"it computes {name!r} by {launch}, and its backfill was judged by strategy {request.strategy!r}"
        if more := [key for key in _keys(catalog, name, windows) if key not in judged.get(name, set())]:
            return f"it computes {count_text(len(more), 'window')} of {name!r} that its backfill does not have, {more[0]} first"
    return ""


def _launch_of(instance: dg.DagsterInstance, catalog: Catalog, held: HeldBackfill) -> Launch:
    launches = {launch_of_run(run, name) for run in held.runs for name in windows_of_run(instance, catalog, run)}
    if len(launches) > 1:
        raise InvalidInput(
            f"Backfill {held.backfill_id!r} is launched in {len(launches)} ways at once: {sorted(map(str, launches))}. Give every "
            "group the same config, or say it once for all: in tags of the launch."
        )
    return launches.pop()


def _windows_of_backfill(
    instance: dg.DagsterInstance, catalog: Catalog, backfill: PartitionBackfill, run: dg.DagsterRun
) -> Windows:
    if backfill.asset_backfill_data is None:
        names = offline_groups(instance, run)
        return {name: _windows_of(catalog, name, backfill.partition_names or ()) for name in names}
    target = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    keys = {key.path[1]: subset for key, subset in target.items() if len(key.path) == 2 and key.path[0] == OFFLINE}
    return {name: _windows_of(catalog, name, subset.get_partition_keys()) for name, subset in sorted(keys.items())}


def _windows_of(catalog: Catalog, name: str, keys: Iterable[str]) -> tuple[TimeWindow, ...]:
    cadence = catalog.group(name).cadence
    return () if isinstance(cadence, Windowless) else tuple(sorted(cadence.window_of(key) for key in keys))


def _windows_between(catalog: Catalog, name: str, first: str, last: str) -> tuple[TimeWindow, ...]:
    cadence = catalog.group(name).cadence
    if isinstance(cadence, Windowless):
        return ()
    return tuple(cadence.windows_between(cadence.window_of(first).start, cadence.window_of(last).end))


def _keys(catalog: Catalog, name: str, windows: Iterable[TimeWindow]) -> list[str]:
    cadence = catalog.group(name).cadence
    return [] if isinstance(cadence, Windowless) else [cadence.key_of(window) for window in windows]
