"""The online tiers of one deployment: opened when first needed, read together, closed together.

Here: which tier stands behind which address, and where a group is materialized. Not here: how tiers are read one after the other
(`reading`), what is materialized (`materialization`), or what a tier does.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from featurestore.clock import Clock
from featurestore.online.breaker import Breaker
from featurestore.online.published import KnownFreshness
from featurestore.online.reading.hot_keys import HotKeyCounts, HotKeys
from featurestore.online.reading.repairs import RepairCounts, Repairs
from featurestore.online.reading.through import ReadThrough, Route
from featurestore.online.tier import Replies, Tier, TierPart

if TYPE_CHECKING:
    from featurestore.declaration.online import TierName
    from featurestore.registry.snapshot import RegisteredGroup
    from featurestore.settings import Settings

MEMORY = "memory://"
"""An address for tests: the tier lives in the `OnlineStores` that opened it."""


class OnlineStores:
    """The tiers that the settings name. Nothing connects before the first call; threads may share it.

    Args:
        settings: Addresses, which tiers a group has, the deadline of reads, and whether hot keys are cached.
        clock: Rules what tiers refuse as of the future and when they let values expire.
        group_of: A group by its stored name, as the registry in use declares it.
    """

    def __init__(self, settings: "Settings", clock: Clock, group_of: Callable[[str], "RegisteredGroup"]) -> None:
        self._settings = settings
        self._clock = clock
        self._group_of = group_of
        self._routes: dict[str, Route] = {}
        self._lock = threading.Lock()
        self._opened: dict[TierName, Tier] = {}
        self._hot_keys = HotKeys(max_entries=settings.hot_keys) if settings.hot_keys else None
        self._repairs = Repairs(lambda: self.tier("hot"))
        self.known_freshness = KnownFreshness()
        """What reads have learned of the published freshness of groups."""
        self._reading = ReadThrough(
            self.tier,
            self._repairs,
            Breaker(time.monotonic),
            deadline_seconds=settings.read_deadline_ms / 1000,
            hot_keys=self._hot_keys,
            known_freshness=self.known_freshness,
        )

    @property
    def hot(self) -> Tier:
        """The tier that is read first.

        Raises:
            InvalidInput: its address is unreadable.
            StoreUnavailable: there is no address, and no embedded server runs beside the root.
        """
        return self.tier("hot")

    @property
    def warm(self) -> Tier:
        """The tier behind it.

        Raises:
            InvalidInput: the deployment has none, or its address is unreadable.
        """
        return self.tier("warm")

    def tier(self, name: "TierName") -> Tier:
        """A tier by its name; `hot` and `warm` have the errors."""
        if (opened := self._opened.get(name)) is not None:
            return opened
        with self._lock:
            if name not in self._opened:
                self._opened[name] = (
                    _open_hot(self._settings, self._clock) if name == "hot" else _open_warm(self._settings, self._clock)
                )
            return self._opened[name]

    def tiers_of(self, group: "RegisteredGroup") -> list[Tier]:
        """The tiers that a group has, in the order in which they are written: the warm one first.

        Raises:
            InvalidInput: the group is declared for a tier that this deployment does not have.
            StoreUnavailable: a tier cannot be opened.
        """
        names = sorted(self._settings.tiers_of(group), key=lambda name: name != "warm")
        return [self.tier(name) for name in names]

    def parts_of(self, group: "RegisteredGroup") -> list[TierPart]:
        """What a group is materialized into, the warm tier's parts first.

        Raises:
            InvalidInput: the group is declared for a tier that this deployment does not have.
            StoreUnavailable: a tier cannot be opened, or does not say which parts it has.
        """
        return [part for tier in self.tiers_of(group) for part in tier.parts()]

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        """Read keys of several groups through their tiers, within the deadline of the settings.

        Args:
            keys_by_group: Keys of each group as `keys.online_keys` builds them; doubles allowed, any number.
            timeout_seconds: Where the caller has less time than the deadline.

        Returns:
            For each group its replies, in key order. What servers do shows in them, never as an error.

        Raises:
            UnknownName: a group is not registered.
            InvalidInput: a group is declared for a tier that this deployment does not have.
            StoreUnavailable: a tier cannot be opened at all, and a group has no other.
        """
        wanted = {name: (self._route(name), keys) for name, keys in keys_by_group.items()}
        return self._reading.read(wanted, timeout_seconds)

    def _route(self, name: str) -> Route:
        route = self._routes.get(name)
        if route is None:
            group = self._group_of(name)
            route = self._routes[name] = Route(self._settings.tiers_of(group), group.ttl, group.message_name)
        return route

    @property
    def repair_counts(self) -> RepairCounts:
        """What became of the values that were to be put back into the hot tier."""
        return self._repairs.counts

    @property
    def hot_key_counts(self) -> HotKeyCounts | None:
        """How the cache of this process is used; None if it is off."""
        return self._hot_keys.counts if self._hot_keys else None

    def wait_for_repairs(self, timeout_seconds: float) -> bool:
        """Wait until nothing is left to put back into the hot tier; False if that took too long."""
        return self._repairs.wait_until_idle(timeout_seconds)

    def close(self) -> None:
        """Stop putting back, and close what was opened."""
        self._repairs.close()
        with self._lock:
            opened, self._opened = self._opened, {}
        for tier in opened.values():
            tier.close()


def _open_hot(settings: "Settings", clock: Clock) -> Tier:
    if settings.online_url.startswith(MEMORY):
        return _in_memory("hot", clock)
    from featurestore.online.redis.embedded import embedded_url
    from featurestore.online.redis.hot import open_hot_tier

    return open_hot_tier(settings.online_url or embedded_url(settings.root), clock)


def _open_warm(settings: "Settings", clock: Clock) -> Tier:
    if settings.warm_url.startswith(MEMORY):
        return _in_memory("warm", clock)
    from featurestore.online.dynamo.tier import DynamoTier

    tier = DynamoTier(settings.warm_url, clock)
    tier.open()
    return tier


def _in_memory(name: "TierName", clock: Clock) -> Tier:
    from featurestore.online.memory import MemoryTier

    return MemoryTier(name, clock)
