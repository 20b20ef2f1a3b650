"""What the online store counts by itself, as a scrape sees it: it only grows, whichever store is in use."""

from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from featurestore.online.reading.hot_keys import HotKeyCounts
from featurestore.online.reading.repairs import RepairCounts
from featurestore.serving.online_counts import OnlineCounts


def store(cache: HotKeyCounts | None = None, repairs: RepairCounts | None = None) -> Any:
    return SimpleNamespace(hot_key_counts=cache, repair_counts=repairs or RepairCounts())


def shown(registry: CollectorRegistry) -> dict[str, float]:
    lines = [line for line in generate_latest(registry).decode().splitlines() if line[:1] not in ("", "#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines) if "_created" not in name}


def test_without_a_cache_and_without_repairs_all_is_there_and_zero() -> None:
    registry = CollectorRegistry()
    OnlineCounts(registry).take(store())
    assert shown(registry) == dict.fromkeys(
        [
            'featurestore_hot_key_lookups_total{outcome="hit"}',
            'featurestore_hot_key_lookups_total{outcome="miss"}',
            "featurestore_hot_key_entries",
            "featurestore_hot_key_bytes",
            'featurestore_repairs_total{outcome="written"}',
            'featurestore_repairs_total{outcome="refused"}',
            'featurestore_repairs_total{outcome="dropped"}',
            "featurestore_repairs_waiting",
        ],
        0.0,
    )


def test_a_store_s_totals_are_taken_once_and_those_of_the_next_store_come_on_top() -> None:
    registry = CollectorRegistry()
    counts = OnlineCounts(registry)
    first = store(HotKeyCounts(5, 3, 2, 700), RepairCounts(written=4, refused=1, dropped=2, waiting=6))
    counts.take(first)
    counts.take(first)
    first.hot_key_counts = HotKeyCounts(7, 3, 2, 700)
    counts.take(first)
    counts.take(store(HotKeyCounts(1, 1, 1, 350), RepairCounts(written=1)))
    found = shown(registry)
    assert found['featurestore_hot_key_lookups_total{outcome="hit"}'] == 8
    assert found['featurestore_hot_key_lookups_total{outcome="miss"}'] == 4
    assert found['featurestore_repairs_total{outcome="written"}'] == 5
    assert found['featurestore_repairs_total{outcome="refused"}'] == 1
    assert found['featurestore_repairs_total{outcome="dropped"}'] == 2
    gauges = ("hot_key_entries", "hot_key_bytes", "repairs_waiting")
    assert [found[f"featurestore_{name}"] for name in gauges] == [1, 350, 0]
