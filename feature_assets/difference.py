"""What a backfill's run changed, as Dagster's pages show it: once a run, with the last window that it changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from feature_assets.events import PartitionReport
from featurestore.backfill.diff import run_diff
from featurestore.backfill.diff_view import diff_markdown
from featurestore.declaration import FeatureGroup, TimeWindow
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.offline.store import OfflineStore
from featurestore.promotion import Promotion

KeepDifference = Callable[[Mapping[str, Any]], None]


def with_difference(
    reports: Sequence[PartitionReport],
    store: OfflineStore,
    group: FeatureGroup,
    before: int | None,
    promotion: Promotion,
    estimate: Mapping[str, float],
    keep: KeepDifference,
) -> list[PartitionReport]:
    """The reports of a backfill's run, one of them with the backfill's estimate and the difference to the version before.

    It is the last window that changed. If none did, the estimate stands with the last one promoted; if all were held, with the
    gate's result of the last.

    Args:
        reports: In the order of the promotion's outcomes.
        before: The table's version when the run began; None if there was none.
        estimate: What the whole backfill was estimated to take; empty if nobody did.
        keep: Is given the difference, to be kept with the backfill.
    """
    changed = [number for number, outcome in enumerate(promotion.outcomes) if outcome.changed]
    if not changed or promotion.table_version is None:
        return _with_estimate(reports, estimate)
    windows = [promotion.outcomes[number].window for number in changed]
    text = _text(store, group, before, promotion.table_version, windows, keep)
    last = changed[-1]
    told = {**reports[last].metadata, "difference": dg.MetadataValue.md(text), **estimate}
    return [*reports[:last], replace(reports[last], metadata=told), *reports[last + 1 :]]


def _with_estimate(reports: Sequence[PartitionReport], estimate: Mapping[str, float]) -> list[PartitionReport]:
    """With the last report that is shown: a materialization, or else the gate's result of a window that was held."""
    shown = [number for number, report in enumerate(reports) if report.passed] or [
        number for number, report in enumerate(reports) if report.passed is not None
    ]
    if not shown:
        return list(reports)
    last = reports[shown[-1]]
    marked = (
        replace(last, metadata={**last.metadata, **estimate})
        if last.passed
        else replace(last, check_metadata={**last.check_metadata, **estimate})
    )
    return [*reports[: shown[-1]], marked, *reports[shown[-1] + 1 :]]


def _text(
    store: OfflineStore,
    group: FeatureGroup,
    before: int | None,
    after: int,
    windows: Sequence[TimeWindow],
    keep: KeepDifference,
) -> str:
    """The windows are promoted by now: a difference that cannot be made or kept must not keep them from being reported."""
    try:
        document = run_diff(store, group.stored_name, before, after, windows)
    except InvalidInput as error:
        return str(error)
    try:
        keep(document)
    except StoreUnavailable as error:
        return f"{diff_markdown(document)}\n\nIt is shown here alone: {error}"
    return diff_markdown(document)
