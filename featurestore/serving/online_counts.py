"""What the online store counts by itself, for Prometheus: the cache of hot keys, and what is put back into the hot tier.

The store's numbers go from its opening on, and a new registry brings a new store; what is shown goes on growing.
Not here: what is counted as requests are answered (`metrics.py`).
"""

from collections.abc import Mapping
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge

from featurestore.online.reading.hot_keys import HotKeyCounts
from featurestore.online.stores import OnlineStores

NO_CACHE = HotKeyCounts(0, 0, 0, 0)


class OnlineCounts:
    """The metrics of one process's online store.

    Args:
        registry: Shows them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lookups = _Growing(
            Counter(
                "featurestore_hot_key_lookups",
                "Keys looked up in the cache of hot keys, by whether it had them.",
                ["outcome"],
                registry=registry,
            ),
            ("hit", "miss"),
        )
        self._repairs = _Growing(
            Counter(
                "featurestore_repairs",
                "Keys that the hot tier missed and the warm tier had, by what became of putting them back.",
                ["outcome"],
                registry=registry,
            ),
            ("written", "refused", "dropped"),
        )
        self._entries = _gauge("featurestore_hot_key_entries", "Messages in the cache of hot keys.", registry)
        self._size = _gauge("featurestore_hot_key_bytes", "What the cache of hot keys takes, about.", registry)
        self._waiting = _gauge("featurestore_repairs_waiting", "Keys that wait to be put back.", registry)
        self._lock = Lock()

    def take(self, online: OnlineStores) -> None:
        """Take down what a store has counted so far. Threads may share it."""
        cache, repairs = online.hot_key_counts or NO_CACHE, online.repair_counts
        with self._lock:
            self._lookups.take(online, {"hit": cache.hits, "miss": cache.misses})
            self._repairs.take(
                online, {"written": repairs.written, "refused": repairs.refused, "dropped": repairs.dropped}
            )
            self._entries.set(cache.entries)
            self._size.set(cache.size_bytes)
            self._waiting.set(repairs.waiting)


class _Growing:
    """A counter that follows numbers which begin anew with another source."""

    def __init__(self, counter: Counter, outcomes: tuple[str, ...]) -> None:
        self._counters = {outcome: counter.labels(outcome) for outcome in outcomes}
        self._source: object = None
        self._taken: Mapping[str, int] = {}

    def take(self, source: object, totals: Mapping[str, int]) -> None:
        if source is not self._source:
            self._source, self._taken = source, dict.fromkeys(totals, 0)
        for outcome, total in totals.items():
            self._counters[outcome].inc(max(0, total - self._taken[outcome]))
        self._taken = totals


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, multiprocess_mode="livesum", registry=registry)
