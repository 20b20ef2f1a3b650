"""Loading a static group: computed and judged as a whole, and committed if it is sound. Windows are promoted by `promotion.py`."""

from dataclasses import dataclass
from uuid import uuid4

from featurestore.compute.inputs import static_inputs
from featurestore.compute.window import ComputedRows, compute_load
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import Static
from featurestore.errors import InvalidInput
from featurestore.gate.quality import Verdict, judge
from featurestore.offline.store import OfflineStore
from featurestore.quality.recording import keep_load_statistics


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """How a load of a static group ended; `rows_changed` counts appended rows, tombstones included."""

    verdict: Verdict
    computed: ComputedRows
    rows_changed: int
    table_version: int | None


def materialize_load(store: OfflineStore, catalog: Catalog, group: FeatureGroup, *, run_id: str) -> LoadOutcome:
    """Load a static group as it is now: changed entities are appended, vanished ones become tombstones.

    A load that fails its gate writes nothing, and production keeps the last one.

    Raises:
        PromotionRefused: the load lacks more of the live entities than the group's `min_coverage` allows.
        StaleWriter: a later load is there already.
    """
    if not isinstance(group.cadence, Static):
        told = (
            "is pushed; its rows arrive by push."
            if group.kind == "pushed"
            else "has windows; materialize_windows promotes them."
        )
        raise InvalidInput(f"Group {group.stored_name!r} {told}")
    registered, instant, table = store.registry.group(group.stored_name), store.clock(), store.table(group.stored_name)
    computed = compute_load(group, registered, static_inputs(catalog, group, instant, store))
    verdict = judge(registered, computed.rows)
    if not verdict.passed:
        return LoadOutcome(verdict, computed, 0, table.version())
    commit = table.load_static(
        computed.rows,
        instant=instant,
        valid_from=group.cadence.valid_from,
        transaction=f"load/{run_id}/{uuid4().hex}",
        metadata={"run_id": run_id, "code_version": group.code_version},
    )
    keep_load_statistics(store, registered, computed.rows, instant, run_id=run_id, version=commit.table_version)
    changed = sum(commit.counts.get(name, 0) for name in ("added", "changed", "removed"))
    return LoadOutcome(verdict, computed, changed, commit.table_version)
