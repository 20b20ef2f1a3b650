"""The freshness of a group in Dagster: its check as a step, its policy, and the event that confirms it."""

from datetime import timedelta

import dagster as dg

from checks.freshness import freshness_result, freshness_spec, last_asset
from featurestore.declaration import FeatureGroup
from featurestore.declaration.tier import warning_after
from featurestore.freshness.watch import FreshnessWatch
from resources.store import StoreResource

SHORTEST_POLICY = timedelta(minutes=1)
"""Dagster takes none that is shorter."""


def freshness_check(group: FeatureGroup) -> dg.AssetChecksDefinition:
    """The check of a group for whoever runs it; the sensor `freshness` reports it by itself whenever the status changes."""
    spec = freshness_spec(group)

    @dg.multi_asset_check(name=f"freshness__{group.stored_name}", specs=[spec])
    def freshness(store: StoreResource) -> dg.AssetCheckResult:
        features = store.feature_store()
        confirmed = store.settings().freshness_journal(store.clock()).confirmed()
        watch = FreshnessWatch(features.offline, features.online.parts_of)
        return freshness_result(spec, watch.look(confirmed, [group.stored_name])[group.stored_name])

    return freshness


def policy_of(group: FeatureGroup, key: dg.AssetKey) -> dg.FreshnessPolicy | None:
    """Dagster's policy for an asset of a group: on the one where its freshness is reported, if it has an SLO."""
    slo = group.level.slo
    if slo is None or slo < SHORTEST_POLICY or key != last_asset(group):
        return None
    warning = max(SHORTEST_POLICY, warning_after(slo, group.level.refresh, group.delay + group.publish))
    return dg.FreshnessPolicy.time_window(fail_window=slo, warn_window=warning if warning < slo else None)


def confirmation(group: FeatureGroup) -> dg.AssetMaterialization:
    """The one cheap event of a refresh with nothing due: everything is there. It is reported where nothing follows it."""
    return dg.AssetMaterialization(
        last_asset(group),
        description="Confirmed: everything due is there.",
        metadata={"confirmed": True},
    )
