"""Dagster's queue without its processes: runs are submitted as the web server and the daemon do, and ticks are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.workspace.context import WorkspaceRequestContext
from dagster._core.workspace.workspace import CurrentWorkspace

from featurestore.metadata.book import BackfillBook
from resources.coordinator import AdmissionCoordinator
from resources.run_tags import ADMISSION, REASON
from sensors.backfills import backfill_admission
from tests.platform.sandbox import Sandbox

ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("kiosks"), "kiosks"), "__ASSET_JOB")


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """The tags by which Dagster tells a run its partitions."""
    if len(keys) == 1:
        return {PARTITION_NAME_TAG: keys[0]}
    return {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}


@dataclass
class Queue:
    """The queue of a sandbox's instance, with the coordinator in front of it and the admission sensor behind."""

    sandbox: Sandbox
    coordinator: AdmissionCoordinator = field(default_factory=AdmissionCoordinator)
    cursor: str | None = None

    def __post_init__(self) -> None:
        self.coordinator.register_instance(self.sandbox.instance)

    @property
    def book(self) -> BackfillBook:
        return self.sandbox.definitions().resources["store"].settings().book(lambda: self.sandbox.now)  # type: ignore[index,no-any-return,union-attr]

    def submit(
        self,
        paths: Sequence[str],
        keys: Sequence[str] = (),
        *,
        by_hand: bool = False,
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
        parent: dg.DagsterRun | None = None,
    ) -> dg.DagsterRun:
        """Submit a run of some assets: from the web server if by hand, else from the daemon."""
        selection = {dg.AssetKey(path.split("/")) for path in paths}
        job = self.sandbox.definitions().resolve_implicit_global_asset_job_def()
        run = self.sandbox.instance.create_run_for_job(
            job.get_subset(asset_selection=selection),
            run_config=run_config,
            asset_selection=selection,
            remote_job_origin=ORIGIN,
            tags={**(range_tags(keys) if keys else {}), **(tags or {})},
            parent_run_id=parent.run_id if parent else None,
            root_run_id=parent.run_id if parent else None,
        )
        workspace = WorkspaceRequestContext(
            self.sandbox.instance,
            CurrentWorkspace({}),
            process_context=None,  # type: ignore[arg-type]
            version=None,
            source=object() if by_hand else None,
            read_only=False,
        )
        return self.coordinator.submit_run(SubmitRunContext(run, workspace))

    def backfill(
        self, path: str, *runs: Sequence[str], tags: Mapping[str, str] | None = None, submitted: int | None = None
    ) -> tuple[str, list[dg.DagsterRun]]:
        """Launch a backfill of an asset as Dagster's daemon does: its target is known at once, its runs come one by one.

        Args:
            runs: The partition keys of each run.
            submitted: How many of them are submitted; by default all.
        """
        backfill_id = uuid4().hex[:8]
        self.sandbox.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=backfill_id,
                asset_graph=self.sandbox.definitions().resolve_asset_graph(),
                partition_names=[key for keys in runs for key in keys],
                asset_selection=[dg.AssetKey(path.split("/"))],
                backfill_timestamp=self.sandbox.now.timestamp(),
                tags=tags or {},
                dynamic_partitions_store=self.sandbox.instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        own = {**(tags or {}), BACKFILL_ID_TAG: backfill_id}
        return backfill_id, [self.submit([path], keys, tags={**range_tags(keys), **own}) for keys in runs[:submitted]]

    def tick(self) -> dg.SensorResult:
        """One evaluation of the admission sensor, on top of the one before."""
        store = self.sandbox.definitions().resources["store"]  # type: ignore[index]
        with dg.build_sensor_context(self.sandbox.instance, self.cursor, resources={"store": store}) as context:
            result = backfill_admission(self.sandbox.catalog)(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return result

    def cancel_backfills(self) -> None:
        """What Dagster's daemon does with backfills that are to be canceled: it cancels their runs, and they have ended."""
        instance = self.sandbox.instance
        for backfill in instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.CANCELING])):
            for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id})):
                self.coordinator.cancel_run(run.run_id)
            instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELED))

    def reason(self, run: dg.DagsterRun) -> str:
        """Why a run waits or was canceled, as its pages show it."""
        return self.run(run).tags.get(REASON, "")

    def run(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """A run as it is now."""
        found = self.sandbox.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    def admission(self, run: dg.DagsterRun) -> tuple[str, str]:
        """Status and admission of a run, as the queue sees them."""
        now = self.run(run)
        return now.status.value, now.tags.get(ADMISSION, "")
