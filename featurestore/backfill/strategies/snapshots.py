"""The snapshot strategy: rows of a window from the newest periodic snapshot of each entity, carried forward.

A snapshot says what the group's features were at an instant. It stands in for a window that ends at most `carry` later,
if it was known by the window's cut-off; rows are stamped as the transform's would have been.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import polars as pl

from featurestore.compute.inputs import Visible
from featurestore.compute.knowledge import KnownRows
from featurestore.compute.window import ComputedRows, stamped
from featurestore.declaration.backfill import Snapshots
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput
from featurestore.offline.store import OfflineStore

LANDING = ("knowledge_time", "landed_at", "landing_file", "landing_row")


def snapshot_computer(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow]
) -> Callable[[TimeWindow], ComputedRows]:
    """What computes windows of a windowed group from its declared snapshots, which are read once.

    Raises:
        InvalidInput: the group declares none.
    """
    snapshots = group.backfill.snapshots
    if snapshots is None:
        raise InvalidInput(f"Group {group.stored_name!r} declares no snapshots.")
    source = catalog.source(snapshots.source)
    rows = store.source_rows(source, windows[0].end - snapshots.carry, group.cut_off(windows[-1]))
    known = KnownRows(rows, keys=_record(source, group), version=LANDING, event_time=source.event_time)
    registered = store.registry.group(group.stored_name)

    def compute(window: TimeWindow) -> ComputedRows:
        found = _carried(known, source, snapshots, group, window)
        shaped = _shaped(found, group, window)
        history = int(found["is_history"].sum())
        stamps = {"knowledge_time": group.horizon(window), "window_start": window.start}
        result = stamped(registered, shaped, stamps, Visible({}, found.height, history))
        return _with_notes(result, source, found)

    return compute


def _record(source: Source, group: FeatureGroup) -> tuple[str, ...]:
    """What names one snapshot of an entity: the source's keys; if those only name the entity, the event time too."""
    is_entity_only = set(source.keys) <= set(group.keys) and source.event_time is not None
    return (*source.keys, str(source.event_time)) if is_entity_only else source.keys


def _carried(
    known: KnownRows, source: Source, snapshots: Snapshots, group: FeatureGroup, window: TimeWindow
) -> pl.DataFrame:
    """The newest snapshot of each entity with event time in (window.end - carry, window.end], known by the cut-off."""
    event = pl.col(str(source.event_time))
    in_reach = known.newest(group.cut_off(window)).filter(
        (event > window.end - snapshots.carry) & (event <= window.end)
    )
    ordered = in_reach.sort(str(source.event_time), *LANDING, maintain_order=True)
    return ordered.unique(group.keys, keep="last", maintain_order=True)


def _shaped(found: pl.DataFrame, group: FeatureGroup, window: TimeWindow) -> pl.DataFrame:
    event_time = pl.lit(window.end).cast(TIMESTAMP).alias("event_time")
    columns = [
        event_time if name == "event_time" else pl.col(name).cast(dtype) for name, dtype in group.row_schema.items()
    ]
    return found.select(columns)


def _with_notes(result: ComputedRows, source: Source, found: pl.DataFrame) -> ComputedRows:
    oldest = found[str(source.event_time)].min()
    notes: dict[str, float | str] = {"snapshots": source.name}
    if oldest is not None:
        notes["oldest_snapshot"] = str(oldest)
    return replace(result, notes=notes)
