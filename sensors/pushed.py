"""The sensor that sees pushes: no run makes the rows of a pushed group, so somebody has to tell Dagster that they came."""

import json
from collections.abc import Iterator, Sequence

import dagster as dg

from feature_assets.catalogue import offline_key
from feature_assets.pushed import DATA_VERSION, Observed, observe
from featurestore.declaration import Catalog, FeatureGroup
from featurestore.offline.store import OfflineStore
from resources.store import StoreResource

MINIMUM_INTERVAL_SECONDS = 60


def pushed_groups(catalog: Catalog) -> list[dg.SensorDefinition]:
    """The sensor of one code location; none where no group is pushed.

    It reports a materialization, without a run, for each pushed group whose table has a new version, and once more when rows that
    waited for their event time have come. Online copies follow: what their push could not write, they take from the table.
    """
    groups = [group for group in catalog.groups if group.kind == "pushed"]

    @dg.sensor(
        name="pushed_groups",
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports what was pushed, so that online copies and freshness policies follow.",
    )
    def pushes(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
        seen: dict[str, str] = json.loads(context.cursor or "{}")
        found = dict(_changed(store.offline(), groups, seen))
        events = [_materialization(group, found[group.stored_name]) for group in groups if group.stored_name in found]
        now = {name: observed.data_version for name, observed in found.items()}
        return dg.SensorResult(asset_events=events, cursor=json.dumps({**seen, **now}))

    return [pushes] if groups else []


def _changed(
    store: OfflineStore, groups: Sequence[FeatureGroup], seen: dict[str, str]
) -> Iterator[tuple[str, Observed]]:
    """The groups whose data version is another than the one seen last; the rows are looked at only where it may be."""
    for group in groups:
        last, version = seen.get(group.stored_name), store.table(group.stored_name).version()
        if version is None or (last == str(version)):
            continue
        observed = observe(store, group)
        if observed.data_version != last:
            yield group.stored_name, observed


def _materialization(group: FeatureGroup, observed: Observed) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        offline_key(group),
        description="Rows were pushed.",
        metadata=observed.metadata,
        tags={DATA_VERSION: observed.data_version},
    )
