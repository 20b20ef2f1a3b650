"""Whether this worker lives, and whether requests can be answered. Not here: HTTP, or what a request asks."""

from collections.abc import Callable
from contextlib import suppress

from featurestore.auth.authenticator import Authenticates
from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.online.tier import Tier
from featurestore.serving.opening import group_of_each_tier
from featurestore.serving.registry_watch import CurrentStore
from featurestore.store import FeatureStore


def unready(stores: CurrentStore, authenticator: Authenticates, is_draining: Callable[[], bool]) -> str:
    """Why requests cannot be answered now; "" if they can. Blocks for as long as a store takes to answer."""
    if is_draining():
        return "The server is draining: it answers what it has, and is sent no more."
    try:
        store = stores.get()
        authenticator.check()
        _require_an_answer(store)
    except FeatureStoreError as error:
        return str(error)
    return ""


def _require_an_answer(store: FeatureStore) -> None:
    """Ask the online tiers whether one of them is there.

    Raises:
        StoreUnavailable: none answers; the message has what each said.
    """
    said = []
    for name, group in group_of_each_tier(store).items():
        try:
            if _answers(store.online.tier(name), group.name):
                return
            said.append(f"the {name} tier has no part that answers")
        except StoreUnavailable as error:
            said.append(str(error))
    if said:
        raise StoreUnavailable("No online tier answers: " + "; ".join(said))


def _answers(tier: Tier, group: str) -> bool:
    for part in tier.parts():
        with suppress(StoreUnavailable):
            part.state(group)
            return True
    return False
