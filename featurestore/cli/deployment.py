"""The deployment that a command works on: where it is, and the clock. Light: it opens and imports nothing by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from featurestore.clock import Clock

if TYPE_CHECKING:
    from featurestore.freshness.journal import FreshnessJournal
    from featurestore.location import Location
    from featurestore.metadata.book import BackfillBook
    from featurestore.store import FeatureStore


@dataclass(frozen=True)
class Deployment:
    """What the FEATURESTORE_* variables and the global options say.

    Args:
        environment: The variables, with those that options set in their place.
        clock: Rules ages, expiry, and what a materialization may publish.
    """

    environment: Mapping[str, str]
    clock: Clock

    @cached_property
    def store(self) -> "FeatureStore":
        from featurestore.settings import Settings
        from featurestore.store import FeatureStore

        return FeatureStore(Settings.from_env(self.environment), clock=self.clock)

    @cached_property
    def book(self) -> "BackfillBook":
        """The book of backfills; its database is opened when it is first asked for."""
        return self.store.settings.book(self.clock)

    @cached_property
    def freshness_journal(self) -> "FreshnessJournal":
        """What is kept of freshness; its database is opened when it is first asked for."""
        return self.store.settings.freshness_journal(self.clock)

    @property
    def root(self) -> "Location":
        return self.store.settings.root
