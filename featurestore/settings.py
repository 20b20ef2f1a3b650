"""Where a deployment keeps things, read from the environment when asked and never at import.

| variable | meaning | default |
|---|---|---|
| FEATURESTORE_ROOT | folder or s3://bucket/prefix of tables, staging and registry | `.featurestore` |
| FEATURESTORE_LANDING | folder with one folder of landing files a source | `{root}/landing` |
| FEATURESTORE_ONLINE_URL | address of the hot tier: redis://, rediss://, unix://, or redis+cluster:// of some nodes | the embedded Valkey of the root |
| FEATURESTORE_WARM_URL | table of the warm tier: dynamodb://table?region=...&endpoint=... | none: there is no warm tier |
| FEATURESTORE_METADATA_URL | database of backfills and their audit: postgresql://... or sqlite:///... | `metadata.db` in a local root |
| AWS_* | credentials and endpoint of an S3 root, as deltalake and Polars take them | |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput
from featurestore.location import Location

if TYPE_CHECKING:
    from sqlalchemy import URL

    from featurestore.declaration.group import TierName
    from featurestore.metadata.book import BackfillBook
    from featurestore.registry.snapshot import RegisteredGroup

DEFAULT_ROOT = ".featurestore"


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment's places. An empty `online_url` means the embedded server beside a local root, an empty
    `metadata_url` a file in it, an empty `warm_url` no warm tier."""

    root: Location
    landing: Location
    online_url: str = field(default="", repr=False)
    metadata_url: str = field(default="", repr=False)
    warm_url: str = field(default="", repr=False)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the variables above.

        Args:
            environment: Instead of `os.environ`.
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

    def _metadata_file(self) -> "URL":
        from sqlalchemy import URL

        if not self.root.is_local:
            raise InvalidInput(
                f"The root {self.root.uri} is in a bucket, which holds no metadata database. Set "
                "FEATURESTORE_METADATA_URL to postgresql://user:password@host:5432/database."
            )
        return URL.create("sqlite", database=str(self.root.path / "metadata.db"))
