"""What the board exports to Prometheus: of every group what a look found, and of the board itself how its looks go.

Durations are seconds, instants seconds since 1970. Where there is nothing to measure by there is no series, never a zero.
Not here: what the feature server counts (`featurestore.serving.metrics`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from featurestore.freshness.judgement import ORDER

if TYPE_CHECKING:
    from featurestore.board.watching import Standing

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
Document = Mapping[str, Any]
GROUP_VALUES: Mapping[str, tuple[str, Callable[[Document], Any]]] = {
    "slo_seconds": ("What its lag must not reach.", lambda one: one["slo_seconds"]),
    "slo_lag_seconds": (
        "The lag that its SLO is about: of a pushed group that declares no freshness, how old its newest row was when it came.",
        lambda one: one["slo_lag_seconds"],
    ),
    "materialization_lag_seconds": (
        "How long ago it was last known to hold everything due.",
        lambda one: one["materialization_lag_seconds"],
    ),
    "data_lag_seconds": ("How old its oldest input was then.", lambda one: one["data_lag_seconds"]),
    "online_lag_seconds": (
        "For how long rows that are due online are not there; none while a copy does not answer.",
        lambda one: one["online_lag_seconds"],
    ),
    "online_unknown": (
        "Whether a copy that it is served from did not answer.",
        lambda one: int(bool(one["online_unknown"])),
    ),
    "last_materialized_timestamp_seconds": (
        "When it was last known to hold everything due.",
        lambda one: one["last_materialized_at"],
    ),
    "last_event_timestamp_seconds": (
        "The oldest of the newest events of its inputs.",
        lambda one: one["last_event_time"],
    ),
    "newest_window_timestamp_seconds": ("Start of its newest promoted window.", lambda one: one["newest_window"]),
    "due_windows": ("Windows after the newest that are due and not promoted.", lambda one: one["due_windows"]),
    "hole_windows": ("Older windows that were never promoted.", lambda one: one["holes"]),
    "quarantined_windows": ("Windows that failed their gate.", lambda one: one["quarantined"]),
}


def group_metrics(documents: Sequence[Document]) -> bytes:
    """The groups' part of a scrape.

    Args:
        documents: Of every group, as `freshness_documents` makes them.
    """
    return _text(
        [_info(documents), _status(documents), *_values(documents), *_sources(documents), _attainment(documents)]
    )


def board_metrics(standing: "Standing", look_seconds: float, own_process: CollectorRegistry) -> bytes:
    """The board's own part of a scrape."""
    look = standing.look
    families: list[Metric] = [
        _one("look_interval_seconds", "How often the stores are looked at.", look_seconds),
        _one("last_look_timestamp_seconds", "When the last look that succeeded was made.", look and look.at),
        _one("last_look_duration_seconds", "How long it took.", look and look.took_seconds),
        _one(
            "last_record_timestamp_seconds",
            "When the platform's sensor last looked at the group that it has not looked at for longest.",
            look and look.recorded_at,
        ),
        _one("last_look_failed", "Whether the last look failed.", int(bool(standing.trouble))),
        CounterMetricFamily("featurestore_board_looks", "Looks that succeeded.", standing.looks),
        CounterMetricFamily("featurestore_board_look_failures", "Looks that failed.", standing.failures),
    ]
    return _text(families) + generate_latest(own_process)


def process_registry() -> CollectorRegistry:
    """What the operating system says of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class _Families:
    """Metrics that are ready, as the client's exposition takes them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _text(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


def _info(documents: Sequence[Document]) -> Metric:
    labels = ["group", "owner", "tier", "alerts"]
    family = GaugeMetricFamily("featurestore_group_info", "What is declared of a group; always 1.", labels=labels)
    for one in documents:
        family.add_metric([one[label] for label in labels], 1)
    return family


def _status(documents: Sequence[Document]) -> Metric:
    family = GaugeMetricFamily(
        "featurestore_group_status", "1 for the status that a group has, 0 for each other.", labels=["group", "status"]
    )
    for one in documents:
        for status in ORDER:
            family.add_metric([one["group"], status], int(one["status"] == status))
    return family


def _values(documents: Sequence[Document]) -> Iterable[Metric]:
    for name, (text, value_of) in GROUP_VALUES.items():
        family = GaugeMetricFamily(f"featurestore_group_{name}", text, labels=["group"])
        for one in documents:
            _add(family, [one["group"]], value_of(one))
        yield family


def _sources(documents: Sequence[Document]) -> Iterable[Metric]:
    told = {
        "lag": ("lag_seconds", "How old a group's input was when the group was last known to hold everything due."),
        "silence": ("silence_seconds", "How old it may be."),
    }
    for name, (field, text) in told.items():
        family = GaugeMetricFamily(f"featurestore_group_source_{name}_seconds", text, labels=["group", "source"])
        for one in documents:
            for source, facts in one["sources"].items():
                _add(family, [one["group"], source], facts[field])
        yield family


def _attainment(documents: Sequence[Document]) -> Metric:
    family = GaugeMetricFamily(
        "featurestore_group_attainment_ratio",
        "The share of a span without a breach, as the platform's sensor kept it.",
        labels=["group", "span"],
    )
    for one in documents:
        for span, share in one["attainment"].items():
            _add(family, [one["group"], span], share)
    return family


def _one(name: str, text: str, value: Any) -> Metric:
    family = GaugeMetricFamily(f"featurestore_board_{name}", text, labels=[])
    _add(family, [], value)
    return family


def _add(family: GaugeMetricFamily, labels: list[str], value: Any) -> None:
    """A sample, unless there is nothing to tell."""
    if isinstance(value, datetime):
        value = value.timestamp()
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if value is not None:
        family.add_metric(labels, value)
