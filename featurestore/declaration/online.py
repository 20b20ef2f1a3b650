"""`Online`: that a group is served, from which tiers, for how long. Not here: the tiers."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from featurestore.declaration.types import require_duration, require_items
from featurestore.errors import DeclarationError

TierName = Literal["hot", "warm"]


@dataclass(frozen=True, slots=True)
class Online:
    """That a group is served online, and for how long a value lives after its event time.

    Args:
        ttl: Time to live; None only for static groups.
        tiers: Where it is served from: "hot" (Redis or Valkey), "warm" (DynamoDB), or both. None: the warm tier for hourly, daily and
            static groups where the deployment has one, else the hot one.

    Raises:
        DeclarationError: `tiers` is empty, repeats a tier, or names another.
    """

    ttl: timedelta | None = timedelta(days=7)
    tiers: tuple[TierName, ...] | None = None

    def __post_init__(self) -> None:
        if self.ttl is not None:
            require_duration("Online: ttl", self.ttl, "Online(ttl=timedelta(days=7))")
        if self.tiers is not None:
            require_items("Online: tiers", self.tiers, str, "tiers=('hot',), ('warm',) or ('hot', 'warm')")
        if self.tiers is not None and sorted(self.tiers) not in (["hot"], ["warm"], ["hot", "warm"]):
            raise DeclarationError(
                f"Online(tiers={self.tiers!r}) is none of ('hot',), ('warm',) and ('hot', 'warm'). Leave tiers out to let the "
                "deployment decide."
            )
