"""The one resource: where the store lives, and what its clock says."""

from datetime import datetime

import dagster as dg

from featurestore.clock import Clock, system_clock
from featurestore.declaration.windows import utc
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Hands out the stores of one deployment. What is left empty comes from the environment when a run asks for it.

    Args:
        root: Folder or s3:// prefix of the store.
        landing: Folder of the landing files.
        online_url: Address of the online store.
        now: A fixed instant for replays and tests, ISO 8601 with its zone; empty means the system clock.
    """

    root: str = ""
    landing: str = ""
    online_url: str = ""
    now: str = ""

    def settings(self) -> Settings:
        env = Settings.from_env()
        return Settings(
            root=Location(self.root, env.root.options) if self.root else env.root,
            landing=Location(self.landing, env.landing.options) if self.landing else env.landing,
            online_url=self.online_url or env.online_url,
            metadata_url=env.metadata_url,
            warm_url=env.warm_url,
        )

    def clock(self) -> Clock:
        if not self.now:
            return system_clock
        instant = utc(datetime.fromisoformat(self.now), name="now")
        return lambda: instant

    def offline(self) -> OfflineStore:
        settings = self.settings()
        return OfflineStore(settings.root, RegistryHistory(settings.root).require_current(), self.clock())

    def feature_store(self) -> FeatureStore:
        return FeatureStore(self.settings(), clock=self.clock())
