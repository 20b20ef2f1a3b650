"""`raw/<source>`: the landing files of a day, appended once each."""

from typing import Any

import dagster as dg

from checks.landing import landing_result, landing_spec
from feature_assets.catalogue import owners, raw_key, source_columns
from feature_assets.partitions import backfill_policy, landing_days
from featurestore.declaration import Catalog, Daily, Source
from featurestore.ingestion import take_in
from featurestore.landing import misnamed_files
from resources.store import StoreResource


def raw_asset(catalog: Catalog, source: Source, cadence: Daily) -> dg.AssetsDefinition:
    """The asset of a source; a timeless one has no partitions and takes every file.

    Args:
        catalog: Whose groups read the source: for their windows late rows are counted.
        source: The declared feed.
        cadence: Its first day of landing; a partition is a day of landing, today's included.
    """

    check = landing_spec(source)

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
        check_specs=[check],
    )
    def raw(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        days = None if source.is_timeless else context.partition_keys
        offline, landing = store.offline(), store.settings().landing
        table = offline.source(source)
        taken = take_in(offline, catalog, landing, source, days, context.run.run_id)
        done = taken.ingestion
        if taken.late:
            context.log.warning(f"Rows came too late for windows of {sorted(taken.late)}: {taken.late}")
        if done.refused_files:
            listed = "\n".join(done.refused_files.values())
            raise dg.Failure(
                f"{len(done.refused_files)} landing files are refused, {done.files} others are appended.\n{listed}",
                allow_retries=False,
            )
        counts: dict[str, Any] = {
            "files": done.files,
            "files_known_before": done.files_known_before + taken.files_unchanged,
            "rows": done.rows,
            "rows_refused": done.rows_refused,
            **({"rows_late": dg.MetadataValue.json(taken.late)} if taken.late else {}),
        }
        if done.refused_because:
            counts |= {"refused_because": done.refused_because, "refused_folder": table.refused_location.uri}
        misnamed = [] if source.is_timeless else misnamed_files(landing, source.name, cadence)
        left_out = landing_result(check, table.refused_location, misnamed)
        if not left_out.passed:
            context.log.warning(left_out.description)
        return dg.MaterializeResult(metadata=counts, check_results=[left_out])

    return raw
