"""Declarations: plain frozen values, checked when they are made. No store, file or socket is known here."""

from featurestore.declaration.backfill import Backfill, KnownValue, Proxy, RowCount, Snapshots
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.decorator import feature_group
from featurestore.declaration.feature import Drift, Entity, Feature
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.online import Online
from featurestore.declaration.pushed import pushed_group
from featurestore.declaration.service import FeatureService
from featurestore.declaration.source import Source
from featurestore.declaration.tier import DAILY, HOURLY, NEAR_REAL_TIME, REAL_TIME, STATIC, FreshnessTier
from featurestore.declaration.windows import Daily, Hourly, Pushed, Static, TimeWindow

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
    "FreshnessTier",
    "Hourly",
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
    "pushed_group",
]
