"""What a user may import, as a list: a change of it shows in a diff."""

import featurestore


def test_every_public_name_can_be_imported_and_nothing_else_is_shown() -> None:
    assert dir(featurestore) == sorted(featurestore.__all__)
    assert [name for name in featurestore.__all__ if getattr(featurestore, name, None) is None] == []


def test_the_public_names_are_these() -> None:
    classes = {"Catalog", "Entity", "Feature", "FeatureGroup", "FeatureService", "FeatureStore", "FeatureStoreError"}
    times = {"Daily", "Hourly", "Pushed", "Static", "TimeWindow", "Online", "Source", "JoinMode"}
    tiers = {"DAILY", "HOURLY", "NEAR_REAL_TIME", "REAL_TIME", "STATIC", "FreshnessTier"}
    backfills = {"Backfill", "Drift", "KnownValue", "Proxy", "RowCount", "Snapshots"}
    assert set(featurestore.__all__) == classes | times | tiers | backfills | {
        "feature_group",
        "point_in_time_join",
        "pushed_group",
    }


def test_a_name_that_is_not_there_is_refused() -> None:
    assert not hasattr(featurestore, "FeatureView")
