"""The store as the newest registry has it: looked at again now and then, so that an `apply` needs no restart.

Not here: what is read from the store.
"""

import asyncio
import logging
from collections.abc import Callable

from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.registry.history import RegistryHistory
from featurestore.serving.opening import open_tiers
from featurestore.store import FeatureStore

RETIRED_SECONDS = 30.0
"""How long a store is left open after another took its place: what was begun with it has ended by then."""

log = logging.getLogger("featurestore.serving")


class CurrentStore:
    """A store whose registry is the newest one.

    Rules: a store that was handed out stays right for what was resolved with it; a registry that cannot be read, or is
    damaged, leaves the last good one in place.

    Args:
        open_store: Makes a new store; nothing of it connects before it is taken.
    """

    def __init__(self, open_store: Callable[[], FeatureStore]) -> None:
        self._open = open_store
        self._store: FeatureStore | None = None
        self._number = 0

    def get(self) -> FeatureStore:
        """The store.

        Raises:
            StoreUnavailable: no registry could be read yet.
        """
        if self._store is None:
            raise StoreUnavailable("The registry could not be read yet. Try again; the server's log has the reason.")
        return self._store

    def refresh(self) -> bool:
        """Look whether another registry rules, and take it; blocks for as long as reading it takes, and meeting the tiers.

        Returns:
            Whether there is a new store.

        Raises:
            FeatureStoreError: the registry cannot be read; what was there before stays.
        """
        store = self._open()
        number = RegistryHistory(store.settings.root).newest_number()
        if self._store is not None and number == self._number:
            return False
        digest = store.registry.digest
        open_tiers(store)
        log.info("Serving registry %s", digest[:12])
        self._store, self._number = store, number
        return True

    async def follow(self, interval_seconds: float, on_change: Callable[[], None]) -> None:
        """Refresh again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            last = self._store
            try:
                is_new = await asyncio.to_thread(self.refresh)
            except FeatureStoreError as error:
                log.warning("The registry could not be read again: %s", error)
                continue
            if is_new:
                on_change()
                if last is not None and last is not self._store:
                    asyncio.get_running_loop().call_later(RETIRED_SECONDS, last.close)

    def close(self) -> None:
        """Close what the store opened."""
        if self._store is not None:
            self._store.close()
