"""`online/<group>`: the copy that is served, moved one step from what it holds to what the table holds now."""

import dagster as dg

from feature_assets.automation import follows_promotions
from feature_assets.catalogue import group_metadata, group_tags, offline_key, online_key, owners
from featurestore.declaration import FeatureGroup
from resources.store import StoreResource


def online_asset(group: FeatureGroup) -> dg.AssetsDefinition:
    """The unpartitioned asset of a group that is served online; automation moves it, a person may at any time."""

    @dg.asset(
        key=online_key(group),
        deps=[offline_key(group)],
        description=f"The newest values of {group.stored_name}, by entity, as they are served.",
        owners=owners(group.owner),
        tags=group_tags(group),
        kinds={"redis", "protobuf"},
        group_name="online",
        metadata=group_metadata(group),
        automation_condition=follows_promotions(group),
        pool=f"online_{group.stored_name}",
        retry_policy=dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    )
    def online(store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        step = store.feature_store().materialize([group.stored_name])[group.stored_name]
        return dg.MaterializeResult(metadata=step.as_dict())

    return online
