"""Where the rows of a window come from: its sources replayed through the transform, snapshots, or a proxy.

Also which windows an incremental backfill may leave as they are.
"""

from collections.abc import Callable, Sequence

from featurestore.compute.inputs import WindowInputs
from featurestore.compute.window import ComputedRows, compute_window
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore

ComputeWindow = Callable[[TimeWindow], ComputedRows]


def window_computer(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> ComputeWindow:
    """What computes the rows of each of some windows by the launch's strategy; inputs are read once for all of them.

    Args:
        windows: Windows to compute, oldest first; at least one.
    """
    registered = store.registry.group(group.stored_name)
    inputs = WindowInputs(catalog, group, windows, store)
    return lambda window: compute_window(group, registered, window, inputs)
