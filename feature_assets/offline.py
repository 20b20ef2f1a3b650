"""`offline/<group>`: one asset per feature group; each partition is computed, staged, judged and promoted."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from checks.gate import gate_spec, quarantine_result, quarantine_spec
from checks.quality import quality_results, quality_specs
from feature_assets.backfill import (
    BackfillConfig,
    difference_keeper,
    estimate_of_run,
    launch_of,
    permanent_errors_fail_at_once,
    permission_of,
    refuse_forbidden_windows,
    step_name,
)
from feature_assets.catalogue import (
    group_metadata,
    group_tags,
    lineage_metadata,
    offline_key,
    owners,
    raw_key,
    row_metadata,
)
from feature_assets.difference import with_difference
from feature_assets.events import PartitionReport, StepEvent, report_partitions
from feature_assets.freshness import policy_of
from feature_assets.partitions import backfill_policy, partitions_of, upstream_partitions
from feature_assets.progress import ProgressReport
from feature_assets.pushed import pushed_asset
from featurestore.declaration import Catalog, FeatureGroup, Source
from featurestore.declaration.windows import Windowless
from featurestore.errors import FeatureStoreError, PromotionRefused
from featurestore.gate.quality import Verdict
from featurestore.loading import materialize_load
from featurestore.offline.table import FeatureTable
from featurestore.promotion import WindowOutcome, materialize_windows
from resources.run_tags import is_scheduled
from resources.store import StoreResource


def offline_asset(catalog: Catalog, group: FeatureGroup) -> dg.AssetsDefinition:
    """The asset of a group: partitioned by its windows, unpartitioned for a static group, only looked at for a pushed one."""
    if group.kind == "pushed":
        return pushed_asset(group)
    return _static_asset(catalog, group) if group.kind == "static" else _windowed_asset(catalog, group)


def _spec(catalog: Catalog, group: FeatureGroup) -> dg.AssetSpec:
    deps = [
        dg.AssetDep(
            raw_key(item) if isinstance(item, Source) else offline_key(item),
            partition_mapping=upstream_partitions(group, item),
        )
        for item in catalog.inputs_of(group).values()
    ]
    return dg.AssetSpec(
        offline_key(group),
        deps=deps,
        description=group.description,
        skippable=True,
        owners=owners(group.owner),
        tags=group_tags(group),
        kinds={"deltalake", "polars"},
        group_name="offline",
        code_version=group.code_version,
        metadata={**group_metadata(group), **lineage_metadata(catalog, group)},
        partitions_def=partitions_of(group.cadence),
        freshness_policy=policy_of(group, offline_key(group)),
    )


def _windowed_asset(catalog: Catalog, group: FeatureGroup) -> dg.AssetsDefinition:
    cadence, partitions = group.cadence, partitions_of(group.cadence)
    check, held = gate_spec(group, partitions), quarantine_spec(group)
    if isinstance(cadence, Windowless):
        raise dg.DagsterInvalidDefinitionError(f"{group.stored_name} is {group.kind}")

    @dg.multi_asset(
        name=step_name(group.stored_name),
        specs=[_spec(catalog, group)],
        check_specs=[check, held, *quality_specs(group)],
        partitions_def=partitions,
        backfill_policy=backfill_policy(cadence),
        pool=f"offline_{group.stored_name}",
    )
    def offline(context: dg.AssetExecutionContext, config: BackfillConfig, store: StoreResource) -> Iterator[StepEvent]:
        windows = [cadence.window_of(key) for key in context.partition_keys]
        offline_store = store.offline()
        before = offline_store.table(group.stored_name).version()
        with permanent_errors_fail_at_once():
            launch = launch_of(config, context.run.tags)
            refuse_forbidden_windows(offline_store, group, windows, launch)
            progress = ProgressReport(context, group, launch.is_backfill)
            with progress.told_if_it_stops():
                promotion = materialize_windows(
                    offline_store,
                    catalog,
                    group,
                    windows,
                    run_id=context.run.run_id,
                    launch=launch,
                    on_progress=progress,
                    permission=permission_of(store, launch),
                    is_scheduled=is_scheduled(context.run.tags),
                )
        progress.ended(promotion, _added_bytes(offline_store.table(group.stored_name), before, promotion.table_version))
        reports = [
            _report(cadence.key_of(outcome.window), outcome, promotion.table_version) for outcome in promotion.outcomes
        ]
        if launch.is_backfill:
            keep = difference_keeper(store, launch, context.run.run_id)
            estimate = estimate_of_run(context.run.tags)
            reports = with_difference(reports, offline_store, group, before, promotion, estimate, keep)
        quarantine = quarantine_result(held, offline_store.staging(group.stored_name))
        yield from report_partitions(context, check, reports, [quarantine, *quality_results(group, offline_store)])

    return offline


def _static_asset(catalog: Catalog, group: FeatureGroup) -> dg.AssetsDefinition:
    check = gate_spec(group, None)

    @dg.multi_asset(
        name=step_name(group.stored_name),
        specs=[_spec(catalog, group)],
        check_specs=[check],
        pool=f"offline_{group.stored_name}",
    )
    def offline(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[StepEvent]:
        try:
            with permanent_errors_fail_at_once(but=PromotionRefused):
                load = materialize_load(store.offline(), catalog, group, run_id=context.run.run_id)
        except PromotionRefused as refusal:
            yield dg.AssetCheckResult(
                passed=False, asset_key=check.asset_key, check_name=check.name, description=str(refusal)
            )
            raise dg.Failure(str(refusal), allow_retries=False) from refusal
        metadata = row_metadata(
            rows=load.computed.rows.height, input_rows=load.computed.input_rows, rows_changed=load.rows_changed
        )
        if load.verdict.passed:
            if group.freshness is not None:
                _confirm(context, store, group)
            yield dg.MaterializeResult(asset_key=check.asset_key, metadata=metadata)
        verdict = _verdict_metadata(load.verdict)
        yield dg.AssetCheckResult(
            passed=load.verdict.passed, asset_key=check.asset_key, check_name=check.name, metadata=verdict
        )
        if not load.verdict.passed:
            raise dg.Failure("; ".join(map(str, load.verdict.findings)), allow_retries=False)

    return offline


def _confirm(context: dg.AssetExecutionContext, store: StoreResource, group: FeatureGroup) -> None:
    """Keep that a group with an SLO was loaded: of a load that changes nothing the table says nothing."""
    clock = store.clock()
    try:
        store.settings().freshness_journal(clock).confirm([group.stored_name], clock())
    except FeatureStoreError as error:
        context.log.warning(f"That the group holds everything due could not be kept: {error}")


def _added_bytes(table: FeatureTable, before: int | None, after: int | None) -> int:
    """The size of the files that the last commit added; 0 if there was none since."""
    entry = None if after is None or after == before else table.entry(after)
    return 0 if entry is None else entry.added_bytes


def _report(key: str, outcome: WindowOutcome, table_version: int | None) -> PartitionReport:
    passed = {"promoted": True, "current": True, "quarantined": False}.get(outcome.status)
    metadata = row_metadata(
        rows=outcome.verdict.rows,
        input_rows=None if outcome.status == "current" else outcome.input_rows,
        history_rows=outcome.history_rows,
        null_key_rows=outcome.null_key_rows or None,
        behind_rows=outcome.behind_rows or None,
        table_version=table_version,
    )
    origin = {"strategy": outcome.strategy, "correctness": outcome.correctness, **outcome.notes}
    told = {**metadata, "changed": outcome.changed, **origin}
    verdict = outcome.verdict
    if outcome.status == "current":
        return PartitionReport(key, passed, {**told, "left": outcome.reason}, reason=outcome.reason, stands=True)
    return PartitionReport(key, passed, told, _verdict_metadata(verdict), outcome.reason, verdict.warnings)


def _verdict_metadata(verdict: Verdict) -> dict[str, Any]:
    """How many rows were judged, what was not compared; of a bad partition a line a finding, example rows and shares."""
    judged = {
        "rows": verdict.rows,
        **({"warnings": dg.MetadataValue.json(list(verdict.warnings))} if verdict.warnings else {}),
    }
    if verdict.passed:
        return judged
    columns = ("check", "column", "observed", "limit", "failing_rows")
    records = [dg.TableRecord({name: getattr(finding, name) for name in columns}) for finding in verdict.findings]
    examples = {f"{finding.check} {finding.column}": list(finding.examples) for finding in verdict.findings}
    details = {f"{finding.check} {finding.column}": list(finding.details) for finding in verdict.findings}
    compared = {name: rows for name, rows in details.items() if rows}
    return {
        **judged,
        "findings": dg.MetadataValue.table(records),
        "examples": dg.MetadataValue.json(examples),
        **({"compared": dg.MetadataValue.json(compared)} if compared else {}),
    }
