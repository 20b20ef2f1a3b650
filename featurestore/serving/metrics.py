"""What the server counts, for Prometheus. Several workers share a folder of counters; whichever is scraped answers for all.

Requests are counted one by one, values a read at a time, and never by anything a client may make up: names are those of
registered services and groups.
"""

import os
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from featurestore.freshness.read_state import GroupState
from featurestore.online.reading.retrieval import FeatureColumn
from featurestore.online.stores import OnlineStores
from featurestore.pit import PRESENT
from featurestore.references import RequestedGroup
from featurestore.serving.online_counts import OnlineCounts
from featurestore.serving.options import COUNTERS_VARIABLE

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LATENCY_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
AGE_BUCKETS = (
    1,
    10,
    60,
    300,
    900,
    3600,
    3 * 3600,
    6 * 3600,
    12 * 3600,
    86_400,
    2 * 86_400,
    3 * 86_400,
    7 * 86_400,
    30 * 86_400,
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
NO_TIER = "none"
_GAUGES = "gauge_live"


class Metrics:
    """One process's counters; `text` is what a scrape gets."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        own = self._registry = CollectorRegistry()
        self._requests = Counter(
            "featurestore_requests", "Requests answered, by path and status code.", ["path", "code"], registry=own
        )
        self._latency = Histogram(
            "featurestore_request_seconds",
            "Time from a request's arrival to its answer, by service; '-' names no service.",
            ["service"],
            buckets=LATENCY_BUCKETS,
            registry=own,
        )
        self.in_flight: Callable[[], int] = int
        """How many requests are being answered; looked at by `sample`."""
        self._in_flight = Gauge(
            "featurestore_in_flight_requests", "Requests being answered.", multiprocess_mode="livesum", registry=own
        )
        self._values = Counter(
            "featurestore_values", "Values given, by group, status and tier.", ["group", "status", "tier"], registry=own
        )
        self._age = Histogram(
            "featurestore_value_age_seconds",
            "Age, when it was read, of the oldest value of a group in a store read.",
            ["group"],
            buckets=AGE_BUCKETS,
            registry=own,
        )
        self._states = Counter(
            "featurestore_group_reads",
            "Requests that read a group, by its freshness state at the read.",
            ["group", "state"],
            registry=own,
        )
        self._batch = Histogram(
            "featurestore_coalesced_requests", "Requests joined in one store read.", buckets=BATCH_BUCKETS, registry=own
        )
        self._gaps = Counter(
            "featurestore_unanswered",
            "Reads or requests with values that nobody could speak for, by cause.",
            ["cause"],
            registry=own,
        )
        self._pushes = Counter("featurestore_pushed_rows", "Rows pushed, by group.", ["group"], registry=own)
        self.online: Callable[[], OnlineStores | None] = _no_store
        """The online store in use, None before there is one; looked at by `sample`."""
        self._online_counts = OnlineCounts(own)

    def sample(self) -> None:
        """Take down what is not counted as it happens."""
        self._in_flight.set(self.in_flight())
        if (online := self.online()) is not None:
            self._online_counts.take(online)

    def count_request(self, path: str, code: int) -> None:
        self._requests.labels(path, str(code)).inc()

    def observe_latency(self, service: str, seconds: float) -> None:
        self._latency.labels(service).observe(seconds)

    def count_gap(self, cause: str) -> None:
        self._gaps.labels(cause).inc()

    def count_pushed(self, group: str, rows: int) -> None:
        self._pushes.labels(group).inc(rows)

    def count_states(self, requests: int, groups: Sequence[GroupState]) -> None:
        """Count requests by the state of each group that they read."""
        for one in groups:
            self._states.labels(one.group, one.state).inc(requests)

    def observe_read(
        self, requests: int, requested: Sequence[RequestedGroup], columns: Sequence[FeatureColumn], now: int
    ) -> None:
        """Count one store read: how many requests it was for, and what it gave.

        Args:
            requested: Groups with their features, in the order of `columns`.
            now: The read's instant, microseconds since 1970 UTC.
        """
        self._batch.observe(requests)
        rest = iter(columns)
        for wanted in requested:
            own = [next(rest) for _ in wanted.features]
            self._observe_group(wanted.group.name, own, now)

    def _observe_group(self, group: str, columns: Sequence[FeatureColumn], now: int) -> None:
        for (status, tier), count in _tally(columns).items():
            self._values.labels(group, status, tier or NO_TIER).inc(count)
        times = [time for time in columns[0].event_times if time is not None]
        if times:
            self._age.labels(group).observe(max(0, now - min(times)) / 1e6)

    def text(self) -> bytes:
        """The counters of all workers, as Prometheus reads them."""
        self.sample()
        folder = os.environ.get(COUNTERS_VARIABLE)
        if not folder or values.ValueClass is values.MutexValue:
            return generate_latest(self._registry)
        _forget_the_dead(Path(folder))
        shared = CollectorRegistry()
        MultiProcessCollector(shared, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


def _no_store() -> None:
    return None


def _tally(columns: Sequence[FeatureColumn]) -> "Tally[tuple[str, str | None]]":
    """How many values have each status and tier; a group's columns often share their lists, which are counted once."""
    tally: Tally[tuple[str, str | None]] = Tally()
    last: tuple[object, object] = (None, None)
    own: Tally[tuple[str, str | None]] = Tally()
    for column in columns:
        if (column.statuses, column.tiers) != last:
            last = (column.statuses, column.tiers)
            own = _tally_one(column)
        tally.update(own)
    return tally


def _tally_one(column: FeatureColumn) -> "Tally[tuple[str, str | None]]":
    count = len(column.statuses)
    if column.statuses.count(PRESENT) == count and column.tiers.count("hot") == count:
        return Tally({(PRESENT, "hot"): count})
    return Tally(zip(column.statuses, column.tiers, strict=True))


def _forget_the_dead(folder: Path) -> None:
    """Workers that were killed left their gauges behind: what they had in flight is in flight no more."""
    for file in folder.glob(f"{_GAUGES}*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            mark_process_dead(int(pid), path=str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
