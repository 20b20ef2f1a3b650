"""Run by the Python that has Feast: reads a feature server through Feast's own SDK, and prints what that says, as JSON.

A request with `write` is written first, by the SDK's `write_to_online_store`. Where FEATURES_KEY is set, the SDK sends that key.

python feast_reader.py FOLDER URL < requests.json
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource  # type: ignore[import-not-found]
from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # type: ignore[import-not-found]
from feast.protos.feast.types.Value_pb2 import Value  # type: ignore[import-not-found]
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp  # type: ignore[import-not-found]
from feast.value_type import ValueType  # type: ignore[import-not-found]

TYPES = {
    "speed": Float64,
    "load": Float32,
    "parcels": Int64,
    "floor": Int32,
    "is_busy": Bool,
    "street": String,
    "hired_on": UnixTimestamp,
    "seen_at": UnixTimestamp,
    "taste": Array(Float32),
    "stops": Array(Int64),
    "scores": Array(Float64),
    "tags": Array(String),
}


def open_store(folder: Path, url: str) -> Any:
    """A Feast repository whose online store is a feature server, with the definitions that its users keep."""
    folder.mkdir(parents=True, exist_ok=True)
    auth = "auth:\n  type: oidc\n  token_env_var: FEATURES_KEY\n" if "FEATURES_KEY" in os.environ else ""
    (folder / "feature_store.yaml").write_text(
        f"project: couriers\nregistry: {folder / 'registry.db'}\nprovider: local\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: remote\n  path: {url}\n{auth}"
    )
    store = FeatureStore(repo_path=str(folder))
    courier = Entity(name="courier", join_keys=["courier"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "none.parquet"), timestamp_field="event_timestamp")
    views = [
        FeatureView(name=name, entities=[courier], ttl=timedelta(days=1), schema=schema, source=source)
        for name, schema in {
            "courier_state": [Field(name=name, dtype=dtype) for name, dtype in TYPES.items()],
            "courier_score": [Field(name="score", dtype=Float64), Field(name="speed", dtype=Float64)],
        }.items()
    ]
    service = FeatureService(name="courier_v1", features=[views[0][["speed", "parcels"]]])
    store.apply([courier, *views, service])
    return store


def answer(store: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What one read gives: values and statuses by name, or the error. `times_of` asks for event times as Feast's store has them."""
    if "times_of" in request:
        return {"times": [event_time(store, request["view"], courier) for courier in request["times_of"]]}
    features = request["features"]
    if written := request.get("write"):
        rows = pd.DataFrame({**written["columns"], "event_timestamp": pd.to_datetime(written["times"], utc=True)})
        store.write_to_online_store(written["view"], rows)
    if isinstance(features, str):
        features = store.get_feature_service(features)
    try:
        found = store.get_online_features(
            features=features, entity_rows=request["rows"], full_feature_names=request["full_feature_names"]
        )
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}
    names = list(found.proto.metadata.feature_names.val)
    statuses = {name: list(map(int, block.statuses)) for name, block in zip(names, found.proto.results, strict=True)}
    return {"values": found.to_dict(), "statuses": statuses, "columns": list(found.to_df().columns)}


def event_time(store: Any, view: str, courier: int) -> str:
    """Of one entity: the SDK's answers leave times out, and its remote store takes one time for all that it asks at once."""
    key = EntityKey(join_keys=["courier"], entity_values=[Value(int64_val=courier)])
    table = store.get_feature_view(view)
    ((found, _),) = store._get_provider().online_read(store.config, table, [key], ["speed"])
    return str(found.isoformat())


def main() -> int:
    """Answer every request on standard input."""
    store = open_store(Path(sys.argv[1]), sys.argv[2])
    json.dump([answer(store, request) for request in json.load(sys.stdin)], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
