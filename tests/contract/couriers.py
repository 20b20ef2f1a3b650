"""A small deployment whose values are pushed: what the tests of the feature server ask for."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.clock import Clock
from featurestore.declaration import Catalog, Entity, Feature, FeatureGroup, FeatureService, Online, pushed_group
from featurestore.registry.history import RegistryHistory
from featurestore.serving.options import Limits
from featurestore.store import FeatureStore

MEMORY = "memory://"
PATIENT = Limits(timeout_seconds=30.0, longest_timeout_seconds=30.0)
"""Of a server in this process, where its time is not what is looked at: tests share their machine."""
DAY, HOUR, MICROSECOND = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWNER = "team:couriers"
courier = Entity("courier", keys={"courier": pl.Int64})
depot = Entity("depot", keys={"town": pl.String, "number": pl.Int32, "opened": pl.Date, "is_open": pl.Boolean})
FEATURES = [
    Feature("speed", pl.Float64, "Speed"),
    Feature("load", pl.Float32, "Load"),
    Feature("parcels", pl.Int64, "Parcels"),
    Feature("floor", pl.Int32, "Floor"),
    Feature("is_busy", pl.Boolean, "Busy"),
    Feature("street", pl.String, "Street"),
    Feature("hired_on", pl.Date, "Hired on"),
    Feature("seen_at", pl.Datetime("us", "UTC"), "Last seen at"),
    Feature("taste", pl.Array(pl.Float32, 3), "Taste"),
    Feature("stops", pl.List(pl.Int64), "Stops", max_length=4),
    Feature("scores", pl.List(pl.Float64), "Scores", max_length=4),
    Feature("tags", pl.List(pl.String), "Tags", max_length=4),
]
VALUES: dict[str, Any] = {
    "speed": 2.5,
    "load": 0.25,
    "parcels": 2**60,
    "floor": -7,
    "is_busy": True,
    "street": "Grünerløkka 🥪",
    "hired_on": date(2026, 2, 28),
    "seen_at": NOW - HOUR - MICROSECOND,
    "taste": [1.0, -0.5, 0.0],
    "stops": [1, -2, 3],
    "scores": [0.1, 0.2],
    "tags": ["rye", ""],
}
NULLS: dict[str, Any] = dict.fromkeys(VALUES)
WHOLE, EMPTY, OLD, ABSENT = 1, 2, 3, 99
"""Couriers: one with every value, one with nulls, one whose values are too old, one that is not there."""
OSLO = {"town": "Oslo", "number": 4, "opened": date(1999, 12, 31), "is_open": True}


def declared(name: str, features: list[Feature], entity: Entity = courier, *, online: bool = True) -> FeatureGroup:
    """A pushed group; values older than a day are not served."""
    return pushed_group(
        name=name,
        entity=entity,
        features=features,
        owner=OWNER,
        description="Pushed in tests.",
        online=Online(ttl=7 * DAY) if online else None,
        max_age=DAY,
    )


courier_state = declared("courier_state", FEATURES)
courier_score = declared("courier_score", [Feature("score", pl.Float64, "Score"), Feature("speed", pl.Float64, "Rank")])
courier_past = declared("courier_past", [Feature("trips", pl.Int64, "Trips")], online=False)
depot_state = declared("depot_state", [Feature("vans", pl.Int64, "Vans")], depot)
courier_v1 = FeatureService("courier_v1", features=[courier_state["speed"], courier_state["parcels"]], owner=OWNER)
GROUPS = [courier_state, courier_score, courier_past, depot_state]
CATALOG = Catalog([], GROUPS, [courier_v1])
EVERYTHING = [f"courier_state:{feature.name}" for feature in FEATURES]


def clock() -> datetime:
    """The tests' present moment."""
    return NOW


class KeptStore(FeatureStore):
    """A store in memory outlives the applications that serve it: what is closed would be gone."""

    def close(self) -> None:
        """Stay open."""


def environment(folder: Path, online_url: str) -> dict[str, str]:
    """The variables of a deployment in a folder; reads may take long, since tests share their machine."""
    return {
        "FEATURESTORE_ROOT": str(folder / "store"),
        "FEATURESTORE_ONLINE_URL": online_url,
        "FEATURESTORE_READ_DEADLINE_MS": "5000",
    }


def deploy(variables: dict[str, str], at: Clock = clock) -> FeatureStore:
    """Apply the catalogue and push some rows."""
    kind = KeptStore if variables["FEATURESTORE_ONLINE_URL"] == MEMORY else FeatureStore
    store = kind.from_env(variables)
    store.clock = at
    now = at()
    RegistryHistory(store.settings.root).apply(CATALOG, at, "tests")
    values = {**VALUES, "seen_at": now - HOUR - MICROSECOND}
    states = [
        {"courier": WHOLE, "event_time": now - HOUR, **values},
        {"courier": EMPTY, "event_time": now - 2 * HOUR + MICROSECOND, **NULLS},
        {"courier": OLD, "event_time": now - 2 * DAY, **values},
    ]
    push(store, "courier_state", states)
    push(store, "courier_score", [{"courier": WHOLE, "event_time": now - HOUR, "score": 0.5, "speed": 9.0}])
    push(store, "depot_state", [{**OSLO, "event_time": now - HOUR, "vans": 3}])
    store.materialize()
    return store


def push(store: FeatureStore, group: str, rows: list[dict[str, Any]]) -> None:
    """Put rows into the table; `materialize` brings them online."""
    schema = {name: dtype for name, dtype in store.registry.group(group).stored_schema.items() if name in rows[0]}
    store.push(group, pl.DataFrame(rows, schema=schema), "offline")
