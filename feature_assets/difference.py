"""What a backfill's run changed, as Dagster's pages show it: once a run, with the last window that it changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import dagster as dg

from feature_assets.events import PartitionReport
from featurestore.backfill.diff import run_diff
from featurestore.backfill.diff_view import diff_markdown
from featurestore.declaration import FeatureGroup, TimeWindow
from featurestore.errors import InvalidInput
from featurestore.offline.store import OfflineStore
from featurestore.promotion import Promotion


def with_difference(
    reports: Sequence[PartitionReport],
    store: OfflineStore,
    group: FeatureGroup,
    before: int | None,
    promotion: Promotion,
    estimate: Mapping[str, float],
) -> list[PartitionReport]:
    """The reports of a run, the last changed one with the difference to the version before and the backfill's estimate.

    If nothing changed they stay as they are.

    Args:
        reports: In the order of the promotion's outcomes.
        before: The table's version when the run began; None if there was none.
        estimate: What the whole backfill was estimated to take; empty if nobody did.
    """
    changed = [number for number, outcome in enumerate(promotion.outcomes) if outcome.changed]
    if not changed or promotion.table_version is None:
        return list(reports)
    windows = [promotion.outcomes[number].window for number in changed]
    last, text = changed[-1], _text(store, group, before, promotion.table_version, windows)
    told = {**reports[last].metadata, "difference": dg.MetadataValue.md(text), **estimate}
    return [*reports[:last], replace(reports[last], metadata=told), *reports[last + 1 :]]


def _text(
    store: OfflineStore, group: FeatureGroup, before: int | None, after: int, windows: Sequence[TimeWindow]
) -> str:
    """The windows are promoted by now: a difference that cannot be made must not keep them from being reported."""
    try:
        return diff_markdown(run_diff(store, group.stored_name, before, after, windows))
    except InvalidInput as error:
        return str(error)
