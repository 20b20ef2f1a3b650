"""featurestore: point-in-time correct training sets, and the same values online.

A data scientist declares feature groups, joins labels, and reads values; no Dagster, Redis or boto3 is imported by it.
"""

from featurestore.declaration import (
    Catalog,
    Daily,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    Hourly,
    Online,
    Source,
    Static,
    TimeWindow,
    feature_group,
)
from featurestore.errors import FeatureStoreError
from featurestore.pit import JoinMode, point_in_time_join
from featurestore.store import FeatureStore

__all__ = [
    "Catalog",
    "Daily",
    "Entity",
    "Feature",
    "FeatureGroup",
    "FeatureService",
    "FeatureStore",
    "FeatureStoreError",
    "Hourly",
    "JoinMode",
    "Online",
    "Source",
    "Static",
    "TimeWindow",
    "feature_group",
    "point_in_time_join",
]
