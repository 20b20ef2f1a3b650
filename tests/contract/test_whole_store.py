"""The whole way from landing files to a training set and an online read, the same on a folder and in a bucket."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.declaration.group import FeatureGroup
from featurestore.landing import landing_files
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from featurestore.training import build_training_set
from tests.catalogs import DAY, HOUR, T0, Clock, days, hours, landing_file, register, sale, sales, shops
from tests.contract.seaweed import seaweed

NOW = T0 + 4 * DAY
SALES = [sale(i, T0 + i // 2 * HOUR, amount=float(5 + i % 7), shop="ab"[i % 2]) | {"number": i % 3} for i in range(144)]
REGISTER = [{"shop": "a", "area": 100, "town": "Ulm"}, {"shop": "b", "area": 50, "town": "Zürich: Höngg"}]


@dataclass(frozen=True)
class Result:
    """What a store of the shops holds and answers, free of where it lies."""

    hashes: dict[str, str]
    versions: dict[str, int | None]
    quarantined: list[str]
    training: list[tuple[Any, ...]]
    online: dict[str, list[Any]]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as location:
        yield location


def run_everything(root: Location, valkey_url: str) -> Result:
    """Land, apply, ingest, promote (one window is bad), load, train, materialize and read; then all of it again."""
    # Patient, so that a busy machine is not taken for a server that is away.
    settings = Settings(root.child("store"), root.child("landing"), valkey_url, read_deadline_ms=30_000)
    clock = Clock(NOW)
    catalog = shops()
    registry = RegistryHistory(settings.root).apply(catalog, clock, "test").snapshot
    for source, rows in ((sales, SALES), (register, REGISTER)):
        settings.landing.child(source.name).write("2026-03-01.parquet", landing_file(source, rows, "x").data)
    spoilt = sale("bad", T0 + 30 * HOUR, amount=5000.0)
    settings.landing.child("sales").write("2026-03-02.parquet", landing_file(sales, [spoilt], "x").data)
    store = FeatureStore(settings, clock=clock)
    for number in (1, 2):
        for source in (sales, register):
            store.offline.source(source).ingest(landing_files(settings.landing, source.name, None))
        for group in catalog.ordered_groups:
            promote(store, group, f"run{number}")
    store.materialize()
    spine = pl.LazyFrame({"shop": ["a", "b", "a", "c"], "label_time": [T0 + 50 * HOUR, T0 + 60 * HOUR, T0, NOW]}).cast(
        {"label_time": pl.Datetime("us", "UTC")}
    )
    made = build_training_set(store.offline, "shop_model_v1", spine)
    answer = store.get_online_features(
        ["shop_profile:town", "shop_last_sale_hourly:amount", "shop_density_daily:revenue_per_area"],
        {"shop": ["b", "a", "c"]},
    )
    return Result(
        hashes={name: store.offline.table(name).content_hash() for name in registry.groups},
        versions={name: store.offline.table(name).version() for name in registry.groups},
        quarantined=store.offline.staging("shop_sales_hourly").quarantined(),
        training=pl.scan_parquet(made.uri, storage_options=dict(root.options) or None).collect().rows(),
        online=answer.to_dict() | answer.statuses.to_dict(as_series=False),
    )


def promote(store: FeatureStore, group: FeatureGroup, run_id: str) -> None:
    catalog = shops()
    if group.kind == "static":
        materialize_load(store.offline, catalog, group, run_id=run_id)
        return
    windows = hours(group, 0, 72) if group.cadence.name == "hourly" else days(group, 0, 3)
    materialize_windows(store.offline, catalog, group, windows, run_id=run_id)


def test_a_bucket_and_a_folder_hold_and_answer_the_same(bucket: Location, tmp_path: Path, valkey_url: str) -> None:
    local = run_everything(Location(str(tmp_path)), valkey_url + "&db=1")
    remote = run_everything(bucket.child("all"), valkey_url + "&db=2")
    assert remote == local
    assert local.quarantined == ["2026-03-02T0600Z"]
    assert local.online["town"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    assert [row[0] for row in local.training] == ["a", "b", "a", "c"]


def test_running_everything_twice_commits_once(tmp_path: Path, valkey_url: str) -> None:
    result = run_everything(Location(str(tmp_path)), valkey_url + "&db=3")
    assert {name: version for name, version in result.versions.items() if version != 1} == {}


def test_a_bucket_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    store = FeatureStore(
        Settings(Location("s3://lake/x", options), Location(str(tmp_path))), clock=lambda: NOW + timedelta(hours=1)
    )
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1"):
        store.get_online_features("shop_model_v1", {"shop": ["a"]})
