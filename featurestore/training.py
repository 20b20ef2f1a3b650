"""A training set on disk: the joined rows, and beside them what they were read from."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

import polars as pl

from featurestore.correctness import ClassUse, lowest_class
from featurestore.declaration.windows import utc
from featurestore.errors import InvalidInput
from featurestore.frontier import instants
from featurestore.historical import historical_features
from featurestore.launch import Correctness
from featurestore.offline.store import OfflineStore
from featurestore.quality.deployed import note_built
from featurestore.quality.recording import production_statistics
from featurestore.references import resolve


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A stored training set: where, how many rows, from which table versions, and the share of values found.

    `lowest_correctness` is, by group, the lowest class among the windows that labels take values from; None if none does.
    `windows` is, by group with windows, how many labels take values from each, by partition key.
    """

    uri: str
    rows: int
    registry_digest: str
    table_versions: dict[str, int | None]
    found_fractions: dict[str, float]
    lowest_correctness: dict[str, Correctness | None]
    windows: dict[str, dict[str, int]] = field(default_factory=dict)


def build_training_set(
    store: OfflineStore,
    service_name: str,
    spine: pl.LazyFrame,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    min_correctness: str | None = None,
) -> TrainingSet:
    """Join a service's features to labels and keep the result under `{root}/training/{service}/`, addressed by content.

    Args:
        store: The tables to read.
        service_name: A registered feature service.
        spine: Entity keys, `label_time` and whatever columns the model wants beside them.
        start: Only labels at or after this.
        end: Only labels before this.
        min_correctness: The class of correctness that every window must have that a label takes a value from.

    Raises:
        InvalidInput: a bound or `label_time` has no time zone, no label lies in the span, the spine lacks a key, or a
            label takes a value from a window below `min_correctness`; nothing is stored.
    """
    requested = resolve(store.registry, service_name)
    labels = _labels_between(spine, start, end)
    if labels.is_empty():
        raise InvalidInput(
            f"No label of {service_name!r} lies in [{start}, {end}). Widen the span, or materialize the sources of the labels."
        )
    versions = {wanted.group.name: store.table(wanted.group.name).version() for wanted in requested}
    pinned = {name: version for name, version in versions.items() if version is not None}
    found = historical_features(
        store,
        labels,
        requested,
        label_time="label_time",
        with_status=False,
        versions=pinned,
        min_correctness=min_correctness,
        with_uses=True,
    )
    joined, lowest = found.rows, {name: lowest_class(uses) for name, uses in found.uses.items()}
    columns = [column for wanted in requested for _, column in wanted.features]
    shares = {column: round(1 - joined[column].null_count() / joined.height, 4) for column in columns}
    buffer = io.BytesIO()
    joined.write_parquet(buffer)
    data = buffer.getvalue()
    location, name = store.root.child("training", service_name), hashlib.sha256(data).hexdigest()[:16]
    uri = location.child(f"{name}.parquet").uri
    windows = {
        group: _labels_by_window(uses) for group, uses in found.uses.items() if uses and uses[0].group.has_windows
    }
    for group in windows:
        # Later windows are held against these: what a promotion of long ago left without statistics gets them now.
        production_statistics(store, group, is_kept=True)
    made = TrainingSet(uri, joined.height, store.registry.digest, versions, shares, lowest, windows)
    location.put_if_absent(f"{name}.parquet", data)
    location.put_if_absent(f"{name}.json", json.dumps(asdict(made), indent=1).encode())
    note_built(store.root, service_name, name, store.clock())
    return made


def _labels_between(spine: pl.LazyFrame, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    instants(pl.DataFrame(schema=spine.collect_schema()), "label_time", "labels", allow_null=True)
    if start is not None:
        spine = spine.filter(pl.col("label_time") >= utc(start, name="start"))
    if end is not None:
        spine = spine.filter(pl.col("label_time") < utc(end, name="end"))
    return spine.collect()


def _labels_by_window(uses: Sequence[ClassUse]) -> dict[str, int]:
    labels: Counter[str] = Counter()
    for use in uses:
        labels[use.window] += use.labels
    return dict(labels)
