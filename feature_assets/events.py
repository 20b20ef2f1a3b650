"""What a ranged run tells Dagster: one materialization and one check result for each partition, truthfully.

A check yielded in the ordinary way over a range is stored without its partition, and one bad partition would fail all.
So good partitions are reported one by one, then each partition's check with the materialization it speaks of, and only
then does the step fail or end. The target of a check, and its history by partition, are private names of Dagster's: this is
the one module to use them, and `tests/platform/test_events.py` the contract test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

StepEvent = dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult | dg.Output  # type: ignore[type-arg]


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """How one partition ended: `passed` is None for one that was skipped.

    One that `stands` was left as it is in production: it is materialized, and its check says again what it said last.

    One that passed with `warnings` is materialized, and its check is shown as a warning: that blocks nothing.
    """

    key: str
    passed: bool | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    check_metadata: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    warnings: tuple[str, ...] = ()
    stands: bool = False


def report_partitions(
    context: dg.AssetExecutionContext,
    check: dg.AssetCheckSpec,
    reports: Sequence[PartitionReport],
    roll_ups: Sequence[dg.AssetCheckResult],
) -> Iterator[StepEvent]:
    """Yield the events of a ranged step; fail the step, without retries, if any partition failed its gate.

    A skipped partition gets no event: neither it nor anything downstream becomes materialized. Roll-ups speak of
    all partitions, those of other runs included, and are reported before the step fails.

    Raises:
        dg.Failure: some partition failed its gate.
    """
    asset_key, good = check.asset_key, [report for report in reports if report.passed]
    if len(good) == len(reports):
        for report in good:
            context.add_asset_metadata(dict(report.metadata), asset_key=asset_key, partition_key=report.key)
        yield dg.MaterializeResult(asset_key=asset_key)
    else:
        for report in good:
            yield dg.AssetMaterialization(asset_key, partition=report.key, metadata=report.metadata)
    yield from _evaluations(
        context, check, [report for report in reports if report.passed is not None and not report.stands]
    )
    yield from _standing_evaluations(context, check, [report for report in reports if report.stands])
    yield from roll_ups
    if failed := [report for report in reports if report.passed is False]:
        raise dg.Failure(_failure_text(asset_key, failed, len(reports)), allow_retries=False)
    for report in reports:
        if report.passed is None or report.stands:
            context.log.info(f"{'Left' if report.stands else 'Skipped'} {report.key}: {report.reason}.")
    yield dg.Output(None, output_name=check.get_python_identifier())


def _evaluations(
    context: dg.AssetExecutionContext, check: dg.AssetCheckSpec, judged: Sequence[PartitionReport]
) -> Iterator[dg.AssetCheckEvaluation]:
    targets = _newest_materializations(context.instance, check.asset_key, [report.key for report in judged])
    for report in judged:
        yield dg.AssetCheckEvaluation(
            asset_key=check.asset_key,
            check_name=check.name,
            passed=bool(report.passed) and not report.warnings,
            severity=dg.AssetCheckSeverity.WARN if report.passed else dg.AssetCheckSeverity.ERROR,
            partition=report.key,
            blocking=check.blocking,
            metadata=report.check_metadata,
            description=report.reason or "\n".join(report.warnings) or None,
            target_materialization_data=targets.get(report.key),
        )


def _standing_evaluations(
    context: dg.AssetExecutionContext, check: dg.AssetCheckSpec, standing: Sequence[PartitionReport]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the check said last of partitions that are left as they are, once more; nothing where it never said a word.

    Without it the check would be shown as not run. One that had failed was promoted by a person since: that is no failure of
    this run, and blocks nothing.
    """
    targets = _newest_materializations(context.instance, check.asset_key, [report.key for report in standing])
    for report in standing:
        if (said := _last_evaluation(context.instance, check.key, report.key)) is None:
            continue
        run_id, last = said
        yield dg.AssetCheckEvaluation(
            asset_key=check.asset_key,
            check_name=check.name,
            passed=last.passed,
            severity=last.severity if last.passed else dg.AssetCheckSeverity.WARN,
            partition=report.key,
            blocking=check.blocking,
            metadata={"judged_in_run": run_id, **last.metadata},
            description=last.description,
            target_materialization_data=targets.get(report.key),
        )


def _last_evaluation(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, partition: str
) -> tuple[str, dg.AssetCheckEvaluation] | None:
    """The newest result of a check on a partition, with the run that gave it."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        check,
        limit=1,
        status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
        partition_filter=PartitionKeyFilter(key=partition),
    )
    found = records[0].evaluation if records else None
    return None if found is None else (records[0].run_id, found)


def _newest_materializations(
    instance: dg.DagsterInstance, asset_key: dg.AssetKey, keys: Sequence[str]
) -> dict[str, AssetCheckEvaluationTargetMaterializationData]:
    """The newest materialization of each partition, in one query for the usual case that each has just been reported."""
    found: dict[str, AssetCheckEvaluationTargetMaterializationData] = {}
    wanted = list(keys)
    while wanted:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key, asset_partitions=wanted), limit=len(wanted)
        ).records
        for record in records:
            target = AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
            found.setdefault(record.partition_key or "", target)
        if not records:
            break
        wanted = [key for key in wanted if key not in found]
    return found


def _failure_text(asset_key: dg.AssetKey, failed: Sequence[PartitionReport], asked: int) -> str:
    lines = [f"{report.key}: {report.reason}" for report in failed[:20]]
    more = f"\n... and {len(failed) - 20} more" if len(failed) > 20 else ""
    return (
        f"{len(failed)} of {asked} partitions of {asset_key.to_user_string()} stay in staging; the others are promoted.\n"
        + "\n".join(lines)
        + more
    )
