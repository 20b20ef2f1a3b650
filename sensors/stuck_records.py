"""The records of runs that stood still: each is open until what its run was to compute is computed. Not here: ending one (`stuck_runs.py`).

Done is what Dagster shows as materialized since, asset by asset and partition by partition: a run of other partitions says nothing of these,
and no number of other runs stands before the one that is looked for. A window that went to quarantine since, or was taken back, is done too:
the group's ledger says so, and an alert of its own. What a run was to compute its tags say, so a record needs no partitions of its own, nor
has one that an earlier version made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import polars as pl
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from featurestore.errors import FeatureStoreError
from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.stuck import StuckRun
from featurestore.location import Location
from featurestore.offline.ledger import Ledger
from resources.retries import retry_of
from resources.run_tags import OFFLINE, asked_range

MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION


@dataclass(frozen=True)
class StuckRecords:
    """Those of the runs of one code location.

    Args:
        graph: Its assets, as they are declared now.
        root: Of the store, where the ledgers of groups are.
        location: Its name; None: runs of any location are its own.
    """

    instance: dg.DagsterInstance
    book: HeartbeatBook
    graph: AssetGraph
    root: Location
    location: str | None = None

    def follow(self) -> None:
        """Note which run repeats each run, and close the records of those whose work is done; a few queries for each that is open."""
        for record in self.book.stuck():
            run = self.instance.get_run_by_id(record.run_id)
            if run is None:
                self.book.close(record.run_id, "The run was deleted.")
            elif is_of(run, self.location):
                self._follow(record, run)

    def _follow(self, record: StuckRun, run: dg.DagsterRun) -> None:
        retry = retry_of(self.instance, run)
        if retry is not None and retry.run_id != record.retried_as:
            self.book.tell(record.run_id, retried_as=retry.run_id)
        if outcome := self._outcome(record, run, retry):
            self.book.close(record.run_id, outcome)

    def _outcome(self, record: StuckRun, run: dg.DagsterRun, retry: dg.DagsterRun | None) -> str:
        """How the work of a run was done after all; empty if it was not."""
        if run.status == dg.DagsterRunStatus.SUCCESS:
            return "It ended by itself."
        if retry is not None and retry.status == dg.DagsterRunStatus.SUCCESS:
            return f"Its retry {retry.run_id} succeeded."
        return "All that it was to compute is computed." if self._is_done(record, run) else ""

    def _is_done(self, record: StuckRun, run: dg.DagsterRun) -> bool:
        """Whether each asset was computed by the run itself, or since it stood still; the first one that was not ends the look."""
        own = self.instance.get_asset_keys_for_run(run.run_id, of_type=MATERIALIZED)
        keys = [dg.AssetKey.from_user_string(asset) for asset in record.assets]
        return all(key in own or self._is_computed(key, asked_range(run.tags), record.since) for key in keys)

    def _is_computed(self, key: dg.AssetKey, asked: tuple[str, str] | None, since: datetime) -> bool:
        """Whether an asset was materialized since an instant, in all partitions that are asked for; one that is not declared now is nobody's."""
        if not self.graph.has(key):
            return True
        partitions = self.graph.get(key).partitions_def
        if asked is None or partitions is None:
            wanted = dg.AssetRecordsFilter(key, after_timestamp=since.timestamp())
            return bool(self.instance.fetch_materializations(wanted, limit=1).records)
        missing = set(_keys(partitions, asked)) - self._materialized(key, since)
        return not missing or missing <= self._judged(key, partitions, since)

    def _judged(self, key: dg.AssetKey, partitions: dg.PartitionsDefinition, since: datetime) -> set[str]:
        """The partitions of which a group's ledger speaks since an instant, in whatever words; none while it cannot be read."""
        if key.path[0] != OFFLINE or not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
            return set()
        try:
            entries = Ledger(self.root, key.path[-1]).entries()
        except FeatureStoreError:
            return set()
        starts = entries.filter(pl.col("recorded_at") >= since)["window_start"].unique()
        return {start.strftime(partitions.fmt) for start in starts}

    def _materialized(self, key: dg.AssetKey, since: datetime) -> set[str]:
        before = dg.AssetRecordsFilter(key, before_timestamp=since.timestamp())
        last = self.instance.fetch_materializations(before, limit=1).records
        cursor = last[0].storage_id if last else None
        return self.instance.get_materialized_partitions(key, after_cursor=cursor)


def is_of(run: dg.DagsterRun, location: str | None) -> bool:
    """Whether a run is of a code location; one that was launched in process is of none."""
    origin = run.remote_job_origin
    return location is None or origin is None or origin.location_name == location


def _keys(partitions: dg.PartitionsDefinition, asked: tuple[str, str]) -> Sequence[str]:
    """The partitions of a range; none where its ends are not declared any more."""
    if not all(partitions.has_partition_key(key) for key in asked):
        return ()
    return partitions.get_partition_keys_in_range(dg.PartitionKeyRange(*asked))
