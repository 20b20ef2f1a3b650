"""Where a deployment keeps things, read from the environment when asked and never at import.

| variable | meaning | default |
|---|---|---|
| FEATURESTORE_ROOT | folder or s3://bucket/prefix of tables, staging and registry | `.featurestore` |
| FEATURESTORE_LANDING | folder with one folder of landing files a source | `{root}/landing` |
| FEATURESTORE_ONLINE_URL | address of the hot tier: redis://, rediss://, unix://, or redis+cluster:// of some nodes | the embedded Valkey of the root |
| FEATURESTORE_WARM_URL | table of the warm tier: dynamodb://table?region=...&endpoint=... | none: there is no warm tier |
| FEATURESTORE_READ_DEADLINE_MS | limit on an online read, all tiers together | 100 |
| FEATURESTORE_HOT_KEYS | messages that a process keeps for a second after it read them; 0: none | 0 |
| FEATURESTORE_METADATA_URL | database of backfills, API keys and their audit: postgresql://... or sqlite:///... | `metadata.db` in a local root |
| FEATURESTORE_AUTH | on: the server asks for API keys; off: it serves whoever reaches it | off |
| FEATURESTORE_SCHEDULE | off: nothing is launched for due windows and landing files, as for a restored copy of a store | on |
| FEATURESTORE_ALERTS | file of sinks and routes: who is told of what is late | none: nobody is told |
| FEATURESTORE_DAGSTER_URL | where Dagster's pages are, for links in alerts and for `backfill` | none: no links; `backfill` tries port 3000 here |
| FEATURESTORE_SILENT_SECONDS | a run whose process gives no sign of life for so long is ended and retried | 120 |
| FEATURESTORE_HUNG_SECONDS | a run whose process lives while its work does not move for so long is too; 0: never | 1800 |
| AWS_* | credentials and endpoint of an S3 root, as deltalake and Polars take them | |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput
from featurestore.location import Location

if TYPE_CHECKING:
    from sqlalchemy import URL

    from featurestore.alerts.book import AlertBook
    from featurestore.alerts.routes import Routing
    from featurestore.auth.book import KeyBook
    from featurestore.declaration.online import TierName
    from featurestore.freshness.journal import FreshnessJournal
    from featurestore.heartbeat.book import HeartbeatBook
    from featurestore.heartbeat.worker import Patience
    from featurestore.metadata.book import BackfillBook
    from featurestore.registry.snapshot import RegisteredGroup

DEFAULT_ROOT = ".featurestore"
LOCK_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment's places. An empty `online_url` means the embedded server beside a local root, an empty
    `metadata_url` a file in it, an empty `warm_url` no warm tier."""

    root: Location
    landing: Location
    online_url: str = field(default="", repr=False)
    metadata_url: str = field(default="", repr=False)
    warm_url: str = field(default="", repr=False)
    auth: bool = False
    read_deadline_ms: int = 100
    hot_keys: int = 0
    schedule: bool = True
    alerts: str = ""
    dagster_url: str = ""
    silent_seconds: int = 120
    hung_seconds: int = 1800

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the variables above.

        Args:
            environment: Instead of `os.environ`.

        Raises:
            InvalidInput: FEATURESTORE_AUTH or FEATURESTORE_SCHEDULE is neither on nor off, or a number is none.
        """
        env = os.environ if environment is None else environment
        options = {
            name: value for name, value in env.items() if name.startswith("AWS_") or name == "aws_conditional_put"
        }
        root = Location(env.get("FEATURESTORE_ROOT") or DEFAULT_ROOT)
        if not root.is_local:
            root = Location(root.uri, options)
        landing = env.get("FEATURESTORE_LANDING")
        return cls(
            root,
            Location(landing, options) if landing else root.child("landing"),
            env.get("FEATURESTORE_ONLINE_URL", ""),
            env.get("FEATURESTORE_METADATA_URL", ""),
            env.get("FEATURESTORE_WARM_URL", ""),
            _is_on("FEATURESTORE_AUTH", env.get("FEATURESTORE_AUTH") or "off"),
            _number("FEATURESTORE_READ_DEADLINE_MS", env.get("FEATURESTORE_READ_DEADLINE_MS") or "100", least=1),
            _number("FEATURESTORE_HOT_KEYS", env.get("FEATURESTORE_HOT_KEYS") or "0", least=0),
            _is_on("FEATURESTORE_SCHEDULE", env.get("FEATURESTORE_SCHEDULE") or "on"),
            env.get("FEATURESTORE_ALERTS", ""),
            env.get("FEATURESTORE_DAGSTER_URL", ""),
            _number("FEATURESTORE_SILENT_SECONDS", env.get("FEATURESTORE_SILENT_SECONDS") or "120", least=1),
            _number("FEATURESTORE_HUNG_SECONDS", env.get("FEATURESTORE_HUNG_SECONDS") or "1800", least=0),
        )

    def tiers_of(self, group: "RegisteredGroup") -> "tuple[TierName, ...]":
        """Where a group is served from, the tier that is read first in front.

        Raises:
            InvalidInput: the group is declared warm, and this deployment has no warm tier.
        """
        if "warm" in group.tiers and not self.warm_url:
            raise InvalidInput(
                f"Group {group.name!r} is declared for the warm tier, and none is configured. Set FEATURESTORE_WARM_URL to "
                "dynamodb://table?region=..., or declare Online(tiers=('hot',))."
            )
        if group.tiers:
            return tuple(sorted(group.tiers))
        return ("warm",) if self.warm_url else ("hot",)

    def book(self, clock: Clock = system_clock) -> "BackfillBook":
        """The book of backfills, in the metadata database; its tables are made if there are none.

        Raises:
            InvalidInput: the root is in a bucket and no database is named, or its URL cannot be used.
            StoreUnavailable: the database cannot be reached.
        """
        from featurestore.metadata.book import BackfillBook

        return BackfillBook.open(self.metadata_url or self._metadata_file(), clock)

    def key_book(self, clock: Clock = system_clock, *, lock_seconds: float = LOCK_SECONDS) -> "KeyBook":
        """The book of API keys, in the metadata database; nothing is opened yet, and `prepare` makes its tables.

        Args:
            lock_seconds: How long a writer waits for another one to end.

        Raises:
            InvalidInput: the root is in a bucket and no database is named, or its URL cannot be used.
        """
        from featurestore.auth.book import KeyBook
        from featurestore.metadata.database import Database

        return KeyBook(Database(self.metadata_url or self._metadata_file(), lock_seconds=lock_seconds), clock)

    def freshness_journal(self, clock: Clock = system_clock) -> "FreshnessJournal":
        """What is kept of freshness, in the metadata database; its tables are made if there are none.

        Raises:
            InvalidInput: the root is in a bucket and no database is named, or its URL cannot be used.
            StoreUnavailable: the database cannot be reached.
        """
        from featurestore.freshness.journal import FreshnessJournal

        return FreshnessJournal.open(self.metadata_url or self._metadata_file(), clock)

    def alert_book(self, clock: Clock = system_clock) -> "AlertBook":
        """The book of alerts, in the metadata database; its tables are made if there are none.

        Raises:
            InvalidInput: the root is in a bucket and no database is named, or its URL cannot be used.
            StoreUnavailable: the database cannot be reached.
        """
        from featurestore.alerts.book import AlertBook

        return AlertBook.open(self.metadata_url or self._metadata_file(), clock)

    def alert_routing(self) -> "Routing":
        """Who is told of what, by the file that FEATURESTORE_ALERTS names.

        Raises:
            InvalidInput: the file cannot be read, or says what cannot be.
        """
        from featurestore.alerts.routes import read_routing

        return read_routing(self.alerts)

    def heartbeats(self, clock: Clock = system_clock) -> "HeartbeatBook":
        """The heartbeats of runs, and the runs that stood still; its tables are made if there are none.

        Raises:
            InvalidInput: the root is in a bucket and no database is named, or its URL cannot be used.
            StoreUnavailable: the database cannot be reached.
        """
        from featurestore.heartbeat.book import HeartbeatBook

        return HeartbeatBook.open(self.metadata_url or self._metadata_file(), clock)

    @property
    def patience(self) -> "Patience":
        """How long a run may stand still."""
        from featurestore.heartbeat.worker import Patience

        return Patience(timedelta(seconds=self.silent_seconds), timedelta(seconds=self.hung_seconds))

    def _metadata_file(self) -> "URL":
        from sqlalchemy import URL

        if not self.root.is_local:
            raise InvalidInput(
                f"The root {self.root.uri} is in a bucket, which holds no metadata database. Set "
                "FEATURESTORE_METADATA_URL to postgresql://user:password@host:5432/database."
            )
        return URL.create("sqlite", database=str(self.root.path / "metadata.db"))


def _is_on(variable: str, value: str) -> bool:
    """What is neither on nor off is refused: a server must not be open because of a misspelling."""
    if value.lower() not in ("on", "off"):
        raise InvalidInput(f"{variable} is {value!r}. Set it to on or off.")
    return value.lower() == "on"


def _number(variable: str, value: str, *, least: int) -> int:
    if not value.isdecimal() or int(value) < least:
        raise InvalidInput(f"{variable} is {value!r}. Set it to a whole number from {least} on.")
    return int(value)
