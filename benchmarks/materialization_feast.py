"""Feast's side of `materialization`: `materialize` of one file through Feast's own SDK, run by the Python that Feast is installed in.

Not imported by anything here: it knows Feast, and nothing of this library. It is given a Parquet file with `id`,
`event_timestamp` and doubles, and the address of a Redis server, and prints the seconds that `materialize` took each time.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType  # type: ignore[import-not-found]
from feast.types import Float64  # type: ignore[import-not-found]


def store_of(path: Path, address: str) -> Any:
    """A Feast store with one view of the file."""
    config = RepoConfig(
        project="beside",
        provider="local",
        registry={"path": str(path.with_name("registry.db")), "cache_ttl_seconds": 0},
        online_store={"type": "redis", "connection_string": address},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    names = [name for name in pd.read_parquet(path).columns if name not in ("id", "event_timestamp")]
    thing = Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="profile",
        entities=[thing],
        ttl=timedelta(days=7),
        schema=[Field(name=name, dtype=Float64) for name in names],
        source=FileSource(name="rows", path=str(path), timestamp_field="event_timestamp"),
        online=True,
    )
    store = FeatureStore(config=config)
    store.apply([thing, view])
    return store


def main(path: Path, address: str, repeats: int) -> None:
    """Materialize the day before and the day of the rows, each time as if for the first time."""
    at = pd.read_parquet(path, columns=["event_timestamp"])["event_timestamp"].iloc[0].to_pydatetime()
    store, seconds = store_of(path, address), []
    for _ in range(repeats):
        begun = time.perf_counter()
        store.materialize(at - timedelta(days=1), at + timedelta(days=1), disable_event_timestamp=False)
        seconds.append(time.perf_counter() - begun)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
