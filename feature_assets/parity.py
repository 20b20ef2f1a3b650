"""The parity check of `online/<group>` as a step: it runs after each move of the copy, and by itself whenever someone asks."""

import dagster as dg
from pydantic import Field

from checks.parity import parity_result, parity_spec
from featurestore.declaration import FeatureGroup
from featurestore.online.parity import Sample, check_parity
from resources.store import StoreResource


class ParityConfig(dg.Config):
    """Which entities are compared."""

    entities: int = Field(default=500, description="How many entities, at most.")
    fraction: float | None = Field(default=None, description="What share of all entities instead, above 0 and up to 1.")
    seed: int | None = Field(default=None, description="Of an earlier check, to compare the same entities again.")


def parity_check(group: FeatureGroup) -> dg.AssetChecksDefinition:
    """The check of a group that is served online; it waits for moves of the copy, so as not to look at half a step."""
    spec = parity_spec(group)

    @dg.multi_asset_check(name=f"parity__{group.stored_name}", specs=[spec], pool=f"online_{group.stored_name}")
    def parity(config: ParityConfig, store: StoreResource) -> dg.AssetCheckResult:
        features = store.feature_store()
        table = features.offline.table(group.stored_name)
        sample = Sample(config.entities, config.fraction, config.seed)
        found = check_parity(table, features.online.tiers_of(table.group), features.clock, sample)
        return parity_result(spec, found)

    return parity
