"""A deployment in a folder: a store, landing files, and a Dagster instance on which real runs are executed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from definitions import build_definitions
from featurestore.declaration import Catalog, Daily, Source
from featurestore.location import Location
from featurestore.offline.raw import LandingFile
from featurestore.offline.store import OfflineStore
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from resources.store import StoreResource
from tests.platform.kiosks import DAY, START, T0, frame, kiosks

ONLINE_URL = "SANDBOX_ONLINE_URL"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Sandbox:
    """One store, its catalogue and its clock; `now` is the instant that every run of it sees."""

    folder: Path
    instance: dg.DagsterInstance
    catalog: Catalog = field(default_factory=kiosks)
    now: datetime = T0 + 30 * DAY
    online_url: str = ""
    landed: int = 0

    def __post_init__(self) -> None:
        self.use(self.catalog)

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    def use(self, catalog: Catalog) -> None:
        """Apply a catalogue, whatever it leaves out: from now on runs are of its definitions."""
        self.catalog = catalog
        history = RegistryHistory(Location(str(self.root)))
        history.apply(catalog, lambda: self.now, "tests", allow_removals=True)

    def definitions(self) -> dg.Definitions:
        return build_definitions(self.catalog, landing=Daily(start=START), training=[], store=self.resource())

    def resource(self) -> StoreResource:
        """The store as runs and sensors get it, at the instant that it is now."""
        os.environ[ONLINE_URL] = self.online_url
        return StoreResource(
            root=str(self.root), landing=str(self.landing), online_url_variable=ONLINE_URL, now=self.now.isoformat()
        )

    def land(self, source: Source, rows: Iterable[dict[str, Any]], name: str | None = None) -> Path:
        """Leave rows as a landing file; without a name, one of the day of `now`, after every earlier one."""
        self.landed += 1
        path = self.landing / source.name / (name or f"{self.now:%Y-%m-%dT%H}-{self.landed:05}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        frame(source, rows).write_parquet(path)
        return path

    def ingest(self, source: Source, rows: Iterable[dict[str, Any]]) -> None:
        """Land rows and append them without a run, where the raw asset is not what is tested."""
        path = self.land(source, rows)
        done = self.offline.source(source).ingest([LandingFile(path.name, path.read_bytes())])
        assert not done.refused_files, done.refused_files

    def run(
        self, *paths: str, partitions: Sequence[str] | None = None, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run assets, named as 'offline/kiosk_profile', over a range: first and last key, or one key."""
        ranged: dict[str, str] = {}
        if partitions:
            ranged = {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[-1]}
        job = self.definitions().resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(path.split("/")) for path in paths],
            tags={**ranged, **(tags or {})},
            run_config=QUIET,
            raise_on_error=False,
        )

    @property
    def offline(self) -> OfflineStore:
        registry = RegistryHistory(Location(str(self.root))).require_current()
        return OfflineStore(Location(str(self.root)), registry, lambda: self.now)

    @property
    def store(self) -> FeatureStore:
        settings = Settings(Location(str(self.root)), Location(str(self.landing)), self.online_url)
        return FeatureStore(settings, clock=lambda: self.now)

    def rows(self, group: str) -> pl.DataFrame:
        """The stored rows of a group, oldest first."""
        return self.offline.table(group).scan().collect().sort("window_start", "event_time")

    def version(self, group: str) -> int | None:
        return self.offline.table(group).version()

    def materialized(self, path: str) -> list[str]:
        """Partition keys that Dagster shows as materialized."""
        return sorted(self.instance.get_materialized_partitions(dg.AssetKey(path.split("/"))))

    def checks(self, path: str, name: str) -> list[AssetCheckExecutionRecord]:
        """Every stored execution of a check, planned ones included, newest first."""
        key = dg.AssetCheckKey(dg.AssetKey(path.split("/")), name)
        return list(self.instance.event_log_storage.get_asset_check_execution_history(key, limit=1000))


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The text with which the first failed step of a run ended."""
    for event in result.all_events:
        if event.is_step_failure:
            error, data = event.step_failure_data.error, event.step_failure_data.user_failure_data
            return (data.description if data else None) or (error.to_string() if error else "")
    return ""


def log_of(sandbox: Sandbox, result: dg.ExecuteInProcessResult) -> str:
    """Every message of a run."""
    return "\n".join(entry.user_message for entry in sandbox.instance.all_logs(result.run_id))
