"""`raw/<source>`: the landing files of a day, appended once each."""

import dagster as dg

from feature_assets.catalogue import owners, raw_key, source_columns
from feature_assets.partitions import backfill_policy, landing_days
from featurestore.declaration import Daily, Source
from featurestore.landing import landing_files
from resources.store import StoreResource


def raw_asset(source: Source, cadence: Daily) -> dg.AssetsDefinition:
    """The asset of a source; a timeless one has no partitions and takes every file.

    Args:
        source: The declared feed.
        cadence: Its first day of landing; a partition is a day of landing, today's included.
    """

    @dg.asset(
        key=raw_key(source),
        description=source.description,
        partitions_def=None if source.is_timeless else landing_days(cadence),
        backfill_policy=None if source.is_timeless else backfill_policy(cadence),
        owners=owners(source.owner),
        kinds={"deltalake", "parquet"},
        group_name="raw",
        metadata={"dagster/column_schema": source_columns(source), "keys": ", ".join(source.keys)},
        pool=f"raw_{source.name}",
    )
    def raw(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        days = None if source.is_timeless else context.partition_keys
        offline = store.offline()
        done = offline.source(source).ingest(landing_files(store.settings().landing, source.name, days))
        if done.refused_files:
            listed = "\n".join(done.refused_files.values())
            raise dg.Failure(
                f"{len(done.refused_files)} landing files are refused, {done.files} others are appended.\n{listed}",
                allow_retries=False,
            )
        counts = {
            "files": done.files,
            "files_known_before": done.files_known_before,
            "rows": done.rows,
            "rows_refused": done.rows_refused,
        }
        return dg.MaterializeResult(metadata=counts)

    return raw
