"""Where the rows of a window come from: its sources replayed through the transform, snapshots, or a proxy.

Also which windows of a launch stay as they are: those that an incremental backfill finds current, and those that a
stand-in would make worse.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import polars as pl

from featurestore.backfill.strategies.incremental import STAND_INS, input_versions, windows_to_compute
from featurestore.backfill.strategies.proxy import proxy_computer, proxy_groups
from featurestore.backfill.strategies.snapshots import snapshot_computer
from featurestore.compute.inputs import WindowInputs
from featurestore.compute.window import ComputedRows, compute_window
from featurestore.declaration.catalog import Catalog, Input
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput
from featurestore.launch import CORRECTNESS_OF, Launch, Strategy, is_at_least
from featurestore.offline.store import OfflineStore

ComputeWindow = Callable[[TimeWindow], ComputedRows]

DECLARATIONS: Mapping[Strategy, str] = {
    "snapshot": "Backfill(snapshots=Snapshots(source, carry))",
    "proxy": "Backfill(proxies={feature: Proxy('group:feature')})",
}


def check_strategy(group: FeatureGroup, strategy: Strategy) -> None:
    """Refuse a strategy for which a group declares nothing.

    Raises:
        InvalidInput: the group declares no snapshots, or no proxies.
    """
    declared = {"snapshot": group.backfill.snapshots is not None, "proxy": bool(group.backfill.proxies)}
    if not declared.get(strategy, True):
        raise InvalidInput(
            f"Group {group.stored_name!r} is to be backfilled by strategy {strategy!r} and does not declare what from. Declare "
            f"backfill={DECLARATIONS[strategy]} and apply it, or launch with strategy 'full'."
        )


def window_computer(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> ComputeWindow:
    """What computes the rows of each of some windows by the launch's strategy; inputs are read once for all of them.

    Args:
        windows: Windows to compute, oldest first; at least one.

    Raises:
        InvalidInput: the group declares nothing for the strategy.
        PromotionRefused: a proxy is too weakly correlated with its feature, or on too few pairs.
    """
    check_strategy(group, launch.strategy)
    if launch.strategy == "snapshot":
        return snapshot_computer(store, catalog, group, windows)
    if launch.strategy == "proxy":
        return proxy_computer(store, catalog, group)
    registered = store.registry.group(group.stored_name)
    inputs = WindowInputs(catalog, group, windows, store)
    return lambda window: compute_window(group, registered, window, inputs)


def windows_left(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> dict[TimeWindow, str]:
    """The windows that a launch leaves as they are, and why; a full recompute leaves none.

    A stand-in fills windows without rows, and replaces rows of its own class or a lower one, never better ones: so a proxy
    fitted on good windows stays the same however often it is launched. What an incremental backfill has promoted itself
    it computes again when repeated, to the same rows: the run that did may have been killed before it told anyone.
    """
    check_strategy(group, launch.strategy)
    if launch.strategy == "incremental":
        stale = windows_to_compute(store, catalog, group, windows)
        own = _promoted_by(store, group, launch.backfill_id)
        return dict.fromkeys((w for w in windows if w not in stale and w.start not in own), "already current")
    return _better_windows(store, group, windows, launch) if launch.strategy in STAND_INS else {}


def _promoted_by(store: OfflineStore, group: FeatureGroup, backfill_id: str) -> set[datetime]:
    """The starts of the windows that were promoted last by a backfill; none for scheduled runs."""
    entries = store.ledger(group.stored_name).latest().filter(pl.col("status") == "promoted")
    return set(entries.filter(pl.col("backfill_id") == backfill_id)["window_start"]) if backfill_id else set()


def _better_windows(
    store: OfflineStore, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> dict[TimeWindow, str]:
    filled = store.ledger(group.stored_name).in_production().filter(pl.col("rows") > 0)
    strategies: dict[object, Strategy] = dict(filled.select("window_start", "strategy").rows())
    better = {start: CORRECTNESS_OF[found] for start, found in strategies.items()}
    return {
        window: f"promoted with class {better[window.start]!r}, above the {launch.correctness!r} of strategy {launch.strategy!r}"
        for window in windows
        if window.start in better and not is_at_least(launch.correctness, better[window.start])
    }


def versions_read(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, strategy: Strategy
) -> dict[str, int | None]:
    """The version of every table that a launch reads, and of the group's inputs in any case: what the ledger records."""
    read: dict[str, Input] = dict(catalog.inputs_of(group))
    if strategy == "snapshot" and group.backfill.snapshots is not None:
        read[group.backfill.snapshots.source] = catalog.source(group.backfill.snapshots.source)
    if strategy == "proxy":
        read |= {upstream.stored_name: upstream for upstream in proxy_groups(catalog, group)}
    return input_versions(store, read)
