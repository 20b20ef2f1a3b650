"""Where a deployment keeps things, read from the environment when asked and never at import.

| variable | meaning | default |
|---|---|---|
| FEATURESTORE_ROOT | folder or s3://bucket/prefix of tables, staging and registry | `.featurestore` |
| FEATURESTORE_LANDING | folder with one folder of landing files a source | `{root}/landing` |
| FEATURESTORE_ONLINE_URL | redis:// or rediss:// address of the online store | the embedded Valkey of the root |
| AWS_* | credentials and endpoint of an S3 root, as deltalake and Polars take them | |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from featurestore.location import Location

DEFAULT_ROOT = ".featurestore"


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment's places. An empty `online_url` means the embedded server beside a local root."""

    root: Location
    landing: Location
    online_url: str = field(default="", repr=False)

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
        )
