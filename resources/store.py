"""The one resource: where the store lives, and what its clock says."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import dagster as dg

from featurestore.clock import Clock, system_clock
from featurestore.declaration.windows import utc
from featurestore.errors import InvalidInput
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from resources.heartbeat import Heart

USUAL_VARIABLE = "FEATURESTORE_ONLINE_URL"


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Hands out the stores of one deployment. What is left empty comes from the environment when a run asks for it.

    Args:
        root: Folder or s3:// prefix of the store.
        landing: Folder of the landing files.
        online_url_variable: Name of the environment variable that holds the address of the online store, where it is not the
            usual one. The address itself may hold a password, and Dagster shows and keeps what a resource is configured with.
        now: A fixed instant for replays and tests, ISO 8601 with its zone; empty means the system clock.
    """

    root: str = ""
    landing: str = ""
    online_url_variable: str = USUAL_VARIABLE
    now: str = ""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["StoreResource", None, None]:
        """The store as a run gets it: the run's heart beats while it has it. A sensor has none."""
        if context.run is None:
            yield self
            return
        settings = self.settings()
        with Heart(context.run.run_id, settings.patience.beat, settings.heartbeats).beating():
            yield self

    def settings(self) -> Settings:
        """What this resource says, and for the rest the environment.

        Raises:
            InvalidInput: the variable named is not set.
        """
        env = Settings.from_env()
        return replace(
            env,
            root=Location(self.root, env.root.options) if self.root else env.root,
            landing=Location(self.landing, env.landing.options) if self.landing else env.landing,
            online_url=self._online_url(),
        )

    def _online_url(self) -> str:
        """What is named is not repeated: someone may have written an address in the place of a name."""
        if self.online_url_variable not in os.environ and self.online_url_variable != USUAL_VARIABLE:
            raise InvalidInput(
                "StoreResource's online_url_variable is not set in the environment of this run. Give the name of a variable that "
                "holds the address, never the address."
            )
        return os.environ.get(self.online_url_variable, "")

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
