"""featurestore: point-in-time correct training sets, and the same values online.

A data scientist declares feature groups, joins labels, and reads values; no Dagster, Redis or boto3 is imported by it.
Names are imported when they are first used, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.declaration import (
        DAILY,
        HOURLY,
        NEAR_REAL_TIME,
        REAL_TIME,
        STATIC,
        Backfill,
        Catalog,
        Daily,
        Drift,
        Entity,
        Feature,
        FeatureGroup,
        FeatureService,
        FreshnessTier,
        Hourly,
        KnownValue,
        Online,
        Proxy,
        Pushed,
        RowCount,
        Snapshots,
        Source,
        Static,
        TimeWindow,
        feature_group,
        pushed_group,
    )
    from featurestore.errors import FeatureStoreError
    from featurestore.pit import JoinMode, point_in_time_join
    from featurestore.store import FeatureStore

__all__ = [
    "DAILY",
    "HOURLY",
    "NEAR_REAL_TIME",
    "REAL_TIME",
    "STATIC",
    "Backfill",
    "Catalog",
    "Daily",
    "Drift",
    "Entity",
    "Feature",
    "FeatureGroup",
    "FeatureService",
    "FeatureStore",
    "FeatureStoreError",
    "FreshnessTier",
    "Hourly",
    "JoinMode",
    "KnownValue",
    "Online",
    "Proxy",
    "Pushed",
    "RowCount",
    "Snapshots",
    "Source",
    "Static",
    "TimeWindow",
    "feature_group",
    "point_in_time_join",
    "pushed_group",
]

_HOME = {"FeatureStoreError": "errors", "JoinMode": "pit", "point_in_time_join": "pit", "FeatureStore": "store"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'featurestore' has no attribute {name!r}")
    return getattr(import_module(f"featurestore.{_HOME.get(name, 'declaration')}"), name)


def __dir__() -> list[str]:
    return __all__
