"""Meeting the tiers before requests do: what a tier makes when it is first asked would be waited for by someone. Not here: readiness."""

from collections.abc import Mapping
from contextlib import suppress

from featurestore.declaration.online import TierName
from featurestore.errors import FeatureStoreError
from featurestore.registry.snapshot import RegisteredGroup
from featurestore.store import FeatureStore

OPEN_SECONDS = 2.0
"""How long a tier that does not answer holds up a start."""


def group_of_each_tier(store: FeatureStore) -> Mapping[TierName, RegisteredGroup]:
    """Of each tier that a group has, one that can be asked for.

    Raises:
        InvalidInput: a group is declared for a tier that this deployment does not have.
    """
    online = [group for group in store.registry.groups.values() if group.is_online]
    return {name: group for group in online for name in store.settings.tiers_of(group)}


def open_tiers(store: FeatureStore) -> None:
    """Ask each tier for nothing, once. One that is away, or misconfigured, keeps nobody from starting.

    A client of DynamoDB takes half a second to make: it would be made when the hot tier fails, and by then nobody has the time.
    """
    with suppress(FeatureStoreError):
        for name, group in group_of_each_tier(store).items():
            with suppress(FeatureStoreError):
                store.online.tier(name).read_many({group.name: []}, timeout_seconds=OPEN_SECONDS)
