"""`raw/<source>`: the landing files of a day, appended once each."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from checks.landing import landing_result, landing_spec, refused_files
from feature_assets.catalogue import owners, raw_key, source_columns
from feature_assets.partitions import backfill_policy, landing_days
from featurestore.declaration import Catalog, Daily, Source
from featurestore.ingestion import TakenIn, take_in
from featurestore.landing import landed_marks, misnamed_files
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
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
    def raw(
        context: dg.AssetExecutionContext, store: StoreResource
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:  # type: ignore[type-arg]
        days = None if source.is_timeless else context.partition_keys
        offline, landing = store.offline(), store.settings().landing
        taken = take_in(offline, catalog, landing, source, days, context.run.run_id)
        if taken.late:
            context.log.warning(f"Rows came too late for windows of {sorted(taken.late)}: {taken.late}")
        left_out = _left_out(check, offline, landing, source, cadence)
        if not left_out.passed:
            context.log.warning(left_out.description)
        if refused := taken.ingestion.refused_files:
            yield left_out
            listed = "\n".join(refused.values())
            raise dg.Failure(
                f"{len(refused)} landing files are refused, {taken.ingestion.files} others are appended.\n{listed}",
                allow_retries=False,
            )
        counts = _counts(taken, offline.source(source).refused_location)
        yield dg.MaterializeResult(metadata=counts, check_results=[left_out])

    return raw


def _left_out(
    check: dg.AssetCheckSpec, offline: OfflineStore, landing: Location, source: Source, cadence: Daily
) -> dg.AssetCheckResult:
    """What is left out of the source, whatever days the run is of."""
    misnamed = [] if source.is_timeless else misnamed_files(landing, source.name, cadence)
    refused = refused_files(offline.receipts(source).latest(), landed_marks(landing, source.name))
    return landing_result(check, offline.source(source).refused_location, misnamed, refused)


def _counts(taken: TakenIn, refused_rows: Location) -> dict[str, Any]:
    """The metadata of a materialization: what was done with the files of its days."""
    done = taken.ingestion
    counts: dict[str, Any] = {
        "files": done.files,
        "files_known_before": done.files_known_before + taken.files_unchanged,
        "rows": done.rows,
        "rows_refused": done.rows_refused,
    }
    if taken.late:
        counts["rows_late"] = dg.MetadataValue.json(taken.late)
    if done.refused_because:
        counts |= {"refused_because": done.refused_because, "refused_folder": refused_rows.uri}
    return counts
