"""Feast's side of `online_read`: the same values through Feast's own SDK, run by the Python that Feast is installed in.

Not imported by anything here: it knows Feast, and nothing of this library. It is given a folder with one Parquet file a group
and the server's socket, writes every group to the server, and then answers each line on standard input, a shape such as
`{"groups": 3, "entities": 500, "seconds": 0.3}`, by one line of latencies in seconds.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType  # type: ignore[import-not-found]
from feast.types import Array, Bool, Float32, Float64, Int64, String  # type: ignore[import-not-found]

KINDS = {"double": Float64, "int64": Int64, "bool": Bool, "string": String, "vector": Array(Float32)}


def kind_of(column: Any) -> str:
    """The Feast type of a pandas column."""
    if column.dtype == object:
        return "string" if isinstance(column.iloc[0], str) else "vector"
    return {"float64": "double", "int64": "int64", "bool": "bool"}[str(column.dtype)]


def view_of(path: Path, frame: Any, entity: Any) -> Any:
    """A feature view of one group's file."""
    names = [name for name in frame.columns if name not in ("id", "event_timestamp")]
    schema = [Field(name=name, dtype=KINDS[kind_of(frame[name])]) for name in names]
    source = FileSource(name=f"{path.stem}_source", path=str(path), timestamp_field="event_timestamp")
    return FeatureView(
        name=path.stem, entities=[entity], ttl=timedelta(days=7), schema=schema, source=source, online=True
    )


def fill(folder: Path, socket_path: str) -> tuple[Any, list[Any]]:
    """A Feast store with a view a file, and every row of each written online."""
    config = RepoConfig(
        project="beside",
        provider="local",
        registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 0},
        online_store={"type": "redis", "connection_string": f"localhost:0,unix_socket_path={socket_path}"},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    entity = Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)
    frames = {path: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    views = [view_of(path, frame, entity) for path, frame in frames.items()]
    store.apply([entity, *views])
    for path, frame in frames.items():
        store.write_to_online_store(path.stem, frame)
    return store, views


def measure(store: Any, views: list[Any], groups: int, entities: int, seconds: float) -> dict[str, Any]:
    """Latencies of reads of the first entities: of the call alone, and with the values taken out as Python's; CPU a call."""
    features = [f"{view.name}:{field.name}" for view in views[:groups] for field in view.features]
    rows = [{"id": number} for number in range(entities)]
    taken: dict[str, Any] = {"read": [], "values": []}
    cpu_begun = time.process_time()
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at or not taken["read"]:
        begun = time.perf_counter()
        answer = store.get_online_features(features=features, entity_rows=rows)
        read = time.perf_counter()
        values = answer.to_dict()
        done = time.perf_counter()
        if len(values) != len(features) + 1 or None in values[views[0].features[0].name]:
            raise SystemExit("Feast did not find what it was given.")
        taken["read"].append(read - begun)
        taken["values"].append(done - begun)
    return taken | {"cpu": (time.process_time() - cpu_begun) / len(taken["read"])}


def main(folder: str, socket_path: str) -> None:
    """Fill, say so, and measure whatever is asked until the input ends."""
    store, views = fill(Path(folder), socket_path)
    measure(store, views, len(views), 1, 0.0)
    print("filled", flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(store, views, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
