"""What is tried of a backfill before it is queued, by its strategy: the transform on one window, or what stands in for it.

How a transform is tried is in `dry_run.py`. A stand-in is made as a run would make it, so that what can be read beforehand
(too few pairs, a correlation below its bound) is told before anything waits in a queue.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from featurestore.backfill.dry_run import DryRun, dry_run
from featurestore.backfill.strategies.choice import window_computer, windows_left
from featurestore.backfill.strategies.incremental import STAND_INS
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.gate.quality import judge
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore


def is_tried(launch: Launch, windows: int) -> bool:
    """Whether a backfill of so many windows is tried first: a single window of a transform is its own trial."""
    return launch.strategy in STAND_INS or windows > 1


def trial(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> DryRun:
    """Try what a backfill would do with a group, and judge the rows as the gate would. Nothing is written.

    Args:
        windows: Those asked for, oldest first. A transform is tried on a recent window whatever is asked for, a stand-in on the
            last one asked for that it would fill.

    Raises:
        StoreUnavailable: a store cannot be reached.
    """
    if launch.strategy not in STAND_INS:
        return dry_run(store, catalog, group)
    left = windows_left(store, catalog, group, windows, launch)
    filled = [window for window in windows if window not in left]
    if not filled:
        return DryRun(group.stored_name, None, note="Every window has better rows: none would be computed.")
    return _stand_in(store, catalog, group, filled[-1], launch)


def _stand_in(store: OfflineStore, catalog: Catalog, group: FeatureGroup, window: TimeWindow, launch: Launch) -> DryRun:
    try:
        computed = window_computer(store, catalog, group, [window], launch)(window)
    except StoreUnavailable:
        raise
    except (FeatureStoreError, pl.exceptions.PolarsError) as error:
        return DryRun(group.stored_name, window, error=f"{type(error).__name__}: {error}")
    verdict = judge(store.registry.group(group.stored_name), computed.rows)
    note = _fit_text(group, computed.notes)
    return DryRun(group.stored_name, window, computed.rows.height, computed.input_rows, verdict, note=note)


def _fit_text(group: FeatureGroup, notes: Mapping[str, float | str]) -> str:
    """How closely each proxy follows its feature; empty for other stand-ins."""
    fits = [
        f"'{feature}' follows {notes[f'{feature}_proxy']} with correlation {float(notes[f'{feature}_correlation']):.4f} on "
        f"{notes[f'{feature}_pairs']} pairs"
        for feature in sorted(group.backfill.proxies)
        if f"{feature}_proxy" in notes
    ]
    return f"{'; '.join(fits)}." if fits else ""
